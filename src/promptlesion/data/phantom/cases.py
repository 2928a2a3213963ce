"""Phantom subjects by kind, seed and index."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from promptlesion.data.phantom import abdomen, ccta
from promptlesion.data.phantom.geometry import Grid
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.volume import Volume

Kind = Literal["ccta", "abdomen"]


@dataclass(frozen=True)
class PhantomCase:
    """One made-up subject: CT in HU (int16) and label map (uint8) on the same grid."""

    image: Volume
    labels: Volume


@dataclass(frozen=True)
class _Recipe:
    grid: Grid
    labels: dict[str, int]
    spec: DatasetSpec
    draw: Callable[[int, int], tuple[np.ndarray, np.ndarray]]


_RECIPES = {
    "ccta": _Recipe(ccta.GRID, ccta.LABELS, ccta.SPEC, ccta.draw),
    "abdomen": _Recipe(abdomen.GRID, abdomen.LABELS, abdomen.SPEC, abdomen.draw),
}


def phantom_case(kind: Kind, *, seed: int, index: int) -> PhantomCase:
    """Draws subject `index` of the cohort `seed`; the same arguments give the same voxels."""
    recipe = _RECIPES[kind]
    image, labels = recipe.draw(seed, index)
    affine = recipe.grid.affine
    return PhantomCase(Volume(image, affine), Volume(labels, affine))


def phantom_spec(kind: Kind) -> DatasetSpec:
    """What the `lesions.toml` of this kind says: window, spacing and lesion types in prompt order."""
    return _RECIPES[kind].spec


def phantom_labels(kind: Kind) -> dict[str, int]:
    """Names and values of the label map, background included."""
    return dict(_RECIPES[kind].labels)
