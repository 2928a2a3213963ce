"""Attributes from training to the cohort: a model that knows them paints what is asked for, and records it."""

import json
from pathlib import Path

import pytest

from promptlesion.data.cache import CachedCase
from promptlesion.data.dataset import Dataset
from promptlesion.data.lesion_attributes import NAMES
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.training_data import TrainingData
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.train import train_diffusion
from promptlesion.synthesis.asking import asking
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, load_synthesizer
from promptlesion.training.run import RunOptions


@pytest.fixture(scope="module")
def knowing(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_cases: list[CachedCase],
    tiny_spec: DatasetSpec,
    tiny_labels: dict[str, int],
    tiny_autoencoder_run: Path,
    tiny_diffusion_config: DiffusionConfig,
    config: SynthesisConfig,
) -> PromptLesionSynthesizer:
    """A tiny model with the whole mask, bent patches and attributes, sampled with all that is asked for."""
    told = {"mask": "whole", "attributes": True, "warp_probability": 0.5, "brightness_jitter": 0.5, "num_steps": 6}
    run = train_diffusion(
        TrainingData(tiny_cases[:3], tiny_spec, tiny_labels),
        autoencoder_run=tiny_autoencoder_run,
        config=tiny_diffusion_config.model_copy(update=told),
        options=RunOptions(tmp_path_factory.mktemp("knowing") / "diffusion", 7, "cpu"),
    )
    return load_synthesizer(run.folder, config.model_copy(update={"match_moments": True, "edge": "blur"}), device="cpu")


def test_the_scale_of_the_attributes_is_in_the_weights(
    knowing: PromptLesionSynthesizer, tiny_cases: list[CachedCase]
) -> None:
    prompt = knowing.model.denoiser.attributes
    assert prompt is not None
    means = knowing.card.statistics.types["bright"].mean_hu
    assert len(means) == 3
    assert float(prompt.mean[0, NAMES.index("mean_hu")]) == pytest.approx(sum(means) / 3, abs=0.1)
    assert knowing.card.knows_attributes


def test_a_cohort_has_what_was_asked_for(knowing: PromptLesionSynthesizer, scans: Dataset, tmp_path: Path) -> None:
    dataset = asking(scans, {"bright": {"mean_hu": (300, 320)}, "dark": {"contrast_hu": -40}}, knowing.card)
    run = synthesize_cohort(
        dataset,
        knowing,
        counts={"bright": 3, "dark": 3},
        config=knowing.config,
        out=tmp_path,
        seed=1,
        num_workers=1,
    )
    lines = [json.loads(line) for line in (run.folder / "provenance.jsonl").read_text().splitlines()]
    lesions = [lesion for line in lines for lesion in line["lesions"]]
    assert len(lesions) == 6
    for lesion in lesions:
        asked, painted = lesion["asked"], lesion["painted"]
        assert painted["mean_hu"] == pytest.approx(asked["mean_hu"], abs=0.6)
        assert painted["mean_hu"] == pytest.approx(lesion["mean_hu"], abs=0.1)
        assert painted["diameter_mm"] == pytest.approx(lesion["diameter_mm"], abs=0.01)
        if lesion["type"] == "bright":
            assert 300 <= asked["mean_hu"] <= 320
        else:
            assert painted["contrast_hu"] == pytest.approx(-40, abs=2)
    assert len({lesion["asked"]["mean_hu"] for lesion in lesions}) == 6
