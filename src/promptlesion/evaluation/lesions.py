"""Lesions cut out of a dataset folder: the real ones, or only those that synthesis has added."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from promptlesion.data.dataset import Case, Dataset, DatasetError, read_case
from promptlesion.data.lesion_instances import cut_instance, find_lesions
from promptlesion.data.provenance import read_provenance


@dataclass(frozen=True, eq=False)
class LesionCrop:
    """One lesion: the scan around it in HU, and which of these voxels are the lesion's own."""

    case: str
    subject: str
    lesion_type: str
    hu: Float32[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]
    start_voxel: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @property
    def voxels_hu(self) -> Float32[np.ndarray, " voxels"]:
        """HU of the lesion's voxels."""
        voxels: Float32[np.ndarray, " voxels"] = self.hu[self.mask]
        return voxels

    @property
    def mean_hu(self) -> float:
        """Mean HU inside the lesion."""
        return float(self.voxels_hu.mean(dtype=np.float64))


def collect_lesions(
    dataset: Dataset,
    *,
    source: Dataset | None = None,
    margin_voxels: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[LesionCrop]:
    """Cut every lesion out of every case: its bounding box and a margin around it (less at the scan's edge).

    With `source`, the dataset the synthetic cases were made from, only voxels whose label differs from the
    source case's count, so that lesions the source had already are left out; needs `provenance.jsonl`.
    """
    sources = read_sources(dataset.root) if source is not None else {}
    crops: list[LesionCrop] = []
    for done, case in enumerate(dataset.cases):
        image, labels = read_case(dataset, case)
        wanted = labels.array
        if source is not None:
            _, source_labels = read_case(source, _source_case(case, source, sources))
            wanted = np.where(wanted == source_labels.array, np.uint8(0), wanted)
        for instance in find_lesions(wanted, dataset.lesion_labels, image.spacing_mm):
            label = dataset.lesion_labels[instance.type_index]
            box, mask = cut_instance(wanted, instance, label, margin_voxels=(margin_voxels,) * 3)
            crops.append(
                LesionCrop(
                    case=case.name,
                    subject=case.subject,
                    lesion_type=dataset.spec.lesions[instance.type_index].name,
                    hu=image.array[box].astype(np.float32),
                    mask=mask,
                    start_voxel=(box[0].start, box[1].start, box[2].start),
                    spacing_mm=image.spacing_mm,
                )
            )
        if on_progress is not None:
            on_progress(done + 1, len(dataset.cases))
    return crops


def by_type(lesions: Iterable[LesionCrop], lesion_types: Sequence[str]) -> dict[str, list[LesionCrop]]:
    """Sort lesions by type, every type present, in the given order."""
    groups: dict[str, list[LesionCrop]] = {name: [] for name in lesion_types}
    for lesion in lesions:
        groups[lesion.lesion_type].append(lesion)
    return groups


def read_sources(root: Path) -> dict[str, str]:
    """Read from a synthetic dataset's `provenance.jsonl` which case each synthetic case was made from."""
    lines = read_provenance(root)
    if not lines:
        raise DatasetError(f"{root}: expected the provenance.jsonl of a synthetic dataset, found none")
    return {name: str(line["source"]) for name, line in lines.items()}


def _source_case(case: Case, source: Dataset, sources: dict[str, str]) -> Case:
    if case.name not in sources:
        raise DatasetError(f"{case.name}: expected a line in provenance.jsonl, found none")
    return source.case(sources[case.name])
