"""A `lesions.toml` to start from, each value with what it was measured from."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from promptlesion.check.facts import CaseFacts, LesionFacts
from promptlesion.check.finding import in_mm
from promptlesion.check.intensity import HU_OF_BIN
from promptlesion.check.lesions import summed_hu
from promptlesion.data.dataset_json import IGNORE_LABEL
from promptlesion.data.sources.label_map import is_lesion_name, label_name, label_names
from promptlesion.data.spec import toml_key

_LESION_WORDS = re.compile(
    r"tumou?r|lesion|plaque|nodul|cyst|sarcoma|cancer|carcinoma|metasta|neoplas|malign|adenoma|lymphoma|abscess"
    r"|h(a?e)morrhage|infarct|embol|calcific|stone|\bmass\b|\bgtv|\bhcc\b|\bpdac\b",
    re.IGNORECASE,
)
_LUMEN_WORDS = re.compile(r"lumen|blood", re.IGNORECASE)
_NICE = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
_COARSEST_MM = 3.0
_LATENT_VOXELS_A_LESION = 4.0
_PLAQUE_WINDOW_HU = (-200, 1300)
_NARROWEST_WINDOW_HU = 400
_CRUMB_VOXELS = 3
_TEMPLATE_DIAMETERS_MM = (8.0, 40.0)


def guess_lesion_labels(labels: Mapping[str, int]) -> dict[str, int]:
    """Return the labels that are lesions by their names."""
    return {
        name: value for name, value in labels.items() if value and (_LESION_WORDS.search(name) or is_lesion_name(name))
    }


def draft_spacing_mm(cases: Sequence[CaseFacts], *, downsampling: int) -> tuple[float, float, float]:
    """Propose the networks' voxel size: the typical lesion several latent voxels wide, no finer than was scanned."""
    spacings = np.array([case.spacing_mm for case in cases if case.spacing_mm is not None] or [(1.0, 1.0, 1.0)])
    usual = np.median(spacings, axis=0)
    diameters = [one.diameter_mm for case in cases for one in _whole(case.lesions)]
    wanted = float(np.median(diameters)) / (_LATENT_VOXELS_A_LESION * downsampling) if diameters else 1.0
    edge = _nice(min(max(wanted, float(usual.min())), max(_COARSEST_MM, float(usual.min()))))
    x, y, z = (edge if side <= 2 * edge else _nice(side / 2) for side in usual)
    return x, y, z


def draft_spec(cases: Sequence[CaseFacts], labels: Mapping[str, int], *, downsampling: int, dataset_name: str) -> str:
    """Write a `lesions.toml` from the labels' names and what was measured; without lesion labels, templates."""
    lesion_labels = guess_lesion_labels(labels)
    others = {name: value for name, value in labels.items() if value and name not in (*lesion_labels, IGNORE_LABEL)}
    hosts = {name: _host(name, value, cases, others) for name, value in lesion_labels.items()}
    spacing = draft_spacing_mm(cases, downsampling=downsampling)
    has_lumen = any(_LUMEN_WORDS.search(name) for name in others)
    is_plaque = any("plaque" in name.lower() for name in lesion_labels) or (not lesion_labels and has_lumen)
    shown = [
        *lesion_labels.values(),
        *(others[host] for named, _ in hosts.values() for host in named if host in others),
    ]
    window, window_from = _window(cases, shown or list(others.values()), is_plaque=is_plaque)
    lines = [
        f"# lesions.toml for {_one_line(dataset_name)}, a start that `promptlesion check` wrote from {len(cases)} "
        f"case{'' if len(cases) == 1 else 's'}.",
        "# Read every value; what it was measured from stands beside it. docs/data.md says what each means.",
        "",
        "[preprocessing]",
        f"window_hu = {_toml(window)}  # {window_from}",
        f"spacing_mm = {_toml(spacing)}  # {_spacing_from(cases, spacing, downsampling)}",
    ]
    type_names = label_names(lesion_labels)
    for name, value in lesion_labels.items():
        lines += ["", *_type_lines(name, type_names[name], value, hosts[name], cases, others)]
    if not lesion_labels:
        lines += ["", *_templates(cases, others, labels)]
    return "\n".join(lines) + "\n"


def _type_lines(
    name: str,
    type_name: str,
    value: int,
    host: tuple[tuple[str, ...], str],
    cases: Sequence[CaseFacts],
    others: Mapping[str, int],
) -> list[str]:
    lesions = [one for case in cases for one in _whole(case.lesions) if one.label == value]
    diameters, diameter_from = _diameters([one.diameter_mm for one in lesions])
    hu, hu_from = _hu([one.mean_hu for one in lesions], name)
    lumens = [other for other in others if _LUMEN_WORDS.search(other) and other not in host[0]]
    is_crescent = "plaque" in name.lower() and bool(lumens)
    lines = [
        f"[lesions.{toml_key(type_name)}]",
        f"label = {value}  # {_one_line(name)} in dataset.json",
        f"host = {_toml(host[0])}  # {host[1]}",
        f"diameter_mm = {_toml(diameters)}  # {diameter_from}",
        f"hu = {_toml(hu)}  # {hu_from}",
    ]
    if is_crescent:
        lines.append('shape = "crescent"  # plaque lines the vessel: along its wall, never in the lumen')
        lines.append(f"lumen = {_toml(tuple(lumens))}  # by its name")
    lines.append(
        "# exophytic_share = 0.4  # where the real ones bulge out of the host into fat: up to this share of the volume"
    )
    return lines


def _templates(cases: Sequence[CaseFacts], others: Mapping[str, int], labels: Mapping[str, int]) -> list[str]:
    """Propose a lesion type for every organ, as comments."""
    lines = [
        "# No label of dataset.json is a lesion by its name, so nothing was measured. To paint lesions with a model",
        "# from elsewhere, take the # away before the types you want, and number their labels so that they follow",
        "# those of dataset.json without a gap. The ranges are starting points, not measured.",
    ]
    lumens = [name for name in others if _LUMEN_WORDS.search(name)]
    walls = [name for name in others if name not in lumens]
    next_value = max(labels.values(), default=0) + 1
    for index, host in enumerate(walls):
        value = next_value + index
        if lumens:
            name, diameters, hu = "calcified_plaque", (1.5, 6.0), (130.0, 1300.0)
        else:
            name, diameters = f"{label_name(host) or 'lesion'}_tumor", _TEMPLATE_DIAMETERS_MM
            mean = _mean_hu(cases, others[host])
            hu = (10.0 * round(mean / 10 - 9) + 0.0, 10.0 * round(mean / 10 + 3) + 0.0)
        lines += [
            "",
            f"# [lesions.{toml_key(name)}]",
            f"# label = {value}{'  # the first that dataset.json does not have' if index == 0 else ''}",
            f"# host = {_toml((host,))}  # {_room(cases, others[host])}",
            f"# diameter_mm = {_toml(diameters)}",
            f"# hu = {_toml(hu)}"
            + ("" if lumens else f"  # {_one_line(host)} has {_mean_hu(cases, others[host]):.0f} HU on average"),
        ]
        if lumens:
            lines += ['# shape = "crescent"', f"# lumen = {_toml(tuple(lumens))}"]
    return lines


def _host(name: str, value: int, cases: Sequence[CaseFacts], others: Mapping[str, int]) -> tuple[tuple[str, ...], str]:
    """Return the structures a lesion grows in, and how they were found."""
    is_plaque = "plaque" in name.lower()
    possible = {other: label for other, label in others.items() if not (is_plaque and _LUMEN_WORDS.search(other))}
    around = {
        other: sum(case.neighbours.get(value, {}).get(label, 0) for case in cases) for other, label in possible.items()
    }
    most = max(around.values(), default=0)
    organ = _LESION_WORDS.sub("", name).strip(" _-").lower()
    alike = [other for other in possible if organ and (organ in other.lower() or other.lower() in organ)]
    alike = [other for other in alike if around[other] >= 0.05 * max(around[one] for one in alike)]
    if alike:
        return tuple(alike), "of like name"
    if most > 0:
        nearest = max(around, key=lambda other: around[other])
        share = most / sum(around.values())
        return (nearest,), f"{share:.0%} of the labelled voxels within two voxels of it"
    if possible:
        return (next(iter(possible)),), "a guess, as no structure lies around it: put the right one here"
    return (name,), "there is no other label: label its organ in dataset.json and put it here"


def _whole(lesions: Sequence[LesionFacts]) -> list[LesionFacts]:
    """Leave out the crumbs, unless there is nothing else."""
    return [one for one in lesions if one.num_voxels > _CRUMB_VOXELS] or list(lesions)


def _diameters(measured: Sequence[float]) -> tuple[tuple[float, float], str]:
    if not measured:
        return _TEMPLATE_DIAMETERS_MM, "not measured: no lesion of it is labelled"
    low, high = (float(np.percentile(measured, q)) for q in (2.5, 97.5))
    if len(measured) < 3:
        low, high = 0.7 * low, 1.4 * high
    low, high = max(_rounded(low, math.floor), 0.1), _rounded(high, math.ceil)
    text = (
        f"of the sphere of equal volume: {min(measured):.1f} to {max(measured):.1f}, median {np.median(measured):.1f}"
    )
    return (low, high if high > low else 2 * low), f"{text}, {len(measured)} lesion{'s' if len(measured) > 1 else ''}"


def _hu(measured: Sequence[float], name: str) -> tuple[tuple[float, float], str]:
    if not measured:
        hu = (130.0, 1300.0) if "calcified" in name.lower() and "non" not in name.lower() else (-50.0, 150.0)
        return hu, "not measured: no lesion of it is labelled"
    low, high = (float(np.percentile(measured, q)) for q in (2.5, 97.5))
    margin = max(20.0 if len(measured) > 2 else 60.0, 0.15 * (high - low))
    hu = (10.0 * math.floor((low - margin) / 10) + 0.0, 10.0 * math.ceil((high + margin) / 10) + 0.0)
    return hu, f"mean of each: {min(measured):.0f} to {max(measured):.0f}, with a margin"


def _window(cases: Sequence[CaseFacts], labels: Sequence[int], *, is_plaque: bool) -> tuple[tuple[int, int], str]:
    ends = [_percentiles(counts) for counts in (summed_hu(cases, [label]) for label in labels) if counts.any()]
    if not ends or is_plaque:
        high = max([_PLAQUE_WINDOW_HU[1], *(_outwards(top) for _, top in ends)]) if is_plaque else 240
        return (-200 if is_plaque else -160, high), (
            "wide, so that calcium is not clipped" if is_plaque else "not measured: nothing is labelled"
        )
    low, high = min(bottom for bottom, _ in ends), max(top for _, top in ends)
    text = f"98 % of the voxels of each lesion type and host lie from {low} to {high} HU"
    low, high = -_outwards(-low), _outwards(high)
    if high - low < _NARROWEST_WINDOW_HU:
        middle = 10 * round((low + high) / 20)
        low, high = middle - _NARROWEST_WINDOW_HU // 2, middle + _NARROWEST_WINDOW_HU // 2
        text += f"; widened to {_NARROWEST_WINDOW_HU} HU, so that the surroundings show"
    return (max(low, -1024), min(high, 3071)), text


def _percentiles(counts: Int64[np.ndarray, " hu"]) -> tuple[int, int]:
    share = np.cumsum(counts) / counts.sum()
    low, high = (int(HU_OF_BIN[np.searchsorted(share, q)]) for q in (0.01, 0.99))
    return low, high


def _outwards(hu: int) -> int:
    return 10 * math.ceil((hu + 20) / 10)


def _spacing_from(cases: Sequence[CaseFacts], spacing: tuple[float, float, float], downsampling: int) -> str:
    spacings = [case.spacing_mm for case in cases if case.spacing_mm is not None]
    text = f"scans: {in_mm(np.median(spacings, axis=0)) if spacings else 'none read'}"
    diameters = [one.diameter_mm for case in cases for one in _whole(case.lesions)]
    if not diameters:
        return text
    edge, median = float(np.cbrt(np.prod(spacing))) * downsampling, float(np.median(diameters))
    return f"{text}; the median lesion of {median:.1f} mm is {median / edge:.1f} latent voxels wide"


def _room(cases: Sequence[CaseFacts], label: int) -> str:
    volumes = [case.labels[label].volume_ml for case in cases if label in case.labels]
    return f"in {len(volumes)} of {len(cases)} cases, {np.median(volumes):.0f} ml" if volumes else "in no case"


def _mean_hu(cases: Sequence[CaseFacts], label: int) -> float:
    counts = summed_hu(cases, [label])
    return float((counts * HU_OF_BIN).sum() / counts.sum()) if counts.any() else 0.0


def _nice(millimetres: float) -> float:
    """Round down to a number people would choose."""
    scale = 10.0 ** math.floor(math.log10(millimetres))
    return round(max(nice for nice in _NICE if nice <= millimetres / scale + 1e-3) * scale, 6)


def _rounded(millimetres: float, to_whole: Callable[[float], int]) -> float:
    step = 0.1 if millimetres < 10 else 1.0
    return round(to_whole(millimetres / step) * step, 1)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _toml(value: tuple[object, ...]) -> str:
    return "[" + ", ".join(json.dumps(item, ensure_ascii=False) for item in value) + "]"
