"""A patch around a lesion shows that lesion alone in its mask."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data.cache import CachedCase, build_cache
from promptlesion.data.crops import centered_start, crop
from promptlesion.data.dataset import Dataset
from promptlesion.data.lesion_patch import cut_lesion

SIZE = 8


@pytest.fixture
def cases(make_dataset: Callable[[int], Dataset], tmp_path: Path) -> tuple[Dataset, list[CachedCase]]:
    dataset = make_dataset(2)
    return dataset, build_cache(dataset, tmp_path / "cache")


def test_every_lesion_is_cut_with_its_own_mask(cases: tuple[Dataset, list[CachedCase]]) -> None:
    dataset, cached = cases
    num_lesions = 0
    for case in cached:
        for lesion in case.lesions:
            start = centered_start(lesion.center_voxel, (SIZE, SIZE, SIZE))
            image, mask = cut_lesion(case, lesion, dataset.spec, start=start, patch_voxels=SIZE)
            assert np.array_equal(image, crop(case.image, start, (SIZE, SIZE, SIZE), fill=-1024))
            assert mask.sum() == lesion.num_voxels
            expected = np.zeros(case.labels.shape, dtype=bool)
            box = lesion.bounding_box
            expected[box] = case.labels[box] == dataset.spec.lesions[lesion.type_index].label
            assert np.array_equal(mask, crop(expected, start, (SIZE, SIZE, SIZE), fill=False))
            num_lesions += 1
    assert num_lesions == 3


def test_another_lesion_of_the_type_is_left_out_and_a_diagonal_neighbour_is_not(
    cases: tuple[Dataset, list[CachedCase]],
) -> None:
    dataset, cached = cases
    case, lesion = cached[0], cached[0].lesions[0]
    labels = np.array(case.labels)
    label = dataset.spec.lesions[lesion.type_index].label
    x, y, z = (side.stop for side in lesion.bounding_box)
    labels[x, y, z] = label
    start = centered_start(lesion.center_voxel, (SIZE, SIZE, SIZE))
    far = tuple(s + 1 for s in start)
    labels[far] = label
    np.save(case.folder / f"{case.name}.label.npy", labels)
    _, mask = cut_lesion(case, lesion, dataset.spec, start=start, patch_voxels=SIZE)
    assert mask.sum() == lesion.num_voxels + 1
    assert not mask[1, 1, 1]
    assert mask[x - start[0], y - start[1], z - start[2]]


def test_the_patch_may_lie_anywhere_around_the_lesion(cases: tuple[Dataset, list[CachedCase]]) -> None:
    dataset, cached = cases
    case, lesion = cached[1], cached[1].lesions[0]
    x, y, z = lesion.center_voxel
    image, mask = cut_lesion(case, lesion, dataset.spec, start=(x, y, z), patch_voxels=20)
    assert mask[0, 0, 0]
    assert (image[case.image.shape[0] - x :] == -1024).all()
    assert not mask[case.image.shape[0] - x :].any()
