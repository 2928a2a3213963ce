"""Volumes larger than a patch: encoded and decoded in tiles that meet without a seam.

The networks are convolutions without norms, so an output position depends on a bounded range of the input. A tile is
computed from the whole of that range and cropped: it holds what the undivided network would give there.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from promptlesion.autoencoder.autoencoder import Autoencoder
from promptlesion.autoencoder.network import ResidualBlock, Upsample
from promptlesion.training.device import autocast
from promptlesion.training.optimisation import Precision


def encode_volume(
    autoencoder: Autoencoder, image: Float[Tensor, "1 1 x y z"], *, tile_voxels: int, precision: Precision
) -> Float[Tensor, "1 channel u v w"]:
    """Return the latent of a normalised volume of any size, scaled as `Autoencoder.encode` scales it.

    Args:
        image: on any device; the result is on the same. Where a side is no multiple of the downsampling, the last
            voxels are repeated.
        tile_voxels: edge of what one pass of the network yields; the margin it needs comes on top.
    """
    factor = autoencoder.downsampling
    padded = pad_to_multiple(image, factor)
    spans = [
        _spans(n // factor, _edge(tile_voxels, factor) // factor, autoencoder.encoder, num_in=factor, num_out=1)
        for n in padded.shape[2:]
    ]
    latent = image.new_empty(1, autoencoder.latent_channels, *(n // factor for n in padded.shape[2:]))
    _fill(latent, padded, spans, autoencoder.encode, autoencoder.latent_mean.device, precision)
    return latent


def decode_volume(
    autoencoder: Autoencoder,
    latent: Float[Tensor, "1 channel u v w"],
    *,
    size: Sequence[int],
    tile_voxels: int,
    precision: Precision,
) -> Float[Tensor, "1 1 x y z"]:
    """Return the normalised volume of a latent that `encode_volume` made, cropped to `size`, the sides before it.

    The other arguments are those of `encode_volume`.
    """
    factor = autoencoder.downsampling
    if [-(-n // factor) for n in size] != list(latent.shape[2:]):
        raise ValueError(f"size: expected sides that {factor} divides into {list(latent.shape[2:])}; found {size}")
    spans = [
        _spans(n * factor, _edge(tile_voxels, factor), autoencoder.decoder, num_in=1, num_out=factor)
        for n in latent.shape[2:]
    ]
    image = latent.new_empty(1, 1, *(n * factor for n in latent.shape[2:]))
    _fill(image, latent, spans, autoencoder.decode, autoencoder.latent_mean.device, precision)
    x, y, z = size
    return image[:, :, :x, :y, :z]


def pad_to_multiple(image: Float[Tensor, "1 1 x y z"], multiple: int) -> Float[Tensor, "1 1 x2 y2 z2"]:
    """Repeat the last voxels of every axis until its length is a multiple."""
    missing = [-n % multiple for n in image.shape[2:]]
    if not any(missing):
        return image
    return F.pad(image, [0, missing[2], 0, missing[1], 0, missing[0]], mode="replicate")


def input_range(layers: Iterable[nn.Module], start: int, stop: int) -> tuple[int, int]:
    """Return which input positions the output positions [start, stop) depend on, along one axis.

    Followed from the last layer to the first; what lies beyond the ends of the volume is the layers' own padding.
    """
    for layer in reversed(list(layers)):
        if isinstance(layer, nn.Conv3d):
            (kernel, *_), (stride, *_), (dilation, *_) = layer.kernel_size, layer.stride, layer.dilation
            padding = layer.padding[0]
            assert isinstance(padding, int)
            start, stop = start * stride - padding, (stop - 1) * stride - padding + dilation * (kernel - 1) + 1
        elif isinstance(layer, ResidualBlock):
            low, high = input_range(layer.residual, start, stop)
            start, stop = min(start, low), max(stop, high)  # the shortcut sees the position itself
        elif isinstance(layer, Upsample):
            low, high = input_range([layer.convolution], start, stop)
            start, stop = low // 2, (high - 1) // 2 + 1
        elif not isinstance(layer, nn.SiLU):
            raise TypeError(f"receptive field: expected a layer of the autoencoder; found {type(layer).__name__}")
    return start, stop


@dataclass(frozen=True)
class _Span:
    """One axis of a tile."""

    source: slice
    """What of the input goes into the network."""
    crop: slice
    """What of the output is as if the whole volume had gone in."""
    target: slice
    """Where that lies in the whole output."""


def _spans(size: int, edge: int, layers: nn.Sequential, *, num_in: int, num_out: int) -> list[_Span]:
    """Divide an axis of `size` output positions, `num_out` of them for every `num_in` of the input."""
    num_blocks = size // num_out
    spans = []
    for start in range(0, size, edge):
        stop = min(start + edge, size)
        low, high = input_range(layers, start, stop)
        # whole blocks, so that the strides of the layers fall on the same voxels; never beyond the volume, so that
        # the layers' padding lies where it does for the whole
        first, last = max(low // num_in, 0), min(-(-high // num_in), num_blocks)
        offset = first * num_out
        source = slice(first * num_in, last * num_in)
        spans.append(_Span(source, slice(start - offset, stop - offset), slice(start, stop)))
    return spans


@torch.no_grad()
def _fill(
    output: Float[Tensor, "1 _ _ _ _"],
    source: Float[Tensor, "1 _ _ _ _"],
    spans: Sequence[Sequence[_Span]],
    network: Callable[[Tensor], Tensor],
    device: torch.device,
    precision: Precision,
) -> None:
    for tile in product(*spans):
        x, y, z = (span.source for span in tile)
        with autocast(device, precision):
            computed = network(source[:, :, x, y, z].to(device))
        x, y, z = (span.crop for span in tile)
        u, v, w = (span.target for span in tile)
        output[:, :, u, v, w] = computed[:, :, x, y, z].to(output)


def _edge(tile_voxels: int, factor: int) -> int:
    if tile_voxels < factor or tile_voxels % factor:
        raise ValueError(f"tile_voxels: expected a multiple of {factor}, the downsampling; found {tile_voxels}")
    return tile_voxels
