"""The verbs as functions: each does what the command line does, and returns what was found."""

import json
import re
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import promptlesion as pl
from promptlesion.data.dataset import Dataset, open_dataset

if TYPE_CHECKING:
    from promptlesion.config import Config

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"


def test_from_data_to_scores(tiny_data: Dataset, tiny_config: "Config", any_hu: Path, tmp_path: Path) -> None:
    data, config = tiny_data.root, tiny_config
    assert pl.open_dataset(str(data)).cases == tiny_data.cases
    common: dict[str, Any] = {"config": config, "device": "cpu", "lesions": any_hu}
    run = pl.train("diffusion", data, tmp_path / "copy-paste", method="copy-paste", **common)
    assert run.is_finished
    painted = tmp_path / "painted"
    assert pl.synthesize(data, tmp_path / "copy-paste", painted, {"bright": 2}, accept_all=True, **common).is_finished
    assert len(open_dataset(painted).cases) == 2
    assert (painted / "contact_sheet.png").is_file()
    assert pl.train("segmentation", data, tmp_path / "mixed", synthetic=painted, **common).is_finished
    (name,) = pl.segment(tmp_path / "mixed", data, tmp_path / "maps", part="test", device="cpu")
    assert (tmp_path / "maps" / f"{name}.nii.gz").is_file()
    scores = pl.evaluate(data, tmp_path / "maps", part="test", config=config, out=tmp_path / "scores.json")
    assert not scores.missing
    assert {row.lesion_type for row in scores.rows} >= {"bright", "dark"}
    written = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert [row["metric"] for row in written["rows"]] == [row.metric for row in scores.rows]
    assert len(pl.evaluate(data, {"mine": [tmp_path / "maps"]}, config=config).missing) == 3
    found = pl.evaluate_fidelity(data, painted, config=config, device="cpu", figure=tmp_path / "spread.png")
    assert {row.lesion_type for row in found.fidelity} == {"bright"}
    assert (tmp_path / "spread.png").is_file()


def test_the_autoencoder_and_what_it_keeps(
    tiny_data: Dataset, tiny_config: "Config", tiny_autoencoder_run: Path, tmp_path: Path
) -> None:
    short = tiny_config.autoencoder.model_copy(update={"num_epochs": 3, "steps_per_epoch": 1})
    config = tiny_config.model_copy(update={"autoencoder": short})
    assert pl.train("autoencoder", tiny_data.root, tmp_path / "run", config=config, seed=1, device="cpu").is_finished
    models = [tmp_path / "run", tiny_autoencoder_run]
    rows = pl.evaluate_reconstruction(
        [tiny_data.root], models, part="all", config=config, device="cpu", cache=tmp_path / "cache"
    )
    assert [row.model for row in rows] == [str(model) for model in models]
    assert all(row.as_json()["num_cases"] == 4 for row in rows)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda data, out: pl.train("stage 2", data, out), "stage: expected autoencoder, diffusion, segm"),
        (
            lambda data, out: pl.train("autoencoder", data, out, method="difftumor"),
            "method: expected with the stage",
        ),
        (lambda data, out: pl.train("diffusion", data, out, synthetic=data), "synthetic: expected with the stage segm"),
        (
            lambda data, out: pl.train("diffusion", data, out, types=["dark"]),
            "--type: expected with --method",
        ),
        (lambda data, out: pl.train("diffusion", data, out), "--autoencoder: expected a finished run of stage 1"),
        (lambda data, out: pl.check_dataset(data, config="large"), "--preset: expected one of .* found 'large'"),
        (lambda data, out: pl.evaluate(data, out, part="some"), "part: expected all or test; found 'some'"),
        (lambda data, out: pl.evaluate(data, {}), "predictions: expected a folder"),
        (lambda data, out: pl.evaluate(data, {"a": [out]}, reference="b"), "--reference b: expected a name"),
        (lambda data, out: pl.experiment(data, out, pl.Question(methods="copy-paste")), "--methods: expected real"),
    ],
)
def test_what_does_not_fit_is_refused(tiny_data: Dataset, tmp_path: Path, call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(tiny_data.root, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("run.json"))


def test_the_calls_of_the_document_are_ones_that_the_functions_take() -> None:
    calls = re.findall(r"pl\.(\w+)\((.*)\)$", DOCUMENT.read_text(encoding="utf-8"), flags=re.M)
    assert len(calls) > 12
    for name, arguments in calls:
        function = getattr(pl, name)
        bound: Any = eval(f"lambda bind, model=0, scan=0, labels=0: bind({arguments})")
        bound(signature(function).bind)
