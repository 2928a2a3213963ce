"""Mean HU inside lesions: real, autoencoded, repainted at their places, and newly placed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from measure.bench import Bench, Model, interval, markdown, sampling_words, write
from measure.figures import bias_figure
from measure.type_bias import TypeBias, type_bias
from promptlesion.autoencoder.lesion_bias import autoencoded_mean_hu
from promptlesion.diffusion.train import TrainedDiffusion
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.wording import readable
from promptlesion.synthesis.quality import mean_hu_inside
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, Synthesizer
from promptlesion.synthesis.trial_painting import blend_masks, paint_masks, scans_with_own_masks
from promptlesion.training.device import resolve_device
from promptlesion.training.progress import progress_bar

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE_HU = 0.10, 15.0
_BIAS_KINDS = ("autoencoded", "repainted", "placed")


def measure_bias(bench: Bench, count: int, title: str) -> None:
    """Write the table of all models and types; `count` new masks of each type are placed."""
    found = {model.name: _biases(bench, model, count) for model in bench.models}
    window = bench.prepared.dataset.spec.window_hu
    lines = [f"# {title}", ""]
    for kind in _BIAS_KINDS:
        if any(row.compared == kind for rows in found.values() for row in rows):
            lines += [f"## {kind}: bias in HU (allowed)", "", *_bias_summary(bench, found, kind), ""]
    for name, rows in found.items():
        lines += [f"## {name}", "", *_bias_table(rows), ""]
    lines += [
        f"Held-out subjects: {len({case.subject for case in bench.prepared.test})}, which no stage trained on. Mean HU "
        f"inside lesions, real ones clipped to the window {window[0]:.0f} to {window[1]:.0f} HU. autoencoded: a patch "
        "around each real lesion through the autoencoder. repainted: each real lesion painted anew at its place, "
        "with its mask and type, blended. placed: new masks in held-out scans, blended, no quality filter. Interval: "
        "95 %, 2000 bootstrap resamples of subjects with all their lesions. Allowed: "
        f"{100 * RELATIVE_TOLERANCE:.0f} % of the real mean or {ABSOLUTE_TOLERANCE_HU:.0f} HU; what is beyond is "
        f"bold. Sampling: {sampling_words(bench)}.",
    ]
    entries = {
        name: [
            {
                **asdict(row),
                "bias": row.bias.model_dump(),
                "is_within_tolerance": row.is_within_tolerance,
                **bench.where,
            }
            for row in rows
        ]
        for name, rows in found.items()
    }
    write(bench, lines, {"models": {m.name: str(m.run) for m in bench.models}, "rows": entries})
    shown = {
        f"{name}, {kind}": [row for row in rows if row.compared == kind]
        for name, rows in found.items()
        for kind in (_BIAS_KINDS if len(found) == 1 else ("repainted",))
    }
    save_figure(bias_figure({name: rows for name, rows in shown.items() if rows}), bench.out / f"{bench.name}.png")


def _biases(bench: Bench, model: Model, count: int) -> list[TypeBias]:
    """Measure one model, or read what was measured."""
    synthesizer = bench.load(model)
    identity = {
        "model": synthesizer.card.model_hash,
        "synthesis": bench.sampling(model).model_dump(mode="json"),
    }
    sides = {
        "repainted": bench.part(f"{model.name}-repainted", identity, lambda: _repainted(bench, synthesizer)),
        "placed": bench.part(
            f"{model.name}-placed", {**identity, "count": count}, lambda: _placed(bench, synthesizer, count)
        ),
    }
    stages = _stages(synthesizer)
    if stages is not None:
        made_from = {"autoencoder": stages.card["autoencoder_sha256"], "patch": stages.config.patch_voxels}
        name = f"autoencoded-{str(made_from['autoencoder'])[:8]}-{made_from['patch']}"
        sides = {"autoencoded": bench.part(name, made_from, lambda: _autoencoded(bench, stages)), **sides}
    real = sides["repainted"]["real"] if stages is None else sides["autoencoded"]["real"]
    return [
        type_bias(
            lesion_type,
            kind,
            real_hu=(found.get("real") or real)[lesion_type]["hu"],
            real_subjects=(found.get("real") or real)[lesion_type]["subjects"],
            compared_hu=found["compared"][lesion_type]["hu"],
            compared_subjects=found["compared"][lesion_type]["subjects"],
            relative_tolerance=RELATIVE_TOLERANCE,
            absolute_tolerance_hu=ABSOLUTE_TOLERANCE_HU,
            seed=bench.seed,
        )
        for kind, found in sides.items()
        for lesion_type in bench.types
        if (found.get("real") or real).get(lesion_type) and found["compared"].get(lesion_type)
    ]


def _autoencoded(bench: Bench, stages: TrainedDiffusion) -> dict[str, Any]:
    cases, spec = bench.prepared.test, bench.prepared.dataset.spec
    pairs = autoencoded_mean_hu(
        stages.autoencoder.network,
        cases,
        spec=spec,
        patch_voxels=stages.config.patch_voxels,
        precision=stages.autoencoder.config.precision,
        device=resolve_device(bench.device),
    )
    real, compared = _Sides(), _Sides()
    of_type = {index: iter(pairs.get(lesion.name, ())) for index, lesion in enumerate(spec.lesions)}
    for case in cases:
        for lesion in case.lesions:
            before, after = next(of_type[lesion.type_index])
            real.add(spec.lesions[lesion.type_index].name, float(before), case.subject)
            compared.add(spec.lesions[lesion.type_index].name, float(after), case.subject)
    return {"real": real.found, "compared": compared.found}


def _repainted(bench: Bench, synthesizer: Synthesizer) -> dict[str, Any]:
    test = bench.prepared.part("test")
    low, high = bench.prepared.dataset.spec.window_hu
    real, compared = _Sides(), _Sides()
    scans = scans_with_own_masks(
        test, edge_mm=synthesizer.card.edge_mm, max_extent_mm=synthesizer.card.max_extent_mm, seed=bench.seed
    )
    with progress_bar("repainting", len(test.cases)) as bar:
        for done, scan in enumerate(scans, start=1):
            painted = paint_masks(scan, synthesizer, batch_size=bench.batch_size)
            blended = blend_masks(scan, painted, edge_mm=synthesizer.card.edge_mm)
            for lesion, hu in zip(scan.lesions, blended, strict=True):
                name = bench.types[lesion.type_index]
                before = scan.image.array[lesion.box].clip(low, high)
                real.add(name, mean_hu_inside(before, lesion.mask), scan.subject)
                compared.add(name, mean_hu_inside(hu, lesion.mask), scan.subject)
            bar.update(done)
    return {"real": real.found, "compared": compared.found}


def _placed(bench: Bench, synthesizer: Synthesizer, count: int) -> dict[str, Any]:
    compared = _Sides()
    scans = bench.new_masks([synthesizer], count)
    with progress_bar("painting new masks", len(scans)) as bar:
        for done, scan in enumerate(scans, start=1):
            painted = paint_masks(scan, synthesizer, batch_size=bench.batch_size)
            blended = blend_masks(scan, painted, edge_mm=synthesizer.card.edge_mm)
            for lesion, hu in zip(scan.lesions, blended, strict=True):
                compared.add(bench.types[lesion.type_index], mean_hu_inside(hu, lesion.mask), scan.subject)
            bar.update(done)
    return {"compared": compared.found}


class _Sides:
    """Collects one figure a lesion, by type."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, list[Any]]] = {}

    def add(self, lesion_type: str, hu: float, subject: str) -> None:
        entry = self.found.setdefault(lesion_type, {"hu": [], "subjects": []})
        entry["hu"].append(round(hu, 3))
        entry["subjects"].append(subject)


def _bias_summary(bench: Bench, found: Mapping[str, Sequence[TypeBias]], kind: str) -> list[str]:
    """One row a model: the settings in which the models differ, and each type's bias."""
    differing = _differing_settings(bench.models)
    rows = []
    for model in bench.models:
        by_type = {row.lesion_type: row for row in found[model.name] if row.compared == kind}
        cells = [_bias_cell(by_type.get(name)) for name in bench.types]
        rows.append([model.name, *(_short(model.settings.get(key)) for key in differing), *cells])
    return markdown(["model", *differing, *map(readable, bench.types)], rows)


def _bias_cell(row: TypeBias | None) -> str:
    if row is None:
        return "-"
    figure = f"{interval(row.bias, 0, sign=True)}, N {row.num_real} and {row.num_compared} (±{row.tolerance_hu:.0f})"
    return figure if row.is_within_tolerance else f"**{figure}**"


def _bias_table(rows: Sequence[TypeBias]) -> list[str]:
    return markdown(
        [
            "lesion type",
            "compared",
            "N, real and compared",
            "real HU",
            "its HU",
            "bias (interval)",
            "allowed",
            "within",
        ],
        [
            [
                readable(row.lesion_type),
                row.compared,
                f"{row.num_real} and {row.num_compared}",
                f"{row.real_mean_hu:.0f}",
                f"{row.compared_mean_hu:.0f}",
                interval(row.bias, 0, sign=True),
                f"±{row.tolerance_hu:.0f}",
                "yes" if row.is_within_tolerance else "**no**",
            ]
            for row in sorted(rows, key=lambda row: row.lesion_type)
        ],
    )


def _differing_settings(models: Sequence[Model]) -> list[str]:
    """Name the settings of which there is more than one value; a method without such a setting does not count."""
    keys = dict.fromkeys(key for model in models for key in model.settings)
    return [
        key for key in keys if len({json.dumps(model.settings[key]) for model in models if key in model.settings}) > 1
    ]


def _stages(synthesizer: Synthesizer) -> TrainedDiffusion | None:
    """Return the latent diffusion behind a method, with its autoencoder; the voxel-space one has none."""
    if isinstance(synthesizer, PromptLesionSynthesizer):
        return synthesizer.model
    models: Mapping[int, PromptLesionSynthesizer] = getattr(synthesizer, "models", {})
    return next((each.model for each in models.values()), None)


def _short(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
