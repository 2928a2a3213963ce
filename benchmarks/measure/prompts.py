"""Every mask under every prompt: can a classifier trained on real lesions tell which type was asked for?"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from measure.bench import Bench, Model, interval, markdown, masks_hash, sampling_words, write
from measure.figures import confusion_figure
from measure.lesions import DescribedLesions, described, joined, kid_words, lesion_kids, painted_crops, real_lesions
from measure.type_classifier import TypeClassifier, balanced_accuracy, confusion, fit_type_classifier
from promptlesion.evaluation.bootstrap import type_mean_bootstrap
from promptlesion.evaluation.features import ImageNetSliceFeatures
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.results import Estimate
from promptlesion.evaluation.wording import readable
from promptlesion.synthesis.trial_painting import MaskedScan, paint_masks, under_every_prompt
from promptlesion.training.progress import progress_bar

Judges = dict[str, tuple[TypeClassifier, Callable[[DescribedLesions], np.ndarray]]]


def measure_prompts(bench: Bench, guidance: float, count: int) -> None:
    """Write the table of all models, with and without guidance; `count` masks of each type are painted."""
    extractor = ImageNetSliceFeatures(window=bench.prepared.dataset.window)
    real = real_lesions(bench, extractor)
    judges = _train_judges(real, len(bench.types))
    ceiling = {name: judge(columns(real)[~real.is_training]) for name, (judge, columns) in judges.items()}
    truth = real.types[~real.is_training]
    rows = [
        [
            "real lesions, held out",
            "-",
            "-",
            str(len(truth)),
            *(interval(balanced_accuracy(truth, told, seed=bench.seed), 2) for told in ceiling.values()),
            "-",
            *(_mean_of_type(real.mean_hu[~real.is_training], truth, index) for index in range(len(bench.types))),
        ]
    ]
    panels = {"real, held out": confusion(truth, ceiling["all"], num_types=len(bench.types))}
    content: list[dict[str, Any]] = []
    scans = bench.new_masks([bench.load(model) for model in bench.models], count)
    for model in bench.models:
        for scale in dict.fromkeys((1.0, guidance) if model.has_prompt else (1.0,)):
            found = _prompted(bench, model, scale, scans, extractor, real, judges)
            asked = np.tile(np.arange(len(bench.types)), found["num_masks"])
            told = {name: np.array(values) for name, values in found["told"].items()}
            accuracies = {name: _accuracy(asked, values, bench) for name, values in told.items()}
            title = model.name if not model.has_prompt else f"{model.name}, guidance {scale:g}"
            panels[title] = confusion(asked, told["all"], num_types=len(bench.types))
            means = np.array(found["mean_hu"]).reshape(found["num_masks"], -1).mean(axis=0)
            prompt = model.settings.get("prompt_encoder", "-")
            rows.append(
                [
                    model.name,
                    prompt,
                    f"{scale:g}" if model.has_prompt else "-",
                    str(found["num_masks"]),
                    *(interval(estimate, 2) for estimate in accuracies.values()),
                    interval(Estimate(**found["kid"]), 2),
                    *(f"{mean:.0f}" for mean in means),
                ]
            )
            content.append(
                {
                    "model": model.name,
                    "run": str(model.run),
                    "guidance": scale,
                    "accuracy": {name: estimate.model_dump() for name, estimate in accuracies.items()},
                    "confusion": panels[title].tolist(),
                    **found,
                    **bench.where,
                }
            )
    header = ["method", "prompt", "guidance", "N", "accuracy", "accuracy, mean HU alone", "lesion-KID"]
    lines = ["# Prompts", "", *markdown([*header, *(f"{readable(name)}, HU" for name in bench.types)], rows), ""]
    lines += [
        f"N masks in held-out scans, {count} of each type, each painted once under each of {len(bench.types)} types "
        "with the same noise, blended, no quality filter; of real lesions N is their own number. Accuracy: linear "
        "discriminant analysis trained on the real lesions of the training subjects tells the asked-for type (chance "
        f"{1 / len(bench.types):.2f}); its features are those of the KID and the statistics of the HU inside the mask, "
        "or the mean HU alone; of real lesions the mean over types. Interval: 95 %, 2000 bootstrap resamples of masks. "
        f"{kid_words(real, bench.seed)} Of the painted ones those under their mask's own type count for it. "
        f"Last columns: mean HU over all masks under that prompt. Sampling: {sampling_words(bench)}.",
    ]
    save_figure(confusion_figure(panels, bench.types), bench.out / "prompts.png")
    write(bench, lines, {"num_real": len(real.types), "rows": content})


def _train_judges(real: DescribedLesions, num_types: int) -> Judges:
    """Train a classifier on everything there is, and one on the mean HU alone, which texture cannot mislead."""
    columns: dict[str, Callable[[DescribedLesions], np.ndarray]] = {
        "all": lambda lesions: np.hstack([lesions.features, lesions.intensity]),
        "mean HU": lambda lesions: lesions.mean_hu[:, None],
    }
    seen = real.is_training
    return {
        name: (fit_type_classifier(choose(real)[seen], real.types[seen], num_types=num_types), choose)
        for name, choose in columns.items()
    }


def _prompted(
    bench: Bench,
    model: Model,
    guidance: float,
    scans: Sequence[MaskedScan],
    extractor: ImageNetSliceFeatures,
    real: DescribedLesions,
    judges: Judges,
) -> dict[str, Any]:
    """Paint every mask under every prompt and let the classifiers judge, or read what they said."""
    synthesizer = bench.load(model, guidance_scale=guidance)
    identity = {
        "model": synthesizer.card.model_hash,
        "synthesis": bench.sampling(model, guidance_scale=guidance).model_dump(mode="json"),
        "masks": masks_hash(scans),
    }

    def measure() -> dict[str, Any]:
        parts: list[DescribedLesions] = []
        own: list[int] = []
        with progress_bar(f"{model.name}, guidance {guidance:g}", len(scans)) as bar:
            for done, scan in enumerate(scans, start=1):
                repeated, types = under_every_prompt(scan, num_types=len(bench.types))
                painted = paint_masks(repeated, synthesizer, types=types, batch_size=bench.batch_size)
                crops = painted_crops(bench, repeated, painted, types, synthesizer.card.edge_mm)
                parts.append(described(bench, crops, extractor, np.array(types)))
                own += [lesion.type_index for lesion in scan.lesions]
                bar.update(done)
        lesions = joined(parts)
        asked = lesions.types
        is_own = asked == np.repeat(own, len(bench.types))
        return {
            "num_masks": len(own),
            "mask_types": own,
            "subjects": [scan.subject for scan in scans for _ in scan.lesions],
            "told": {name: judge(columns(lesions)).tolist() for name, (judge, columns) in judges.items()},
            "mean_hu": lesions.mean_hu.round(2).tolist(),
            "std_hu": lesions.std_hu(bench).round(2).tolist(),
            **lesion_kids(bench, real, lesions.features[is_own], asked[is_own]),
        }

    return bench.part(f"{model.name}-guidance-{guidance:g}", identity, measure)


def _mean_of_type(mean_hu: np.ndarray, types: np.ndarray, index: int) -> str:
    return f"{mean_hu[types == index].mean():.0f}" if (types == index).any() else "-"


def _accuracy(asked: np.ndarray, told: np.ndarray, bench: Bench) -> Estimate:
    """Share of right answers, the interval from resampling masks with all their prompts."""
    per_mask = (asked == told).reshape(-1, len(bench.types)).mean(axis=1)
    return type_mean_bootstrap(per_mask[:, None], seed=bench.seed)
