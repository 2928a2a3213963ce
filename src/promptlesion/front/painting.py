"""One scan painted: a trained model, a scan and its label map go in, the same with new lesions comes out."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Bool

from promptlesion.baselines.methods import load_method, method_of
from promptlesion.config import Config
from promptlesion.data.case_check import checked_labels, on_the_grid_of, whole_labels
from promptlesion.data.dataset import Dataset
from promptlesion.data.spec import DatasetError
from promptlesion.data.volume import Volume, write_volume
from promptlesion.front.images import as_kind_of, as_volume, scan_of
from promptlesion.front.settings import as_config
from promptlesion.methods import method_config
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.drawing import build_drawing
from promptlesion.synthesis.making import lesion_record
from promptlesion.synthesis.painting import paint_lesions, paint_together
from promptlesion.synthesis.placement import PlacedLesion, place_lesion, place_mask
from promptlesion.synthesis.quality import limits_of
from promptlesion.synthesis.shape_bank import parse_shapes
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.training.atomic import write_json
from promptlesion.training.seeding import numpy_generator

logger = logging.getLogger(__name__)
Scan = TypeVar("Scan")
Labels = TypeVar("Labels")
Millimetres = tuple[float, float, float]


@dataclass(frozen=True)
class Model:
    """A finished run of any method that paints."""

    source: Path
    synthesizer: Synthesizer
    config: SynthesisConfig
    """How it samples."""

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.synthesizer.method

    @property
    def lesion_types(self) -> tuple[str, ...]:
        """What it can paint, in prompt order."""
        return tuple(lesion.name for lesion in self.synthesizer.spec.lesions)


@dataclass(frozen=True)
class Lesion:
    """A lesion as it was painted, in Hounsfield units and millimetres."""

    type: str
    mask_origin: str
    """What shape its mask came from; `given` where it was given."""
    center_mm: list[float]
    """In the scan's world, RAS."""
    diameter_mm: float
    """Of the sphere of its volume."""
    mean_hu: float
    std_hu: float
    contrast_hu: float
    """Its mean less that of the host around it."""
    seam_hu: float
    """How far the scan beside it was changed."""
    attempts: int
    rejections: list[str]
    """Why each attempt that was refused was."""
    is_accepted: bool
    """Whether it is in the image and the label map."""


@dataclass(frozen=True)
class Painted(Generic[Scan, Labels]):
    """A scan and its label map with new lesions, each of the kind that came in, and what the lesions are like."""

    image: Scan
    labels: Labels
    lesions: tuple[Lesion, ...]

    def save(self, folder: str | Path) -> None:
        """Write `image.nii.gz`, `labels.nii.gz` and `lesions.json`, each whole or not at all."""
        out = Path(folder)
        image, labels = as_volume(self.image, "image"), as_volume(self.labels, "labels")
        if image.array.dtype.itemsize == 8 and image.array.dtype.kind in "iu":  # which NIfTI readers do not know
            image = image.with_array(image.array.astype(np.int32))
        write_volume(labels.with_array(whole_labels("labels", labels.array)), out / "labels.nii.gz")
        write_volume(image, out / "image.nii.gz")
        write_json(out / "lesions.json", {"lesions": [asdict(lesion) for lesion in self.lesions]})


def load_model(run: str | Path, *, config: Config | str = "default", device: str = "auto") -> Model:
    """Read a finished run of any method that paints: `train diffusion` or `demo` wrote it.

    Args:
        run: its folder.
        config: how lesions are sampled and judged: a preset's name, or what `resolve_config` gave.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    Raises:
        CheckpointError: the run is not finished or damaged.
        ValueError: it cannot be sampled as configured.
    """
    resolved = method_config(method_of(Path(run)), as_config(config))
    synthesizer = load_method(Path(run), resolved.synthesis, device, hardware=resolved.hardware)
    return Model(Path(run), synthesizer, resolved.synthesis)


def paint(
    model: Model,
    scan: Scan,
    labels: Labels,
    lesions: Mapping[str, int] | str,
    *,
    mask: object | None = None,
    center_mm: Millimetres | None = None,
    label_names: Mapping[str, int] | None = None,
    shapes: Sequence[str] = (),
    seed: int = 0,
) -> Painted[Scan, Labels]:
    """Paint lesions into a scan: anywhere in their hosts, around a point, or into a mask; scan and labels stay.

    Args:
        model: what paints.
        scan: CT in HU, of any spacing and orientation: what `read_scan` gave, a pair of array and affine (indices to
            millimetres, RAS), or an image of nibabel, SimpleITK or MONAI.
        labels: label map on the scan's grid, likewise.
        lesions: number of lesions by type, as `{"calcified_plaque": 2}`; a type alone is one of it.
        mask: the one lesion's, on the scan's grid: an image of any kind; an array where the scan is one of `read_scan`
            or a pair. It may lie outside the host.
        center_mm: the middle of the one lesion, in the scan's world, RAS; it lies in the host.
        label_names: values of the label map by name, which tell the hosts; `read_labels` may know them.
        shapes: where masks of a type are drawn from, `TYPE=PATH` or `TYPE=PATH:LABEL`.
        seed: of places, shapes and noise; the same one gives the same voxels.

    Returns:
        Image and labels with the lesions that pass the quality filter, of the same kind as they came; of every lesion
        where it is, what it is like, and whether it passed.

    Raises:
        ValueError: there is no room for a lesion, or scan, labels, mask or types are not as they should be.
    """
    image = scan_of(scan)
    label_map = on_the_grid_of("labels", image, as_volume(labels, "labels"), of="the scan")
    names = label_names if label_names is not None else getattr(labels, "names", {})
    dataset = _dataset(model, names)
    own = image.with_array(checked_labels("labels", label_map.array, dataset.labels.values()).copy())
    types = _types(model, lesions)
    if (mask is not None) + (center_mm is not None) > (len(types) == 1):
        raise ValueError(f"mask, center_mm: expected one of them, with one lesion; found {len(types)} lesions")
    if mask is not None:
        placed = [_in_mask(model, image, own, dataset, types[0], _mask_on(scan, image, mask))]
    else:
        placed = _placed(model, image, own, dataset, types, center_mm, shapes, seed)
    synthesizer, known = model.synthesizer, model.synthesizer.statistics.types
    limits = [limits_of(lesion, known.get(lesion.name)) for lesion in dataset.spec.lesions]
    work = paint_lesions(
        image,
        own,
        placed,
        dataset,
        edge_mm=synthesizer.edge_mm,
        limits=None if model.config.accept_all else limits,
        max_attempts=model.config.max_attempts,
        seed=seed,
    )
    (painted,) = paint_together([work], synthesizer)
    told = tuple(Lesion(**lesion_record(lesion, image, dataset)) for lesion in painted)
    for lesion in told:
        if not lesion.is_accepted:
            logger.warning("%s at %s is left out: %s", lesion.type, lesion.center_mm, lesion.rejections[-1])
    return Painted(as_kind_of(scan, image), as_kind_of(labels, own), told)


def _dataset(model: Model, names: Mapping[str, int]) -> Dataset:
    """Return the model's lesion types and a label map's names as a dataset without cases.

    A type that the label map does not name has the value it had in training.
    """
    labels, spec = {"background": 0, **names}, model.synthesizer.spec
    if not names:
        hosts = ", ".join(dict.fromkeys(host for lesion in spec.lesions for host in lesion.host))
        raise DatasetError(f"label_names: expected the values of {hosts} by name; found none beside the label map")
    lesions = tuple(
        lesion.model_copy(update={"label": names.get(lesion.name, lesion.label)}) for lesion in spec.lesions
    )
    for lesion in lesions:
        taken = next((name for name, value in labels.items() if value == lesion.label and name != lesion.name), None)
        if taken is not None:
            raise DatasetError(
                f"label_names: expected a value for {lesion.name}, as {lesion.label}, which it had in training, is "
                f"{taken}; found {dict(names)}"
            )
        labels[lesion.name] = lesion.label
        missing = [name for name in (*lesion.host, *lesion.lumen) if name not in labels]
        if missing:
            raise DatasetError(f"label_names: expected {missing[0]}, where {lesion.name} lies; found {dict(names)}")
    return Dataset(model.source, spec.model_copy(update={"lesions": lesions}), labels, ())


def _types(model: Model, lesions: Mapping[str, int] | str) -> list[int]:
    """Return the type of each lesion asked for, in prompt order."""
    counts = {lesions: 1} if isinstance(lesions, str) else lesions
    for name, count in counts.items():
        if name not in model.lesion_types or count < 0:
            raise ValueError(f"lesions: expected numbers of {', '.join(model.lesion_types)}; found {name!r}: {count}")
    types = [index for index, name in enumerate(model.lesion_types) for _ in range(counts.get(name, 0))]
    if not types:
        raise ValueError(f"lesions: expected at least one of {', '.join(model.lesion_types)}; found {dict(counts)}")
    return types


def _placed(
    model: Model,
    image: Volume,
    labels: Volume,
    dataset: Dataset,
    types: Sequence[int],
    center_mm: Millimetres | None,
    shapes: Sequence[str],
    seed: int,
) -> list[PlacedLesion]:
    """Find places for all lesions, off each other."""
    synthesizer, placed = model.synthesizer, list[PlacedLesion]()
    asked = replace(
        dataset,
        spec=dataset.spec.model_copy(
            update={"lesions": tuple(lesion for index, lesion in enumerate(dataset.spec.lesions) if index in types)}
        ),
    )
    drawing = build_drawing(
        asked,
        synthesizer.statistics,
        model.config,
        max_extent_mm=synthesizer.max_extent_mm,
        shapes=parse_shapes(shapes),
        own_lesions=synthesizer.own_lesions,
    )
    for number, kind in enumerate(types):
        placed.append(
            place_lesion(
                labels,
                dataset,
                kind,
                drawing=drawing,
                generator=numpy_generator(seed, "place", number),
                edge_mm=synthesizer.edge_mm,
                max_extent_mm=synthesizer.max_extent_mm,
                image=image,
                others=placed,
                at=None if center_mm is None else _voxel_at(image, center_mm),
            )
        )
    return placed


def _voxel_at(image: Volume, center_mm: Millimetres) -> tuple[int, int, int]:
    x, y, z = np.rint(np.linalg.solve(image.affine, [*center_mm, 1.0])[:3]).astype(int).tolist()
    if not all(0 <= index < length for index, length in zip((x, y, z), image.shape, strict=True)):
        raise ValueError(f"center_mm: expected a point in the scan, RAS; found {center_mm}, at voxel {(x, y, z)}")
    return x, y, z


def _mask_on(scan: object, image: Volume, mask: object) -> Bool[np.ndarray, "x y z"]:
    """Return a mask of any kind on the scan's grid, RAS+."""
    if isinstance(mask, np.ndarray):
        if isinstance(scan, Volume):
            mask = scan.with_array(mask)
        elif isinstance(scan, tuple):
            mask = (mask, scan[1])
    found = on_the_grid_of("mask", image, as_volume(mask, "mask"), of="the scan").array
    is_lesion: np.ndarray = found != 0
    return is_lesion


def _in_mask(
    model: Model, image: Volume, labels: Volume, dataset: Dataset, kind: int, mask: Bool[np.ndarray, "x y z"]
) -> PlacedLesion:
    synthesizer = model.synthesizer
    if synthesizer.own_lesions:
        raise ValueError(f"mask: expected none for {model.method}, which pastes lesions in their own shape; found one")
    return place_mask(mask, labels, dataset, kind, edge_mm=synthesizer.edge_mm, max_extent_mm=synthesizer.max_extent_mm)
