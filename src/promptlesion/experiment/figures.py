"""The experiment's charts and pictures: Dice by method, where synthetic data helps, and what every method paints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from promptlesion.data.dataset import Dataset
from promptlesion.evaluation.figures import plain
from promptlesion.evaluation.method_comparison import MethodRow
from promptlesion.evaluation.palette import MUTED_COLOR, REAL_COLOR, TEXT_COLOR
from promptlesion.evaluation.wording import readable
from promptlesion.experiment.results import CaseScore, Comparison
from promptlesion.experiment.score_tables import type_names
from promptlesion.methods import REAL, method_named
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.synthesis.trial_painting import MaskedScan, blend_masks, paint_masks, scans_with_own_masks, widened

_GALLERY_MARGIN_VOXELS = 12
_SHOWN_AROUND = 0.35


def dice_figure(comparison: Comparison, scores: Sequence[CaseScore]) -> Figure:
    """Draw each method's Dice, interval and trainings, a panel a lesion type; the dashed line is real scans alone.

    Faint lines join the Dice of each held-out subject, the mean over its cases and the seeds.
    """
    rows = comparison.rows_of()
    types, methods = type_names(rows), list(dict.fromkeys(row.method for row in rows))
    size = 2.2 * len(types) + 2.0, max(0.38 * len(methods), 1.3) + 1.3
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(types), squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, types, strict=True):
        by_method = {row.method: row for row in rows if row.lesion_type == name}
        for by_subject in _subject_dice(scores, name).values():
            places = [position for position, method in enumerate(methods) if method in by_subject]
            values = [by_subject[methods[position]] for position in places]
            axes.plot(values, places, "o-", color=MUTED_COLOR, linewidth=0.7, markersize=2.5, alpha=0.3)
        for position, method in enumerate(methods):
            _dot(axes, by_method[method], position, method)
        real = by_method[REAL].value.value
        if real is not None:
            axes.axvline(real, color=REAL_COLOR, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_title(f"{readable(name)}\nN = {by_method[REAL].num_subjects}", fontsize=9, color=TEXT_COLOR)
        plain(axes, lines="both")
    panels[0].set_yticks(range(len(methods)), methods, fontsize=9)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    figure.supxlabel("Dice", fontsize=9, color=MUTED_COLOR)
    return figure


def sweep_figure(comparisons: Sequence[Comparison], *, by: str) -> Figure:
    """Draw Dice against the ratio or against the number of real subjects, a panel a type, a line a method.

    Args:
        comparisons: those to draw, that differ in nothing else.
        by: `ratio` or `num_subjects`.
    """
    rows = [(float(getattr(comparison, by)), row) for comparison in comparisons for row in comparison.rows_of()]
    types = type_names([row for _, row in rows])
    methods = list(dict.fromkeys(row.method for _, row in rows))
    figure = Figure(figsize=(2.5 * len(types) + 1.8, 2.9), layout="constrained")
    panels = figure.subplots(1, len(types), squeeze=False)[0]
    for axes, name in zip(panels, types, strict=True):
        for method in methods:
            points = sorted(
                (at, row.value.value, row.value.low, row.value.high)
                for at, row in rows
                if (row.lesion_type, row.method) == (name, method) and row.value.value is not None
            )
            if by == "ratio" and method == REAL:
                axes.axhline(points[0][1], color=REAL_COLOR, linewidth=0.9, linestyle=(0, (4, 3)), label=REAL)
                continue
            places = [at for at, *_ in points]
            axes.plot(places, [value for _, value, *_ in points], "o-", ms=3.5, lw=1.2, color=_color(method))
            axes.plot([], [], "o-", ms=3.5, lw=1.2, color=_color(method), label=method)
            if all(low is not None for *_, low, _ in points):
                lows, highs = [low for *_, low, _ in points], [high for *_, high in points]
                axes.fill_between(places, lows, highs, color=_color(method), alpha=0.08, linewidth=0)
        axes.set_title(readable(name), fontsize=9, color=TEXT_COLOR)
        plain(axes, lines="both")
    words = {"ratio": "synthetic scans per real one", "num_subjects": "real training subjects"}
    figure.supxlabel(words[by], fontsize=9, color=MUTED_COLOR)
    panels[0].set_ylabel("Dice", fontsize=9, color=MUTED_COLOR)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False, labelcolor=TEXT_COLOR)
    return figure


def gallery_figure(
    dataset: Dataset, synthesizers: Mapping[str, Synthesizer], *, seed: int, on_progress: Callable[[], None]
) -> Figure:
    """Draw the paper's Figure 2: a real lesion of each type, and what every method paints in its place.

    The largest lesion of each type that all methods can paint is shown, in the axial slice where it is largest.

    Args:
        dataset: scans that no method was trained on.
        synthesizers: by method.
        seed: of what is painted.
        on_progress: called after each type.
    """
    rows = {}
    for scan in _largest_of_each_type(dataset, synthesizers, seed=seed):
        lesion = scan.lesions[0]
        middle = int(lesion.mask.sum(axis=(0, 1)).argmax())
        panels = {"real lesion": scan.image.array[lesion.box][:, :, middle]}
        for name, synthesizer in synthesizers.items():
            blended = blend_masks(scan, paint_masks(scan, synthesizer), edge_mm=synthesizer.card.edge_mm)
            panels[name] = blended[0][:, :, middle]
        rows[dataset.spec.lesions[lesion.type_index].name] = (panels, lesion.mask[:, :, middle], scan)
        on_progress()
    titles = ["real lesion", *synthesizers]
    figure = Figure(figsize=(1.55 * len(titles) + 0.4, 1.75 * len(rows) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, (axes_row, (name, (panels, mask, scan))) in enumerate(zip(grid, rows.items(), strict=True)):
        low, high = _window(panels["real lesion"], mask, dataset.spec.window_hu)
        pixel_mm = scan.image.spacing_mm
        for axes, title in zip(axes_row, titles, strict=True):
            axes.imshow(
                panels[title].T[::-1, ::-1],
                cmap="gray",
                vmin=low,
                vmax=high,
                interpolation="nearest",
                aspect=pixel_mm[1] / pixel_mm[0],
            )
            axes.contour(mask.T[::-1, ::-1].astype(float), levels=[0.5], colors="#E69F00", linewidths=0.6)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(f"{float(panels[title][mask].mean()):.0f} HU", fontsize=7, color=MUTED_COLOR)
            if row == 0:
                axes.set_title(title.replace("promptlesion-", "promptlesion\n"), fontsize=8, color=TEXT_COLOR)
        axes_row[0].set_ylabel(f"{readable(name)}\n{low:.0f} to {high:.0f} HU", fontsize=8, color=TEXT_COLOR)
    return figure


def _largest_of_each_type(dataset: Dataset, synthesizers: Mapping[str, Synthesizer], *, seed: int) -> list[MaskedScan]:
    room = min(each.card.max_extent_mm for each in synthesizers.values())
    edge_mm = max(each.card.edge_mm for each in synthesizers.values())
    card = next((each.card for each in synthesizers.values() if each.card.knows_attributes), None)
    chosen: dict[int, MaskedScan] = {}
    for scan in scans_with_own_masks(dataset, edge_mm=edge_mm, max_extent_mm=room, seed=seed, card=card):
        for index, lesion in enumerate(scan.lesions):
            largest = chosen.get(lesion.type_index)
            if largest is None or lesion.mask.sum() > largest.lesions[0].mask.sum():
                one = replace(scan, lesions=(lesion,), seeds=(scan.seeds[index],))
                chosen[lesion.type_index] = widened(one, margin_mm=_GALLERY_MARGIN_VOXELS * min(scan.image.spacing_mm))
    return [scan for _, scan in sorted(chosen.items())]


def _window(scan: np.ndarray, mask: np.ndarray, window_hu: tuple[float, float]) -> tuple[float, float]:
    """Narrow the networks' window to what the lesion and the middle of its surroundings hold."""
    inside = scan[mask]
    low = min(float(np.percentile(scan, 100 * _SHOWN_AROUND)), float(np.percentile(inside, 2))) - 60
    high = max(float(np.percentile(scan, 100 * (1 - _SHOWN_AROUND))), float(np.percentile(inside, 98))) + 60
    return max(low, window_hu[0]), min(high, window_hu[1])


def _dot(axes: Axes, row: MethodRow, position: int, method: str) -> None:
    if row.value.value is None:
        return
    color = _color(method)
    if row.value.low is not None and row.value.high is not None:
        axes.plot([row.value.low, row.value.high], [position, position], color=color, linewidth=1.8)
    if len(row.trainings) > 1:
        trainings = [value for value in row.trainings if value is not None]
        axes.plot(trainings, [position] * len(trainings), "|", color=TEXT_COLOR, markersize=6, markeredgewidth=0.9)
    axes.plot(row.value.value, position, "o", color=color, markersize=5)


def _subject_dice(scores: Sequence[CaseScore], lesion_type: str) -> dict[str, dict[str, float]]:
    """Return the Dice of each method by subject, of those that have such a lesion."""
    found: dict[str, dict[str, list[float]]] = {}
    for score in scores:
        if score.lesion_type == lesion_type and score.num_truth_voxels and score.dice is not None:
            found.setdefault(score.subject, {}).setdefault(score.method, []).append(score.dice)
    return {
        subject: {method: float(np.mean(values)) for method, values in by_method.items()}
        for subject, by_method in found.items()
    }


def _color(method: str) -> str:
    return REAL_COLOR if method == REAL else method_named(method).color
