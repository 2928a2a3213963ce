"""Whether synthetic lesions are copies of training lesions: each one's distance to the nearest, and which are too near.

Two lesions are compared by their texture (`lesion_texture`), not by their form, which synthesis may take from a real
lesion on purpose: distance = 1 − correlation of the two patterns, the best over the 48 ways of turning and mirroring a
cube and over shifts by a voxel. Brightness and contrast do not matter, and noise or blur but little.
What is near is learnt from the real lesions: each one's distance to the nearest of the other subjects.
"""

from collections.abc import Callable, Sequence
from itertools import permutations, product

import numpy as np
from jaxtyping import Float32
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field
from scipy import ndimage

from promptlesion.data.lesion_texture import LesionTexture, lesion_texture
from promptlesion.evaluation.distance_calibration import CopyThreshold, fit_copy_threshold
from promptlesion.evaluation.lesions import LesionCrop
from promptlesion.evaluation.results import Frozen

FALSE_ALARM_RATE = 0.001
_MAX_SIDE = 24
_TURNS = tuple(product(permutations(range(3)), product((1, -1), repeat=3)))


class NearestLesion(Frozen):
    """A lesion and the training lesion of its type that it is most like."""

    case: str = Field(description="case of the lesion")
    subject: str = Field(description="whose scan that is")
    lesion_type: str = Field(description="type of both lesions")
    center_voxel: tuple[int, int, int] = Field(description="middle of the lesion in its scan, voxels")
    num_voxels: int = Field(description="voxels of the lesion")
    nearest_case: str = Field(description="case of the training lesion that is nearest")
    nearest_center_voxel: tuple[int, int, int] = Field(description="its middle in its scan, voxels")
    distance: float = Field(description="1 - correlation of the textures; 0 for a copy, about 1 for strangers")
    threshold: float = Field(description="distance below which a lesion of this type and size counts as a copy")
    is_copy: bool = Field(description="whether it is nearer than that")


class Memorisation(Frozen):
    """What the search for copies found."""

    false_alarm_rate: float = Field(description="share of lesions of strangers that would be called copies")
    synthetic: tuple[NearestLesion, ...] = Field(description="every synthetic lesion, in the order given")
    real: tuple[NearestLesion, ...] = Field(
        description="every training lesion against those of the other subjects; a copy here is one lesion under two "
        "names, and was left out when the threshold was found"
    )
    num_without_training: int = Field(description="synthetic lesions of a type that no training lesion has")

    @property
    def copies(self) -> tuple[NearestLesion, ...]:
        """Return the synthetic lesions that are copies, the nearest first."""
        return tuple(sorted((row for row in self.synthetic if row.is_copy), key=lambda row: row.distance))


def find_copies(
    synthetic: Sequence[LesionCrop],
    training: Sequence[LesionCrop],
    *,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    on_progress: Callable[[int, int], None] | None = None,
) -> Memorisation:
    """Find each synthetic lesion's nearest training lesion of its type, and flag what is nearer than strangers are.

    Args:
        synthetic: the painted lesions.
        training: the real lesions that the generator saw.
        false_alarm_rate: share of honest lesions that may be flagged.
        on_progress: is told how many lesions of how many are done.

    Raises:
        ValueError: no training lesion at all, or a rate that is no share.
    """
    if not training:
        raise ValueError("memorisation: expected training lesions to compare with; found none")
    if not 0 < false_alarm_rate < 0.5:
        raise ValueError(f"false_alarm_rate: expected a share between 0 and 0.5, found {false_alarm_rate}")
    found: dict[int, NearestLesion] = {}
    real: list[NearestLesion] = []
    types = list(dict.fromkeys(lesion.lesion_type for lesion in training))
    total = len(training) + sum(lesion.lesion_type in types for lesion in synthetic)

    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    for lesion_type in types:
        bank = _Bank([lesion for lesion in training if lesion.lesion_type == lesion_type])
        nearest = []
        for lesion in bank.lesions:
            nearest.append(bank.nearest(lesion, is_stranger=True))
            report()
        strangers = [(lesion, *near) for lesion, near in zip(bank.lesions, nearest, strict=True) if near is not None]
        threshold = fit_copy_threshold(
            [distance for _, _, distance in strangers],
            [int(lesion.mask.sum()) for lesion, _, _ in strangers],
            false_alarm_rate=false_alarm_rate,
        )
        real += [_row(lesion, other, distance, threshold) for lesion, other, distance in strangers]
        for index, lesion in enumerate(synthetic):
            near = bank.nearest(lesion) if lesion.lesion_type == lesion_type else None
            if near is not None:
                found[index] = _row(lesion, *near, threshold)
                report()
    return Memorisation(
        false_alarm_rate=false_alarm_rate,
        synthetic=tuple(found[index] for index in sorted(found)),
        real=tuple(real),
        num_without_training=len(synthetic) - len(found),
    )


class _Bank:
    """The training lesions of one type as patterns on one grid, as fine as the scans or the largest lesion allow."""

    def __init__(self, lesions: Sequence[LesionCrop]) -> None:
        self.lesions = list(lesions)
        textures = [lesion_texture(lesion.hu, lesion.mask, lesion.spacing_mm) for lesion in lesions]
        widest_mm = max(
            (side - 2) * mm
            for texture in textures
            for side, mm in zip(texture.pattern_hu.shape, texture.spacing_mm, strict=True)
        )
        finest_mm = min(min(texture.spacing_mm) for texture in textures)
        self._voxel_mm = max(finest_mm, widest_mm / _MAX_SIDE)
        self._side = int(np.ceil(widest_mm / self._voxel_mm)) + 2
        self._patterns = np.stack([self._pattern(texture).ravel() for texture in textures])
        self._subjects = np.array([lesion.subject for lesion in lesions])

    def nearest(self, lesion: LesionCrop, *, is_stranger: bool = False) -> tuple[LesionCrop, float] | None:
        """Return the lesion that is most like this one, and how far it is.

        With `is_stranger` only those of other subjects count; None where there are none.
        """
        pattern = self._pattern(lesion_texture(lesion.hu, lesion.mask, lesion.spacing_mm))
        best = np.full(len(self.lesions), -1.0, dtype=np.float32)
        for order, signs in _TURNS:
            turned = np.transpose(pattern, order)[:: signs[0], :: signs[1], :: signs[2]]
            shifted = sliding_window_view(np.pad(turned, 1), turned.shape).reshape(27, -1)
            np.maximum(best, (shifted @ self._patterns.T).max(axis=0), out=best)
        if is_stranger:
            best[self._subjects == lesion.subject] = -np.inf
        index = int(best.argmax())
        return None if np.isinf(best[index]) else (self.lesions[index], float(np.clip(1 - best[index], 0, 2)))

    def _pattern(self, texture: LesionTexture) -> Float32[np.ndarray, "side side side"]:
        """Bring a texture to the grid, its lesion's middle in the middle, as a vector of length 1."""
        sigmas = [self._voxel_mm / mm / 2 if self._voxel_mm > 1.5 * mm else 0.0 for mm in texture.spacing_mm]
        steps = np.arange(self._side) - (self._side - 1) / 2
        places = [
            steps * self._voxel_mm / mm + middle
            for middle, mm in zip(texture.center_voxel, texture.spacing_mm, strict=True)
        ]
        smooth = ndimage.gaussian_filter(texture.pattern_hu, sigmas, mode="constant")
        grid = np.meshgrid(*places, indexing="ij")
        pattern = np.asarray(ndimage.map_coordinates(smooth, grid, order=1, mode="constant"))
        return np.asarray(pattern / max(float(np.linalg.norm(pattern)), 1e-9), dtype=np.float32)


def _row(lesion: LesionCrop, other: LesionCrop, distance: float, threshold: CopyThreshold) -> NearestLesion:
    num_voxels = int(lesion.mask.sum())
    limit = threshold.at(num_voxels)
    return NearestLesion(
        case=lesion.case,
        subject=lesion.subject,
        lesion_type=lesion.lesion_type,
        center_voxel=_center(lesion),
        num_voxels=num_voxels,
        nearest_case=other.case,
        nearest_center_voxel=_center(other),
        distance=distance,
        threshold=limit,
        is_copy=distance < limit,
    )


def _center(lesion: LesionCrop) -> tuple[int, int, int]:
    middle = np.argwhere(lesion.mask).mean(axis=0) + lesion.start_voxel
    x, y, z = (round(float(value)) for value in middle)
    return x, y, z
