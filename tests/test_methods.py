"""The table of methods: every name in it leads somewhere, and a new method is one file and one line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
from torch import nn

from promptlesion import methods
from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.baselines.config import MedDDPMConfig
from promptlesion.baselines.hand_painting import card_without_network
from promptlesion.config import Config, resolve_config
from promptlesion.cost.fitting import fitted_config
from promptlesion.cost.parameters import count_parameters
from promptlesion.cost.passes import Bench, Pass
from promptlesion.data.dataset import Dataset, open_dataset, read_case
from promptlesion.data.provenance import read_provenance
from promptlesion.data.training_data import TrainingData
from promptlesion.data.volume import Volume
from promptlesion.experiment.cells import Question, design_of, plan_cells
from promptlesion.experiment.estimate import estimate_cells
from promptlesion.experiment.execution import Experiment, do
from promptlesion.experiment.run import run_experiment
from promptlesion.masks.placement import PlacedLesion
from promptlesion.methods import (
    METHODS,
    Method,
    check_asked,
    compared_names,
    load_method,
    method_named,
    train_method,
    trainable_names,
)
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import Synthesizer, SynthesizerCard
from promptlesion.training.checkpoint import load_checkpoint, save_checkpoint
from promptlesion.training.hardware import HardwareConfig
from promptlesion.training.run import Run, RunOptions

LEVEL_HU = 321.0


def train_toy(data: TrainingData, *, config: MedDDPMConfig, options: RunOptions) -> Run:
    run = data.open_run(options, stage="toy", config=config, inputs={})
    if not run.is_finished:
        parts = {"level": {"hu": torch.tensor([LEVEL_HU])}}
        card = {**run.facts("toy"), **data.facts(data.statistics)}
        save_checkpoint(run.checkpoint_folder, card=card, parts=parts)
        run.finish()
    return run


@dataclass(frozen=True)
class ToySynthesizer:
    card: SynthesizerCard
    level_hu: float

    def paint(
        self, images: Sequence[Volume], lesions: Sequence[PlacedLesion], *, types: Sequence[int], seeds: Sequence[int]
    ) -> list[np.ndarray]:
        return [np.full(lesion.mask.shape, self.level_hu, dtype=np.float32) for lesion in lesions]


def load_toy(run_folder: Path, config: SynthesisConfig, *, device: str, hardware: HardwareConfig) -> ToySynthesizer:
    trained = load_checkpoint(run_folder / "checkpoint", stage="toy")
    card = card_without_network(trained.card, "toy", device=device, source=run_folder)
    return ToySynthesizer(card, float(trained.part("level")["hu"]))


def toy_networks(config: MedDDPMConfig, *, autoencoder: AutoencoderConfig, num_types: int) -> dict[str, nn.Module]:
    return {"toy": nn.Sequential(nn.Conv3d(num_types, 1, 3))}


def toy_step(config: Config, *, patch_voxels: int, num_types: int, bench: Bench) -> Pass:
    (network,) = toy_networks(config.med_ddpm, autoencoder=config.autoencoder, num_types=num_types).values()
    network = bench.place(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    shape = (config.med_ddpm.batch_size, num_types, patch_voxels, patch_voxels, patch_voxels)
    labels = torch.ones(shape, device=bench.device)

    def step() -> None:
        optimizer.zero_grad()
        network(labels).mean().backward()
        optimizer.step()

    return step


TOY = Method(
    "toy",
    title="toy",
    color="#123456",
    section="med_ddpm",
    train=f"{__name__}:train_toy",
    load=f"{__name__}:load_toy",
    training_pass=f"{__name__}:toy_step",
    networks=f"{__name__}:toy_networks",
    settings={"synthesis": {"guidance_scale": 1.0}},
)


@pytest.fixture
def experiment(
    monkeypatch: pytest.MonkeyPatch, tiny_data: Dataset, any_hu: Path, tiny_config: Config, tmp_path: Path
) -> Experiment:
    """A tiny experiment, to which the toy's line is added."""
    monkeypatch.setattr(methods, "METHODS", (*METHODS, TOY))
    settings = tiny_config.med_ddpm.model_copy(update={"patch_voxels": 16, "num_steps": 1000})
    config = tiny_config.model_copy(update={"med_ddpm": settings})
    return Experiment(tiny_data.root, any_hu, tmp_path / "out", config, 0, "cpu")


def test_a_new_method_is_one_file_and_one_line(experiment: Experiment, tmp_path: Path) -> None:
    prepared, config = experiment.prepared, experiment.config
    assert "toy" in trainable_names() and "toy" in compared_names()
    fitted = fitted_config(config, "toy", prepared.dataset, out=tmp_path / "run", device="cpu")
    assert fitted.hardware.activation_checkpointing == "off"
    assert {network.name: network.total for network in count_parameters(config, num_types=2)}["toy"] == 2 * 27 + 1
    with pytest.raises(ValueError, match="expected none, as toy works on voxels"):
        check_asked("toy", tmp_path)
    train_method("toy", prepared, autoencoder_run=None, config=config, options=RunOptions(tmp_path / "run", 0, "cpu"))

    synthesizer = load_method(tmp_path / "run", config.synthesis, "cpu", asked="toy")
    assert isinstance(synthesizer, Synthesizer)
    scans = prepared.part("train")
    counts, out = {"bright": 1, "dark": 1}, tmp_path / "cohort"
    synthesize_cohort(scans, synthesizer, counts=counts, config=config.synthesis, out=out, seed=1)
    cohort, lines = open_dataset(out), read_provenance(out)
    assert {line["method"] for line in lines.values()} == {"toy"}
    sources = {case.name: case for case in scans.cases}
    for case in cohort.cases:
        image, labels = read_case(cohort, case)
        is_new = labels.array != read_case(scans, sources[lines[case.name]["source"]])[1].array
        assert is_new.any()
        np.testing.assert_allclose(image.array[is_new], LEVEL_HU, atol=1.0)


def test_an_experiment_takes_a_new_method(experiment: Experiment) -> None:
    """The pieces are done in this process: others would not know the line that the test adds."""
    asked = design_of(Question(methods="real,toy", seeds=1), num_subjects=2, first_seed=0)
    cells = plan_cells(asked)
    assert not any(cell.kind == "autoencoder" for cell in cells)
    seconds = {name: each.seconds for name, each in estimate_cells(cells, experiment, num_workers=1).items()}
    assert seconds["2-subjects/toy"] > max(1e-5 * 1000, seconds["2-subjects/synthetic/toy/ratio-1/seed-0"] - 6)
    for cell in cells:
        do(cell, experiment)
    results, failures = run_experiment(experiment, asked, command="promptlesion experiment")
    assert not failures and not results.unfinished
    assert {row.method for each in results.comparisons for row in each.rows} == {"real", "toy"}
    assert {time.method for time in results.times} == {"real", "toy"}
    assert "toy" in (experiment.out / "report.html").read_text(encoding="utf-8")
    assert (experiment.out / "figures" / "dice.png").stat().st_size


@pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])
def test_every_name_in_the_table_leads_somewhere(method: Method) -> None:
    config = resolve_config(preset="demo", settings=["synthesis.guidance_scale=2"])
    named = (method.train, method.load, method.training_pass, method.networks)
    assert all(callable(resolve_name(name)) for name in named if name is not None)
    assert (method.training_pass is None) == (method.networks is None) == (method.patch_voxels(config) is None)
    assert method.configured(config).model_dump() != config.model_dump() or method.settings == {} or method.variant_of
    with torch.device("meta"):
        networks = method.build_networks(config, num_types=2)
    assert bool(networks) == (method.networks is not None)


def test_names_colours_and_the_order_of_tables() -> None:
    assert len({method.color for method in METHODS}) == len({method.name for method in METHODS}) == len(METHODS)
    others = ("copy-paste", "intensity", "difftumor", "med-ddpm")
    assert compared_names() == ("real", *others, "promptlesion-onehot", "promptlesion-transformer")
    assert trainable_names() == ["promptlesion", *others]
    with pytest.raises(ValueError, match=r"expected one of promptlesion, copy-paste.*found 'tumorcp'"):
        method_named("tumorcp")


def test_med_ddpm_samples_no_more_steps_than_it_has_levels() -> None:
    config = resolve_config(preset="paper")
    assert config.synthesis.num_steps == 400
    assert method_named("med-ddpm").configured(config).synthesis.num_steps == 250
    assert method_named("difftumor").configured(config).synthesis.num_steps == 400
