"""Each type is guided as far as makes it as bright as its training lesions, and no further."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset
from promptlesion.data.lesion_statistics import LesionStatistics, TypeStatistics
from promptlesion.data.spec import DatasetSpec
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.guidance import GUIDANCE_FILE, guidance_scales
from promptlesion.synthesis.guidance_fit import SCALES, fit_guidance, fit_scale
from promptlesion.synthesis.synthesizer import load_synthesizer
from promptlesion.training.run import RunOptions


@pytest.fixture
def fitted_config(config: SynthesisConfig) -> SynthesisConfig:
    return config.model_copy(update={"guidance_scale": "fitted"})


@pytest.fixture
def run(tmp_path: Path, tiny_diffusion_run: Path) -> Path:
    """A finished run of its own, of the tiny model."""
    for name in ("autoencoder", "diffusion"):
        shutil.copytree(tiny_diffusion_run.parent / name, tmp_path / name)
    return tmp_path / "diffusion"


def test_a_number_is_the_scale_of_every_type(tmp_path: Path, config: SynthesisConfig, tiny_spec: DatasetSpec) -> None:
    named = config.model_copy(update={"guidance_scale": 1.5})
    assert guidance_scales(tmp_path, named, "0" * 64, tiny_spec) == (1.5, 1.5)


def test_the_scale_is_that_whose_lesions_are_as_bright_as_the_training_lesions(
    run: Path, scans: Dataset, fitted_config: SynthesisConfig
) -> None:
    fitted = fit_guidance(scans, fitted_config, RunOptions(run, 3, "cpu"))
    assert fitted is not None
    assert list(fitted.types) == ["bright", "dark"]
    for found in fitted.types.values():
        assert (found.num_painted, found.num_guided) == (64, 16)
        assert tuple(found.painted_mean_hu) == SCALES
        assert found.training_mean_hu is not None
        hu = np.interp(found.scale, SCALES, list(found.painted_mean_hu.values()))
        distance = abs(hu - found.training_mean_hu)
        assert all(distance <= abs(other - found.training_mean_hu) + 1 for other in found.painted_mean_hu.values())
    scales = tuple(found.scale for found in fitted.types.values())
    assert load_synthesizer(run, fitted_config, device="cpu").card.guidance_scales == scales


def test_what_is_fitted_is_kept_until_the_sampling_changes(
    run: Path, scans: Dataset, fitted_config: SynthesisConfig
) -> None:
    fit_guidance(scans, fitted_config, RunOptions(run, 3, "cpu"))
    path = run / GUIDANCE_FILE
    written = path.read_text()
    fit_guidance(scans, fitted_config, RunOptions(run, 4, "cpu"))
    assert path.read_text() == written
    other = fitted_config.model_copy(update={"num_steps": 2})
    with pytest.raises(ValueError, match=r"guidance\.json: expected guidance fitted .* num_steps 2, .* found none"):
        load_synthesizer(run, other, device="cpu")
    fit_guidance(scans, other, RunOptions(run, 3, "cpu"))
    assert json.loads(path.read_text())["sampling"]["num_steps"] == 2


def test_a_damaged_file_is_fitted_anew_and_another_denoisers_is_no_use(
    run: Path, scans: Dataset, fitted_config: SynthesisConfig, tiny_spec: DatasetSpec
) -> None:
    (run / GUIDANCE_FILE).write_text('{"types": ')
    with pytest.raises(ValueError, match=r"promptlesion train diffusion.*guidance_scale=1"):
        load_synthesizer(run, fitted_config, device="cpu")
    fit_guidance(scans, fitted_config, RunOptions(run, 3, "cpu"))
    load_synthesizer(run, fitted_config, device="cpu")
    with pytest.raises(ValueError, match="found none"):
        guidance_scales(run, fitted_config, "0" * 64, tiny_spec)


def test_nothing_is_fitted_where_the_scale_is_named(run: Path, scans: Dataset, config: SynthesisConfig) -> None:
    assert fit_guidance(scans, config, RunOptions(run, 3, "cpu")) is None
    assert not (run / GUIDANCE_FILE).exists()


def test_without_training_lesions_or_room_there_is_no_guidance(
    run: Path, scans: Dataset, fitted_config: SynthesisConfig
) -> None:
    card_path = run / "checkpoint" / "card.json"
    card = json.loads(card_path.read_text())
    nothing = TypeStatistics(diameters_mm=(), mean_hu=(), std_hu=(), contrast_hu=(), counts_per_case=(0,))
    known = TypeStatistics.model_validate(card["lesion_statistics"]["types"]["bright"])
    statistics = LesionStatistics(types={"bright": known, "dark": nothing})
    card["lesion_statistics"] = statistics.model_dump(mode="json")
    card_path.write_text(json.dumps(card))
    fitted = fit_guidance(scans, fitted_config, RunOptions(run, 3, "cpu"))
    assert fitted is not None
    assert (fitted.types["dark"].scale, fitted.types["dark"].training_mean_hu) == (1.0, None)


def test_the_scale_lies_between_those_tried_and_none_is_used_that_does_nothing() -> None:
    # at scale 1 forty lesions have 500 HU in the mean; what guidance adds shows in two of them, which are darker
    added = (0, 40, 80, 120, 160, 240, 320)
    guided = [(400.0 + hu, 420.0 + hu) for hu in added]
    unguided = [450.0, 550.0] * 20
    found = fit_scale(unguided, guided, [560.0, 580.0])
    assert (found.scale, found.num_painted, found.num_guided) == (1.45, 40, 2)
    assert found.painted_mean_hu[1.25] == 540.0
    assert fit_scale(unguided, [(400.0, 420.0 - hu / 500) for hu in added], [300.0]).scale == 1
    assert fit_scale([], [()] * len(SCALES), [300.0]).scale == 1
