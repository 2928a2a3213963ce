"""The bias of a type, its interval and its tolerance."""

import pytest
from measure.type_bias import type_bias


def test_bias_of_a_type_with_its_interval_and_another_tolerance() -> None:
    real, subjects = [600.0, 620.0, 580.0, 600.0], ["a", "a", "b", "c"]
    options = {"relative_tolerance": 0.1, "absolute_tolerance_hu": 15.0, "seed": 0}
    bias = type_bias(
        "hard",
        "repainted",
        real_hu=real,
        real_subjects=subjects,
        compared_hu=[value + 59 for value in real],
        compared_subjects=subjects,
        **options,
    )
    assert (bias.num_real, bias.num_compared, bias.tolerance_hu) == (4, 4, 60)
    assert (bias.bias.value, bias.bias.low, bias.bias.high) == pytest.approx((59, 59, 59))
    assert bias.is_within_tolerance
    with pytest.raises(ValueError, match="soft, placed: expected lesions on both sides"):
        type_bias(
            "soft", "placed", real_hu=real, real_subjects=subjects, compared_hu=[], compared_subjects=[], **options
        )
