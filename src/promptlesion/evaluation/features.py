"""Feature vectors of lesions: slices of the three axes through a network that needs no download."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from promptlesion.data.intensity import HUWindow
from promptlesion.evaluation.lesions import LesionCrop
from promptlesion.features.imagenet import STAGE_CHANNELS, WEIGHTS_SHA256, load_efficientnet_lite0

_STAGE = 4
"""Of the network, as in `promptlesion.features.imagenet`."""


@runtime_checkable
class FeatureExtractor(Protocol):
    """Gives one feature vector a lesion; a distance states its name, layer and dimension, a record its weights."""

    name: str
    layer: str
    dimension: int
    weights_sha256: str

    def __call__(self, lesions: Sequence[LesionCrop]) -> Float64[np.ndarray, "lesions dimension"]:
        """Compute the features of each lesion."""
        ...


class ImageNetSliceFeatures:
    """EfficientNet-lite0's features, averaged over pixels, slices and axes; the offline default.

    Of each axis at most `slices_per_axis` slices that contain the lesion, evenly spread, outside of the mask
    filled with the window's low end, padded to a square and resized to `side_pixels`.
    """

    def __init__(
        self,
        *,
        window: HUWindow,
        slices_per_axis: int = 8,
        side_pixels: int = 96,
        device: str | torch.device = "cpu",
    ) -> None:
        """Load the network."""
        self.name = "EfficientNet-lite0, ImageNet"
        self.layer = f"stage {_STAGE}, mean over pixels, slices and three axes"
        self.dimension = STAGE_CHANNELS[_STAGE]
        self.weights_sha256 = WEIGHTS_SHA256
        self._window = window
        self._slices_per_axis = slices_per_axis
        self._side_pixels = side_pixels
        self._device = torch.device(device)
        self._network = load_efficientnet_lite0((_STAGE,)).to(self._device)

    @torch.no_grad()
    def __call__(self, lesions: Sequence[LesionCrop]) -> Float64[np.ndarray, "lesions dimension"]:
        """Compute the features, one lesion at a time, so that a vector does not depend on its company."""
        vectors = np.empty((len(lesions), self.dimension), dtype=np.float64)
        for index, lesion in enumerate(lesions):
            masked = masked_intensity(lesion, self._window)
            axis_means = [
                self._axis_features(lesion_slices(masked, lesion, axis, self._slices_per_axis)) for axis in range(3)
            ]
            vectors[index] = np.mean(axis_means, axis=0)
        return vectors

    def _axis_features(self, slices: Float32[np.ndarray, "slices u v"]) -> Float64[np.ndarray, " dimension"]:
        images = _resized(torch.from_numpy(slices)[:, None], self._side_pixels).to(self._device)
        (features,) = self._network(images)
        pooled: Float64[np.ndarray, " dimension"] = features.double().mean((0, 2, 3)).cpu().numpy()
        return pooled


def masked_intensity(lesion: LesionCrop, window: HUWindow) -> Float32[np.ndarray, "x y z"]:
    """Bring a lesion's crop to [-1, 1] and fill everything outside its mask with -1, the window's low end."""
    return np.where(lesion.mask, window.normalize(lesion.hu), np.float32(-1))


def lesion_slices(
    crop: Float32[np.ndarray, "x y z"], lesion: LesionCrop, axis: int, max_slices: int
) -> Float32[np.ndarray, "slices u v"]:
    """Take at most `max_slices` slices across `axis` that contain the lesion, evenly spread."""
    other_axes = tuple(other for other in range(3) if other != axis)
    occupied = np.flatnonzero(lesion.mask.any(axis=other_axes))
    chosen = np.linspace(0, len(occupied) - 1, min(max_slices, len(occupied))).round().astype(int)
    return np.ascontiguousarray(np.moveaxis(crop, axis, 0)[occupied[chosen]])


def _resized(slices: Float[Tensor, "slices 1 u v"], side_pixels: int) -> Float[Tensor, "slices 1 side side"]:
    height, width = slices.shape[2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = F.pad(slices, (left, side - width - left, top, side - height - top), value=-1.0)
    size = (side_pixels, side_pixels)
    return F.interpolate(square, size, mode="bilinear", align_corners=False, antialias=True)
