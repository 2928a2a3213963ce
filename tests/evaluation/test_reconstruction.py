"""The figures of a reconstruction by hand, on volumes where they are known."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from promptlesion.data.cache import CachedCase
from promptlesion.data.reconstruction import Reconstruction
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.reconstruction import (
    ReconstructionScore,
    code_usage,
    high_frequency_power,
    mean_score,
    reconstruction_row,
    reconstruction_score,
    trilinear_down_and_up,
)
from promptlesion.evaluation.reconstruction_figure import reconstruction_figure

SPACING = (1.0, 0.5, 2.0)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 50, (24, 20, 17)).astype(np.float32)


def score(original: np.ndarray, reconstruction: np.ndarray) -> ReconstructionScore:
    return reconstruction_score(original, reconstruction, window_width_hu=1000.0, spacing_mm=SPACING)


def test_a_perfect_reconstruction() -> None:
    found = score(noise(), noise())
    assert (found.mae_hu, found.edge_mae_hu) == (0, 0)
    assert found.ssim == pytest.approx(1)
    assert found.high_frequency_ratio == pytest.approx(1)
    assert found.psnr_db == np.inf
    assert found.as_json()["psnr_db"] is None


def test_a_constant_error() -> None:
    found = score(noise(), noise() + 10)
    assert found.mae_hu == pytest.approx(10, rel=1e-4)
    assert found.edge_mae_hu == pytest.approx(10, rel=1e-4)
    assert found.psnr_db == pytest.approx(40, abs=1e-3)  # 20 log10(1000 / 10)
    assert found.high_frequency_ratio == pytest.approx(1, rel=1e-3)
    assert found.ssim < 1


def test_edges_are_the_steepest_tenth() -> None:
    """A step along x: the error is there alone, on two of forty planes."""
    original = np.zeros((40, 8, 9), dtype=np.float32)
    original[20:] = 100
    reconstruction = original.copy()
    reconstruction[19:21] = 50
    found = score(original, reconstruction)
    assert found.mae_hu == pytest.approx(50 * 2 / 40)
    assert found.edge_mae_hu == pytest.approx(50)


def test_steepness_is_per_millimetre() -> None:
    """A step of 60 HU along y (0.5 mm) is steeper than one of 100 HU along z (2 mm)."""
    original = np.zeros((8, 24, 40), dtype=np.float32)
    original[:, 12:] += 60
    original[:, :, 20:] += 100
    reconstruction = original.copy()
    reconstruction[:, 11:13] += 40
    assert score(original, reconstruction).edge_mae_hu == pytest.approx(40)


def test_a_flat_scan_has_no_edges() -> None:
    flat = np.zeros((8, 9, 10), dtype=np.float32)
    assert score(flat, flat).edge_mae_hu == 0
    assert score(flat, flat).as_json()["high_frequency_ratio"] is None


def test_power_goes_with_the_square_and_smoothing_takes_it_away() -> None:
    assert score(noise(), 2 * noise()).high_frequency_ratio == pytest.approx(4, rel=1e-4)
    ratios = [score(noise(), ndimage.gaussian_filter(noise(), s)).high_frequency_ratio for s in (0.5, 1.0, 2.0)]
    assert 1 > ratios[0] > ratios[1] > ratios[2] >= 0
    similarities = [score(noise(), ndimage.gaussian_filter(noise(), s)).ssim for s in (0.5, 1.0, 2.0)]
    assert 1 > similarities[0] > similarities[1] > similarities[2]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_the_nyquist_frequency_divides_low_from_high(axis: int) -> None:
    """Waves just below and just above a quarter of a cycle a voxel, not periodic in the volume."""
    position = np.indices((40, 44, 48))[axis]
    powers = [high_frequency_power(np.cos(2 * np.pi * f * position).astype(np.float32)) for f in (0.17, 0.33)]
    assert powers[0] < 1e-3 * powers[1]


def test_a_jump_between_opposite_borders_is_no_detail() -> None:
    ramp = np.linspace(-500, 500, 48, dtype=np.float32)[:, None, None] * np.ones((1, 44, 40), dtype=np.float32)
    rough = np.random.default_rng(0).normal(0, 10, ramp.shape).astype(np.float32)
    assert high_frequency_power(ramp) < 0.01 * high_frequency_power(rough)


@pytest.mark.parametrize("shape", [(16, 20, 24), (17, 21, 22), (3, 9, 5)])
def test_trilinear_sampling_keeps_what_is_flat_and_what_is_straight(shape: tuple[int, int, int]) -> None:
    flat = np.full(shape, 37.0, dtype=np.float32)
    np.testing.assert_allclose(trilinear_down_and_up(flat, 4), flat)
    straight = sum(slope * axis for slope, axis in zip((3, -2, 5), np.indices(shape), strict=True)).astype(np.float32)
    found = trilinear_down_and_up(straight, 4)
    assert found.shape == shape
    inside = tuple(slice(4, n - 7) for n in shape)
    np.testing.assert_allclose(found[inside], straight[inside], rtol=1e-5, atol=1e-3)


def test_trilinear_sampling_smooths() -> None:
    sampled = trilinear_down_and_up(noise(), 4)
    assert sampled.std() < 0.5 * noise().std()
    assert np.abs(sampled - noise()).mean() > 10


def test_means_are_over_scans() -> None:
    scores = [score(noise(), noise() + shift) for shift in (10, 30)]
    mean = mean_score(scores)
    assert mean.mae_hu == pytest.approx(20, rel=1e-4)
    assert mean.psnr_db == pytest.approx((scores[0].psnr_db + scores[1].psnr_db) / 2)
    with pytest.raises(ValueError, match="reconstruction: expected at least one scan; found none"):
        mean_score([])


def test_code_usage_by_hand() -> None:
    assert code_usage(np.array([5, 0, 5, 5, 0, 5])) == pytest.approx((4 / 6, 4.0))
    assert code_usage(np.array([0, 9])) == pytest.approx((0.5, 1.0))
    share, perplexity = code_usage(np.array([3, 1]))
    assert (share, perplexity) == pytest.approx((1.0, np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))))


def shifted(case: CachedCase, shift: float) -> Reconstruction:
    """A scan that came back brighter."""
    original = case.image.astype(np.float32).clip(-200, 800)
    return Reconstruction(case, original, original + np.float32(shift), np.array([4, 0, abs(int(shift)), 0]))


def test_a_row_sums_up_its_scans_and_keeps_slices_through_lesions(tiny_cases: list[CachedCase]) -> None:
    row = reconstruction_row(
        [shifted(case, 4.0 + 4 * index) for index, case in enumerate(tiny_cases)],
        dataset="tiny",
        model="shifting",
        downsampling=4,
        window_hu=(-200.0, 800.0),
        spacing_mm=(1.0, 1.0, 1.5),
    )
    assert row.autoencoder.mae_hu == pytest.approx(10, rel=1e-3)
    assert row.trilinear.mae_hu > 10
    assert (row.codes_used, row.perplexity) == (0.5, pytest.approx(code_usage(np.array([16, 40]))[1]))
    assert [shown.case for shown in row.slices] == ["tiny_0", "tiny_1", "tiny_2"]
    for shown, case in zip(row.slices, tiny_cases, strict=False):
        largest = max(case.lesions, key=lambda lesion: lesion.num_voxels)
        z = largest.center_voxel[2]
        np.testing.assert_array_equal(shown.original, np.clip(case.image[:, :, z], -200, 800))
    entry = row.as_json()
    assert entry["num_cases"] == 4
    assert isinstance(entry["cases"], dict) and list(entry["cases"]) == [case.name for case in tiny_cases]
    with pytest.raises(ValueError, match="tiny: expected at least one scan to reconstruct; found none"):
        reconstruction_row(
            [], dataset="tiny", model="m", downsampling=4, window_hu=(-200.0, 800.0), spacing_mm=(1.0, 1.0, 1.5)
        )


def test_the_picture_has_a_row_a_scan_and_a_column_a_model(tiny_cases: list[CachedCase], tmp_path: Path) -> None:
    rows = [
        reconstruction_row(
            [shifted(case, shift) for case in tiny_cases[:2]],
            dataset="data/tiny",
            model=f"runs/{model}/autoencoder",
            downsampling=4,
            window_hu=(-200.0, 800.0),
            spacing_mm=(1.0, 1.0, 1.5),
        )
        for model, shift in (("dim", -30.0), ("bright", 30.0))
    ]
    figure = reconstruction_figure(rows)
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert len(panels) == 2 * 7
    assert [axes.get_title() for axes in panels[:3]] == ["scan", "dim/autoencoder", "bright/autoencoder"]
    shown = [axes.images[0].get_array() for axes in panels[:7]]
    np.testing.assert_allclose(shown[4], -30, atol=1e-3)
    np.testing.assert_allclose(shown[5], 30, atol=1e-3)
    np.testing.assert_array_equal(shown[0], rows[0].slices[0].original.T[::-1, ::-1])
    assert "tiny\ntiny_1" in panels[7].get_ylabel()
    assert save_figure(figure, tmp_path / "shown.png").stat().st_size > 10_000
