from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data import patch_sampling
from promptlesion.data.augmentation import Augmentation
from promptlesion.data.cache import CachedCase, build_cache
from promptlesion.data.crops import crop
from promptlesion.data.dataset import Dataset
from promptlesion.data.intensity import HUWindow
from promptlesion.data.patch_batches import PatchCut
from promptlesion.data.patch_sampling import AIR_HU, PatchSampler

PATCH = (8, 6, 4)


@pytest.fixture
def cases(make_dataset: Callable[[int], Dataset], tmp_path: Path) -> list[CachedCase]:
    """The calcified label 3 is in all four cases, the soft one, 4, at a corner of the first and the third."""
    return build_cache(make_dataset(4), tmp_path / "cache")


def test_a_patch_is_the_piece_of_its_case_padded_with_air(cases: list[CachedCase]) -> None:
    """Normalised, and mirrored: here every other one along all axes."""
    sampler, generator = PatchSampler(cases, PATCH, (0, 3, 4)), np.random.default_rng(0)
    window = HUWindow(-160.0, 240.0)
    num_padded = 0
    for turn in range(200):
        case, start = sampler.draw_place(generator)
        cut = PatchCut(PATCH, window, (1.0, 1.0, 2.0), Augmentation(float(turn % 2), 0.0, 0.0, 0.0, (1.0, 1.0), ()))
        image, labels = cut.cut(case.image, case.labels, start=start, generator=generator, varying=generator)
        assert image.dtype == np.float32
        assert labels.dtype == np.uint8
        axes = (0, 1, 2) if turn % 2 else ()
        np.testing.assert_array_equal(np.flip(image, axes), window.normalize(crop(case.image, start, PATCH, AIR_HU)))
        np.testing.assert_array_equal(np.flip(labels, axes), crop(case.labels, start, PATCH, 0))
        num_padded += min(start) < 0
    assert num_padded > 0


def test_the_class_lies_in_the_central_half(cases: list[CachedCase]) -> None:
    generator = np.random.default_rng(1)
    center = tuple(slice(extent // 4, extent - extent // 4) for extent in PATCH)
    for label in (2, 3, 4):
        sampler = PatchSampler(cases, PATCH, (label,))
        places = [sampler.draw_place(generator) for _ in range(100)]
        assert all((crop(case.labels, start, PATCH, 0)[center] == label).any() for case, start in places)
        assert len({start for _, start in places}) > 30


def test_classes_and_cases_are_drawn_evenly(cases: list[CachedCase]) -> None:
    sampler, generator = PatchSampler(cases, (4, 4, 4), (3, 4)), np.random.default_rng(2)
    places = [sampler.draw_place(generator) for _ in range(2000)]
    is_soft = [bool((crop(case.labels, start, (4, 4, 4), 0) == 4).any()) for case, start in places]
    assert np.mean(is_soft) == pytest.approx(0.5, abs=0.05)
    soft_cases = Counter(case.name for (case, _), soft in zip(places, is_soft, strict=True) if soft)
    hard_cases = Counter(case.name for (case, _), soft in zip(places, is_soft, strict=True) if not soft)
    assert set(soft_cases) == {"case_000", "case_002"}
    assert min(soft_cases.values()) > 400
    assert len(hard_cases) == 4
    assert min(hard_cases.values()) > 180


def test_anywhere_stays_inside_and_reaches_every_voxel(cases: list[CachedCase]) -> None:
    sampler, generator = PatchSampler(cases, PATCH, (0,)), np.random.default_rng(3)
    shape = cases[0].image.shape
    starts = np.array([sampler.draw_place(generator)[1] for _ in range(1500)])
    assert (starts.min(axis=0) == 0).all()
    np.testing.assert_array_equal(starts.max(axis=0), np.array(shape) - PATCH)


def test_a_patch_larger_than_the_scan_holds_all_of_it(cases: list[CachedCase]) -> None:
    size = (20, 24, 16)
    sampler, generator = PatchSampler(cases[:1], size, (0,)), np.random.default_rng(4)
    for _ in range(20):
        case, start = sampler.draw_place(generator)
        assert (crop(case.image, start, size, AIR_HU) != AIR_HU).sum() == (cases[0].image != AIR_HU).sum()
        assert (crop(case.labels, start, size, 0) > 0).sum() == (cases[0].labels > 0).sum()


def test_the_generator_decides(cases: list[CachedCase]) -> None:
    first, second = (PatchSampler(cases, PATCH, (0, 3)).draw_place(np.random.default_rng([7, 11])) for _ in range(2))
    assert first == second


def test_few_tables_of_voxels_are_kept_however_many_cases(
    cases: list[CachedCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    def draws() -> tuple[list[tuple[int, int, int]], int]:
        sampler, generator = PatchSampler(cases, PATCH, (2, 3, 4)), np.random.default_rng(5)
        starts = [sampler.draw_place(generator)[1] for _ in range(60)]
        return starts, sampler._label_voxels.cache_info().currsize

    every, num_kept = draws()
    assert num_kept == 10  # labels 2 and 3 in all four cases, 4 in two
    monkeypatch.setattr(patch_sampling, "_TABLES_KEPT", 2)
    assert draws() == (every, 2)


def test_classes_that_do_not_occur_are_left_out(cases: list[CachedCase]) -> None:
    assert PatchSampler(cases, PATCH, (0, 1, 3)).occurring_classes == (0, 3)
    with pytest.raises(ValueError, match=r"expected one of the labels \[1, 9\] in 4 cases, found none"):
        PatchSampler(cases, PATCH, (1, 9))
    with pytest.raises(ValueError, match="in 0 cases, found none"):
        PatchSampler([], PATCH, (0, 3))
