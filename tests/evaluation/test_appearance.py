"""How painted lesions look beside real ones: differences that are known, and the energy distance."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.evaluation.lesion_makers import textured

from promptlesion.data.lesion_appearance import UNITS
from promptlesion.evaluation.appearance import SHOWN, compare_appearance, energy_distance, profile_figure
from promptlesion.evaluation.figures import save_figure

REAL = [textured(seed) for seed in range(12)]
PAINTED = [replace(one, hu=one.hu + np.float32(50), case=f"painted_{index}") for index, one in enumerate(REAL)]


def test_brighter_lesions_differ_by_that_and_in_nothing_else() -> None:
    (found,) = compare_appearance({"tumor": REAL, "cyst": REAL}, {"tumor": PAINTED}, seed=0, num_resamples=200)
    assert (found.lesion_type, found.num_real, found.num_synthetic) == ("tumor", 12, 12)
    rows = {row.measure: row for row in found.measures}
    assert set(SHOWN) <= set(rows) <= set(UNITS)
    for name in ("mean_hu", "outer_hu", "core_hu"):
        assert rows[name].difference.value == pytest.approx(50, abs=1e-3)
    for name in ("std_hu", "contrast_hu", "edge_hu_per_mm", "noise_hu", "diameter_mm"):
        assert rows[name].difference.value == pytest.approx(0, abs=1e-3)
        assert rows[name].ratio.value == pytest.approx(1, abs=1e-4)
    low, high = rows["mean_hu"].difference.low, rows["mean_hu"].difference.high
    assert low is not None and high is not None and low < 50 < high
    halves = found.energy_distance_of_halves
    assert found.energy_distance is not None and halves.high is not None
    assert found.energy_distance > halves.high


def test_one_lesion_a_side_has_means_but_no_distance() -> None:
    (found,) = compare_appearance({"tumor": REAL[:1]}, {"tumor": PAINTED[:1]}, seed=0, num_resamples=100)
    assert found.energy_distance is None and found.energy_distance_of_halves.value is None
    assert found.measures[0].difference.value == pytest.approx(50, abs=1e-3)
    assert found.measures[0].difference.low is None


def test_what_no_lesion_of_a_side_has_is_no_row() -> None:
    bare = [replace(one, hu=np.where(one.mask, one.hu, 0), mask=np.ones_like(one.mask)) for one in REAL[:3]]
    (found,) = compare_appearance({"tumor": REAL}, {"tumor": bare}, seed=0, num_resamples=100)
    measures = {row.measure for row in found.measures}
    assert "mean_hu" in measures and not measures & {"contrast_hu", "halo_hu"}


def test_the_energy_distance_grows_with_the_shift() -> None:
    generator = np.random.default_rng(1)
    real, alike = generator.normal(size=(2, 200, 3))
    distances = [energy_distance(real, alike + shift, real) for shift in (0.0, 0.5, 1.0)]
    assert distances[0] is not None and distances[1] is not None and distances[2] is not None
    assert abs(distances[0]) < 0.03
    assert distances[0] < distances[1] < distances[2]
    # in one dimension: twice the integral of the squared difference of the distribution functions; N(0, 1), N(1, 1)
    one = energy_distance(real[:, :1], alike[:, :1] + 1, np.array([[-1.0], [1.0]]))
    assert one == pytest.approx(0.54, abs=0.2)


def test_the_profiles_are_drawn(tmp_path: Path) -> None:
    figure = profile_figure({"tumor": REAL, "cyst": []}, {"mine": {"tumor": PAINTED}})
    (axes,) = figure.axes
    real, painted = (line.get_ydata() for line in axes.lines[:2])
    np.testing.assert_allclose(np.asarray(painted) - np.asarray(real), 50, atol=1e-3)
    assert save_figure(figure, tmp_path / "profiles.png").is_file()
    with pytest.raises(ValueError, match="expected real lesions"):
        profile_figure({"tumor": []}, {})
