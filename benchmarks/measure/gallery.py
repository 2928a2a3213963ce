"""Pictures: one held-out real lesion of each type, and what every method paints in its place."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from measure.bench import Bench, say
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.wording import readable
from promptlesion.synthesis.trial_painting import MaskedScan, blend_masks, paint_masks, scans_with_own_masks, widened

_MARGIN_VOXELS = 10
_WINDOWS_HU = {"bright": (-200, 1000), "soft": (-60, 180)}
_BRIGHT_HU = 250


def measure_gallery(bench: Bench) -> None:
    """Write a picture: a row for each type, the real lesion first, then the same place painted by each model."""
    synthesizers = {model.name: bench.load(model) for model in bench.models}
    room = min(each.card.max_extent_mm for each in synthesizers.values())
    edge_mm = max(each.card.edge_mm for each in synthesizers.values())
    chosen: dict[int, MaskedScan] = {}
    held_out = bench.prepared.part("test")
    for scan in scans_with_own_masks(held_out, edge_mm=edge_mm, max_extent_mm=room, seed=bench.seed):
        for index, lesion in enumerate(scan.lesions):
            largest = chosen.get(lesion.type_index)
            if largest is None or lesion.mask.sum() > largest.lesions[0].mask.sum():
                one = replace(scan, lesions=(lesion,), seeds=(scan.seeds[index],))
                chosen[lesion.type_index] = widened(one, margin_mm=_MARGIN_VOXELS * min(scan.image.spacing_mm))
    rows: dict[str, dict[str, np.ndarray]] = {}
    for type_index, scan in sorted(chosen.items()):
        lesion = scan.lesions[0]
        middle = int(lesion.mask.sum(axis=(0, 1)).argmax())
        panels = {"real": scan.image.array[lesion.box][:, :, middle]}
        for name, synthesizer in synthesizers.items():
            blended = blend_masks(scan, paint_masks(scan, synthesizer), edge_mm=synthesizer.card.edge_mm)
            panels[name] = blended[0][:, :, middle]
        panels["mask"] = lesion.mask[:, :, middle]
        rows[bench.types[type_index]] = panels
        say(f"gallery: {bench.types[type_index]}, {scan.case}")
    save_figure(_figure(rows), bench.out / "gallery.png")


def _figure(rows: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    titles = [name for name in next(iter(rows.values())) if name != "mask"]
    figure = Figure(figsize=(1.9 * len(titles), 2.0 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes_row, (lesion_type, panels) in zip(grid, rows.items(), strict=True):
        inside = panels["real"][panels["mask"]]
        low, high = _WINDOWS_HU["bright" if inside.mean() > _BRIGHT_HU else "soft"]
        for axes, title in zip(axes_row, titles, strict=True):
            axes.imshow(panels[title].T, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="nearest")
            axes.contour(panels["mask"].T.astype(float), levels=[0.5], colors="#e8a000", linewidths=0.7)
            axes.set_xticks([])
            axes.set_yticks([])
            mean_hu = float(panels[title][panels["mask"]].mean())
            axes.set_xlabel(f"{mean_hu:.0f} HU", fontsize=7)
            if lesion_type == next(iter(rows)):
                axes.set_title(title, fontsize=9)
        axes_row[0].set_ylabel(f"{readable(lesion_type)}\n{low} to {high} HU", fontsize=8)
    return figure
