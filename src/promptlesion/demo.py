"""The whole loop: real scans -> three stages -> synthetic scans -> does segmentation get better? -> report."""

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from promptlesion.autoencoder.autoencoder import load_autoencoder
from promptlesion.autoencoder.lesion_bias import autoencoded_mean_hu
from promptlesion.autoencoder.train import train_autoencoder
from promptlesion.config import Config
from promptlesion.cost.fitting import fitted_config
from promptlesion.data.cache import data_fingerprint
from promptlesion.data.dataset import Dataset, open_dataset
from promptlesion.data.phantom import write_phantom_dataset
from promptlesion.data.prepared import PreparedDataset, prepare_dataset
from promptlesion.evaluation.distances import fidelity_rows
from promptlesion.evaluation.features import ImageNetSliceFeatures
from promptlesion.evaluation.figures import (
    dice_figure,
    hu_histogram_figure,
    save_figure,
    training_curves_figure,
)
from promptlesion.evaluation.lesion_intensity import intensity_rows, mean_hu_by_type, prompt_switch
from promptlesion.evaluation.lesions import LesionCrop, by_type, collect_lesions
from promptlesion.evaluation.montage import montage_figure, overview_figure
from promptlesion.evaluation.report import write_report
from promptlesion.evaluation.results import (
    DemoResults,
    FidelityRow,
    IntensityRow,
    PromptSwitch,
    StageTime,
    read_results,
    write_results,
)
from promptlesion.evaluation.segmentation_metrics import (
    LesionScore,
    case_score_rows,
    evaluate_folder,
    false_positive_rows,
    segmentation_rows,
)
from promptlesion.evaluation.slice_changes import largest_change, montage_columns
from promptlesion.evaluation.summary import dataset_summary, machine_text
from promptlesion.masks.sizes_and_shapes import build_drawing
from promptlesion.methods import PROMPTLESION, load_method, train_method
from promptlesion.segmentation.predict import segment_dataset
from promptlesion.segmentation.stage import train_stage
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.plan import mean_lesions_per_case
from promptlesion.synthesis.prompt_switch import measure_prompt_switch
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, load_synthesizer
from promptlesion.training.atomic import read_json, write_json
from promptlesion.training.device import resolve_device
from promptlesion.training.progress import progress_bar
from promptlesion.training.run import Run, RunOptions, read_metrics

_SEGMENTATIONS = ("real", "mixed")


@dataclass(frozen=True)
class Demo:
    """Everything the steps of the demo share."""

    out: Path
    config: Config
    seed: int
    device: str
    prepared: PreparedDataset

    @property
    def dataset(self) -> Dataset:
        """The real scans."""
        return self.prepared.dataset

    @property
    def type_names(self) -> list[str]:
        """Lesion types in prompt order."""
        return [lesion.name for lesion in self.dataset.spec.lesions]

    def options(self, training: str, out: Path) -> RunOptions:
        """Return where and how a training runs, the machine used so that it fits into its memory."""
        fitted = fitted_config(self.config, training, self.dataset, out=out, device=self.device)
        return RunOptions(out, self.seed, self.device, fitted.hardware)


def run_demo(
    *,
    out: Path,
    config: Config,
    seed: int,
    device: str,
    command: str,
    data: Path | None = None,
    lesions: Path | None = None,
) -> tuple[DemoResults, bool]:
    """Run the whole loop, or what is left of it.

    Args:
        out: folder of all runs, the synthetic dataset, the results and the report.
        config: of every stage.
        seed: of everything random but the split.
        device: `auto` or a device's name.
        command: as typed, for the report.
        data: a dataset folder; without one the built-in phantom is made.
        lesions: another `lesions.toml` than the folder's own.

    Returns:
        The results, and whether there was anything to do.
    """
    started = time.perf_counter()
    root = data or out / "data"
    if data is None:
        with progress_bar("phantom", config.demo.phantom_cases) as bar:
            write_phantom_dataset(
                "ccta",
                num_cases=config.demo.phantom_cases,
                seed=seed,
                out=root,
                num_workers=min(2, os.cpu_count() or 1),
                on_progress=lambda done, _: bar.update(done),
            )
    prepared = prepare_dataset(root, cache=out / "cache", lesions=lesions, **config.data.split_options())
    prepared.check_held_out()
    data_seconds = time.perf_counter() - started
    demo = Demo(out, config, seed, device, prepared)
    run = Run(
        out,
        stage="demo",
        config=config.of_results(),
        seed=seed,
        inputs={"data": data_fingerprint([*prepared.train, *prepared.validation, *prepared.test])},
        device=resolve_device(device),
    )
    if run.is_finished:
        return read_results(out / "results.json"), False
    runs = _train_generator(demo)
    synthesizer = load_synthesizer(out / "diffusion", config.synthesis, device=device, hardware=config.hardware)
    runs["synthesis"] = _synthesize(demo, synthesizer)
    switch_started = time.perf_counter()
    switch = _prompt_switch(demo, synthesizer)
    switch_seconds = time.perf_counter() - switch_started
    synthetic = open_dataset(out / "synthetic")
    runs |= _train_segmentations(demo, synthetic)
    evaluation_started = time.perf_counter()
    results, figures = _evaluate(demo, synthetic, switch, command)
    seconds = {
        "data": data_seconds,
        **{name: stage.seconds for name, stage in runs.items()},
        "prompt switch": switch_seconds,
        "evaluation": time.perf_counter() - evaluation_started,
    }
    times = tuple(StageTime(stage=name, seconds=round(value, 1)) for name, value in seconds.items())
    results = results.model_copy(update={"stages": times})
    write_results(results, out / "results.json")
    write_report(out, results, figures)
    run.finish()
    return results, True


def _train_generator(demo: Demo) -> dict[str, Run]:
    """Train stages 1 and 2 on the training subjects."""
    prepared = demo.prepared
    autoencoder = train_autoencoder(
        prepared.training,
        validation_cases=prepared.validation,
        config=demo.config.autoencoder,
        options=demo.options("autoencoder", demo.out / "autoencoder"),
    )
    diffusion = train_method(
        PROMPTLESION,
        prepared,
        autoencoder_run=demo.out / "autoencoder",
        config=demo.config,
        options=demo.options(PROMPTLESION, demo.out / "diffusion"),
    )
    return {"autoencoder": autoencoder, "diffusion": diffusion}


def _synthesize(demo: Demo, synthesizer: PromptLesionSynthesizer) -> Run:
    """Paint about as many synthetic cases as there are real training cases, every type equally often."""
    config = demo.config
    num_cases = config.demo.synthetic_cases or len(demo.prepared.train)
    per_case = mean_lesions_per_case(
        demo.type_names, synthesizer.card.statistics, lesions_per_case=config.synthesis.lesions_per_case
    )
    per_type = max(1, math.ceil(num_cases * per_case / len(demo.type_names)))
    return synthesize_cohort(
        demo.prepared.part("train"),
        synthesizer,
        counts=dict.fromkeys(demo.type_names, per_type),
        config=config.synthesis,
        out=demo.out / "synthetic",
        seed=demo.seed,
        load=partial(load_method, demo.out / "diffusion", config.synthesis),
    )


def _prompt_switch(demo: Demo, synthesizer: PromptLesionSynthesizer) -> dict[str, list[float]]:
    """Measure what the prompt alone does, on the scans of held-out subjects; measured once."""
    if len(demo.type_names) < 2:
        return {}  # there is no other prompt to switch to
    path = demo.out / "prompt_switch.json"
    if not path.is_file():
        measured = measure_prompt_switch(
            demo.prepared.part("test"),
            synthesizer,
            num_lesions=demo.config.demo.prompt_switch_lesions,
            drawing=build_drawing(
                demo.prepared.part("train"),
                synthesizer.card.statistics,
                demo.config.synthesis,
                max_extent_mm=synthesizer.card.max_extent_mm,
            ),
            seed=demo.seed,
        )
        columns = measured.mean_hu.round(2).T.tolist()
        write_json(path, {"mean_hu": dict(zip(measured.types, columns, strict=True))})
    mean_hu: dict[str, list[float]] = read_json(path)["mean_hu"]
    return mean_hu


def _train_segmentations(demo: Demo, synthetic: Dataset) -> dict[str, Run]:
    """Train the same network on real scans alone, and on real and synthetic ones."""
    return {
        f"segmentation, {name}": train_stage(
            demo.prepared,
            synthetic=synthetic if name == "mixed" else None,
            cache=demo.out / "cache",
            config=demo.config.segmentation,
            options=demo.options("segmentation", demo.out / "segmentation" / name),
        )
        for name in _SEGMENTATIONS
    }


def _evaluate(
    demo: Demo, synthetic: Dataset, switch: Mapping[str, list[float]], command: str
) -> tuple[DemoResults, dict[str, Path]]:
    """Measure everything on the held-out subjects and draw the figures."""
    config, dataset, prepared = demo.config, demo.dataset, demo.prepared
    is_phantom = dataset.root == demo.out / "data"
    scores = {name: _score(demo, name) for name in _SEGMENTATIONS}
    margin = config.evaluation.feature_margin_voxels
    held_out = by_type(collect_lesions(prepared.part("test"), margin_voxels=margin), demo.type_names)
    trained_on = by_type(collect_lesions(prepared.part("train"), margin_voxels=margin), demo.type_names)
    painted = by_type(collect_lesions(synthetic, source=dataset, margin_voxels=margin), demo.type_names)
    options = {"seed": demo.seed, "num_resamples": config.evaluation.num_resamples}
    segmentation = segmentation_rows(
        scores["real"], scores["mixed"], tolerance_mm=config.evaluation.surface_tolerance_mm, **options
    )
    case_scores = tuple(row for name in _SEGMENTATIONS for row in case_score_rows(name, scores[name]))
    intensity, switched = _intensity(demo, held_out, painted, switch)
    results = DemoResults(
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=demo.seed,
        machine=machine_text(demo.device),
        versions={name: version(name) for name in ("promptlesion", "torch", "monai", "numpy")},
        dataset=dataset_summary(
            prepared,
            name="coronary CTA phantom" if is_phantom else dataset.root.resolve().name,
            num_synthetic_cases=len(synthetic.cases),
            is_phantom=is_phantom,
        ),
        segmentation=segmentation,
        false_positives=false_positive_rows(scores["real"], scores["mixed"]),
        case_scores=case_scores,
        fidelity=_fidelity(demo, held_out, trained_on, painted),
        intensity=intensity,
        prompt_switch=switched,
        stages=(),
        configuration=config.model_dump(mode="json"),
        limits=_limits(demo, is_phantom=is_phantom),
        num_resamples=config.evaluation.num_resamples,
    )
    return results, _draw(demo, synthetic, results, held_out, painted)


def _score(demo: Demo, name: str) -> list[LesionScore]:
    """Segment the held-out scans with one of the two networks and score every lesion type."""
    folder = demo.out / "segmentation" / name
    test = demo.prepared.part("test")
    with progress_bar(f"segmenting, {name}", len(test.cases)) as bar:
        segment_dataset(
            folder,
            test,
            folder / "predictions",
            device=demo.device,
            on_progress=lambda done, _: bar.update(done),
        )
    return evaluate_folder(test, folder / "predictions", tolerance_mm=demo.config.evaluation.surface_tolerance_mm)


def _fidelity(
    demo: Demo,
    held_out: Mapping[str, list[LesionCrop]],
    trained_on: Mapping[str, list[LesionCrop]],
    painted: Mapping[str, list[LesionCrop]],
) -> tuple[FidelityRow, ...]:
    """Compare synthetic lesions with held-out real ones, and real training lesions with them for scale."""
    extractor = ImageNetSliceFeatures(window=demo.dataset.window, device=resolve_device(demo.device))
    return tuple(
        row
        for compared, others in (
            ("held-out against synthetic", painted),
            ("held-out against training", trained_on),
        )
        for row in fidelity_rows(extractor, held_out, others, compared=compared, seed=demo.seed)
    )


def _intensity(
    demo: Demo,
    held_out: Mapping[str, list[LesionCrop]],
    painted: Mapping[str, list[LesionCrop]],
    switch: Mapping[str, list[float]],
) -> tuple[tuple[IntensityRow, ...], tuple[PromptSwitch, ...]]:
    """Return the HU bias of the autoencoder and of the synthetic lesions, and what the prompt alone does."""
    names = demo.type_names
    real_hu = {name: mean_hu_by_type(held_out[name], [name])[name] for name in names}
    synthetic_hu = {name: mean_hu_by_type(painted[name], [name])[name] for name in names}
    device = resolve_device(demo.device)
    autoencoder = load_autoencoder(demo.out / "autoencoder", device)
    pairs = autoencoded_mean_hu(
        autoencoder.network,
        demo.prepared.test,
        spec=demo.dataset.spec,
        patch_voxels=demo.config.diffusion.patch_voxels,
        precision=autoencoder.config.precision,
        device=device,
    )
    autoencoded_hu = {name: values[:, 1] for name, values in pairs.items()}
    rows = intensity_rows("autoencoded", real_hu, autoencoded_hu) + intensity_rows("synthetic", real_hu, synthetic_hu)
    if not switch:
        return rows, ()
    switched = prompt_switch(
        demo.config.diffusion.prompt_encoder,
        {name: np.array(values) for name, values in switch.items()},
        {name: float(values.mean()) for name, values in real_hu.items() if len(values)},
    )
    return rows, (switched,)


def _draw(
    demo: Demo,
    synthetic: Dataset,
    results: DemoResults,
    held_out: Mapping[str, list[LesionCrop]],
    painted: Mapping[str, list[LesionCrop]],
) -> dict[str, Path]:
    """Draw every figure of the report, each also a PNG file of its own."""
    dataset, out = demo.dataset, demo.out
    metrics = {
        "autoencoder": read_metrics(out / "autoencoder"),
        "diffusion": read_metrics(out / "diffusion"),
        **{f"segmentation, {name}": read_metrics(out / "segmentation" / name) for name in _SEGMENTATIONS},
    }
    histograms = [
        {
            name: np.concatenate([lesion.voxels_hu for lesion in lesions[name]])
            for name in demo.type_names
            if lesions[name]
        }
        for lesions in (held_out, painted)
    ]
    figures = {
        "montage": montage_figure(montage_columns(synthetic, dataset), dataset),
        "overview": overview_figure(largest_change(synthetic, dataset), dataset),
        "dice": dice_figure(results.segmentation, results.case_scores, demo.type_names),
        "hu_histogram": hu_histogram_figure(*histograms, window_hu=dataset.spec.window_hu),
        "training_curves": training_curves_figure(metrics),
    }
    return {name: save_figure(figure, out / "figures" / f"{name}.png") for name, figure in figures.items()}


def _limits(demo: Demo, *, is_phantom: bool) -> tuple[str, ...]:
    """Say what the figures do not show."""
    config = demo.config
    limits = [
        f"One seed ({demo.seed}) and one split; another seed changes the Dice by an unknown amount.",
        f"Short training: {config.diffusion.num_steps} diffusion steps where the paper has 60 000; "
        f"patches of {config.autoencoder.patch_voxels} voxels where the paper has 96.",
        "FID and KID come from an ImageNet network on slices, not from the paper's MedicalNet: compare them within "
        "this report only.",
    ]
    if is_phantom:
        limits.insert(0, "A made-up phantom, not patients: nothing here says how the method does on real scans.")
    return tuple(limits)
