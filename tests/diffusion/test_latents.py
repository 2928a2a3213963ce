"""The encoded lesions: what they show, and that they are encoded once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from promptlesion.autoencoder.autoencoder import TrainedAutoencoder, load_autoencoder
from promptlesion.data.cache import CachedCase
from promptlesion.data.lesion_attributes import NAMES
from promptlesion.data.lesion_statistics import lesion_row
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.training_data import TrainingData
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.latents import LesionLatents, encode_lesions

CPU = torch.device("cpu")
Encode = Callable[..., LesionLatents]


@pytest.fixture(scope="module")
def autoencoder(tiny_autoencoder_run: Path) -> TrainedAutoencoder:
    return load_autoencoder(tiny_autoencoder_run, CPU)


@pytest.fixture
def encode(
    tiny_spec: DatasetSpec, tiny_labels: dict[str, int], autoencoder: TrainedAutoencoder, tmp_path: Path
) -> Encode:
    def run(
        cases: list[CachedCase],
        *,
        key: str = "a",
        seed: int = 0,
        margin: int = 2,
        patches: int = 3,
        denoise_lesions: bool = False,
        **settings: object,
    ) -> LesionLatents:
        return encode_lesions(
            TrainingData(cases, tiny_spec, tiny_labels),
            autoencoder,
            DiffusionConfig.model_validate(
                {
                    "patch_voxels": 24,
                    "patches_per_lesion": patches,
                    "blank_margin_voxels": margin,
                    "denoise_lesions": denoise_lesions,
                    **settings,
                }
            ),
            seed=seed,
            path=tmp_path / "latents.safetensors",
            key=key,
            device=CPU,
        )

    return run


def test_every_lesion_gives_its_patches(encode: Encode, tiny_cases: list[CachedCase]) -> None:
    latents = encode(tiny_cases)
    assert len(latents) == 4 * 2 * 3
    assert latents.lesion_type.tolist() == [0, 0, 0, 1, 1, 1] * 4
    assert latents.clean.shape == latents.surroundings.shape == (24, 4, 6, 6, 6)
    assert latents.lesion_mask.shape == (24, 1, 6, 6, 6)
    assert set(latents.lesion_mask.unique().tolist()) == {0.0, 1.0}
    assert bool(latents.lesion_mask.flatten(1).any(dim=1).all())


def test_the_lesion_is_in_the_latent_and_not_in_its_surroundings(encode: Encode, tiny_cases: list[CachedCase]) -> None:
    latents = encode(tiny_cases)
    difference = (latents.clean - latents.surroundings).float().abs().sum(dim=1, keepdim=True)
    inside = latents.lesion_mask > 0
    assert difference[inside].mean() > 2 * difference[~inside].mean()
    assert bool((difference.flatten(1).max(dim=1).values > 0).all())


def test_patches_of_one_lesion_differ_and_their_seed_decides(encode: Encode, tiny_cases: list[CachedCase]) -> None:
    first = encode(tiny_cases[:1])
    assert not torch.equal(first.clean[0], first.clean[1])
    again, other = encode(tiny_cases[:1], key="b"), encode(tiny_cases[:1], key="c", seed=1)
    assert torch.equal(first.clean, again.clean)
    assert not torch.equal(first.clean, other.clean)


def test_denoised_the_lesion_changes_and_its_surroundings_do_not(
    encode: Encode, tiny_cases: list[CachedCase], autoencoder: TrainedAutoencoder
) -> None:
    plain, denoised = encode(tiny_cases[:2]), encode(tiny_cases[:2], key="b", denoise_lesions=True)
    assert torch.equal(plain.surroundings, denoised.surroundings)
    assert torch.equal(plain.lesion_mask, denoised.lesion_mask)
    difference = (plain.clean - denoised.clean).float().abs().sum(dim=1, keepdim=True)
    inside = plain.lesion_mask > 0
    assert difference[inside].mean() > 2 * difference[~inside].mean()


def test_a_case_gives_the_same_patches_whatever_else_is_encoded(encode: Encode, tiny_cases: list[CachedCase]) -> None:
    alone, among_others = encode(tiny_cases[2:3]), encode(tiny_cases, key="b")
    torch.testing.assert_close(among_others.clean[12:18], alone.clean, rtol=1e-2, atol=1e-2)
    assert torch.equal(among_others.lesion_mask[12:18], alone.lesion_mask)


def test_what_is_there_is_read_and_another_key_encodes_anew(
    encode: Encode, tiny_cases: list[CachedCase], tmp_path: Path
) -> None:
    path = tmp_path / "latents.safetensors"
    first = encode(tiny_cases[:2])
    written = path.stat().st_mtime_ns
    second = encode(tiny_cases[:2])
    assert path.stat().st_mtime_ns == written
    for name in ("clean", "surroundings", "lesion_mask", "lesion_type"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert len(encode(tiny_cases[:1], key="b")) == 6
    assert [entry.name for entry in tmp_path.iterdir()] == ["latents.safetensors"]


def test_a_batch_is_single_precision_and_in_the_asked_for_order(encode: Encode, tiny_cases: list[CachedCase]) -> None:
    latents = encode(tiny_cases[:1])
    clean, conditioning = latents.batch([4, 0], CPU)
    assert clean.dtype is conditioning.surroundings.dtype is conditioning.lesion_mask.dtype is torch.float32
    assert torch.equal(clean, latents.clean[[4, 0]].float())
    assert conditioning.lesion_type.tolist() == [1, 0]


def test_cases_without_lesions_are_refused(encode: Encode) -> None:
    with pytest.raises(ValueError, match="expected lesions in the 0 training cases; found none"):
        encode([])


def test_the_whole_mask_is_kept_where_the_network_is_told_it(encode: Encode, tiny_cases: list[CachedCase]) -> None:
    latents = encode(tiny_cases[:1], mask="whole")
    assert latents.whole_mask is not None
    assert latents.whole_mask.shape == (6, 64, 6, 6, 6)
    assert torch.equal(latents.whole_mask.any(dim=1, keepdim=True).half(), latents.lesion_mask)
    _, conditioning = latents.batch([0], CPU)
    assert conditioning.known.shape[1] == latents.surroundings.shape[1] + 1 + 64
    assert encode(tiny_cases[:1], key="b").whole_mask is None


def test_attributes_tell_what_each_patch_shows(
    encode: Encode, tiny_cases: list[CachedCase], tiny_spec: DatasetSpec, tiny_labels: dict[str, int]
) -> None:
    case = tiny_cases[0]
    as_is = encode(tiny_cases[:1], attributes=True)
    rows = [lesion_row(case, lesion, tiny_spec, tiny_labels) for lesion in case.lesions]
    for patch, attributes in enumerate(as_is.attributes):
        torch.testing.assert_close(
            attributes.double(), torch.from_numpy(rows[patch // 3]), rtol=1e-3, atol=0.1, equal_nan=True
        )
    changed = encode(tiny_cases, key="b", attributes=True, warp_probability=1.0, brightness_jitter=2.0)
    mean_hu, contrast_hu, diameter_mm = (
        changed.attributes[:, NAMES.index(name)] for name in ("mean_hu", "contrast_hu", "diameter_mm")
    )
    assert len(mean_hu.unique()) == len(changed) and len(diameter_mm.unique()) > len(changed) // 3
    host_hu = (mean_hu - contrast_hu).reshape(4, 2, 3)
    assert float((host_hu - host_hu[:, :, :1]).abs().max()) < 0.1
    low, high = tiny_spec.lesions[0].hu
    assert bool(((mean_hu[:3] > low - 30) & (mean_hu[:3] < high + 30)).all())
