"""The search for copies: planted ones are found and named, strangers are not, at the rate that is promised."""

from dataclasses import replace

import numpy as np
import pytest
from tests.evaluation.lesion_makers import copied, textured

from promptlesion.evaluation.distance_calibration import fit_copy_threshold
from promptlesion.evaluation.lesions import LesionCrop
from promptlesion.evaluation.memorisation import find_copies

COPIES = ("moved", "flipped", "turned", "noised", "blurred", "brighter", "clipped", "in other surroundings")


@pytest.fixture(scope="module")
def training() -> list[LesionCrop]:
    return [textured(seed) for seed in range(12)]


def test_planted_copies_are_found_and_named(training: list[LesionCrop]) -> None:
    planted = [copied(training[index], how, seed=index) for index, how in enumerate(COPIES)]
    honest = [textured(seed) for seed in range(100, 106)]
    found = find_copies([*honest, *planted], training)
    assert {(row.case, row.nearest_case) for row in found.copies} == {
        (f"synthetic_{how}", f"case_{index}") for index, how in enumerate(COPIES)
    }
    assert [row.distance for row in found.copies] == sorted(row.distance for row in found.copies)
    exact = next(row for row in found.copies if row.case == "synthetic_moved")
    assert exact.distance == pytest.approx(0, abs=1e-5)
    middle = np.argwhere(training[0].mask).mean(axis=0).round().astype(int)
    assert exact.center_voxel == tuple(middle + np.array([50, 60, 70]))
    assert exact.nearest_center_voxel == tuple(middle + np.array([0, 0, 3]))
    assert [row.case for row in found.synthetic] == [lesion.case for lesion in [*honest, *planted]]


def test_honest_lesions_lie_as_far_as_real_ones_do(training: list[LesionCrop]) -> None:
    found = find_copies([textured(seed) for seed in range(200, 212)], training)
    assert not found.copies
    assert len(found.real) == 12 and not any(row.is_copy for row in found.real)
    medians = [np.median([row.distance for row in rows]) for rows in (found.synthetic, found.real)]
    assert medians[0] == pytest.approx(medians[1], abs=0.1)


def test_a_lesion_of_the_own_subject_is_no_stranger(training: list[LesionCrop]) -> None:
    twin = replace(copied(training[0], "moved"), subject=training[0].subject)
    found = find_copies([], [*training, twin])
    assert not any(row.is_copy for row in found.real)
    assert all(row.subject != training[0].subject or row.distance > 0.2 for row in found.real)


def test_one_lesion_under_two_names_does_not_hide_the_copies(training: list[LesionCrop]) -> None:
    found = find_copies([copied(training[5], "noised")], [*training, copied(training[3], "moved")])
    assert [row.nearest_case for row in found.copies] == ["case_5"]
    assert {row.case for row in found.real if row.is_copy} == {"case_3", "synthetic_moved"}


def test_types_are_compared_apart(training: list[LesionCrop]) -> None:
    other = replace(copied(training[0], "moved"), lesion_type="cyst")
    found = find_copies([other, copied(training[1], "moved")], training)
    assert [row.lesion_type for row in found.synthetic] == ["tumor"]
    assert found.num_without_training == 1


def test_progress_ends_at_the_total(training: list[LesionCrop]) -> None:
    counts: list[tuple[int, int]] = []
    find_copies([training[0]], training[:3], on_progress=lambda done, total: counts.append((done, total)))
    assert counts == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_few_lesions_leave_exact_copies_only(training: list[LesionCrop]) -> None:
    found = find_copies([copied(training[0], "moved"), textured(300)], training[:2])
    assert [(row.is_copy, row.threshold) for row in found.synthetic] == [(True, 0.05), (False, 0.05)]


def test_a_speck_is_never_called_a_copy(training: list[LesionCrop]) -> None:
    mask = np.zeros_like(training[0].mask)
    mask[10, 10, 8] = True
    found = find_copies([replace(training[0], mask=mask)], training)
    assert found.synthetic[0].distance == 1 and not found.copies


@pytest.mark.parametrize("num_lesions", [8, 40])
def test_the_false_alarm_rate_is_kept(num_lesions: int) -> None:
    """Distances of strangers drawn from the model: normal in artanh, nearer for small lesions."""
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        voxels = np.exp(generator.uniform(4, 8, num_lesions + 25)).astype(int)
        scores = 1.3 - 0.05 * (np.log(voxels) - 6) + generator.normal(0, 0.05, len(voxels))
        distances = 1 - np.tanh(scores)
        fit = fit_copy_threshold(
            [float(d) for d in distances[25:]], [int(n) for n in voxels[25:]], false_alarm_rate=0.01
        )
        alarms += sum(float(d) < fit.at(int(n)) for d, n in zip(distances[:25], voxels[:25], strict=True))
    assert alarms / 10_000 == pytest.approx(0.01, abs=0.005)


def test_the_threshold_follows_the_size() -> None:
    generator = np.random.default_rng(1)
    voxels = [int(n) for n in np.exp(generator.uniform(4, 8, 60))]
    distances = [float(1 - np.tanh(1.0 - 0.1 * (np.log(n) - 6) + generator.normal(0, 0.02))) for n in voxels]
    fit = fit_copy_threshold(distances, voxels, false_alarm_rate=0.001)
    assert fit.at(60) < fit.at(400) < fit.at(3000)
    assert fit.at(100_000_000) <= 1 - np.sqrt(0.5)


def test_errors() -> None:
    with pytest.raises(ValueError, match="expected training lesions to compare with; found none"):
        find_copies([textured(0)], [])
    with pytest.raises(ValueError, match=r"false_alarm_rate: expected a share between 0 and 0\.5, found 0\.7"):
        find_copies([], [textured(0)], false_alarm_rate=0.7)
