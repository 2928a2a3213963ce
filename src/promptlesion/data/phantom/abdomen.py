"""The *abdomen* phantom: portal-venous CT with liver, kidney and pancreas tumours."""

import numpy as np
from jaxtyping import Int16, UInt8

from promptlesion.data.phantom.geometry import Grid
from promptlesion.data.phantom.scanner import Scanner, scan
from promptlesion.data.phantom.torso import build_torso
from promptlesion.data.phantom.tumor import (
    drop_crumbs,
    lay_kidney_tumor,
    lay_liver_tumor,
    lay_pancreas_tumor,
)
from promptlesion.data.phantom.viscera import lay_viscera
from promptlesion.data.spec import DatasetSpec, LesionType

GRID = Grid((176, 136, 96), (2.0, 2.0, 2.5))
LABELS = {
    "background": 0,
    "liver": 1,
    "kidney": 2,
    "pancreas": 3,
    "spleen": 4,
    "liver_tumor": 5,
    "kidney_tumor": 6,
    "pancreas_tumor": 7,
}
SPEC = DatasetSpec(
    window_hu=(-175.0, 250.0),
    spacing_mm=GRID.spacing_mm,
    # into drawn ellipsoids tumours were painted that differ more from real ones (docs/results/experiment.md)
    lesions=tuple(
        LesionType(
            name=name,
            label=label,
            host=(host,),
            diameter_mm=diameter_mm,
            hu=hu,
            shape="real",
            exophytic_share=exophytic_share,
        )
        for name, label, host, diameter_mm, hu, exophytic_share in (
            ("liver_tumor", 5, "liver", (10.0, 45.0), (15.0, 115.0), 0.0),
            ("kidney_tumor", 6, "kidney", (14.0, 46.0), (10.0, 130.0), 0.7),
            ("pancreas_tumor", 7, "pancreas", (10.0, 30.0), (10.0, 95.0), 0.5),
        )
    ),
)
_KIND_ID = 2
_TUMOR_SHARES = (0.65, 0.6, 0.6)
_IRRATIONALS = (0.6180339887498949, 0.7548776662466927, 0.8191725133961645)


def draw(
    seed: int, index: int, *, is_noisy: bool = True
) -> tuple[Int16[np.ndarray, "x y z"], UInt8[np.ndarray, "x y z"]]:
    """Attenuation in HU and labels of one subject; the same seed and index give the same voxels."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, index, _KIND_ID]))
    has_tumors = _has_tumors(seed, index)
    torso = build_torso(generator, GRID)
    canvas = torso.canvas
    viscera = lay_viscera(torso)
    counts = (int(generator.integers(1, 5)), 1, 1)
    lay_all = (lay_liver_tumor, lay_kidney_tumor, lay_pancreas_tumor)
    for lay_tumor, count, has in zip(lay_all, counts, has_tumors, strict=True):
        for _ in range(count * has):
            lay_tumor(canvas, viscera)
    drop_crumbs(canvas)
    scanner = Scanner(
        point_spread_mm=float(generator.uniform(0.8, 1.1)),
        point_spread_z_mm=float(generator.uniform(1.0, 1.3)),
        noise_hu=float(generator.uniform(9, 15)) * is_noisy,
        noise_grain_mm=1.5,
    )
    return scan(canvas.hu, GRID, scanner, generator), canvas.labels


def _has_tumors(seed: int, index: int) -> list[bool]:
    """Whether the subject has each type; low-discrepancy sequences keep the shares even in small cohorts."""
    offsets = np.random.default_rng(seed).uniform(size=3)
    places = [(offset + index * step) % 1.0 for offset, step in zip(offsets, _IRRATIONALS, strict=True)]
    return [bool(place < share) for place, share in zip(places, _TUMOR_SHARES, strict=True)]
