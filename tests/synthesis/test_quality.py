"""What passes is like the real lesions and leaves no seam; planted faults do not pass."""

import numpy as np
import pytest
from scipy import ndimage

from promptlesion.data.lesion_statistics import LesionMeasure, TypeStatistics
from promptlesion.data.spec import LesionType
from promptlesion.synthesis.blend import blend, edge_weight
from promptlesion.synthesis.quality import QualityLimits, limits_of, mean_hu_inside, reasons_against, seam_hu

PLAQUE = LesionType(name="plaque", label=3, host=("wall",), diameter_mm=(1, 6), hu=(130, 700))
SPACING_MM = (0.7, 1.0, 1.5)
EDGE_MM = 4.0


def statistics_of(num_lesions: int, seed: int = 0) -> TypeStatistics:
    generator = np.random.default_rng(seed)
    mean = generator.normal(500, 80, num_lesions)
    return TypeStatistics(
        diameters_mm=tuple(generator.uniform(2, 5, num_lesions).tolist()),
        mean_hu=tuple(mean.tolist()),
        std_hu=tuple(generator.normal(100, 15, num_lesions).tolist()),
        contrast_hu=tuple((mean - 60).tolist()),
        counts_per_case=(1,) * num_lesions,
    )


def measures_of(statistics: TypeStatistics) -> list[LesionMeasure]:
    return [LesionMeasure(*m) for m in zip(statistics.mean_hu, statistics.std_hu, statistics.contrast_hu, strict=True)]


def test_the_mean_is_taken_inside_the_mask_alone_and_does_not_overflow() -> None:
    hu = np.full((40, 30, 20), -1000, dtype=np.int16)
    mask = np.zeros(hu.shape, dtype=bool)
    mask[5:30, 2:20, 3:12] = True
    hu[mask] = 3000
    hu[5, 2, 3] = 3000 - mask.sum()
    assert mean_hu_inside(hu, mask) == 2999


class TestLimits:
    @pytest.mark.parametrize("num_lesions", [5, 9, 40, 500])
    def test_the_training_lesions_pass_and_so_do_others_of_their_kind(self, num_lesions: int) -> None:
        training, others = statistics_of(num_lesions), statistics_of(1000, seed=1)
        limits = limits_of(PLAQUE, training)
        passed = [not reasons_against(measure, 0.0, limits) for measure in measures_of(training)]
        assert np.mean(passed) >= 0.98
        passed = [not reasons_against(measure, 0.0, limits) for measure in measures_of(others)]
        assert np.mean(passed) >= (0.98 if num_lesions >= 40 else 0.8)

    def test_other_lesions_do_not_pass_and_are_told_why(self) -> None:
        limits = limits_of(PLAQUE, statistics_of(100))
        assert not reasons_against(LesionMeasure(500.0, 100.0, 440.0), 0.0, limits)
        for measure, words in (
            (LesionMeasure(100.0, 100.0, 440.0), ["mean 100 HU, expected"]),
            (LesionMeasure(500.0, 4.0, 440.0), ["spread 4 HU, expected"]),
            (LesionMeasure(500.0, 100.0, -40.0), ["contrast -40 HU, expected"]),
            (LesionMeasure(1000.0, 300.0, 940.0), ["mean 1000 HU", "spread 300 HU", "contrast 940 HU"]),
        ):
            reasons = reasons_against(measure, 0.0, limits)
            assert len(reasons) == len(words)
            assert all(text.startswith(start) for text, start in zip(reasons, words, strict=True))

    def test_the_stated_mean_binds_as_well(self) -> None:
        stated = PLAQUE.model_copy(update={"hu": (450.0, 2000.0)})
        limits, unbound = (limits_of(kind, statistics_of(100)) for kind in (stated, PLAQUE))
        assert limits.mean_hu[0] == 450.0
        assert unbound.mean_hu[0] < 450.0 < unbound.mean_hu[1] < 2000.0

    @pytest.mark.parametrize("statistics", [None, statistics_of(0), statistics_of(4)])
    def test_where_hardly_any_lesion_is_known_the_stated_mean_alone_decides(
        self, statistics: TypeStatistics | None
    ) -> None:
        limits = limits_of(PLAQUE, statistics)
        assert limits == QualityLimits((130.0, 700.0), None, None)
        for mean_hu, expected in ((129.9, False), (130.0, True), (700.0, True), (700.1, False)):
            assert (not reasons_against(LesionMeasure(mean_hu, 1e4, -1e4), 0.0, limits)) is expected


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A noisy scan with a border in it, what a method paints there, and the mask."""
    generator = np.random.default_rng(0)
    distance = np.linalg.norm((np.indices((35, 27, 19)).T - (17, 13, 9)) * SPACING_MM, axis=-1).T
    mask = distance < 5.5
    scan = np.where(np.indices(mask.shape)[0] < 12, -90, 60) + generator.normal(0, 20, mask.shape)
    lesion = np.where(mask, 160.0, np.where(np.indices(mask.shape)[0] < 12, -90, 60))
    painted = ndimage.gaussian_filter(lesion, [0.8 / side for side in SPACING_MM])  # what a decoder gives: smooth
    return scan.astype(np.int16), painted.astype(np.float32), mask


class TestSeam:
    def seam(self, scan: np.ndarray, painted: np.ndarray, mask: np.ndarray) -> float:
        after = blend(scan, painted, mask, spacing_mm=SPACING_MM, edge_mm=EDGE_MM)
        return seam_hu(scan, after, mask, spacing_mm=SPACING_MM, edge_mm=EDGE_MM)

    def passes(self, seam: float) -> bool:
        return not reasons_against(LesionMeasure(160.0, 20.0, 100.0), seam, QualityLimits((0.0, 300.0), None, None))

    def test_a_lesion_painted_well_leaves_none(self, scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        seam = self.seam(*scene)
        assert seam < 10
        assert self.passes(seam)

    def test_nothing_painted_is_no_seam(self, scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        scan, _, mask = scene
        assert seam_hu(scan, scan, mask, spacing_mm=SPACING_MM, edge_mm=EDGE_MM) == 0

    def test_a_hard_edge_does_not_pass(self, scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        scan, painted, mask = scene
        is_near = edge_weight(mask, spacing_mm=SPACING_MM, edge_mm=EDGE_MM) > 0
        for shift in (60, -60):
            after = np.where(is_near, painted + shift, scan)
            seam = seam_hu(scan, after, mask, spacing_mm=SPACING_MM, edge_mm=EDGE_MM)
            assert seam > 50
            assert not self.passes(seam)

    def test_a_halo_on_one_side_does_not_pass(self, scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        scan, painted, mask = scene
        is_side = np.indices(mask.shape)[1] > 13
        seams = [self.seam(scan, painted + np.float32(hu) * is_side, mask) for hu in (0, 60, 120, 240)]
        assert seams == sorted(seams)
        assert not self.passes(seams[-1])
        dark = self.seam(scan, painted - np.float32(240) * is_side, mask)
        assert not self.passes(dark)

    def test_what_the_scan_does_beyond_the_edge_does_not_matter(
        self, scene: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> None:
        scan, painted, mask = scene
        far = ndimage.distance_transform_edt(~mask, sampling=SPACING_MM) > EDGE_MM
        other = scan + np.where(far, 1000, 0).astype(np.int16)
        assert self.seam(other, painted, mask) == self.seam(scan, painted, mask)

    def test_an_edge_narrower_than_a_voxel_has_no_seam_to_measure(self) -> None:
        mask = np.zeros((9, 9, 9), dtype=bool)
        mask[4, 4, 4] = True
        after = np.where(mask, 500, 0).astype(np.int16)
        assert seam_hu(np.zeros_like(after), after, mask, spacing_mm=(3.0, 3.0, 3.0), edge_mm=1.0) == 0
