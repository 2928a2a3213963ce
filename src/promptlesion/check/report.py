"""What the check leaves behind: `check.json` for programs, and one self-contained `check.html` to look at."""

import base64
import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from promptlesion.check.charts import hu_figure, size_figure
from promptlesion.check.dataset_check import DatasetCheck
from promptlesion.check.facts import CaseFacts
from promptlesion.check.finding import SEVERITIES, Finding, by_kind, worst
from promptlesion.cost.estimate import gib
from promptlesion.evaluation.palette import label_colors
from promptlesion.evaluation.wording import duration_text, readable
from promptlesion.training.atomic import write_json, write_text
from promptlesion.training.locks import alone_in

JSON_FILE = "check.json"
_DOTS_PER_INCH = 130


def write_check(check: DatasetCheck) -> Path:
    """Write `check.json` and `check.html` into the check's folder and return the path of the latter."""
    with alone_in(check.out):
        write_json(check.out / JSON_FILE, check_as_json(check))
        write_text(check.report_path, _html(check))
    return check.report_path


def check_as_json(check: DatasetCheck) -> dict[str, object]:
    """Return everything found and measured, in JSON types."""
    return {
        "promptlesion": version("promptlesion"),
        "dataset": str(check.root),
        "lesions_toml": str(check.spec_path),
        "lesions_toml_is_draft": check.is_spec_drafted,
        "labels": dict(check.labels),
        "counts": check.counts,
        "findings": [asdict(finding) for finding in check.findings],
        "network_grid": {
            **asdict(check.grid),
            "latent_voxel_mm": list(check.grid.latent_mm),
            "largest_lesion_mm": check.grid.largest_extent_mm,
        },
        "lesion_types": [
            {
                "name": facts.name,
                "label": facts.label,
                "num_lesions": facts.num_lesions,
                "num_cases": facts.num_cases,
                "num_under_latent_voxel": facts.num_under_latent_voxel,
                "share_outside_window": facts.share_outside_window,
                "host": list(facts.hosts),
                "num_host_cases": facts.num_host_cases,
                "median_host_ml": facts.host_ml,
            }
            for facts in check.types
        ],
        "stages": [asdict(stage) for stage in check.stages],
        "machine": {
            "name": check.machine.name,
            "device": str(check.machine.device),
            "device_bytes": check.machine.device_bytes,
            "host_bytes": check.machine.host_bytes,
            "free_disk_bytes": check.machine.free_disk_bytes,
        },
        "cases": [_case_as_json(case, check) for case in check.cases],
    }


def _case_as_json(case: CaseFacts, check: DatasetCheck) -> dict[str, object]:
    names = {value: name for name, value in check.labels.items()}
    edge = check.grid.latent_edge_mm
    return {
        "case": case.name,
        "shape_voxels": list(case.shape) if case.shape else None,
        "spacing_mm": list(case.spacing_mm) if case.spacing_mm else None,
        "stored_orientation": case.axis_codes,
        "stored_type": case.stored_type,
        "tilt_degrees": case.tilt_degrees,
        "hu": asdict(case.hu) if case.hu else None,
        "labels": {
            names.get(value, str(value)): {"voxels": f.num_voxels, "volume_ml": f.volume_ml, "mean_hu": f.mean_hu}
            for value, f in case.labels.items()
            if value
        },
        "lesions": [
            {**asdict(one), "diameter_latent_voxels": one.diameter_mm / edge, "name": names.get(one.label, "")}
            for one in case.lesions
        ],
    }


def _html(check: DatasetCheck) -> str:
    environment = Environment(
        loader=PackageLoader("promptlesion.check"),
        autoescape=select_autoescape(["html.j2", "html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        readable=readable,
        duration=duration_text,
        gib=gib,
        ml=_millilitres,
        base64=lambda data: base64.b64encode(data).decode("ascii"),
    )
    colors = label_colors(check.labels, [facts.label for facts in check.types])
    by_case: dict[str, list[Finding]] = defaultdict(list)
    for finding in check.findings:
        by_case[finding.case].append(finding)
    worst_first = sorted(check.cases, key=lambda case: (_rank(by_case[case.name]), -len(by_case[case.name])))
    return environment.get_template("check.html.j2").render(
        check=check,
        version=version("promptlesion"),
        counts=check.counts,
        groups=[(code, group) for (_, code), group in by_kind(check.findings).items()],
        cases=worst_first,
        by_case=by_case,
        worst=worst,
        colors={label: to_hex(color) for label, color in colors.items()},
        names={value: name for name, value in check.labels.items()},
        structures=_structures(check),
        spacing=_spread([case.spacing_mm for case in check.cases if case.spacing_mm]),
        shape=_spread([case.shape for case in check.cases if case.shape]),
        orientations=sorted({case.axis_codes for case in check.cases if case.axis_codes}),
        pictures=_pictures(check),
        median=lambda values: float(np.median(values)),
        draft=check.spec_path.read_text(encoding="utf-8") if check.is_spec_drafted else None,
    )


def _rank(findings: list[Finding]) -> int:
    severity = worst(findings)
    return SEVERITIES.index(severity) if severity is not None else len(SEVERITIES)


def _structures(check: DatasetCheck) -> list[Mapping[str, object]]:
    """Return for every label but the background in how many cases it is, how large and how bright."""
    rows: list[Mapping[str, object]] = []
    for name, value in check.labels.items():
        found = [case.labels[value] for case in check.cases if value in case.labels]
        if value:
            volumes = [facts.volume_ml for facts in found]
            rows.append(
                {
                    "name": name,
                    "label": value,
                    "num_cases": len(found),
                    "median_ml": float(np.median(volumes)) if volumes else None,
                    "least_ml": min(volumes, default=None),
                    "most_ml": max(volumes, default=None),
                    "mean_hu": float(np.median([facts.mean_hu for facts in found])) if found else None,
                }
            )
    return rows


def _spread(triples: list[tuple[float, float, float]] | list[tuple[int, int, int]]) -> tuple[str, str]:
    """Say the median along each axis, and the range where it differs."""
    if not triples:
        return "–", ", none read"
    columns = np.array(triples, dtype=np.float64)
    text = " × ".join(f"{value:.3g}" for value in np.median(columns, axis=0))
    if (columns.min(axis=0) == columns.max(axis=0)).all():
        return text, ""
    ends = (" × ".join(f"{value:.3g}" for value in end) for end in (columns.min(axis=0), columns.max(axis=0)))
    return text, f", the median; {' to '.join(ends)}"


def _millilitres(volume: float) -> str:
    return f"{volume:.0f}" if volume >= 100 else f"{volume:.3g}"


def _pictures(check: DatasetCheck) -> dict[str, str]:
    if check.spec is None or not check.types:
        return {}
    figures = {"sizes": size_figure(check.types, check.spec, check.grid), "hu": hu_figure(check.types, check.spec)}
    return {name: _png(figure) for name, figure in figures.items()}


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")
