"""The report: self-contained, and rendered from the results alone."""

import base64
import re
from pathlib import Path

import pytest
from tests.experiment.made_up import case_scores, fidelity, results

from promptlesion.experiment.report import CAPTIONS, as_html
from promptlesion.experiment.tables import all_tables

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
MEASURED = ("distributions-promptlesion", "hu_histogram-promptlesion")
FULL = results(
    case_scores=case_scores(),
    fidelity=(fidelity(),),
    machine="2 cores, CPU <test>",
    versions={"torch": "2.13.0"},
    configuration={"diffusion": {"num_steps": 400}, "seed": 0},
    limits=("Phantom only.",),
)


@pytest.fixture
def html(tmp_path: Path) -> str:
    pictures = {name: tmp_path / f"{name}.png" for name in (*CAPTIONS, *MEASURED)}
    for path in pictures.values():
        path.write_bytes(PIXEL)
    return as_html(FULL, all_tables(FULL), pictures)


def test_it_needs_nothing_from_outside(html: str) -> None:
    references = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", html)
    assert len(references) == len(CAPTIONS) + len(MEASURED)
    assert all(reference.startswith("data:image/png;base64,") for reference in references)
    assert "<script" not in html and "http" not in html and "@import" not in html


def test_pictures_are_embedded_whole(html: str) -> None:
    embedded = re.findall(r"data:image/png;base64,([^\"]+)", html)
    assert [base64.b64decode(content) for content in embedded] == [PIXEL] * (len(CAPTIONS) + len(MEASURED))


def test_every_section_and_figure_of_the_results_is_there(html: str) -> None:
    for text in (
        "0.600 [0.500, 0.700]",
        "+0.100 [+0.020, +0.180] (p 0.040)",
        "1.25 [0.90, 1.60]",
        "20/28",
        "EfficientNet-lite0, ImageNet",
        "8-subjects/copy-paste",
        "2.0 s of work",
        "diffusion.num_steps",
        "Phantom only.",
        "torch 2.13.0",
        "promptlesion experiment",
        "CPU &lt;test&gt;",
        "0 of 1",
        "liver tumor 1.000",
    ):
        assert text in html, text
    assert (html.count(">holds<"), html.count(">broken<")) == (4, 1)


def test_it_renders_without_pictures_and_without_optional_parts() -> None:
    bare = results(comparisons=())
    html = as_html(bare, all_tables(bare), {})
    assert "<img" not in html and "Nothing could be compared" in html
    unswitched = results(fidelity=(fidelity().model_copy(update={"prompt_switch": None}),))
    assert "Not measured in this run" in as_html(unswitched, all_tables(unswitched), {})
