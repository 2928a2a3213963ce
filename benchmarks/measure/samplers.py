"""Lesion-KID and seconds per lesion of every sampler at every number of steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from measure.bench import Bench, Model, clock_of, interval, markdown, masks_hash, sampling_words, say, write
from measure.figures import sampler_figure
from measure.lesions import DescribedLesions, described, joined, kid_words, lesion_kids, painted_crops, real_lesions
from promptlesion.evaluation.features import ImageNetSliceFeatures
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.results import Estimate
from promptlesion.synthesis.trial_painting import MaskedScan, paint_masks
from promptlesion.training.progress import progress_bar

REFERENCE_SAMPLER, REFERENCE_STEPS = "ancestral", 400


def measure_samplers(bench: Bench, names: Sequence[str], steps: Sequence[int], count: int) -> None:
    """Write the table of all samplers and numbers of steps, and which of them is to be the default."""
    extractor = ImageNetSliceFeatures(window=bench.prepared.dataset.window)
    real = real_lesions(bench, extractor)
    lines, content, rows = ["# Samplers", ""], {}, []
    for model in bench.models:
        scans = bench.new_masks([bench.load(model, num_steps=1)], count)
        found = {
            (name, number): _sampled(bench, model, scans, extractor, real, name, number)
            for name in names
            for number in steps
        }
        reference = found.get((REFERENCE_SAMPLER, REFERENCE_STEPS))
        chosen = fastest_within(found, None if reference is None else Estimate(**reference["kid"]))
        content[model.name] = [
            {"sampler": name, "num_steps": number, **entry, **bench.where} for (name, number), entry in found.items()
        ]
        rows += [
            [
                model.name,
                name,
                str(number),
                str(entry["num_lesions"]),
                interval(Estimate(**entry["kid"]), 2),
                f"{entry['seconds_per_lesion']:.3f}",
                "**chosen**" if (name, number) == chosen else "",
            ]
            for (name, number), entry in found.items()
        ]
        curves = {
            name: [(n, found[name, n]["seconds_per_lesion"], Estimate(**found[name, n]["kid"])) for n in steps]
            for name in names
        }
        band = Estimate(value=None) if reference is None else Estimate(**reference["kid"])
        save_figure(sampler_figure(curves, band), bench.out / f"samplers-{model.name}.png")
        say(f"{model.name}: fastest within the reference's interval: {chosen}")
    lines += markdown(["model", "sampler", "steps", "N", "lesion-KID (interval)", "seconds per lesion", ""], rows)
    lines += [
        "",
        f"The same {count} new masks of each type in held-out scans, the same seeds, blended, no quality filter. "
        f"{kid_words(real, bench.seed)} Seconds: painting alone, {clock_of(bench.device)[1]}, up to {bench.batch_size} "
        "masks of a scan together. "
        f"Chosen: the fastest whose KID is not above the interval of {REFERENCE_SAMPLER} with {REFERENCE_STEPS} steps. "
        f"Sampling otherwise: {sampling_words(bench)}.",
    ]
    described_real = {
        "num_real": len(real.types),
        "real_mean_hu": real.mean_by_type(real.mean_hu, bench.types),
        "real_std_hu": real.mean_by_type(real.std_hu(bench), bench.types),
    }
    write(bench, lines, {**described_real, "rows": content})


def fastest_within(
    found: Mapping[tuple[str, int], Mapping[str, Any]], reference: Estimate | None
) -> tuple[str, int] | None:
    """Return the fastest sampler and number of steps whose KID is not above the reference's interval."""
    if reference is None or reference.high is None:
        return None
    good = [key for key, entry in found.items() if entry["kid"]["value"] <= reference.high]
    return min(good, key=lambda key: found[key]["seconds_per_lesion"]) if good else None


def _sampled(
    bench: Bench,
    model: Model,
    scans: Sequence[MaskedScan],
    extractor: ImageNetSliceFeatures,
    real: DescribedLesions,
    sampler: str,
    num_steps: int,
) -> dict[str, Any]:
    """Measure one sampler at one number of steps, or read what was measured."""
    settings: dict[str, object] = {"sampler": sampler, "num_steps": num_steps}
    synthesizer = bench.load(model, **settings)
    identity = {
        "model": synthesizer.card.model_hash,
        "synthesis": bench.sampling(model, **settings).model_dump(mode="json"),
        "masks": masks_hash(scans),
        "batch": bench.batch_size,
    }

    def measure() -> dict[str, Any]:
        # the first call of a network is slow whatever the sampler
        paint_masks(scans[0], bench.load(model, num_steps=2), batch_size=bench.batch_size)
        parts, seconds = [], 0.0
        clock, _ = clock_of(bench.device)
        with progress_bar(f"{sampler}, {num_steps} steps", len(scans)) as bar:
            for done, scan in enumerate(scans, start=1):
                started = clock()
                painted = paint_masks(scan, synthesizer, batch_size=bench.batch_size)
                seconds += clock() - started
                own = [lesion.type_index for lesion in scan.lesions]
                crops = painted_crops(bench, scan, painted, own, synthesizer.card.edge_mm)
                parts.append(described(bench, crops, extractor, np.array(own)))
                bar.update(done)
        lesions = joined(parts)
        return {
            "num_lesions": len(lesions.types),
            "seconds_per_lesion": seconds / len(lesions.types),
            "mean_hu": lesions.mean_by_type(lesions.mean_hu, bench.types),
            "std_hu": lesions.mean_by_type(lesions.std_hu(bench), bench.types),
            **lesion_kids(bench, real, lesions.features, lesions.types),
        }

    return bench.part(f"{model.name}-{sampler}-{num_steps}", identity, measure)
