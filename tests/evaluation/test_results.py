"""The results file: written whole, read back equal, and strict about what it holds."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from promptlesion.evaluation.results import DemoResults, read_results, write_results


def test_round_trip(results: DemoResults, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    write_results(results, path)
    assert read_results(path) == results
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_unknown_keys_and_types_are_refused(results: DemoResults) -> None:
    content = results.model_dump(mode="json")
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        DemoResults.model_validate({**content, "colour": "blue"})
    content["segmentation"][0]["lesion_type"] = "wart"
    with pytest.raises(ValidationError, match="lesion type 'wart': expected one of"):
        DemoResults.model_validate(content)


def test_not_a_number_is_refused(results: DemoResults) -> None:
    content = results.model_dump(mode="json")
    content["intensity"][0]["bias_hu"] = float("nan")
    with pytest.raises(ValidationError, match="finite"):
        DemoResults.model_validate(content)
