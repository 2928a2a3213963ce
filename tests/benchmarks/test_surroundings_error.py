"""Error around a lesion: closed forms on made-up changes."""

import numpy as np
from measure.surroundings_error import surroundings_error

SPACING_MM = (1.0, 1.0, 2.0)


def ball() -> np.ndarray:
    x, y, z = np.indices((25, 27, 15))
    return (x - 12) ** 2 + (y - 13) ** 2 + (2 * (z - 7)) ** 2 <= 9


def test_nothing_changed_is_no_error() -> None:
    hu = np.random.default_rng(0).normal(0, 50, ball().shape).astype(np.int16)
    error = surroundings_error(
        hu, hu, ball(), written=np.ones_like(ball()), spacing_mm=SPACING_MM, edge_mm=3.0, reach_mm=3.0, layer_mm=1.0
    )
    assert (error.edge_hu, error.beyond_hu, error.step_hu) == (0, 0, 0)
    assert set(error.profile_hu) == {0}


def test_rings_of_a_shift_and_of_a_change_inside_the_mask() -> None:
    mask = ball()
    before = np.zeros(mask.shape, dtype=np.int16)
    options = {"spacing_mm": SPACING_MM, "edge_mm": 3.0, "reach_mm": 3.0, "layer_mm": 1.0}
    shifted = surroundings_error(before, before - 7, mask, written=np.ones_like(mask), **options)
    # the whole box was written: its faces are where the painting ends
    assert (shifted.edge_hu, shifted.beyond_hu, shifted.step_hu) == (7, 7, 7)
    assert len(shifted.profile_hu) == 6
    inside = surroundings_error(before, np.where(mask, 500.0, 0.0), mask, written=mask, **options)
    assert (inside.edge_hu, inside.beyond_hu, inside.step_hu) == (0, 0, 500)


def test_the_profile_goes_outwards_layer_by_layer() -> None:
    mask = np.zeros((21, 21, 21), dtype=bool)
    mask[10, 10, 10] = True
    distance = np.linalg.norm(np.indices(mask.shape).T - 10, axis=-1).T
    after = np.where(mask, 0.0, 60 - 10 * np.ceil(distance - 1e-6))
    error = surroundings_error(
        np.zeros(mask.shape),
        after,
        mask,
        written=np.ones_like(mask),
        spacing_mm=(0.5, 0.5, 0.5),
        edge_mm=1.0,
        reach_mm=1.5,
        layer_mm=0.5,
    )
    assert error.profile_hu == (50, 40, 30, 20, 10)
    assert error.edge_hu == after[(distance > 0) & (distance < 2)].mean()
    assert error.beyond_hu == after[(distance >= 2) & (distance < 5)].mean()


def test_a_box_without_a_ring_says_so() -> None:
    mask = np.ones((2, 3, 4), dtype=bool)
    error = surroundings_error(
        np.zeros(mask.shape),
        np.zeros(mask.shape),
        mask,
        written=mask,
        spacing_mm=SPACING_MM,
        edge_mm=2.0,
        reach_mm=1.0,
        layer_mm=1.0,
    )
    assert error.edge_hu is None
    assert error.beyond_hu is None


def test_a_spacing_that_is_not_quite_round_changes_nothing() -> None:
    mask = ball()
    after = np.random.default_rng(0).normal(0, 50, mask.shape)
    errors = [
        surroundings_error(
            np.zeros(mask.shape),
            after,
            mask,
            written=mask,
            spacing_mm=(side, side, 2 * side),
            edge_mm=1.8,
            reach_mm=1.8,
            layer_mm=0.6,
        )
        for side in (0.6, float(np.float32(0.6)), 0.6 - 2e-8)
    ]
    assert errors[0] == errors[1] == errors[2]
