"""The report: self-contained, honest in words, and rendered from the results alone."""

import base64
import re
from pathlib import Path

import pytest

from promptlesion.evaluation.report import FIGURES, summary_sentences, write_report
from promptlesion.evaluation.results import DemoResults, Estimate
from promptlesion.evaluation.wording import duration_text, estimate_text

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def html(results: DemoResults, tmp_path: Path) -> str:
    pictures = {name: tmp_path / f"{name}.png" for name in FIGURES}
    for path in pictures.values():
        path.write_bytes(PIXEL)
    path = write_report(tmp_path, results, pictures)
    assert path == tmp_path / "report.html"
    return path.read_text(encoding="utf-8")


def test_it_needs_nothing_from_outside(html: str) -> None:
    references = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", html)
    assert len(references) == len(FIGURES)
    assert all(reference.startswith("data:image/png;base64,") for reference in references)
    assert "<script" not in html and "http" not in html and "@import" not in html


def test_pictures_are_embedded_whole(html: str) -> None:
    embedded = re.findall(r"data:image/png;base64,([^\"]+)", html)
    assert [base64.b64decode(content) for content in embedded] == [PIXEL] * len(FIGURES)


def test_every_section_and_figure_of_the_results_is_there(html: str, results: DemoResults) -> None:
    for text in (
        "0.500 [0.400, 0.600]",
        "+0.080 [+0.020, +0.150]",
        "1.250 [0.900, 1.600]",
        "20 / 28",
        "EfficientNet-lite0, ImageNet",
        "2 min 05 s",
        "diffusion.num_steps",
        "Phantom only.",
        "torch 2.13.0",
        "promptlesion demo --out runs/demo",
        "CPU &lt;test&gt;",
        "1 (real only) and 0 (real + synthetic) of 2",
    ):
        assert text in html, text
    assert (html.count(">holds<"), html.count(">broken<")) == (3, 1)
    for name in results.dataset.lesion_types:
        assert name.replace("_", " ") in html


def test_it_renders_without_pictures_and_without_optional_parts(results: DemoResults, tmp_path: Path) -> None:
    bare = results.model_copy(
        update={
            "prompt_switch": (),
            "fidelity": (),
            "case_scores": (),
            "false_positives": (),
            "segmentation": (),
        }
    )
    html = write_report(tmp_path, bare, {}).read_text(encoding="utf-8")
    assert "<img" not in html and "Not measured in this run" in html and "was not measured" in html


def test_unknown_picture_is_named(results: DemoResults, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"figures: expected names out of .*, got \['selfie'\]"):
        write_report(tmp_path, results, {"selfie": tmp_path / "selfie.png"})


def test_summary_says_what_the_interval_says(results: DemoResults) -> None:
    helped, unclear = summary_sentences(results.segmentation, 0.95)
    assert helped.startswith("Hard plaque: ") and helped.endswith("4 held-out subjects): it helped in this run.")
    assert "does not show that it helps or harms" in unclear
    row = results.segmentation[0]
    worse = row.model_copy(update={"difference": Estimate(value=-0.1, low=-0.2, high=-0.05)})
    assert summary_sentences([worse], 0.95)[0].endswith("it did harm in this run.")
    single = row.model_copy(update={"num_subjects": 1, "difference": Estimate(value=0.3)})
    assert "one subject cannot show" in summary_sentences([single], 0.95)[0]


def test_words_for_figures() -> None:
    assert [duration_text(seconds) for seconds in (4.25, 59.0, 61.0, 3900.0)] == [
        "4.2 s",
        "59 s",
        "1 min 01 s",
        "1 h 05 min",
    ]
    assert estimate_text(Estimate(value=None)) == "–"
    assert estimate_text(Estimate(value=0.25)) == "0.250"
    assert estimate_text(Estimate(value=0.000012, low=-1.0, high=0.0)) == "1.2e-05 [-1.000, 0.000]"
