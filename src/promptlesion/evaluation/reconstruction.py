"""How close a reconstructed scan is to the original: errors in HU, similarity, edges, and the finest detail."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from scipy import fft
from skimage.metrics import structural_similarity

from promptlesion.data.cache import CachedCase
from promptlesion.data.intensity import HUWindow
from promptlesion.data.reconstruction import Reconstruction

_MAX_SLICES = 3
_EDGE_SHARE = 0.1
_HIGH_CYCLES_PER_VOXEL = 0.25


@dataclass(frozen=True)
class ReconstructionScore:
    """A reconstruction against its original, both clipped to the window."""

    mae_hu: float
    """Mean absolute error."""
    edge_mae_hu: float
    """The same over the tenth of the voxels where the original's gradient is steepest."""
    psnr_db: float
    """Peak signal-to-noise ratio; the peak is the width of the window."""
    ssim: float
    """Structural similarity (Wang et al. 2004) in 3-D, over cubes of 7 voxels."""
    high_frequency_ratio: float
    """Power above half the Nyquist frequency, reconstruction / original; below 1 is smoother, above 1 rougher."""

    def as_json(self) -> dict[str, float | None]:
        """Return the figures for a JSON file; an endless one (a PSNR without any error) is None."""
        return {name: value if np.isfinite(value) else None for name, value in asdict(self).items()}


@dataclass(frozen=True)
class ComparedSlice:
    """An axial slice of a scan and what came back of it, in HU within the window."""

    dataset: str
    case: str
    original: Float32[np.ndarray, "x y"]
    reconstruction: Float32[np.ndarray, "x y"]
    trilinear: Float32[np.ndarray, "x y"]
    pixel_mm: tuple[float, float]
    window_hu: tuple[float, float]


@dataclass(frozen=True)
class ReconstructionRow:
    """One autoencoder on one dataset, beside trilinear sampling by the same factor."""

    dataset: str
    model: str
    downsampling: int
    cases: dict[str, tuple[ReconstructionScore, ReconstructionScore]]
    """Per scan: autoencoder and trilinear."""
    codes_used: float
    """Share of the codebook that occurs in any of the scans."""
    perplexity: float
    """Exp of the entropy of the codes over all tokens: how many codes, were all used equally often."""
    slices: tuple[ComparedSlice, ...]

    @property
    def autoencoder(self) -> ReconstructionScore:
        """The mean over scans."""
        return mean_score([autoencoder for autoencoder, _ in self.cases.values()])

    @property
    def trilinear(self) -> ReconstructionScore:
        """The mean over scans."""
        return mean_score([trilinear for _, trilinear in self.cases.values()])

    def as_json(self) -> dict[str, object]:
        """Return the entry for a JSON file, the scans one by one below the means."""
        return {
            "dataset": self.dataset,
            "model": self.model,
            "downsampling": self.downsampling,
            "num_cases": len(self.cases),
            "autoencoder": self.autoencoder.as_json(),
            "trilinear": self.trilinear.as_json(),
            "codes_used": self.codes_used,
            "perplexity": self.perplexity,
            "cases": {
                name: {"autoencoder": autoencoder.as_json(), "trilinear": trilinear.as_json()}
                for name, (autoencoder, trilinear) in self.cases.items()
            },
        }


def reconstruction_row(
    reconstructions: Iterable[Reconstruction],
    *,
    dataset: str,
    model: str,
    downsampling: int,
    window_hu: tuple[float, float],
    spacing_mm: tuple[float, float, float],
) -> ReconstructionRow:
    """Measure scan after scan; `dataset` and `model` are names for the table."""
    window = HUWindow(*window_hu)
    cases: dict[str, tuple[ReconstructionScore, ReconstructionScore]] = {}
    slices: list[ComparedSlice] = []
    counts: Int64[np.ndarray, " code"] | None = None
    for found in reconstructions:
        original, reconstruction = found.original_hu, found.reconstruction_hu
        trilinear = trilinear_down_and_up(original, downsampling)
        autoencoder_score, trilinear_score = (
            reconstruction_score(original, other, window_width_hu=window.width_hu, spacing_mm=spacing_mm)
            for other in (reconstruction, trilinear)
        )
        cases[found.case.name] = (autoencoder_score, trilinear_score)
        counts = found.code_counts if counts is None else counts + found.code_counts
        if len(slices) < _MAX_SLICES:
            z = _shown_slice(found.case)
            slices.append(
                ComparedSlice(
                    dataset=dataset,
                    case=found.case.name,
                    original=original[:, :, z].copy(),
                    reconstruction=reconstruction[:, :, z].copy(),
                    trilinear=trilinear[:, :, z].copy(),
                    pixel_mm=spacing_mm[:2],
                    window_hu=window_hu,
                )
            )
    if counts is None:
        raise ValueError(f"{dataset}: expected at least one scan to reconstruct; found none")
    used, perplexity = code_usage(counts)
    return ReconstructionRow(dataset, model, downsampling, cases, used, perplexity, tuple(slices))


def code_usage(counts: Int64[np.ndarray, " code"]) -> tuple[float, float]:
    """Return the share of codes that occur, and the perplexity of how often each does."""
    share = counts[counts > 0] / counts.sum()
    return len(share) / len(counts), float(np.exp(-(share * np.log(share)).sum()))


def reconstruction_score(
    original_hu: Float32[np.ndarray, "x y z"],
    reconstruction_hu: Float32[np.ndarray, "x y z"],
    *,
    window_width_hu: float,
    spacing_mm: tuple[float, float, float],
) -> ReconstructionScore:
    """Compare a scan with its reconstruction on the same grid."""
    error = np.abs(reconstruction_hu - original_hu)
    mean_square = float(np.mean(np.square(error), dtype=np.float64))
    steepness = _gradient_magnitude(original_hu, spacing_mm)
    # strictly above: where most of the scan is flat, the flat part is no edge
    is_edge = steepness > np.quantile(steepness, 1 - _EDGE_SHARE)
    original_power = high_frequency_power(original_hu)
    with np.errstate(divide="ignore", invalid="ignore"):
        return ReconstructionScore(
            mae_hu=float(error.mean(dtype=np.float64)),
            edge_mae_hu=float(error[is_edge].mean(dtype=np.float64)) if is_edge.any() else 0.0,
            psnr_db=float(10 * np.log10(np.float64(window_width_hu) ** 2 / mean_square)),
            ssim=float(structural_similarity(original_hu, reconstruction_hu, data_range=window_width_hu)),
            high_frequency_ratio=float(np.float64(high_frequency_power(reconstruction_hu)) / original_power),
        )


def mean_score(scores: Sequence[ReconstructionScore]) -> ReconstructionScore:
    """Return the mean over scans of every figure."""
    if not scores:
        raise ValueError("reconstruction: expected at least one scan; found none")
    return ReconstructionScore(
        **{field.name: float(np.mean([getattr(s, field.name) for s in scores])) for field in fields(scores[0])}
    )


def trilinear_down_and_up(hu: Float32[np.ndarray, "x y z"], factor: int) -> Float32[np.ndarray, "x y z"]:
    """Return a scan sampled down by `factor` on every axis and up again, both trilinear: what a latent must beat.

    The scan is padded with its last voxels to a multiple first, as the autoencoder pads it.
    """
    padded = np.pad(hu, [(0, -n % factor) for n in hu.shape], mode="edge")
    volume = torch.from_numpy(padded)[None, None]
    small = F.interpolate(volume, scale_factor=1 / factor, mode="trilinear")
    large = F.interpolate(small, size=volume.shape[2:], mode="trilinear")
    x, y, z = hu.shape
    result: np.ndarray = large[0, 0, :x, :y, :z].numpy()
    return result


def high_frequency_power(volume: Float32[np.ndarray, "x y z"]) -> float:
    """Return the power of the 3-D spectrum above half the Nyquist frequency, in HU squared, not normalised.

    A Hann window on every axis keeps out the jump between opposite borders, which the transform takes for an edge.
    """
    tapered = volume - volume.mean(dtype=np.float64).astype(np.float32)
    squared_frequency = np.zeros((1, 1, 1), dtype=np.float32)
    for axis, length in enumerate(volume.shape):
        shape = [length if other == axis else 1 for other in range(3)]
        tapered = tapered * np.hanning(length + 2)[1:-1].astype(np.float32).reshape(shape)
        squared_frequency = squared_frequency + np.square(np.fft.fftfreq(length)).astype(np.float32).reshape(shape)
    is_high = squared_frequency > _HIGH_CYCLES_PER_VOXEL**2
    spectrum = fft.fftn(tapered)
    return float(np.square(np.abs(spectrum[is_high])).sum(dtype=np.float64))


def _gradient_magnitude(
    hu: Float32[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]
) -> Float32[np.ndarray, "x y z"]:
    squares = [np.square(np.gradient(hu, step, axis=axis)) for axis, step in enumerate(spacing_mm)]
    magnitude: np.ndarray = np.sqrt(squares[0] + squares[1] + squares[2])
    return magnitude.astype(np.float32)


def _shown_slice(case: CachedCase) -> int:
    """Choose the axial slice through the middle of the largest lesion, of the scan where there is none."""
    if not case.lesions:
        return int(case.image.shape[2] // 2)
    return max(case.lesions, key=lambda lesion: lesion.num_voxels).center_voxel[2]
