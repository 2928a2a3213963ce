"""Both baselines paint through the interface all methods share, and a run knows which method it is of."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset, open_dataset
from promptlesion.data.provenance import read_provenance
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion
from promptlesion.methods import load_method
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.training.checkpoint import CheckpointError

Scene = tuple[Volume, list[PlacedLesion]]


@pytest.fixture
def runs(difftumor_run: Path, med_ddpm_run: Path, tiny_diffusion_run: Path) -> dict[str, Path]:
    return {"difftumor": difftumor_run, "med-ddpm": med_ddpm_run, "promptlesion": tiny_diffusion_run}


@pytest.fixture(params=["difftumor", "med-ddpm"])
def synthesizer(request: pytest.FixtureRequest, runs: dict[str, Path], sampling: SynthesisConfig) -> Synthesizer:
    return load_method(runs[request.param], sampling, "cpu", asked=request.param)


def test_a_box_of_hu_within_the_window_comes_back_for_every_lesion(scene: Scene, synthesizer: Synthesizer) -> None:
    image, lesions = scene
    before = image.array.copy()
    painted = synthesizer.paint([image] * 2, lesions, types=[0, 1], seeds=[1, 2])
    assert np.array_equal(image.array, before)
    low, high = synthesizer.card.spec.window_hu
    for hu, lesion in zip(painted, lesions, strict=True):
        assert hu.shape == lesion.mask.shape
        assert low - 0.01 <= hu[lesion.mask].min() <= hu[lesion.mask].max() <= high + 0.01


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm-solver++"])
@pytest.mark.parametrize("method", ["difftumor", "med-ddpm"])
def test_a_seed_gives_the_same_voxels_whatever_the_batch(
    scene: Scene, runs: dict[str, Path], sampling: SynthesisConfig, method: str, sampler: str
) -> None:
    synthesizer = load_method(runs[method], sampling.model_copy(update={"sampler": sampler}), "cpu")
    image, lesions = scene
    together = synthesizer.paint([image] * 3, [*lesions, lesions[0]], types=[0, 1, 1], seeds=[3, 4, 5])
    turned = synthesizer.paint([image] * 3, [lesions[0], *lesions[::-1]], types=[1, 1, 0], seeds=[5, 4, 3])
    for index, (lesion, kind) in enumerate(zip([*lesions, lesions[0]], [0, 1, 1], strict=True)):
        alone = synthesizer.paint([image], [lesion], types=[kind], seeds=[3 + index])[0]
        # in HU of a window 1000 wide; batches of other sizes take other float32 kernels
        np.testing.assert_allclose(alone, together[index], atol=0.1)
        np.testing.assert_allclose(turned[2 - index], together[index], atol=0.1)
    other = synthesizer.paint([image], lesions[:1], types=[0], seeds=[9])[0]
    assert np.abs(other - together[0]).max() > 1


def test_a_cohort_is_written_and_names_its_method(
    lenient: Dataset, synthesizer: Synthesizer, sampling: SynthesisConfig, tmp_path: Path
) -> None:
    counts = {"bright": 2, "dark": 1}
    synthesize_cohort(lenient, synthesizer, counts=counts, config=sampling, out=tmp_path, seed=3)
    cohort = open_dataset(tmp_path)
    lines, card = read_provenance(tmp_path).values(), synthesizer.card
    assert len(cohort.cases) == len(lines) == 2
    assert {(line["method"], line["model"]) for line in lines} == {(card.method, card.model_hash)}
    assert sorted(lesion["type"] for line in lines for lesion in line["lesions"]) == ["bright", "bright", "dark"]


def test_the_run_says_its_method(runs: dict[str, Path], sampling: SynthesisConfig) -> None:
    for method, run in runs.items():
        assert load_method(run, sampling, "cpu").card.method == method
        other = "difftumor" if method != "difftumor" else "promptlesion"
        with pytest.raises(ValueError, match=f"expected a run of the method '{other}'; found one of '{method}'"):
            load_method(run, sampling, "cpu", asked=other)


def test_a_folder_without_a_run_or_with_one_types_model_is_refused(
    runs: dict[str, Path], sampling: SynthesisConfig, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"expected a finished diffusion run .*found none"):
        load_method(tmp_path, sampling, "cpu")
    with pytest.raises(CheckpointError, match=r"found the model of one\. Give .*difftumor$"):
        load_method(runs["difftumor"] / "bright", sampling, "cpu")


@pytest.mark.parametrize("method", ["difftumor", "med-ddpm"])
def test_more_steps_than_levels_and_guidance_without_prompt_are_refused(
    runs: dict[str, Path], sampling: SynthesisConfig, method: str
) -> None:
    with pytest.raises(ValueError, match="num_steps: expected 1 to 20"):
        load_method(runs[method], sampling.model_copy(update={"num_steps": 21}), "cpu")
    with pytest.raises(ValueError, match="guidance_scale"):
        load_method(runs[method], sampling.model_copy(update={"guidance_scale": 2.0}), "cpu")


def test_a_damaged_run_is_refused(runs: dict[str, Path], sampling: SynthesisConfig, tmp_path: Path) -> None:
    run = tmp_path / "med-ddpm"
    shutil.copytree(runs["med-ddpm"], run)
    (run / "checkpoint" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_method(run, sampling, "cpu")
