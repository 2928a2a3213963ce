"""Whole scans through a trained autoencoder and back."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from promptlesion.autoencoder.autoencoder import TrainedAutoencoder
from promptlesion.autoencoder.volume import decode_volume, encode_volume
from promptlesion.data.cache import CachedCase
from promptlesion.data.dataset import Dataset
from promptlesion.data.intensity import HUWindow
from promptlesion.data.reconstruction import Reconstruction
from promptlesion.data.splits import dataset_split


def reconstruct_cases(
    trained: TrainedAutoencoder,
    cases: Sequence[CachedCase],
    *,
    tile_voxels: int,
    device: torch.device,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Reconstruction]:
    """Encode and decode every scan whole, in tiles of `tile_voxels` (see `encode_volume`), one scan at a time.

    `on_progress(done, total)` is called after each scan.
    """
    window = HUWindow(*trained.spec.window_hu)
    precision = trained.config.precision
    for done, case in enumerate(cases, start=1):
        original = case.image.astype(np.float32).clip(window.low, window.high)
        image = torch.from_numpy(window.normalize(original))[None, None].to(device)
        latent = encode_volume(trained.network, image, tile_voxels=tile_voxels, precision=precision)
        decoded = decode_volume(
            trained.network, latent, size=original.shape, tile_voxels=tile_voxels, precision=precision
        )
        codes = trained.network.codes(latent).flatten()
        counts = torch.bincount(codes, minlength=trained.config.codebook_size)
        yield Reconstruction(case, original, window.to_hu(decoded[0, 0].cpu().numpy()), counts.cpu().numpy())
        if on_progress is not None:
            on_progress(done, len(cases))


def unseen_cases(
    trained: Sequence[TrainedAutoencoder],
    dataset: Dataset,
    *,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
) -> tuple[str, ...]:
    """Return the cases that no stage trained on, and none was stopped or selected by.

    They are the test part of the dataset's split, less the autoencoders' training subjects; all cases where the
    dataset has none of those.

    Raises:
        ValueError: no case is left.
    """
    seen: set[str] = set()
    for each in trained:
        subjects = each.card["training_subjects"]
        assert isinstance(subjects, list)
        seen |= set(subjects)
    if not any(case.subject in seen for case in dataset.cases):
        return tuple(case.name for case in dataset.cases)
    split = dataset_split(dataset, seed=seed, validation_fraction=validation_fraction, test_fraction=test_fraction)
    unseen = tuple(case.name for case in dataset.select(split.test).cases if case.subject not in seen)
    if not unseen:
        raise ValueError(f"{dataset.root}: expected subjects that no autoencoder was trained on; found none")
    return unseen
