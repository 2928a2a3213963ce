"""The *ccta* phantom: coronary CT angiography with calcified and non-calcified plaque."""

import numpy as np
from jaxtyping import Int16, UInt8

from promptlesion.data.phantom.artery import FAR_MM, VesselBand, rasterize
from promptlesion.data.phantom.coronary_tree import grow_arteries
from promptlesion.data.phantom.geometry import Grid, coverage, crumbs, smooth_noise
from promptlesion.data.phantom.heart import grow_heart
from promptlesion.data.phantom.scanner import scan
from promptlesion.data.spec import DatasetSpec, LesionType

GRID = Grid((144, 120, 88), (0.6, 0.6, 0.6))
LABELS = {"background": 0, "lumen": 1, "wall": 2, "calcified_plaque": 3, "non_calcified_plaque": 4}
SPEC = DatasetSpec(
    window_hu=(-200.0, 1300.0),
    spacing_mm=GRID.spacing_mm,
    lesions=tuple(
        LesionType(
            name=name,
            label=LABELS[name],
            host=("wall",),
            diameter_mm=diameter_mm,
            hu=hu,
            shape="crescent",
            lumen=("lumen",),
            exophytic_share=exophytic_share,
        )
        for name, diameter_mm, hu, exophytic_share in (
            ("calcified_plaque", (2.7, 4.8), (130.0, 1300.0), 0.4),
            ("non_calcified_plaque", (3.8, 6.2), (-50.0, 130.0), 0.6),
        )
    ),
)
_KIND_ID = 1
_HEALTHY_SHARE, _SINGLE_TYPE_SHARE = 0.25, 0.1


def draw(
    seed: int, index: int, *, is_noisy: bool = True
) -> tuple[Int16[np.ndarray, "x y z"], UInt8[np.ndarray, "x y z"]]:
    """Attenuation in HU and labels of one subject; the same seed and index give the same voxels."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, index, _KIND_ID]))
    contrast_hu = float(generator.uniform(330, 430))
    num_calcified, num_non_calcified = _plaque_counts(generator, seed, index)
    heart = grow_heart(generator, GRID, contrast_hu=contrast_hu)
    arteries = grow_arteries(generator, heart, GRID, num_calcified=num_calcified, num_non_calcified=num_non_calcified)
    band = rasterize(arteries, GRID)
    for distance in band.plaque_mm.values():  # pieces that a ragged edge has cut off are none
        is_plaque = np.zeros(GRID.shape, bool)
        is_plaque[band.voxels] = (distance < 0) & (band.lumen_mm >= 0)
        distance[crumbs(is_plaque)[band.voxels]] = FAR_MM
    outside_aorta = coverage(-heart.lattice.to_grid(heart.aorta_distance_mm), GRID.spacing_mm[0])
    _paint_band(generator, heart.hu, band, outside_aorta[band.voxels], contrast_hu * generator.uniform(0.95, 1.02))
    labels = np.zeros(GRID.shape, np.uint8)
    labels[band.voxels] = np.where(outside_aorta[band.voxels] > 0.5, _band_labels(band), 0)
    image = scan(
        heart.hu,
        GRID,
        generator,
        point_spread_mm=(generator.uniform(0.45, 0.55), generator.uniform(0.4, 0.5)),
        noise_hu=generator.uniform(18, 28) * is_noisy,
        noise_grain_mm=0.55,
    )
    return image, labels


def _plaque_counts(generator: np.random.Generator, seed: int, index: int) -> tuple[int, int]:
    """How many plaques of each type; a golden-ratio sequence keeps the shares even in small cohorts."""
    offset = np.random.default_rng(seed).uniform()
    place = (offset + index * 0.6180339887498949) % 1.0
    has_calcified = place >= _HEALTHY_SHARE + _SINGLE_TYPE_SHARE
    has_non_calcified = place >= _HEALTHY_SHARE and not (
        _HEALTHY_SHARE + _SINGLE_TYPE_SHARE <= place < _HEALTHY_SHARE + 2 * _SINGLE_TYPE_SHARE
    )
    counts = int(generator.integers(1, 5)), int(generator.integers(1, 4))
    return counts[0] * int(has_calcified), counts[1] * int(has_non_calcified)


def _paint_band(
    generator: np.random.Generator,
    hu: np.ndarray,
    band: VesselBand,
    outside_aorta: np.ndarray,
    lumen_hu: float,
) -> None:
    voxel_mm = GRID.spacing_mm[0]
    coarse = smooth_noise(generator, GRID, 5.0)[band.voxels]
    fine = smooth_noise(generator, GRID, 1.5)[band.voxels]
    values = hu[band.voxels]

    def lay(tissue: np.ndarray, share: np.ndarray) -> None:
        values[...] += share * outside_aorta * (tissue - values)

    lay(30 + 8 * coarse + 6 * fine, coverage(band.wall_mm, voxel_mm) * (1 - 0.6 * band.thin))
    soft, calcium = band.plaque_hu["non_calcified"], band.plaque_hu["calcified"]
    lay(soft + 6 * coarse + 12 * fine, coverage(band.plaque_mm["non_calcified"], voxel_mm))
    lay(calcium * (1 + 0.14 * fine + 0.06 * coarse), coverage(band.plaque_mm["calcified"], voxel_mm))
    lay(lumen_hu + 6 * coarse, coverage(band.lumen_mm, voxel_mm))
    hu[band.voxels] = values


def _band_labels(band: VesselBand) -> UInt8[np.ndarray, " n"]:
    labels = np.where(band.wall_mm < 0, LABELS["wall"], LABELS["background"])
    for kind in ("non_calcified", "calcified"):
        labels[band.plaque_mm[kind] < 0] = LABELS[f"{kind}_plaque"]
    labels[band.lumen_mm < 0] = LABELS["lumen"]
    return np.where(band.is_labelled, labels, 0).astype(np.uint8)
