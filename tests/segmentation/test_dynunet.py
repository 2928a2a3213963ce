"""nnU-Net's layout of the resolutions, MONAI's blocks, and nnU-Net's weights of the supervision."""

import pytest
import torch
from monai.networks.nets.dynunet import DynUNet

from promptlesion.segmentation.dynunet import (
    DeeplySupervisedUNet,
    plan_resolutions,
    planned_channels,
    supervision_weights,
)

Triples = list[tuple[int, int, int]]


@pytest.mark.parametrize(
    ("patch_voxels", "spacing_mm", "strides", "kernels"),
    [
        (96, (1.0, 1.0, 1.0), [(2, 2, 2)] * 4, [(3, 3, 3)] * 5),
        (48, (0.8, 1.0, 1.5), [(2, 2, 2)] * 3, [(3, 3, 3)] * 4),
        # thick slices wait for the plane, and are not convolved across before; at the end they go on alone
        (
            96,
            (0.8, 0.8, 5.0),
            [(2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2), (1, 1, 2), (1, 1, 2)],
            [(3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)],
        ),
        # eight voxels are not halved along one axis alone
        (32, (1.0, 1.0, 3.0), [(2, 2, 1), (2, 2, 2), (2, 2, 2)], [(3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3)]),
        # ten voxels become five, and five stay
        (40, (1.0, 1.0, 1.0), [(2, 2, 2)] * 3, [(3, 3, 3)] * 4),
    ],
)
def test_resolutions_are_nnu_nets(
    patch_voxels: int, spacing_mm: tuple[float, float, float], strides: Triples, kernels: Triples
) -> None:
    """Also compared, once, with nnU-Net 2.6.0's own planner: the same for 2100 patches and spacings."""
    planned = plan_resolutions(patch_voxels, spacing_mm)
    assert [resolution.stride for resolution in planned] == [(1, 1, 1), *strides]
    assert [resolution.kernel for resolution in planned] == kernels


def test_axes_are_planned_each_for_itself_whatever_their_order() -> None:
    forward, backward = plan_resolutions(64, (0.7, 1.0, 4.0)), plan_resolutions(64, (4.0, 1.0, 0.7))
    assert [resolution.stride for resolution in forward] == [resolution.stride[::-1] for resolution in backward]
    assert [resolution.kernel for resolution in forward] == [resolution.kernel[::-1] for resolution in backward]


def test_channels_double_up_to_320() -> None:
    assert planned_channels(6) == (32, 64, 128, 256, 320, 320)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0)])
def test_it_computes_what_monais_dynunet_computes(spacing_mm: tuple[float, float, float]) -> None:
    resolutions, channels = plan_resolutions(32, spacing_mm), (4, 6, 8, 8)
    ours = DeeplySupervisedUNet(num_channels=1, num_labels=3, resolutions=resolutions, channels=channels).eval()
    strides = [resolution.stride for resolution in resolutions]
    monais = DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=3,
        kernel_size=[resolution.kernel for resolution in resolutions],
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=channels,
        deep_supervision=True,
    ).eval()
    monais.input_block.load_state_dict(ours.descent[0].state_dict())
    for index, block in enumerate(monais.downsamples, start=1):
        block.load_state_dict(ours.descent[index].state_dict())
    monais.bottleneck.load_state_dict(ours.descent[-1].state_dict())
    monais.upsamples.load_state_dict(ours.ascent.state_dict())
    monais.output_block.load_state_dict(ours.scoring[0].state_dict())
    monais.deep_supervision_heads.load_state_dict(ours.scoring[1:].state_dict())
    image = torch.randn(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(image), monais(image))

    finest, coarser = ours.train()(image)
    shown = monais.train()(image)  # MONAI repeats every voxel of a coarser score
    torch.testing.assert_close(finest, shown[:, 0])
    repeated = coarser
    for axis, factor in enumerate(resolutions[1].stride, start=2):
        repeated = repeated.repeat_interleave(factor, dim=axis)
    torch.testing.assert_close(repeated, shown[:, 1])


def test_nothing_is_stored_twice() -> None:
    """MONAI's own module names every block two times over."""
    network = DeeplySupervisedUNet(
        num_channels=1, num_labels=3, resolutions=plan_resolutions(32, (1.0,) * 3), channels=(4, 6, 8, 8)
    )
    state = network.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


def test_each_resolution_weighs_half_of_the_finer_one_and_all_weigh_one() -> None:
    weights = supervision_weights(3)
    torch.testing.assert_close(weights, torch.tensor([4.0, 2.0, 1.0]) / 7)
    assert supervision_weights(1).tolist() == [1.0]
