"""What painting changes around a lesion, by how sampling starts and how the lesion is put into the scan."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from measure.bench import Bench, Model, interval, markdown, masks_hash, sampling_words, write
from measure.figures import surroundings_figure
from measure.lesion_bootstrap import lesion_bootstrap
from measure.surroundings_error import surroundings_error
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.results import Estimate
from promptlesion.synthesis.blend import edge_weight
from promptlesion.synthesis.trial_painting import MaskedScan, blend_masks, paint_masks, widened
from promptlesion.training.progress import progress_bar

_RING_VOXELS = 3


def measure_surroundings(bench: Bench, count: int) -> None:
    """Write the table of all variants, around `count` new masks of each type."""
    rows, content = [], []
    for model in bench.models:
        profiles: dict[str, dict[str, list[float | None]]] = {}
        any_synthesizer = bench.load(model)
        voxel_mm = max(any_synthesizer.card.spec.spacing_mm)
        scans = [
            widened(scan, margin_mm=_RING_VOXELS * voxel_mm)
            for scan in bench.new_masks([any_synthesizer], count, margin_mm=_RING_VOXELS * voxel_mm)
        ]
        for init in ("healthy", "noise") if model.sees_scan else ("noise",):
            for is_reinjected in (False, True) if model.sees_scan else (False,):
                found = _around(bench, model, scans, init, is_reinjected)
                for blending, entry in found["variants"].items():
                    estimates = {
                        name: _estimate_present(entry[name], found["subjects"], bench.seed)
                        for name in ("edge_hu", "beyond_hu", "step_hu")
                    }
                    reinjected = "yes" if is_reinjected else "no"
                    intervals = (interval(estimate, 1) for estimate in estimates.values())
                    rows.append([model.name, init, reinjected, blending, str(len(found["subjects"])), *intervals])
                    content.append(
                        {
                            "model": model.name,
                            "init": init,
                            "reinject_background": is_reinjected,
                            "blending": blending,
                            "num_lesions": len(found["subjects"]),
                            **{name: estimate.model_dump() for name, estimate in estimates.items()},
                            "profile_hu": entry["profile_hu"],
                            **bench.where,
                        }
                    )
                    name = f"init {init}{', re-injected' if is_reinjected else ''}"
                    profiles.setdefault(name, {})[f"blending {blending}"] = entry["profile_hu"]
        figure = surroundings_figure(profiles, voxel_mm=voxel_mm, edge_mm=any_synthesizer.card.edge_mm)
        save_figure(figure, bench.out / f"surroundings-{model.name}.png")
    header = ["model", "init", "re-injected", "blending", "N", "within the edge", "beyond it", "step at the end"]
    lines = ["# Surroundings", "", *markdown(header, rows), ""]
    lines += [
        "Mean absolute difference from the untouched scan in HU around new lesions in held-out scans, mean over N "
        "lesions: from the mask to the end of the blended edge, and in the "
        f"{_RING_VOXELS} voxels beyond. Step: mean absolute jump across the border of what was written. Blending off: "
        f"the painted box, {_RING_VOXELS} voxels wider than the edge, pasted as it is. Interval: 95 %, 2000 bootstrap "
        f"resamples of subjects. Sampling otherwise: {sampling_words(bench)}.",
    ]
    write(bench, lines, {"rows": content})


def _around(bench: Bench, model: Model, scans: Sequence[MaskedScan], init: str, is_reinjected: bool) -> dict[str, Any]:
    """Paint once and measure it blended and pasted, or read what was measured."""
    settings: dict[str, object] = {"init": init, "reinject_background": is_reinjected}
    synthesizer = bench.load(model, **settings)
    identity = {
        "model": synthesizer.card.model_hash,
        "synthesis": bench.sampling(model, **settings).model_dump(mode="json"),
        "masks": masks_hash(scans),
    }

    def measure() -> dict[str, Any]:
        errors: dict[str, list[dict[str, Any]]] = {"on": [], "off": []}
        edge_mm, voxel_mm = synthesizer.card.edge_mm, max(synthesizer.card.spec.spacing_mm)
        with progress_bar(f"init {init}{', re-injected' if is_reinjected else ''}", len(scans)) as bar:
            for done, scan in enumerate(scans, start=1):
                painted = paint_masks(scan, synthesizer, batch_size=bench.batch_size)
                blended = blend_masks(scan, painted, edge_mm=edge_mm)
                spacing_mm = scan.image.spacing_mm
                for lesion, pasted, smooth in zip(scan.lesions, painted, blended, strict=True):
                    weight = edge_weight(lesion.mask, spacing_mm=spacing_mm, edge_mm=edge_mm)
                    whole = np.ones_like(lesion.mask)
                    for name, after, written in (("on", smooth, weight > 0), ("off", pasted, whole)):
                        error = surroundings_error(
                            scan.image.array[lesion.box],
                            after,
                            lesion.mask,
                            written=written,
                            spacing_mm=spacing_mm,
                            edge_mm=edge_mm,
                            reach_mm=_RING_VOXELS * voxel_mm,
                            layer_mm=voxel_mm,
                        )
                        errors[name].append(asdict(error))
                bar.update(done)
        variants = {
            name: {
                **{key: [entry[key] for entry in entries] for key in ("edge_hu", "beyond_hu", "step_hu")},
                "profile_hu": _mean_profile([entry["profile_hu"] for entry in entries]),
            }
            for name, entries in errors.items()
        }
        return {"subjects": [scan.subject for scan in scans for _ in scan.lesions], "variants": variants}

    return bench.part(f"{model.name}-{init}{'-reinjected' if is_reinjected else ''}", identity, measure)


def _estimate_present(values: Sequence[float | None], subjects: Sequence[str], seed: int) -> Estimate:
    present = [(value, subject) for value, subject in zip(values, subjects, strict=True) if value is not None]
    return lesion_bootstrap([value for value, _ in present], [subject for _, subject in present], seed=seed)


def _mean_profile(profiles: Sequence[Sequence[float | None]]) -> list[float | None]:
    layers = [[value for value in layer if value is not None] for layer in zip(*profiles, strict=True)]
    return [round(float(np.mean(values)), 3) if values else None for values in layers]
