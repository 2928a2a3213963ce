"""The reconstruction losses by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from promptlesion.autoencoder.loss import weighted_l1


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    reconstruction, image = torch.randn(2, 2, 1, 5, 7, 6, generator=generator)
    return reconstruction, image, torch.rand(image.shape, generator=generator) > 0.97


def test_a_lesion_voxel_counts_as_often_as_its_weight(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    reconstruction, image, mask = batch
    error = (reconstruction - image).abs()
    repeated = torch.cat([error[~mask], *[error[mask]] * 20])
    torch.testing.assert_close(weighted_l1(reconstruction, image, mask, lesion_weight=20.0), repeated.mean())


def test_without_weight_or_lesion_it_is_the_plain_l1(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    reconstruction, image, mask = batch
    plain = F.l1_loss(reconstruction, image)
    torch.testing.assert_close(weighted_l1(reconstruction, image, mask, lesion_weight=1.0), plain)
    nothing = torch.zeros_like(mask)
    torch.testing.assert_close(weighted_l1(reconstruction, image, nothing, lesion_weight=20.0), plain)
