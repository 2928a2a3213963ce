"""What the denoiser is told: the blanked surroundings and the mask on the latent grid."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from promptlesion.diffusion.conditioning import BLANK_INTENSITY, blank_lesion, mask_on_latent_grid


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 1, 11, 14, 9, generator=torch.Generator().manual_seed(0)) * 2 - 0.99


@pytest.fixture
def mask() -> torch.Tensor:
    mask = torch.zeros(2, 1, 11, 14, 9, dtype=torch.bool)
    mask[0, 0, 4:6, 3:9, 2] = True
    mask[1, 0, 0, 13, 8] = True  # in a corner: the margin is cut off by the patch
    return mask


@pytest.mark.parametrize("margin", [0, 1, 2, 3])
def test_the_lesion_and_its_margin_are_blank_and_the_rest_is_untouched(
    image: torch.Tensor, mask: torch.Tensor, margin: int
) -> None:
    blanked = blank_lesion(image, mask, margin_voxels=margin)
    cube = np.ones((2 * margin + 1,) * 3, dtype=bool)
    for sample in range(2):
        expected = ndimage.binary_dilation(mask[sample, 0].numpy(), structure=cube)
        is_blank = (blanked[sample, 0] == BLANK_INTENSITY).numpy()
        np.testing.assert_array_equal(is_blank, expected)
        assert torch.equal(blanked[sample, 0][~is_blank], image[sample, 0][~is_blank])


def test_without_a_lesion_nothing_is_blank(image: torch.Tensor) -> None:
    nothing = torch.zeros(image.shape, dtype=torch.bool)
    assert torch.equal(blank_lesion(image, nothing, margin_voxels=2), image)


def test_a_single_voxel_survives_wherever_it_lies() -> None:
    for place in [(0, 0, 0), (3, 7, 11), (5, 10, 4), (7, 11, 15)]:
        mask = torch.zeros(1, 1, 8, 12, 16, dtype=torch.bool)
        mask[(0, 0, *place)] = True
        on_grid = mask_on_latent_grid(mask, downsampling=4)
        assert on_grid.shape == (1, 1, 2, 3, 4)
        assert on_grid.sum() == 1
        assert on_grid[(0, 0, *(side // 4 for side in place))] == 1


def test_the_mask_covers_every_latent_voxel_it_touches(mask: torch.Tensor) -> None:
    cut = mask[:, :, :8, :12, :8]
    blocks = cut.reshape(2, 2, 4, 3, 4, 2, 4).any(dim=6).any(dim=4).any(dim=2)
    assert torch.equal(mask_on_latent_grid(cut, downsampling=4)[:, 0] > 0, blocks)
