"""Folders of predicted label maps, one for each training of each method, scored on the same cases."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from promptlesion.data.dataset import Dataset
from promptlesion.evaluation.config import EvaluationConfig
from promptlesion.evaluation.method_comparison import MethodRow, method_rows
from promptlesion.evaluation.segmentation_metrics import LesionScore, evaluate_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparedPredictions:
    """The scores of one or more methods' label maps, and each method against the reference."""

    reference: str
    tolerance_mm: float
    """Of the surface Dice."""
    folders: Mapping[str, Sequence[Path]]
    scores: Mapping[str, Sequence[Sequence[LesionScore]]]
    """By method, then by training."""
    rows: Sequence[MethodRow]
    missing: tuple[str, ...]
    """Cases that have no label map."""

    def as_json(self) -> dict[str, object]:
        """Return every figure."""
        raw = [
            {"method": name, "folder": str(folder), **asdict(score)}
            for name, runs in self.scores.items()
            for folder, run in zip(self.folders[name], runs, strict=True)
            for score in run
        ]
        return {
            "surface_tolerance_mm": self.tolerance_mm,
            "reference": self.reference,
            "cases_without_label_map": self.missing,
            "rows": [row.model_dump(mode="json") for row in self.rows],
            "scores": raw,
        }


def compare_predictions(
    dataset: Dataset,
    folders: Mapping[str, Sequence[Path]],
    *,
    reference: str | None,
    seed: int,
    config: EvaluationConfig,
) -> ComparedPredictions:
    """Score the label maps of methods, and compare each with the reference, the first unless said.

    Raises:
        ValueError: the reference is none of the methods, or no case has a label map.
    """
    reference = reference or next(iter(folders))
    if reference not in folders:
        raise ValueError(f"--reference {reference}: expected a name of --predictions, {', '.join(folders)}")
    tolerance_mm = config.surface_tolerance_mm
    scores = score_folders(dataset, folders, tolerance_mm=tolerance_mm)
    rows = method_rows(scores, reference=reference, seed=seed, num_resamples=config.num_resamples)
    scored = {score.case for score in scores[reference][0]}
    missing = tuple(case.name for case in dataset.cases if case.name not in scored)
    if missing:
        logger.warning(
            "%d of the %d cases have no label map and are not in these figures: %s. Where they were not meant to be "
            "segmented: --part test, or --allow-missing",
            len(missing),
            len(dataset.cases),
            ", ".join(missing[:10]) + (", …" if len(missing) > 10 else ""),
        )
    return ComparedPredictions(reference, tolerance_mm, folders, scores, rows, missing)


def parse_predictions(texts: Sequence[str]) -> dict[str, list[Path]]:
    """Read `NAME=FOLDER` or `FOLDER`, which is then its own name; folders of one name are seeds of one method."""
    folders: dict[str, list[Path]] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or Path(text).is_dir():
            name, folder = text, text
        if not name or not folder:
            raise ValueError(f"--predictions {text}: expected NAME=FOLDER or FOLDER")
        if Path(folder) in folders.get(name, ()):
            raise ValueError(f"--predictions {text}: expected a folder of its own for every seed, found it twice")
        folders.setdefault(name, []).append(Path(folder))
    return folders


def score_folders(
    dataset: Dataset, folders: Mapping[str, Sequence[Path]], *, tolerance_mm: float
) -> dict[str, list[list[LesionScore]]]:
    """Score every folder on the cases it has, which must be the same in all of them: the input of `method_rows`."""
    first: tuple[Path, set[str]] | None = None
    for folder in (folder for several in folders.values() for folder in several):
        found = {case.name for case in dataset.cases if (folder / f"{case.name}.nii.gz").is_file()}
        if not found:
            raise ValueError(f"{folder}: expected label maps of cases of {dataset.root}, CASE.nii.gz; found none")
        first = first or (folder, found)
        if found != first[1]:
            odd = sorted(found ^ first[1])[0]
            has, lacks = (folder, first[0]) if odd in found else (first[0], folder)
            raise ValueError(f"{lacks}: expected the same cases as in {has}, but there is no {odd}.nii.gz")
    cases = first[1] if first else set()
    part = dataset.select(cases)
    return {
        name: [evaluate_folder(part, folder, tolerance_mm=tolerance_mm) for folder in several]
        for name, several in folders.items()
    }
