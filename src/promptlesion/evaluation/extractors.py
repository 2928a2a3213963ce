"""Feature extractors by name: the offline default, MedicalNet from the user's file, and a network trained on CT."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Float64
from torch import Tensor, nn

from promptlesion.data.intensity import HUWindow
from promptlesion.evaluation.config import EvaluationConfig
from promptlesion.evaluation.features import FeatureExtractor, ImageNetSliceFeatures, masked_intensity
from promptlesion.evaluation.lesions import LesionCrop
from promptlesion.features.ct_network import ct_weights_path, load_ct_network
from promptlesion.features.medicalnet import load_medicalnet
from promptlesion.training.atomic import file_hash

EXTRACTORS = ("imagenet", "medicalnet", "ct")
_MARGIN_VOXELS = 16
_SIDE_VOXELS = 48
"""Of the cube that a 3-D network sees."""


@dataclass
class VolumeFeatures:
    """A 3-D network's features, averaged over the lesion's cube.

    The cube lies around the lesion's bounding box, its side that of the longest edge and a margin on both sides;
    outside of the mask it holds the window's low end. It is resized, so that what the network sees depends neither on
    the scan's edge nor on the crop's margin.
    """

    name: str
    layer: str
    weights_sha256: str
    network: nn.Module
    """Gives feature vectors of volumes with one channel; frozen."""
    window: HUWindow
    """HU that map to [-1, 1]."""
    scaling: tuple[float, float]
    """Factor and offset from there to what the network was trained on."""
    device: torch.device
    dimension: int = field(init=False)

    @torch.no_grad()
    def __post_init__(self) -> None:
        """Move the network, and ask it how many features it gives."""
        self.network.to(self.device).eval()
        self.dimension = self.network(torch.zeros(1, 1, 32, 32, 32, device=self.device)).shape[1]

    @torch.no_grad()
    def __call__(self, lesions: Sequence[LesionCrop]) -> Float64[np.ndarray, "lesions dimension"]:
        """Compute the features, one lesion at a time, so that a vector does not depend on its company."""
        vectors = np.empty((len(lesions), self.dimension), dtype=np.float64)
        factor, offset = self.scaling
        for index, lesion in enumerate(lesions):
            cube = torch.from_numpy(lesion_cube(lesion, self.window, _MARGIN_VOXELS))[None, None]
            resized = _resized(cube.to(self.device))
            vectors[index] = self.network(resized * factor + offset)[0].double().cpu().numpy()
        return vectors


def build_extractor(
    name: str,
    *,
    window: HUWindow,
    weights: Path | None = None,
    weights_sha256: str | None = None,
    device: str | torch.device = "cpu",
) -> FeatureExtractor:
    """Build the extractor of this name.

    Args:
        name: `imagenet` (EfficientNet-lite0 on slices, comes with the package), `medicalnet` (3-D ResNet from the
            user's own file) or `ct` (3-D ResNet-152 trained on CT, of the extra `ct-features`).
        window: HU that map to [-1, 1].
        weights: MedicalNet's file; for `ct`, where the file is not to come from the extra.
        weights_sha256: what the file's hash must be. Its first digits stand in the extractor's name in any case.
        device: to compute on.

    Raises:
        ValueError: an unknown name, a file that is missing or not wanted, or one with another hash.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"extractor: expected one of {', '.join(EXTRACTORS)}; found {name!r}")
    if name == "imagenet":
        if weights is not None or weights_sha256 is not None:
            raise ValueError(f"extractor imagenet: expected no weights file, as it has its own; found {weights}")
        return ImageNetSliceFeatures(window=window, device=device)
    if name == "medicalnet" and weights is None:
        raise ValueError("extractor medicalnet: expected the path of its weights, as resnet_50.pth; found none")
    path = ct_weights_path() if weights is None else weights
    network: nn.Module = load_medicalnet(path) if name == "medicalnet" else load_ct_network(path)
    found = file_hash(path)
    if weights_sha256 is not None and found != weights_sha256.lower():
        raise ValueError(f"{path}: expected the SHA-256 {weights_sha256}; found {found}")
    title, pooled, scaling = "Astra ResNet-152, CT", network, (0.5, 0.5)
    if name == "medicalnet":
        title, pooled = f"MedicalNet {path.stem}", _MeanOfLast(network)
        # HU spread evenly over the window get mean 0 and variance 1, as MedicalNet was trained on; a lesion scaled by
        # its own mean and variance would show no brightness
        scaling = (math.sqrt(3), 0.0)
    return VolumeFeatures(
        name=f"{title}, SHA-256 {found[:12]}",
        layer="layer 4, mean over the lesion's cube",
        weights_sha256=found,
        network=pooled,
        window=window,
        scaling=scaling,
        device=torch.device(device),
    )


class _MeanOfLast(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volumes: Tensor) -> Tensor:
        mean: Tensor = self.network(volumes)[-1].mean((2, 3, 4))
        return mean


def build_extractors(
    config: EvaluationConfig, *, window: HUWindow, device: str | torch.device
) -> list[FeatureExtractor]:
    """Build the networks that a configuration names, each once."""
    built = []
    for name in dict.fromkeys(config.extractors):
        file, sha256 = (config.medicalnet_weights, config.medicalnet_sha256) if name == "medicalnet" else (None, None)
        weights = None if file is None else Path(file)
        built.append(build_extractor(name, window=window, weights=weights, weights_sha256=sha256, device=device))
    return built


def lesion_cube(lesion: LesionCrop, window: HUWindow, margin_voxels: int) -> Float32[np.ndarray, "side side side"]:
    """Put a lesion in the middle of a cube of the window's low end, -1, its longest edge and two margins wide."""
    occupied = np.argwhere(lesion.mask)
    low, high = occupied.min(axis=0), occupied.max(axis=0) + 1
    inner = masked_intensity(lesion, window)[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    side = max(inner.shape) + 2 * margin_voxels
    before = [(side - length) // 2 for length in inner.shape]
    widths = [(first, side - length - first) for first, length in zip(before, inner.shape, strict=True)]
    return np.pad(inner, widths, constant_values=np.float32(-1))


def _resized(cube: Tensor) -> Tensor:
    """Resize to a fixed edge; what is larger is averaged, as a sampled one would drop voxels."""
    size = (_SIDE_VOXELS,) * 3
    if cube.shape[-1] >= _SIDE_VOXELS:
        return F.adaptive_avg_pool3d(cube, size)
    return F.interpolate(cube, size, mode="trilinear", align_corners=False)
