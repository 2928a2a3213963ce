"""Folders of predicted label maps, one for each training of each method, scored on the same cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from promptlesion.data.dataset import Dataset
from promptlesion.evaluation.segmentation_metrics import LesionScore, evaluate_folder


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


def cases_without(dataset: Dataset, folders: Mapping[str, Sequence[Path]]) -> tuple[str, ...]:
    """Return the cases that lack a label map in one of the folders: a mean over the others may hide failures."""
    paths = [folder for several in folders.values() for folder in several]
    return tuple(
        case.name for case in dataset.cases if not all((folder / f"{case.name}.nii.gz").is_file() for folder in paths)
    )


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
