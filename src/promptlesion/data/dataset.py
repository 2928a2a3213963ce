"""The dataset folder: an nnU-Net v2 raw dataset with a `lesions.toml`, read and written."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from promptlesion.data.case_check import (
    check_hounsfield,
    check_same_grid,
    check_spacing,
    checked_labels,
    on_the_grid_of,
)
from promptlesion.data.dataset_json import (
    FILE_ENDING,
    IGNORE_LABEL,
    read_dataset_json,
    read_labels,
    read_subject_pattern,
    read_subjects,
    write_dataset_json,
)
from promptlesion.data.intensity import HUWindow
from promptlesion.data.provenance import read_provenance
from promptlesion.data.spec import DatasetError, DatasetSpec, LesionType, read_spec, write_spec
from promptlesion.data.volume import Volume, VolumeError, read_volume, write_volume

__all__ = [
    "IMAGE_ENDING",
    "Case",
    "Dataset",
    "DatasetError",
    "DatasetSpec",
    "LesionType",
    "image_path",
    "label_path",
    "open_dataset",
    "read_case",
    "read_spec",
    "write_case",
    "write_dataset_json",
    "write_spec",
]

IMAGE_ENDING = f"_0000{FILE_ENDING}"
"""Of a CT; nnU-Net numbers channels, and we have one."""


@dataclass(frozen=True)
class Case:
    """One labelled scan of a dataset folder."""

    name: str
    subject: str
    image_path: Path
    label_path: Path


@dataclass(frozen=True)
class Dataset:
    """A dataset folder, its files listed but not read. `labels` maps names to values, background included."""

    root: Path
    spec: DatasetSpec
    labels: dict[str, int]
    cases: tuple[Case, ...]

    @property
    def window(self) -> HUWindow:
        """The HU window of the networks."""
        return HUWindow(*self.spec.window_hu)

    @property
    def lesion_labels(self) -> tuple[int, ...]:
        """Label values of the lesion types, in prompt order."""
        return tuple(lesion.label for lesion in self.spec.lesions)

    @property
    def ignored_label(self) -> int | None:
        """The value of voxels that nobody labelled, where the dataset has nnU-Net's label `ignore`."""
        return self.labels.get(IGNORE_LABEL)

    def host_labels(self, lesion: LesionType) -> tuple[int, ...]:
        """Label values that a lesion of this type may be placed in."""
        return tuple(self.labels[name] for name in lesion.host)

    def lumen_labels(self, lesion: LesionType) -> tuple[int, ...]:
        """Label values that a crescent of this type lies against and never enters."""
        return tuple(self.labels[name] for name in lesion.lumen)

    def case(self, name: str) -> Case:
        """The case of this name."""
        return self.select([name]).cases[0]

    def select(self, names: Iterable[str]) -> "Dataset":
        """The same dataset with these cases only, in its own order; a name it does not have is an error."""
        wanted = set(names)
        unknown = sorted(wanted - {case.name for case in self.cases})
        if unknown:
            raise DatasetError(f"{self.root}: expected cases of this dataset, found no case named {', '.join(unknown)}")
        return replace(self, cases=tuple(case for case in self.cases if case.name in wanted))


def image_path(root: Path, name: str) -> Path:
    """Where the CT of a case lies."""
    return root / "imagesTr" / f"{name}{IMAGE_ENDING}"


def label_path(root: Path, name: str) -> Path:
    """Where the label map of a case lies."""
    return root / "labelsTr" / f"{name}{FILE_ENDING}"


def open_dataset(root: Path, lesions: Path | None = None) -> Dataset:
    """Open a dataset folder, with another `lesions.toml` than its own where `lesions` names one.

    Reads `dataset.json` and `lesions.toml` and lists the cases, but opens no scan. Lesion types that healthy scans do
    not have yet take the label values that follow those of `dataset.json`. Whatever does not fit together raises
    `DatasetError`.
    """
    own_labels = read_labels(root / "dataset.json")
    spec_path = root / "lesions.toml" if lesions is None else lesions
    spec = read_spec(spec_path)
    subjects = read_subjects(root / "dataset.json") if spec.subject_pattern is None else {}
    if spec.subject_pattern is None:
        spec = spec.model_copy(update={"subject_pattern": read_subject_pattern(root / "dataset.json")})
    labels = _with_new_lesions(own_labels, spec, spec_path)
    for lesion in spec.lesions:
        _check_lesion(lesion, labels, spec_path)
    return Dataset(root=root, spec=spec, labels=labels, cases=_list_cases(root, spec, subjects))


def read_case(dataset: Dataset, case: Case) -> tuple[Volume, Volume]:
    """Read a case's CT, in HU, and its label map, uint8, both RAS+ on one grid.

    Raises `DatasetError` naming the case where a file is missing or truncated, the grids differ, the voxels
    are not HU, or the label map holds a value that `dataset.json` does not name.
    """
    try:
        image, labels = read_volume(case.image_path), read_volume(case.label_path)
    except VolumeError as error:
        raise DatasetError(f"{case.name}: {error}") from error
    labels = on_the_grid_of(case.name, image, labels)
    check_spacing(case.name, image)
    check_hounsfield(case.name, image.array)
    return image, labels.with_array(checked_labels(case.name, labels.array, dataset.labels.values()))


def write_case(root: Path, name: str, image: Volume, labels: Volume, *, description: str = "") -> None:
    """Write a case; its CT comes last, so that a case whose CT is there is whole.

    `description` goes to both files' NIfTI headers; see `write_volume`.
    """
    check_same_grid(name, image, labels)
    write_volume(labels, label_path(root, name), description=description)
    write_volume(image, image_path(root, name), description=description)


def _with_new_lesions(labels: dict[str, int], spec: DatasetSpec, path: Path) -> dict[str, int]:
    """The labels of a dataset with those lesion types that no scan of it has; nnU-Net wants values without a gap."""
    extended = dict(labels)
    for lesion in sorted(spec.lesions, key=lambda lesion: lesion.label):
        if lesion.label in extended.values():
            continue
        following = max(extended.values()) + 1
        if lesion.label != following or lesion.name in extended:
            raise DatasetError(
                f"{path}: expected lesions.{lesion.name}.label to be a label of dataset.json ({labels}), or "
                f"{following} under a new name for a lesion that no scan has yet, found {lesion.label}"
            )
        extended[lesion.name] = lesion.label
    return extended


def _check_lesion(lesion: LesionType, labels: dict[str, int], path: Path) -> None:
    names = ", ".join(name for name in labels if name != IGNORE_LABEL)
    if lesion.label == labels.get(IGNORE_LABEL):
        raise DatasetError(
            f"{path}: expected lesions.{lesion.name}.label to be a label that is looked at, found nnU-Net's `ignore`"
        )
    if not lesion.host:
        raise DatasetError(
            f"{path}: expected lesions.{lesion.name} to name its host, found none; the labels are {names}"
        )
    for key, named in (("host", lesion.host), ("lumen", lesion.lumen)):
        for name in named:
            if name not in labels or name == IGNORE_LABEL:
                raise DatasetError(
                    f"{path}: expected lesions.{lesion.name}.{key} to name labels of dataset.json ({names}), "
                    f"found {name!r}"
                )


def _list_cases(root: Path, spec: DatasetSpec, subjects: Mapping[str, str]) -> tuple[Case, ...]:
    folder = root / "imagesTr"
    paths = sorted(path for path in folder.glob(f"*{FILE_ENDING}") if not path.name.startswith("."))
    if not paths:
        is_listed = "dataset" in read_dataset_json(root / "dataset.json")
        hint = (
            "; dataset.json lists files under `dataset`: `promptlesion prepare` brings them here" if is_listed else ""
        )
        raise DatasetError(f"{folder}: expected CTs named CASE{IMAGE_ENDING}, found none{hint}")
    for path in paths:
        if not path.name.endswith(IMAGE_ENDING):
            raise DatasetError(
                f"{path}: expected one channel a case, CASE{IMAGE_ENDING}, found {path.name}; several "
                "channels are not supported"
            )
    names = [path.name.removesuffix(IMAGE_ENDING) for path in paths]
    missing = [name for name in names if not label_path(root, name).is_file()]
    if missing:
        raise DatasetError(f"{missing[0]}: expected the label map {label_path(root, missing[0])}, found none")
    provenance = read_provenance(root)
    of_source = {name: str(line["subject"]) for name, line in provenance.items()}
    return tuple(
        Case(name, _subject(name, spec, {**subjects, **of_source}), image_path(root, name), label_path(root, name))
        for name in names
    )


def _subject(name: str, spec: DatasetSpec, known: Mapping[str, str]) -> str:
    """Whose scan it is: as it is known (a synthetic case is its source subject's), or as its name shows."""
    if name in known:
        return known[name]
    if spec.subject_pattern is None:
        return name
    match = re.search(spec.subject_pattern, name)
    if match is None or not match.group(1):
        raise DatasetError(f"{name}: expected a name that the subject pattern {spec.subject_pattern!r} matches")
    return match.group(1)
