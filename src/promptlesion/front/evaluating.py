"""Segmentations and painted lesions measured: the verbs `evaluate segmentation` and `evaluate fidelity`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from promptlesion.config import Config
from promptlesion.data.dataset import Dataset
from promptlesion.data.splits import dataset_split
from promptlesion.evaluation.distributions import distribution_figure
from promptlesion.evaluation.extractors import build_extractors
from promptlesion.evaluation.fidelity import Fidelity, measure_fidelity, plaque_types, training_cases
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.lesions import by_type, collect_lesions
from promptlesion.evaluation.method_comparison import MethodRow, method_rows
from promptlesion.evaluation.prediction_folders import cases_without, score_folders
from promptlesion.evaluation.segmentation_metrics import LesionScore
from promptlesion.front.settings import as_config
from promptlesion.front.verbs import open_dataset
from promptlesion.training.atomic import write_json
from promptlesion.training.device import resolve_device
from promptlesion.training.progress import progress_reports

Folders = Mapping[str, Sequence[str | Path]]
"""Folders of label maps by the name of the method, one for each training of it."""


@dataclass(frozen=True)
class Scores:
    """What segmentations are worth."""

    rows: tuple[MethodRow, ...]
    """Every metric of every method, with interval and difference to the reference."""
    scores: Mapping[str, Sequence[Sequence[LesionScore]]]
    """By method and training, of every case and type."""
    missing: tuple[str, ...]
    """Cases without a label map, which are not in the figures."""
    reference: str
    surface_tolerance_mm: float


def evaluate(
    data: str | Path,
    predictions: str | Path | Folders,
    *,
    reference: str | None = None,
    out: str | Path | None = None,
    part: str = "all",
    lesions: str | Path | None = None,
    seed: int = 0,
    config: Config | str = "default",
) -> Scores:
    """Score label maps against a dataset's own: Dice, surface Dice, HD95, lesions found and false ones.

    Args:
        data: dataset folder.
        predictions: a folder that `segment` wrote, or several by the name of their method.
        reference: the method the others are compared with, by default the first.
        out: JSON file for every figure.
        part: `all`, or `test`: the cases of the split's held-out subjects alone.
        lesions: a `lesions.toml` elsewhere.
        seed: of the intervals and tests.
        config: a preset's name, or what `resolve_config` gave.

    Raises:
        ValueError: no label map at all, one that does not fit its scan, or an unknown reference or part.
    """
    given = predictions if isinstance(predictions, Mapping) else {str(predictions): [predictions]}
    folders = {name: [Path(folder) for folder in several] for name, several in given.items()}
    reference = reference or next(iter(folders), "")
    if reference not in folders:
        raise ValueError(f"--reference {reference}: expected a name of --predictions, {', '.join(folders)}")
    resolved = as_config(config)
    dataset = _part(open_dataset(data, lesions=lesions), part, resolved)
    settings = resolved.evaluation
    scores = score_folders(dataset, folders, tolerance_mm=settings.surface_tolerance_mm)
    rows = method_rows(scores, reference=reference, seed=seed, num_resamples=settings.num_resamples)
    missing = cases_without(dataset, folders)
    found = Scores(tuple(rows), scores, missing, reference, settings.surface_tolerance_mm)
    if out is not None:
        write_json(Path(out), _as_json(found, folders))
    return found


def _part(dataset: Dataset, part: str, config: Config) -> Dataset:
    if part not in ("all", "test"):
        raise ValueError(f"part: expected all or test; found {part!r}")
    if part == "all":
        return dataset
    return dataset.select(dataset_split(dataset, **config.data.split_options()).test)


def _as_json(found: Scores, folders: Mapping[str, Sequence[Path]]) -> dict[str, object]:
    raw = [
        {"method": name, "folder": str(folder), **asdict(score)}
        for name, runs in found.scores.items()
        for folder, run in zip(folders[name], runs, strict=True)
        for score in run
    ]
    return {
        "surface_tolerance_mm": found.surface_tolerance_mm,
        "reference": found.reference,
        "cases_without_label_map": found.missing,
        "rows": [row.model_dump(mode="json") for row in found.rows],
        "scores": raw,
    }


def evaluate_fidelity(
    real: str | Path,
    synthetic: str | Path,
    *,
    out: str | Path | None = None,
    figure: str | Path | None = None,
    training: str | Path | None = None,
    lesions: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "default",
) -> Fidelity:
    """Compare painted lesions with real ones: FID, KID, how HU, texture and size are spread, and copies.

    Args:
        real: dataset folder with real lesions.
        synthetic: dataset folder that `synthesize` wrote.
        out: JSON file for every figure.
        figure: PNG of the distributions.
        training: dataset folder the generator was trained on, all of it; by default the training part of `real`.
        lesions: a `lesions.toml` elsewhere.
        seed: of the intervals.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        config: a preset's name, or what `resolve_config` gave.

    Raises:
        ValueError: no painted lesion of a type that the real scans have.
    """
    resolved, dataset, painted = as_config(config), open_dataset(real, lesions=lesions), open_dataset(synthetic)
    settings = resolved.evaluation
    extractors = build_extractors(
        settings.extractors, window=dataset.window, weights=settings.weights, device=resolve_device(device)
    )
    margin = settings.feature_margin_voxels
    with progress_reports("cutting lesions out") as report:
        real_lesions = collect_lesions(dataset, margin_voxels=margin, on_progress=report)
    painted_lesions = collect_lesions(painted, source=dataset, margin_voxels=margin)
    seen = training_cases(dataset, painted, **resolved.data.split_options())
    if training is None:
        training_lesions = [lesion for lesion in real_lesions if lesion.case in seen]
    else:
        training_lesions = collect_lesions(open_dataset(training, lesions=lesions))
    types = dataset.spec.lesions
    with progress_reports("searching for copies") as report:
        measured = measure_fidelity(
            real_lesions,
            painted_lesions,
            training_lesions,
            lesion_types=types,
            extractors=extractors,
            seed=seed,
            on_progress=report,
        )
    if not measured.fidelity:
        raise ValueError(f"{synthetic}: expected painted lesions of a type that {real} has; found none")
    if out is not None:
        write_json(Path(out), measured.model_dump(mode="json"))
    if figure is not None:
        names = [lesion.name for lesion in types]
        sides = by_type(real_lesions, names), {"synthetic": by_type(painted_lesions, names)}
        save_figure(distribution_figure(*sides, plaque_types=plaque_types(types)), Path(figure))
    return measured
