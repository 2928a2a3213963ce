"""The report: one self-contained HTML file, rendered from the results and the pictures alone."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from promptlesion.evaluation.palette import lesion_colors
from promptlesion.evaluation.results import DemoResults, SegmentationRow
from promptlesion.evaluation.wording import duration_text, estimate_text, hu_text, readable, signed_text
from promptlesion.training.atomic import write_text

FIGURES = {
    "montage": "Figure 1. Healthy scans, their labels, the scans with synthetic lesions, and their masks. "
    "The lesions are taken from the larger half of each type, evenly spread.",
    "overview": "A whole axial slice before and after, and every voxel that changed.",
    "dice": "Dice of each held-out subject; diamonds are means, bars their bootstrap intervals.",
    "hu_histogram": "HU of all voxels inside real and synthetic lesions; dashed: the means.",
    "training_curves": "What each stage logged while it trained; dark lines are running means.",
}
"""The pictures a report has room for, by the names `write_report` expects them under, with their captions."""


def write_report(out: Path, results: DemoResults, figures: Mapping[str, Path]) -> Path:
    """Write `out`/report.html with the PNG files `figures` embedded; names as in `FIGURES`, all optional."""
    unknown = sorted(set(figures) - set(FIGURES))
    if unknown:
        raise ValueError(f"figures: expected names out of {sorted(FIGURES)}, got {unknown}")
    environment = Environment(
        loader=PackageLoader("promptlesion.evaluation"),
        autoescape=select_autoescape(["html.j2", "html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        readable=readable, estimate=estimate_text, signed=signed_text, duration=duration_text, hu=hu_text
    )
    html = environment.get_template("report.html.j2").render(
        results=results,
        summary=summary_sentences(results.segmentation, results.interval_level),
        colors=lesion_colors(results.dataset.lesion_types),
        configuration=list(flattened(results.configuration)),
        pictures={name: base64.b64encode(path.read_bytes()).decode("ascii") for name, path in figures.items()},
        captions=FIGURES,
        total_seconds=sum(stage.seconds for stage in results.stages),
    )
    path = out / "report.html"
    write_text(path, html)
    return path


def summary_sentences(rows: Sequence[SegmentationRow], level: float) -> list[str]:
    """Say in plain words, per lesion type, whether the synthetic lesions helped, by Dice and its interval."""
    sentences = []
    for row in rows:
        difference = row.difference
        if row.metric != "Dice" or row.real.value is None or row.mixed.value is None or difference.value is None:
            continue
        start = (
            f"{readable(row.lesion_type).capitalize()}: training with synthetic lesions changed the mean "
            f"Dice from {row.real.value:.3f} to {row.mixed.value:.3f}"
        )
        interval = "one subject only, so no interval"
        verdict = "one subject cannot show whether it helps"
        if difference.low is not None and difference.high is not None:
            interval = f"{level:.0%} interval {difference.low:+.3f} to {difference.high:+.3f}"
            if difference.low > 0:
                verdict = "it helped in this run"
            elif difference.high < 0:
                verdict = "it did harm in this run"
            else:
                verdict = "this run does not show that it helps or harms, for the interval includes zero"
        num_subjects = f"{row.num_subjects} held-out subject{'s' if row.num_subjects != 1 else ''}"
        sentences.append(f"{start} ({difference.value:+.3f}, {interval}, {num_subjects}): {verdict}.")
    return sentences or ["No held-out subject has a lesion, so whether synthetic lesions help was not measured."]


def flattened(configuration: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Walk through a nested configuration as `diffusion.num_steps`, `400`."""
    for name, value in configuration.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
