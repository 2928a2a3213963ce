"""Phantom subjects by kind, seed and index."""

from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from promptlesion.data.phantom import abdomen, ccta
from promptlesion.data.spec import DatasetSpec, LesionType
from promptlesion.data.volume import Volume

Kind = Literal["ccta", "abdomen", "five"]

_MINIATURE = 0.3
"""The abdomen of the kind `five` is this much smaller, so that one voxel size serves plaques and tumours."""


@dataclass(frozen=True)
class PhantomCase:
    """One made-up subject: CT in HU (int16) and label map (uint8) on the same grid."""

    image: Volume
    labels: Volume


_MODULES: dict[Kind, ModuleType] = {"ccta": ccta, "abdomen": abdomen}
"""Each has GRID, LABELS, SPEC and draw."""


def phantom_case(kind: Kind, *, seed: int, index: int, is_noisy: bool = True) -> PhantomCase:
    """Draws subject `index` of the cohort `seed`; the same arguments give the same voxels.

    Without noise the anatomy is the same, blurred by the scanner as ever. Of the kind `five` the even subjects are
    coronary scans, the odd ones abdomens in miniature.
    """
    if kind == "five":
        return _case_of_five(seed, index, is_noisy=is_noisy)
    phantom = _MODULES[kind]
    # its small matrix products gain nothing from threads, which on busy cores wait for each other
    with threadpool_limits(1, user_api="blas"):
        image, labels = phantom.draw(seed, index, is_noisy=is_noisy)
    return PhantomCase(Volume(image, phantom.GRID.affine), Volume(labels, phantom.GRID.affine))


def phantom_spec(kind: Kind) -> DatasetSpec:
    """What the `lesions.toml` of this kind says: window, spacing and lesion types in prompt order."""
    if kind != "five":
        spec: DatasetSpec = _MODULES[kind].SPEC
        return spec
    labels = phantom_labels("five")
    tumors = tuple(_in_miniature(lesion, labels[lesion.name]) for lesion in abdomen.SPEC.lesions)
    return ccta.SPEC.model_copy(update={"lesions": (*ccta.SPEC.lesions, *tumors)})


def phantom_labels(kind: Kind) -> dict[str, int]:
    """Names and values of the label map, background included."""
    if kind != "five":
        return dict(_MODULES[kind].LABELS)
    offset = max(ccta.LABELS.values())
    return ccta.LABELS | {name: value + offset for name, value in abdomen.LABELS.items() if value}


def _case_of_five(seed: int, index: int, *, is_noisy: bool) -> PhantomCase:
    if index % 2 == 0:
        return phantom_case("ccta", seed=seed, index=index // 2, is_noisy=is_noisy)
    case = phantom_case("abdomen", seed=seed, index=index // 2, is_noisy=is_noisy)
    affine = case.image.affine.copy()
    affine[:3] *= _MINIATURE
    affine = affine.astype(np.float32).astype(np.float64)
    labels = np.where(case.labels.array > 0, case.labels.array + max(ccta.LABELS.values()), 0).astype(np.uint8)
    return PhantomCase(Volume(case.image.array, affine), Volume(labels, affine))


def _in_miniature(lesion: LesionType, label: int) -> LesionType:
    smallest, largest = (round(_MINIATURE * diameter, 2) for diameter in lesion.diameter_mm)
    return lesion.model_copy(update={"label": label, "diameter_mm": (smallest, largest)})
