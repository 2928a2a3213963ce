"""Offline features: what they see of a lesion, and that both distances grow with what is wrong."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from tests.evaluation.lesion_makers import worse

from promptlesion.data.intensity import HUWindow
from promptlesion.evaluation.distances import (
    fidelity_rows,
    frechet_distance,
    kernel_distance,
)
from promptlesion.evaluation.features import (
    FeatureExtractor,
    ImageNetSliceFeatures,
    lesion_slices,
    masked_intensity,
)
from promptlesion.evaluation.lesions import LesionCrop

WINDOW = HUWindow(-200.0, 1300.0)
Ball = Callable[[int], LesionCrop]


@pytest.fixture(scope="module")
def extractor() -> ImageNetSliceFeatures:
    return ImageNetSliceFeatures(window=WINDOW, slices_per_axis=3, side_pixels=64)


def test_extractor_keeps_the_protocol(extractor: ImageNetSliceFeatures, make_ball: Ball) -> None:
    assert isinstance(extractor, FeatureExtractor)
    features = extractor([make_ball(0), make_ball(1)])
    assert features.shape == (2, extractor.dimension) == (2, 112)
    assert extractor([]).shape == (0, 112)


def test_what_lies_outside_the_mask_does_not_matter(extractor: ImageNetSliceFeatures, make_ball: Ball) -> None:
    ball = make_ball(0)
    elsewhere = replace(ball, hu=np.where(ball.mask, ball.hu, np.float32(1000)))
    np.testing.assert_array_equal(extractor([ball]), extractor([elsewhere]))


def test_company_does_not_matter(extractor: ImageNetSliceFeatures, make_ball: Ball) -> None:
    balls = [make_ball(seed) for seed in range(3)]
    np.testing.assert_array_equal(extractor(balls)[2], extractor(balls[2:])[0])


def test_slices_hold_the_lesion_and_their_number_is_bounded(make_ball: Ball) -> None:
    ball = make_ball(0)
    masked = masked_intensity(ball, WINDOW)
    assert masked[~ball.mask].max() == -1 and masked.min() >= -1
    for axis, sides in enumerate(((36, 30), (40, 30), (40, 36))):
        slices = lesion_slices(masked, ball, axis, 5)
        assert slices.shape == (5, *sides)
        assert (slices > -1).any(axis=(1, 2)).all()
    single = replace(ball, mask=ball.mask & (np.arange(40) == 20)[:, None, None])
    assert len(lesion_slices(masked, single, 0, 5)) == 1


@pytest.mark.parametrize("change", ["shift", "noise", "blur", "missing"])
def test_distances_grow_with_what_is_wrong(change: str, extractor: ImageNetSliceFeatures, make_ball: Ball) -> None:
    real = extractor([make_ball(seed) for seed in range(16)])
    others = [make_ball(seed) for seed in range(100, 116)]
    for distance in (frechet_distance, kernel_distance):
        values = [
            distance(real, extractor([worse(ball, change, strength, i) for i, ball in enumerate(others)]))
            for strength in (0.0, 1.0, 2.0)
        ]
        assert values[0] < values[1] < values[2]


def test_a_row_states_what_it_depends_on(extractor: ImageNetSliceFeatures, make_ball: Ball) -> None:
    balls = [make_ball(seed) for seed in range(5)]
    (row,) = fidelity_rows(extractor, {"hard": balls}, {"hard": balls[:4]}, seed=0, num_resamples=20)
    assert (row.num_real, row.num_synthetic, row.dimension) == (5, 4, 112)
    assert "EfficientNet-lite0" in row.network and "stage 4" in row.layer
    assert row.fid.low is not None and row.kid.high is not None
    (alone,) = fidelity_rows(extractor, {"hard": balls}, {"hard": balls[:1]}, seed=0)
    assert alone.fid.value is None and alone.kid.value is None and alone.num_synthetic == 1


def test_rows_cover_the_types_that_both_sides_have(extractor: ImageNetSliceFeatures, make_ball: Ball) -> None:
    balls = [make_ball(seed) for seed in range(3)]
    rows = fidelity_rows(
        extractor, {"hard": balls, "soft": balls}, {"hard": balls, "soft": []}, seed=0, num_resamples=5
    )
    assert [(row.lesion_type, row.compared) for row in rows] == [("hard", "real against synthetic")]
    assert rows[0].fid.value == pytest.approx(0, abs=1e-6)
