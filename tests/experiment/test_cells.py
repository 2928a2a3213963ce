"""The pieces of an experiment: all that was asked for, once, and nothing before what it needs."""

from dataclasses import replace
from pathlib import Path

import pytest

from promptlesion.config import resolve_config
from promptlesion.experiment.cells import Design, Question, design_of, plan_cells
from promptlesion.experiment.execution import Experiment
from promptlesion.methods import compared_names, method_named, parse_methods
from promptlesion.training.atomic import write_json

EVERYTHING = Design(methods=compared_names(), seeds=(0, 1, 2), ratios=(0.0, 0.5, 1.0), num_subjects=(4, 8))


def test_every_cell_comes_once_and_after_what_it_needs() -> None:
    cells = plan_cells(EVERYTHING)
    assert len({cell.name for cell in cells}) == len(cells)
    seen: set[str] = set()
    for cell in cells:
        assert set(cell.needs) <= seen, cell.name
        seen.add(cell.name)


def test_every_method_has_a_network_for_each_seed_ratio_and_number_of_subjects() -> None:
    cells = plan_cells(EVERYTHING)
    trained = [(c.num_subjects, c.method, c.ratio, c.seed) for c in cells if c.kind == "segmentation"]
    painting = [method for method in compared_names() if method != "real"]
    wanted = {(n, m, r, s) for n in (4, 8) for m in painting for r in (0.5, 1.0) for s in (0, 1, 2)}
    # real scans alone know no ratio, and a ratio of 0 is real scans alone
    wanted |= {(n, "real", 0, s) for n in (4, 8) for s in (0, 1, 2)}
    assert sorted(trained) == sorted(wanted)
    assert sum(cell.kind == "autoencoder" for cell in cells) == 2
    assert sum(cell.kind == "method" for cell in cells) == 2 * 6


def test_without_a_latent_method_there_is_no_autoencoder() -> None:
    cells = plan_cells(Design(methods=("real", "copy-paste", "med-ddpm"), seeds=(0,), ratios=(1.0,), num_subjects=(8,)))
    assert not any(cell.kind == "autoencoder" for cell in cells)


def test_the_main_ratio_is_the_one_nearest_to_one_to_one() -> None:
    ratios = {(0.5, 2.0): 0.5, (0.0, 0.25, 4.0): 0.25, (1.0, 2.0): 1.0, (3.0,): 3.0}
    for given, main in ratios.items():
        assert Design(methods=compared_names(), seeds=(0,), ratios=given, num_subjects=(8,)).main_ratio == main


def test_a_cell_is_done_when_its_last_file_is_there(tmp_path: Path) -> None:
    for cell in plan_cells(EVERYTHING):
        folder = tmp_path / cell.name
        assert not cell.is_done(tmp_path)
        write_json(folder / "run.json", {"is_finished": False})
        assert not cell.is_done(tmp_path)
        write_json(folder / "run.json", {"is_finished": True})
        last = {"segmentation": "scores.json", "fidelity": "fidelity.json"}.get(cell.kind)
        if last:
            assert not cell.is_done(tmp_path)
            write_json(folder / last, {})
        assert cell.is_done(tmp_path)


def test_methods_come_in_one_order_real_first() -> None:
    assert parse_methods("promptlesion-onehot, copy-paste,real") == ("real", "copy-paste", "promptlesion-onehot")


@pytest.mark.parametrize("text", ["copy-paste", "real,tumorcp", "real,real", ""])
def test_other_methods_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--methods: expected real and others of real, copy-paste, intensity"):
        parse_methods(text)


def test_a_method_is_its_configuration() -> None:
    demo = resolve_config(preset="demo")
    one_hot, transformer, difftumor, med_ddpm, copy_paste = map(
        method_named, ("promptlesion-onehot", "promptlesion-transformer", "difftumor", "med-ddpm", "copy-paste")
    )
    assert one_hot.configured(demo).diffusion.prompt_encoder == "one-hot"
    assert transformer.configured(demo).diffusion.prompt_encoder == "mask-transformer"
    guided = resolve_config(preset="demo", settings=["synthesis.guidance_scale=2"])
    assert one_hot.configured(guided).synthesis.guidance_scale == 2
    assert difftumor.configured(guided).synthesis.guidance_scale == 1  # it has no prompt to be guided by
    assert (med_ddpm.patch_voxels(demo), one_hot.patch_voxels(demo), copy_paste.patch_voxels(demo)) == (32, 48, None)


def test_the_command_lines_lists_are_read(tiny_experiment: Experiment) -> None:
    question = Question(methods="real,intensity", seeds=2, ratios="2,0,0.5", real_fractions="1,0.5")
    design = design_of(question, num_subjects=2, first_seed=0)
    assert design == Design(methods=("real", "intensity"), seeds=(0, 1), ratios=(0.0, 0.5, 2.0), num_subjects=(1, 2))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ratios": "one"}, "--ratios: expected numbers with commas"),
        ({"ratios": "0"}, "--ratios: expected numbers from 0 on, one of them above 0"),
        ({"ratios": "-1,1"}, "--ratios: expected numbers from 0 on"),
        ({"real_fractions": "2"}, "--real-fractions: expected shares"),
    ],
)
def test_bad_lists_are_refused(tiny_experiment: Experiment, changed: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        design_of(replace(Question(methods="real,intensity"), **changed), num_subjects=2, first_seed=0)
