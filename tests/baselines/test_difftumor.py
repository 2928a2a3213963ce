"""DiffTumor has one model for every lesion type, and paints each lesion with that of its type."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from promptlesion.baselines.config import DiffTumorConfig
from promptlesion.baselines.difftumor import OneTypeCase, load_difftumor
from promptlesion.data.cache import CachedCase
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.volume import Volume
from promptlesion.diffusion.train import load_diffusion
from promptlesion.masks.placement import PlacedLesion
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import load_synthesizer
from promptlesion.training.checkpoint import CheckpointError
from promptlesion.training.run import RunError

CPU = torch.device("cpu")
WEIGHTS = "checkpoint/weights.safetensors"


def test_a_case_of_one_type_shows_no_other(tiny_cases: list[CachedCase]) -> None:
    case = tiny_cases[0]
    for index in range(2):
        one = OneTypeCase(case.name, case.subject, case.folder, index)
        expected = [replace(lesion, type_index=0) for lesion in case.lesions if lesion.type_index == index]
        assert list(one.lesions) == expected != []
        assert pickle.loads(pickle.dumps(one)).lesions == one.lesions
        assert one.key == case.key


def test_every_type_has_a_model_without_prompt(difftumor_run: Path, tiny_difftumor_config: DiffTumorConfig) -> None:
    for name in ("bright", "dark"):
        model = load_diffusion(difftumor_run / name, CPU)
        assert model.card["method"] == "difftumor"
        assert [lesion.name for lesion in model.spec.lesions] == [name]
        assert model.denoiser.prompt_encoder is None
        assert len(model.denoiser.network.injections) == 0
        for field, value in tiny_difftumor_config.model_dump().items():
            assert getattr(model.config, field) == value, field


def test_a_model_sees_lesions_of_its_type_alone(
    difftumor_run: Path, tiny_cases: list[CachedCase], tiny_difftumor_config: DiffTumorConfig
) -> None:
    from safetensors.torch import load_file

    for index, name in enumerate(("bright", "dark")):
        num_lesions = sum(lesion.type_index == index for case in tiny_cases[:3] for lesion in case.lesions)
        stored = load_file(difftumor_run / name / "latents.safetensors")
        assert len(stored["clean"]) == num_lesions * tiny_difftumor_config.patches_per_lesion
        assert set(stored["lesion_type"].tolist()) == {0}


def test_the_asked_types_model_paints(
    difftumor_run: Path, sampling: SynthesisConfig, scene: tuple[Volume, list[PlacedLesion]]
) -> None:
    """Whatever the mask's own type: the box is the one the type's model paints by itself."""
    image, lesions = scene
    together = load_difftumor(difftumor_run, sampling, device="cpu")
    both = together.paint([image] * 2, [lesions[0]] * 2, types=[1, 0], seeds=[3, 3])
    for box, name in zip(both, ("dark", "bright"), strict=True):
        alone = load_synthesizer(difftumor_run / name, sampling, device="cpu")
        np.testing.assert_array_equal(box, alone.paint([image], lesions[:1], types=[0], seeds=[3])[0])
    assert np.abs(both[0] - both[1]).max() > 1


def test_swapped_weights_swap_what_is_painted(
    difftumor_run: Path, sampling: SynthesisConfig, scene: tuple[Volume, list[PlacedLesion]]
) -> None:
    image, lesions = scene
    plain = load_difftumor(difftumor_run, sampling, device="cpu")
    swapped = replace(plain, models={0: plain.models[1], 1: plain.models[0]})
    first, second = (s.paint([image], lesions[:1], types=[t], seeds=[3])[0] for s, t in ((plain, 0), (swapped, 1)))
    np.testing.assert_array_equal(first, second)


def test_types_may_be_trained_one_by_one(
    difftumor: partial[object], difftumor_run: Path, sampling: SynthesisConfig, scene: tuple[Volume, list[PlacedLesion]]
) -> None:
    out = difftumor_run.parent / "difftumor-by-type"
    run = difftumor(out=out, types=["dark"])
    assert not run.is_finished
    assert not (out / "bright").exists()
    partial_model = load_difftumor(out, sampling, device="cpu")
    image, lesions = scene
    assert len(partial_model.paint([image] * 2, lesions, types=[1, 1], seeds=[1, 2])) == 2
    with pytest.raises(ValueError, match="bright: expected a DiffTumor model of this lesion type; found those of dark"):
        partial_model.paint([image] * 2, lesions, types=[0, 1], seeds=[1, 2])
    assert difftumor(out=out).is_finished
    for name in ("checkpoint/card.json", f"bright/{WEIGHTS}", f"dark/{WEIGHTS}"):
        assert (out / name).read_bytes() == (difftumor_run / name).read_bytes(), name


def test_killed_it_ends_with_the_weights_of_an_unbroken_run(
    difftumor: partial[object], difftumor_run: Path, kill_in_the_middle: Callable[..., None]
) -> None:
    out = difftumor_run.parent / "difftumor-killed"
    kill_in_the_middle(partial(difftumor, out=out), out=out / "dark", after_steps=4)
    assert (out / "bright" / WEIGHTS).is_file()
    assert not (out / "dark" / "checkpoint").exists()
    difftumor(out=out)
    for name in ("checkpoint/card.json", f"bright/{WEIGHTS}", f"dark/{WEIGHTS}"):
        assert (out / name).read_bytes() == (difftumor_run / name).read_bytes(), name


def test_a_finished_run_is_left_alone(difftumor: partial[object], difftumor_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in difftumor_run.rglob("*")}
    difftumor(out=difftumor_run)
    assert {path: path.stat().st_mtime_ns for path in difftumor_run.rglob("*")} == before


def test_another_configuration_is_refused(
    difftumor: partial[object], difftumor_run: Path, tiny_difftumor_config: DiffTumorConfig
) -> None:
    with pytest.raises(RunError, match=r"config\.loss \('l1' instead of 'mse'\)"):
        difftumor(out=difftumor_run, config=tiny_difftumor_config.model_copy(update={"loss": "mse"}))


def test_an_unknown_type_or_one_without_lesions_is_refused(
    difftumor: partial[object], tiny_spec: DatasetSpec, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="--type grey: expected one of the lesion types bright, dark"):
        difftumor(out=tmp_path, types=["dark", "grey"])
    grey = tiny_spec.lesions[0].model_copy(update={"name": "grey", "label": 9})
    spec = tiny_spec.model_copy(update={"lesions": (*tiny_spec.lesions, grey)})
    with pytest.raises(ValueError, match="grey: expected a lesion of it in the 3 training cases; found none"):
        difftumor(out=tmp_path, spec=spec, types=["grey"])


def test_another_model_than_the_cards_is_refused(
    difftumor_run: Path, tiny_autoencoder_run: Path, sampling: SynthesisConfig, tmp_path: Path
) -> None:
    shutil.copytree(tiny_autoencoder_run, tmp_path / "autoencoder")
    shutil.copytree(difftumor_run, tmp_path / "difftumor")
    path = tmp_path / "difftumor" / "checkpoint" / "card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "models": {**card["models"], "dark": "0" * 64}}))
    with pytest.raises(CheckpointError, match=r"difftumor/dark: expected the model .*card\.json names; found another"):
        load_difftumor(tmp_path / "difftumor", sampling, device="cpu")


def test_the_edge_follows_the_model(difftumor_run: Path, sampling: SynthesisConfig) -> None:
    """The exact mask is blanked, so the edge is one voxel, of 1.5 mm; 16 voxels of 1 mm, less a quarter."""
    synthesizer = load_difftumor(difftumor_run, sampling, device="cpu")
    assert (synthesizer.card.edge_mm, synthesizer.card.max_extent_mm) == (1.5, 12.0)
