"""Records of figures are strict about what they hold."""

import pytest
from pydantic import ValidationError

from promptlesion.evaluation.results import Estimate


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Estimate.model_validate({"value": 0.5, "colour": "blue"})


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Estimate(value=float("nan"))
