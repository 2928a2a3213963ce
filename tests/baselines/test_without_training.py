"""Copy-paste and hand-made lesions: what they keep of the training lesions, and what they paint."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from tests.synthesis.contract import check_contract, contents
from tests.trained import trained

from promptlesion.baselines.config import CopyPasteConfig, IntensityConfig
from promptlesion.baselines.copy_paste import train_copy_paste
from promptlesion.baselines.hand_painting import finer_noise, from_inside, soft_share
from promptlesion.baselines.intensity import IntensitySynthesizer, train_intensity
from promptlesion.data.cache import CachedCase
from promptlesion.data.dataset import Dataset, open_dataset
from promptlesion.data.lesion_instances import cut_instance
from promptlesion.data.provenance import read_provenance
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion
from promptlesion.masks.real_shape import draw_real_shape
from promptlesion.masks.shape_bank import ShapeBank, ShapeSource, bank_of, cut_with_voxels
from promptlesion.masks.sizes_and_shapes import build_drawing
from promptlesion.methods import load_method
from promptlesion.synthesis.blend import blend
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.training.checkpoint import CheckpointError

METHODS = ["copy-paste", "intensity"]
Scene = tuple[Volume, list[PlacedLesion]]
Train = partial[object]


@pytest.fixture(scope="module")
def trains(tiny_cases: list[CachedCase], tiny_spec: DatasetSpec, tiny_labels: dict[str, int]) -> dict[str, Train]:
    given = {"train_cases": tiny_cases[:3], "spec": tiny_spec, "labels": tiny_labels, "seed": 7, "device": "cpu"}
    return {
        "copy-paste": partial(trained, train_copy_paste, config=CopyPasteConfig(), **given),
        "intensity": partial(trained, train_intensity, config=IntensityConfig(), **given),
    }


@pytest.fixture(scope="module")
def runs(trains: dict[str, Train], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    for method, train in trains.items():
        train(out=root / method)
    return {method: root / method for method in trains}


@pytest.fixture(params=METHODS)
def synthesizer(request: pytest.FixtureRequest, runs: dict[str, Path], sampling: SynthesisConfig) -> Synthesizer:
    return load_method(runs[request.param], sampling, "cpu", asked=request.param)


def test_a_run_is_the_same_bytes_again_and_is_taken_up_when_finished(
    trains: dict[str, Train], runs: dict[str, Path], tmp_path: Path
) -> None:
    for method, train in trains.items():
        again = tmp_path / method
        assert train(out=again).is_finished
        assert contents(again) == contents(runs[method])
        before = (again / "run.json").read_bytes()
        assert train(out=again).is_finished
        assert (again / "run.json").read_bytes() == before


def test_a_damaged_run_is_refused(runs: dict[str, Path], trains: dict[str, Train], tmp_path: Path) -> None:
    for method, train in trains.items():
        train(out=tmp_path / method)
        (tmp_path / method / "checkpoint" / "weights.safetensors").write_bytes(b"")
        with pytest.raises(CheckpointError, match="SHA-256"):
            load_method(tmp_path / method, SynthesisConfig(), "cpu")


def test_copy_paste_keeps_the_training_lesions_to_the_voxel(
    runs: dict[str, Path], tiny_cases: list[CachedCase], tiny_spec: DatasetSpec
) -> None:
    banks = load_method(runs["copy-paste"], SynthesisConfig(), "cpu").card.own_lesions
    kept = {(s.case, s.mask.tobytes(), s.hu[s.mask].tobytes()) for b in banks.values() for s in b.shapes if s.hu.size}
    for case in tiny_cases[:3]:
        for lesion in case.lesions:
            label = tiny_spec.lesions[lesion.type_index].label
            box, mask = cut_instance(case.labels, lesion, label, margin_voxels=(0, 0, 0))
            hu = np.asarray(case.image[box])[mask].astype("<i2")
            is_cut_off = any(side.start == 0 or side.stop == n for side, n in zip(box, case.labels.shape, strict=True))
            assert is_cut_off or (case.name, mask.tobytes(), hu.tobytes()) in kept
    assert {case for case, _, _ in kept} <= {case.name for case in tiny_cases[:3]}


def test_a_shape_carries_its_voxels_where_it_goes() -> None:
    """HU that says how deep a voxel of the lesion lies must say so after turning, mirroring and stretching."""
    x, y, z = np.meshgrid(*(np.arange(n) - n // 2 for n in (23, 19, 15)), indexing="ij")
    depth = 1 - np.sqrt((x / 10) ** 2 + (y / 8) ** 2 + (z / 6.5) ** 2)
    lesion = cut_with_voxels("a", depth > 0, (1000 * depth).astype(np.int16), (1.0, 1.0, 1.0))
    shape, _ = draw_real_shape(
        ShapeBank((lesion,)), diameter_mm=lesion.diameter_mm, deformation=0.25, generator=np.random.default_rng(0)
    )
    offsets = np.random.default_rng(1).normal(size=(4000, 3)) * 6
    radius_mm = lesion.diameter_mm / 2
    ratio, hu = shape.radius_ratio(offsets, radius_mm=radius_mm), shape.hu_at(offsets, radius_mm=radius_mm)
    inside = ratio < 0.9
    assert inside.sum() > 500
    assert np.corrcoef(ratio[inside], hu[inside])[0, 1] < -0.95
    assert hu.min() >= 0
    assert hu.max() <= 1000


def test_pasted_lesions_come_from_lesions_of_like_size() -> None:
    cut = [
        cut_with_voxels(str(n), np.ones((n, n, n), dtype=bool), np.full((n, n, n), n, dtype=np.int16), (1.0, 1.0, 1.0))
        for n in range(3, 20)
    ]
    for seed in range(20):
        _, origin = draw_real_shape(
            bank_of(cut), diameter_mm=cut[8].diameter_mm, deformation=0.1, generator=np.random.default_rng(seed)
        )
        assert 1 / 1.25 <= int(origin.removeprefix("real: ")) / 11 <= 1.25


def test_other_shapes_for_a_method_that_pastes_are_refused(
    lenient: Dataset, runs: dict[str, Path], tmp_path: Path
) -> None:
    synthesizer = load_method(runs["copy-paste"], SynthesisConfig(), "cpu")
    with pytest.raises(ValueError, match="expected none for a method that pastes real lesions"):
        build_drawing(
            lenient,
            synthesizer.card.statistics,
            SynthesisConfig(),
            max_extent_mm=20.0,
            shapes={"bright": ShapeSource(tmp_path)},
            own_lesions=synthesizer.card.own_lesions,
        )


def test_a_cohort_keeps_the_contract_and_is_the_same_again(
    lenient: Dataset, synthesizer: Synthesizer, sampling: SynthesisConfig, tmp_path: Path
) -> None:
    counts = {"bright": 2, "dark": 1}
    for name in ("first", "again"):
        synthesize_cohort(lenient, synthesizer, counts=counts, config=sampling, out=tmp_path / name, seed=3)
    assert contents(tmp_path / "first") == contents(tmp_path / "again")
    check_contract(open_dataset(tmp_path / "first"), lenient)
    lines, card = read_provenance(tmp_path / "first").values(), synthesizer.card
    assert {(line["method"], line["model"]) for line in lines} == {(card.method, card.model_hash)}
    is_pasted = {lesion["mask_origin"].startswith("pasted real: ") for line in lines for lesion in line["lesions"]}
    assert is_pasted == {card.method == "copy-paste"}


def test_a_seed_gives_the_same_voxels_whatever_the_batch(scene: Scene, synthesizer: Synthesizer) -> None:
    image, lesions = scene
    before = image.array.copy()
    together = synthesizer.paint([image] * 2, lesions, types=[0, 1], seeds=[3, 4])
    for index, lesion in enumerate(lesions):
        alone = synthesizer.paint([image], [lesion], types=[index], seeds=[3 + index])[0]
        assert np.array_equal(alone, together[index])
        assert alone.shape == lesion.mask.shape
    assert np.array_equal(image.array, before)
    other = synthesizer.paint([image], lesions[:1], types=[0], seeds=[9])[0]
    assert np.abs(other - together[0])[lesions[0].mask].max() > 1


def test_a_hand_made_lesion_has_the_level_it_was_given(
    scene: Scene, runs: dict[str, Path], sampling: SynthesisConfig
) -> None:
    """Edge and texture leave the mean alone: with one training lesion and no jitter it is that lesion's."""
    loaded = load_method(runs["intensity"], sampling, "cpu")
    assert isinstance(loaded, IntensitySynthesizer)
    image, lesions = scene
    low, high = loaded.card.spec.lesions[0].hu
    mean_hu = 0.5 * (low + high)
    synthesizer = IntensitySynthesizer(
        loaded.card,
        {"bright": np.array([[mean_hu], [0.0], [30.0]])},
        {"bright": np.array([12.0])},
        loaded.grain,
        IntensityConfig(level_jitter=0.0),
    )
    painted = synthesizer.paint([image], lesions[:1], types=[0], seeds=[1])[0]
    np.testing.assert_allclose(painted[lesions[0].mask].mean(), mean_hu, atol=2.0)


def test_the_edge_that_blending_leaves_is_the_blur() -> None:
    mask, spacing_mm = np.zeros((21, 17, 15), dtype=bool), (1.0, 1.2, 0.8)
    mask[6:15, 5:12, 5:10] = True
    scan = np.zeros(mask.shape, dtype=np.float32)
    share = soft_share(mask, softness_mm=0.6, spacing_mm=spacing_mm, edge_mm=3.6)
    blurred = ndimage.gaussian_filter(mask.astype(float), [0.6 / side for side in spacing_mm], mode="constant")
    blended = blend(scan, (1000 * share).astype(np.float32), mask, spacing_mm=spacing_mm, edge_mm=3.6)
    np.testing.assert_allclose(blended, 1000 * blurred, atol=1.0)


def test_voxels_outside_take_the_nearest_inside() -> None:
    hu = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3)
    mask = np.zeros(hu.shape, dtype=bool)
    mask[1:3] = True
    filled = from_inside(hu, mask, spacing_mm=(1.0, 2.0, 3.0))
    assert np.array_equal(filled[1:3], hu[1:3])
    assert np.array_equal(filled[0], hu[1])
    assert np.array_equal(filled[4], hu[2])


def test_noise_is_added_where_the_scan_is_finer_than_what_was_kept() -> None:
    generator = np.random.default_rng(0)
    scan = generator.normal(50, 20, (30, 28, 20)).astype(np.float32)
    mask = np.zeros(scan.shape, dtype=bool)
    mask[8:20, 8:20, 5:15] = True
    own = finer_noise(scan, mask, spacing_mm=(1.0, 1.0, 1.0), kept_mm=(1.0, 1.0, 1.0), generator=generator)
    assert not own.any()
    added = finer_noise(scan, mask, spacing_mm=(1.0, 1.0, 1.0), kept_mm=(3.0, 3.0, 3.0), generator=generator)
    assert 14 < added[mask].std() < 22
    assert abs(np.corrcoef(added[mask], scan[mask])[0, 1]) < 0.15
