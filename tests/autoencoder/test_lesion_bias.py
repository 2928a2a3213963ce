"""The autoencoder's own error inside lesions, in HU."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import Tensor

from promptlesion.autoencoder.autoencoder import Autoencoder, build_autoencoder
from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.lesion_bias import LesionBias, measure_lesion_bias
from promptlesion.data.cache import CachedCase
from promptlesion.data.spec import DatasetSpec


@pytest.mark.parametrize(
    ("real", "autoencoded", "is_faithful"),
    [
        (600, 451, True),
        (600, 449, False),
        (600, 751, False),
        (60, 31, True),
        (60, 29, False),
        (-50, -79, True),
    ],
)
def test_a_quarter_or_thirty_hu_is_allowed(real: float, autoencoded: float, is_faithful: bool) -> None:
    bias = LesionBias("x", num_lesions=3, real_mean_hu=float(real), autoencoded_mean_hu=float(autoencoded))
    assert bias.is_faithful is is_faithful
    assert LesionBias(**asdict(bias)) == bias


class Halving(Autoencoder):
    """Gives back every intensity halved."""

    def encode(self, image: Tensor) -> Tensor:
        return image

    def decode(self, latent: Tensor) -> Tensor:
        return 0.5 * latent


def test_the_bias_is_the_difference_of_means_inside_the_lesions(
    tiny_cases: list[CachedCase], tiny_spec: DatasetSpec, tiny_autoencoder_config: AutoencoderConfig
) -> None:
    network = build_autoencoder(tiny_autoencoder_config)
    network.__class__ = Halving
    entries = measure_lesion_bias(
        network, tiny_cases, spec=tiny_spec, patch_voxels=24, precision="float32", device=torch.device("cpu")
    )
    assert [(entry.lesion_type, entry.num_lesions) for entry in entries] == [("bright", 4), ("dark", 4)]
    for entry, label in zip(entries, (2, 3), strict=True):
        means = [case.image[case.labels == label].clip(-200, 800).mean() for case in tiny_cases]
        assert entry.real_mean_hu == pytest.approx(np.mean(means), abs=0.06)
        # half the way to the middle of the window, 300 HU
        assert entry.autoencoded_mean_hu == pytest.approx(150 + 0.5 * np.mean(means), abs=0.1)


def test_without_lesions_there_is_nothing_to_say(
    tiny_spec: DatasetSpec, tiny_autoencoder_config: AutoencoderConfig
) -> None:
    network = build_autoencoder(tiny_autoencoder_config).eval()
    assert (
        measure_lesion_bias(
            network, [], spec=tiny_spec, patch_voxels=24, precision="float32", device=torch.device("cpu")
        )
        == []
    )
