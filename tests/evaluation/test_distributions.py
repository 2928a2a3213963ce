"""Distributions of real and synthetic lesions: shifted by what was changed, and by nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from tests.evaluation.lesion_makers import textured

from promptlesion.evaluation.distributions import (
    DistributionRow,
    distribution_figure,
    distribution_rows,
    lesion_measures,
)
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.lesions import LesionCrop

MEASURES = {"mean_hu", "std_hu", "texture_hu", "grain", "diameter_mm"}


@pytest.fixture(scope="module")
def real() -> list[LesionCrop]:
    return [textured(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def strangers() -> list[LesionCrop]:
    return [textured(seed) for seed in range(100, 112)]


def _rows(real: list[LesionCrop], synthetic: list[LesionCrop]) -> dict[str, DistributionRow]:
    return {row.measure: row for row in distribution_rows({"tumor": real}, {"tumor": synthetic})}


def test_a_side_against_itself(real: list[LesionCrop]) -> None:
    rows = _rows(real, real)
    assert set(rows) == MEASURES
    for row in rows.values():
        assert (row.wasserstein, row.ks_p_value) == (0, 1)
        assert (row.real_mean, row.real_std) == (row.synthetic_mean, row.synthetic_std)
        assert row.num_real == row.num_synthetic == 12


def test_strangers_of_one_kind_do_not_differ(real: list[LesionCrop], strangers: list[LesionCrop]) -> None:
    assert all(row.ks_p_value > 0.01 for row in _rows(real, strangers).values())


def test_a_shift_moves_the_mean_by_itself_alone(real: list[LesionCrop], strangers: list[LesionCrop]) -> None:
    shifted = [replace(lesion, hu=lesion.hu + np.float32(60)) for lesion in strangers]
    before, after = _rows(real, strangers), _rows(real, shifted)
    assert after["mean_hu"].synthetic_mean - before["mean_hu"].synthetic_mean == pytest.approx(60, abs=1e-3)
    assert after["mean_hu"].wasserstein > 40 and after["mean_hu"].ks_p_value < 0.001
    for measure in MEASURES - {"mean_hu"}:
        assert after[measure].wasserstein == pytest.approx(before[measure].wasserstein, abs=1e-3)


def test_blur_takes_texture_and_makes_coarser_grain(real: list[LesionCrop], strangers: list[LesionCrop]) -> None:
    blurred = [replace(lesion, hu=ndimage.gaussian_filter(lesion.hu, 1)) for lesion in strangers]
    rows = _rows(real, blurred)
    assert rows["texture_hu"].synthetic_mean < 0.7 * rows["texture_hu"].real_mean
    assert rows["grain"].synthetic_mean > rows["grain"].real_mean + 0.1
    assert rows["texture_hu"].ks_p_value < 0.01 and rows["grain"].ks_p_value < 0.01


def test_the_diameter_is_that_of_the_sphere_of_equal_volume(real: list[LesionCrop]) -> None:
    volumes = np.array([lesion.mask.sum() * 0.8 * 0.8 * 1.2 for lesion in real])
    np.testing.assert_allclose(lesion_measures(real)["diameter_mm"], np.cbrt(6 * volumes / np.pi))


def test_plaque_has_a_score_and_a_volume(real: list[LesionCrop]) -> None:
    sides = {"tumor": real, "plaque": [replace(lesion, lesion_type="plaque") for lesion in real]}
    rows = distribution_rows(sides, sides, plaque_types=("plaque",))
    assert {row.measure for row in rows if row.lesion_type == "tumor"} == MEASURES
    assert {row.measure for row in rows if row.lesion_type == "plaque"} == MEASURES | {"agatston", "volume_mm3"}


def test_what_is_missing_has_no_row(real: list[LesionCrop]) -> None:
    assert distribution_rows({"tumor": real, "cyst": []}, {"tumor": []}) == ()
    mask = np.zeros_like(real[0].mask)
    mask[10, 10, 8] = True
    rows = distribution_rows({"tumor": real}, {"tumor": [replace(real[0], mask=mask)]})
    assert {row.measure for row in rows} == {"mean_hu", "std_hu", "diameter_mm"}


def test_the_figure_has_a_panel_for_each_measure_and_type(
    real: list[LesionCrop], strangers: list[LesionCrop], tmp_path: Path
) -> None:
    sides = {"tumor": real, "plaque": real[:6], "cyst": []}
    painted = {
        "promptlesion-onehot": {"tumor": strangers, "plaque": strangers[:4]},
        "difftumor": {"tumor": strangers[:1]},
    }
    figure = distribution_figure(sides, painted, plaque_types=("plaque",))
    assert len(figure.axes) == 7 * 2
    assert sum(axes.axison for axes in figure.axes) == 12
    for name in ("one.png", "two.png"):
        save_figure(distribution_figure({"tumor": real}, painted), tmp_path / name, dots_per_inch=60)
    with Image.open(tmp_path / "one.png") as picture:
        assert min(picture.size) > 100
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with pytest.raises(ValueError, match="expected real lesions; found none"):
        distribution_figure({"tumor": []}, {})
