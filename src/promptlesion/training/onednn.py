"""A 3-D convolution that a CPU never computes with `slow_conv3d`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

_LARGEST_SLOW = 20_480
"""Channels x first two sides up to which PyTorch gives a float32 map of batch 1 to `slow_conv3d`."""
_SMALLEST_FAST_BATCH = 16
"""Below it a 1x1x1 convolution on one thread goes there too, whatever its size."""


class OneDNNConv3d(nn.Conv3d):
    """`nn.Conv3d`, parameters and all, whose float32 maps never fall into `slow_conv3d`."""

    def _conv_forward(
        self,
        input: Float[Tensor, "*batch in_channels x y z"],  # noqa: A002  (the name in nn.Conv3d)
        weight: Float[Tensor, "out_channels group_channels i j k"],
        bias: Float[Tensor, " out_channels"] | None,
    ) -> Float[Tensor, "*batch out_channels u v w"]:
        if not self._would_be_slow(input):
            convolved: Tensor = super()._conv_forward(input, weight, bias)
        elif torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad):
            # only of its own tensors does oneDNN take the gradients too
            convolved = super()._conv_forward(input.to_mkldnn(), weight, bias).to_dense()
        else:
            assert not isinstance(self.padding, str)
            convolved = torch.mkldnn_convolution(
                input, weight, bias, self.padding, self.stride, self.dilation, self.groups
            )
        return convolved

    def _would_be_slow(self, features: Tensor) -> bool:
        """Say what ATen's choice of a backend comes to (Convolution.cpp: use_mkldnn, torch 2.13)."""
        is_point = self.kernel_size == self.stride == self.dilation == (1, 1, 1)
        is_point_alone = is_point and len(features) < _SMALLEST_FAST_BATCH and torch.get_num_threads() == 1
        return (
            type(features) is Tensor  # no fake one, that has a shape and no numbers
            and features.dim() == 5
            and (is_point_alone or (len(features) == 1 and features[0, ..., 0].numel() <= _LARGEST_SLOW))
            and features.dtype is torch.float32
            and features.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
        )


def prefer_onednn(network: nn.Module) -> None:
    """Let every 3-D convolution of a network on a CPU be computed by oneDNN, if this PyTorch has it."""
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        for module in network.modules():
            if type(module) is nn.Conv3d:
                module.__class__ = OneDNNConv3d
