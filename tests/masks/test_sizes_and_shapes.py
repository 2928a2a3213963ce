"""Sizes come from training, within the type's range and what the model can paint; shapes as their type says."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from promptlesion.data.boxes import by_label
from promptlesion.data.dataset import Dataset, read_case
from promptlesion.data.lesion_statistics import LesionStatistics, TypeStatistics
from promptlesion.data.spec import LesionType
from promptlesion.masks.growth import Site
from promptlesion.masks.shape_bank import ShapeSource
from promptlesion.masks.sizes_and_shapes import LesionDrawing, build_drawing, draw_diameter_mm, draw_mask
from promptlesion.synthesis.config import SynthesisConfig

BRIGHT = LesionType(name="bright", label=2, host=("organ",), diameter_mm=(4.0, 20.0), hu=(0.0, 1.0))


def with_sizes(*diameters_mm: float, name: str = "bright") -> LesionStatistics:
    zeros = (0.0,) * len(diameters_mm)
    return LesionStatistics(
        types={
            name: TypeStatistics(
                diameters_mm=diameters_mm, mean_hu=zeros, std_hu=zeros, contrast_hu=zeros, counts_per_case=(1,)
            )
        }
    )


def sizes(
    statistics: LesionStatistics, *, max_extent_mm: float = 50.0, count: int = 2000, size_range_lesions: int = 0
) -> np.ndarray:
    generator = np.random.default_rng(0)
    drawing = LesionDrawing(statistics, 0.25, 1.0, max_extent_mm, size_range_lesions)
    draw = [draw_diameter_mm(drawing, BRIGHT, generator) for _ in range(count)]
    return np.array(draw)


def test_sizes_are_those_of_training_a_tenth_more_or_less() -> None:
    drawn = sizes(with_sizes(6.0, 6.0, 6.0, 15.0))
    small = drawn < 10
    assert small.mean() == pytest.approx(0.75, abs=0.04)
    for part, diameter_mm in ((drawn[small], 6.0), (drawn[~small], 15.0)):
        logs = np.log(part / diameter_mm)
        assert logs.mean() == pytest.approx(0, abs=0.02)
        assert logs.std() == pytest.approx(0.1, rel=0.15)


def test_sizes_outside_the_types_range_are_passed_over() -> None:
    drawn = sizes(with_sizes(3.9, 8.0, 21.0, 100.0))
    assert np.median(drawn) == pytest.approx(8.0, rel=0.02)
    assert 4.0 <= drawn.min() < drawn.max() < 12


def test_sizes_the_patch_cannot_take_are_passed_over() -> None:
    drawn = sizes(with_sizes(6.0, 15.0), max_extent_mm=12.0)
    assert np.median(drawn) == pytest.approx(6.0, rel=0.02)
    assert drawn.max() <= 12.0


@pytest.mark.parametrize("statistics", [with_sizes(1.0, 40.0), with_sizes(6.0, name="other"), with_sizes()])
def test_without_a_size_that_fits_the_range_is_log_uniform(statistics: LesionStatistics) -> None:
    drawn = sizes(statistics)
    low, high = 4.0, 20.0 - 0.03 * 16.0
    shares = (np.log(drawn) - np.log(low)) / np.log(high / low)
    assert stats.kstest(shares, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("num_lesions", "share_of_range"), [(1, 5 / 6), (5, 1 / 2), (45, 1 / 10), (0, 1)])
def test_the_range_counts_as_so_many_lesions(num_lesions: int, share_of_range: float) -> None:
    """Of those log-uniform in 4 to 19.5 mm most are more than 0.3 of a logarithm from 8 mm; of the rest hardly any."""
    drawn = sizes(with_sizes(*[8.0] * num_lesions), size_range_lesions=5)
    is_far = np.abs(np.log(drawn / 8.0)) > 0.3
    far_in_range = 1 - 0.6 / np.log((20.0 - 0.03 * 16.0) / 4.0)
    assert is_far.mean() == pytest.approx(share_of_range * far_in_range, abs=0.03)


def test_a_patch_smaller_than_the_smallest_lesion_still_gives_that_size_to_be_refused_by_name() -> None:
    assert sizes(with_sizes(6.0), max_extent_mm=2.0, count=3) == pytest.approx([4.0] * 3)


def test_the_generator_alone_decides() -> None:
    assert np.array_equal(sizes(with_sizes(6.0, 9.0), count=20), sizes(with_sizes(6.0, 9.0), count=20))


def test_the_share_too_large_for_the_patch_is_said_once(scans: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build_drawing(scans, with_sizes(5.0, 6.0, 7.0, 40.0), SynthesisConfig(), edge_mm=1.0, max_extent_mm=18.0)
    assert [record.getMessage() for record in caplog.records] == [
        "bright: 25 % of the training lesions are larger than the 18 mm that the model's patch takes; sizes are drawn "
        "among the others"
    ]
    caplog.clear()
    build_drawing(scans, with_sizes(5.0, 6.0, 7.0, 40.0), SynthesisConfig(), edge_mm=1.0, max_extent_mm=50.0)
    assert not caplog.records


def real(scans: Dataset) -> Dataset:
    first, second = scans.spec.lesions
    lesions = (first, second.model_copy(update={"shape": "real"}))
    return replace(scans, spec=scans.spec.model_copy(update={"lesions": lesions}))


def test_shapes_come_from_where_the_type_says(scans: Dataset, tmp_path: Path) -> None:
    """An ellipsoid, one cut from the label maps, and one from an archive that is named for any type."""
    np.savez(tmp_path / "cubes.npz", cube=np.ones((6, 6, 6)))
    dataset = real(scans)
    image, labels = read_case(scans, scans.case("ras"))
    site = Site(labels, by_label((1,)), by_label(()), (32, 24, 20), 5.0, 20.0, image)
    origins = []
    for shapes in ({}, {"bright": ShapeSource(tmp_path / "cubes.npz")}):
        drawing = build_drawing(
            dataset, with_sizes(), SynthesisConfig(), edge_mm=1.0, max_extent_mm=18.0, shapes=shapes
        )
        for lesion_type in dataset.spec.lesions:
            drawn = draw_mask(drawing, lesion_type, site, np.random.default_rng(0))
            origins.append(drawn.origin)
    assert origins[0] == "ellipsoid"
    assert origins[2] == "real: cube"
    assert origins[1] == origins[3]
    assert origins[1].removeprefix("real: ") in {case.name for case in scans.cases}


def test_real_shapes_without_any_are_an_error(scans: Dataset, tmp_path: Path) -> None:
    dataset = real(scans)
    drawing = LesionDrawing(with_sizes(), 0.2, edge_mm=1.0, max_extent_mm=20.0)
    image, labels = read_case(scans, scans.case("ras"))
    site = Site(labels, by_label((1,)), by_label(()), (32, 24, 20), 5.0, 20.0, image)
    with pytest.raises(ValueError, match="dark: expected a bank of real shapes in the drawing; found none"):
        draw_mask(drawing, dataset.spec.lesions[1], site, np.random.default_rng(0))
    with pytest.raises(ValueError, match="--shapes calcium=x: expected one of the lesion types bright, dark"):
        build_drawing(
            scans,
            with_sizes(),
            SynthesisConfig(),
            edge_mm=1.0,
            max_extent_mm=9.0,
            shapes={"calcium": ShapeSource(Path("x"))},
        )


def test_the_fingerprint_tells_what_masks_are_drawn_from(scans: Dataset, tmp_path: Path) -> None:
    np.savez(tmp_path / "cubes.npz", cube=np.ones((6, 6, 6)))
    plain = LesionDrawing(with_sizes(5.0), 0.2, edge_mm=1.0, max_extent_mm=20.0)
    banked = build_drawing(
        scans,
        with_sizes(5.0),
        SynthesisConfig(deformation=0.2),
        edge_mm=1.0,
        max_extent_mm=18.0,
        shapes={"bright": ShapeSource(tmp_path / "cubes.npz")},
    )
    others = [replace(plain, deformation=0.3), replace(plain, statistics=with_sizes(5.1)), banked]
    assert len({plain.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert plain.fingerprint == LesionDrawing(with_sizes(5.0), 0.2, edge_mm=1.0, max_extent_mm=20.0).fingerprint
