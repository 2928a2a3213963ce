"""Whole scans through the tiny autoencoder, and which scans it may be judged by."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from promptlesion.autoencoder.autoencoder import TrainedAutoencoder, load_autoencoder
from promptlesion.autoencoder.reconstruct import reconstruct_cases, unseen_cases
from promptlesion.data.cache import CachedCase
from promptlesion.data.dataset import Dataset
from promptlesion.data.intensity import HUWindow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tiny_autoencoder_run: Path) -> TrainedAutoencoder:
    return load_autoencoder(tiny_autoencoder_run, CPU)


def test_a_scan_comes_back_as_from_the_undivided_network(
    trained: TrainedAutoencoder, tiny_cases: list[CachedCase]
) -> None:
    window = HUWindow(-200.0, 800.0)
    done: list[tuple[int, int]] = []
    found = list(
        reconstruct_cases(
            trained,
            tiny_cases[2:],
            tile_voxels=20,
            device=CPU,
            on_progress=lambda count, total: done.append((count, total)),
        )
    )
    assert [each.case.name for each in found] == ["tiny_2", "tiny_3"]
    assert done == [(1, 2), (2, 2)]
    for each, case in zip(found, tiny_cases[2:], strict=True):
        np.testing.assert_array_equal(each.original_hu, np.clip(case.image, -200, 800))
        padding = [(0, -n % 4) for n in case.image.shape]
        image = torch.from_numpy(window.normalize(np.pad(each.original_hu, padding, mode="edge")))[None, None]
        decoded = trained.network.decode(trained.network.encode(image))[0, 0].numpy()
        x, y, z = case.image.shape
        np.testing.assert_allclose(each.reconstruction_hu, window.to_hu(decoded[:x, :y, :z]), rtol=0, atol=0.1)
        assert each.code_counts.shape == (64,)
        assert each.code_counts.sum() == np.prod([-(-n // 4) for n in case.image.shape])


def options() -> dict[str, float | int]:
    return {"seed": 0, "validation_fraction": 0.2, "test_fraction": 0.5}


def test_the_test_part_is_judged_by_less_the_training_subjects(trained: TrainedAutoencoder, tiny_data: Dataset) -> None:
    seen_one = replace(trained, card={**trained.card, "training_subjects": ["tiny_1"]})
    by_one = unseen_cases([seen_one], tiny_data, **options())
    assert 1 <= len(by_one) <= 2
    subjects = [f"tiny_{index}" for index in range(4) if f"tiny_{index}" != by_one[0]]
    seen_three = replace(trained, card={**trained.card, "training_subjects": subjects})
    assert unseen_cases([seen_one, seen_three], tiny_data, **options()) == by_one[:1]


def test_another_dataset_is_judged_whole(trained: TrainedAutoencoder, tiny_data: Dataset) -> None:
    elsewhere = replace(trained, card={**trained.card, "training_subjects": ["somebody"]})
    assert unseen_cases([elsewhere], tiny_data, **options()) == tuple(case.name for case in tiny_data.cases)


def test_a_dataset_without_an_unseen_subject_is_refused(trained: TrainedAutoencoder, tiny_data: Dataset) -> None:
    everybody = replace(trained, card={**trained.card, "training_subjects": [case.subject for case in tiny_data.cases]})
    with pytest.raises(ValueError, match="expected subjects that no autoencoder was trained on; found none"):
        unseen_cases([everybody], tiny_data, **options())
