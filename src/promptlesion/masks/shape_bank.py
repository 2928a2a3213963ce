"""A bank of real lesion shapes: masks cut from training labels, a folder of NIfTI masks, or an archive of arrays."""

import hashlib
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int16, Shaped
from scipy import ndimage

from promptlesion.data.case_check import checked_labels
from promptlesion.data.dataset import Dataset
from promptlesion.data.lesion_instances import ALL_26_NEIGHBOURS, sphere_diameter_mm
from promptlesion.data.spec import LesionType
from promptlesion.data.volume import read_volume

_MOST_SHAPES = 300
_MOST_VOXELS = 64
_FEWEST_VOXELS = 30
_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class ShapeSource:
    """Where a type's masks are: a folder of NIfTI files or an `.npz`, and their value, by default any but 0."""

    path: Path
    label: int | None = None


@dataclass(frozen=True)
class BankShape:
    """One mask, cropped, its bits packed; from which case it comes; perhaps the scan's voxels it was cut with."""

    case: str
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    bits: bytes
    diameter_mm: float
    hu_bytes: bytes = b""
    """HU of the mask's box, 16 bits each; none where the shape alone was kept."""

    @property
    def hu(self) -> Int16[np.ndarray, "x y z"] | None:
        """HU of the mask's box, where it was cut with them."""
        return np.frombuffer(self.hu_bytes, dtype="<i2").reshape(self.shape) if self.hu_bytes else None

    @property
    def mask(self) -> Bool[np.ndarray, "x y z"]:
        """The mask."""
        packed = np.frombuffer(self.bits, dtype=np.uint8)
        return np.unpackbits(packed, count=math.prod(self.shape)).astype(bool).reshape(self.shape)


@dataclass(frozen=True)
class ShapeBank:
    """Real shapes, ordered by diameter."""

    shapes: tuple[BankShape, ...]

    @property
    def has_voxels(self) -> bool:
        """Whether the shapes are whole lesions, to be pasted with the voxels they were cut with."""
        return any(shape.hu_bytes for shape in self.shapes)

    @property
    def fingerprint(self) -> str:
        """Identifies the shapes."""
        digest = hashlib.sha256()
        for shape in self.shapes:
            digest.update(f"{shape.case} {shape.spacing_mm} {shape.shape}".encode())
            digest.update(shape.bits)
            digest.update(shape.hu_bytes)
        return digest.hexdigest()[:16]


def parse_shapes(texts: Sequence[str]) -> dict[str, ShapeSource]:
    """Read `TYPE=PATH` and `TYPE=PATH:LABEL` texts.

    Raises:
        ValueError: a text of another form, or a type named twice.
    """
    sources: dict[str, ShapeSource] = {}
    for text in texts:
        name, _, place = text.partition("=")
        path, separator, number = place.rpartition(":")
        source = ShapeSource(Path(path), int(number)) if separator and number.isdigit() else ShapeSource(Path(place))
        if not name or not place or name in sources or source.label == 0:
            raise ValueError(
                f"--shapes {text}: expected TYPE=PATH or TYPE=PATH:LABEL with a label from 1, every type once; for "
                "example liver_tumor=masks:2"
            )
        sources[name] = source
    return sources


def read_bank(source: ShapeSource) -> ShapeBank:
    """Read masks from a folder of NIfTI files, each lesion in them a shape, or from an `.npz` with an array a case.

    The arrays are 1 mm isotropic unless the archive holds `spacing_mm`, three numbers for all of them.

    Raises:
        ValueError: nothing there can be read as a mask, or no mask is large enough to have a shape.
    """
    masks = _archive_masks if source.path.suffix == ".npz" else _folder_masks
    return _bank(masks(source), f"--shapes {source.path}")


def cut_bank(dataset: Dataset, lesion_type: LesionType) -> ShapeBank:
    """Cut the lesions of a type from a dataset's label maps; those that the scan's edge cuts off are left out.

    Raises:
        ValueError: there is none.
    """
    return _bank(_cut_masks(dataset, lesion_type), f'{dataset.root}: {lesion_type.name} with shape = "real"')


def bank_of(lesions: Iterable[BankShape]) -> ShapeBank:
    """Order shapes by size."""
    return ShapeBank(tuple(sorted(lesions, key=lambda shape: (shape.diameter_mm, shape.case, shape.bits))))


def cut_with_voxels(
    case: str,
    mask: Bool[np.ndarray, "x y z"],
    hu: Int16[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
) -> BankShape:
    """Keep a lesion as it is: its mask and the scan's voxels in the mask's box, to be pasted elsewhere."""
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    return _packed(case, mask[found], spacing_mm, hu[found].astype("<i2").tobytes())


_Masks = Iterator[tuple[str, Bool[np.ndarray, "x y z"], tuple[float, float, float]]]


def _cut_masks(dataset: Dataset, lesion_type: LesionType) -> _Masks:
    for place in _shuffled(len(dataset.cases)):
        case = dataset.cases[place]
        labels = read_volume(case.label_path)
        values = checked_labels(case.name, labels.array, dataset.labels.values())
        components, _ = ndimage.label(values == lesion_type.label, structure=ALL_26_NEIGHBOURS)
        faces = [components.take(end, axis=axis) for axis in range(3) for end in (0, -1)]
        cut_off = np.unique(np.concatenate([face.ravel() for face in faces]))
        yield case.name, (components > 0) & ~np.isin(components, cut_off), labels.spacing_mm


def _folder_masks(source: ShapeSource) -> _Masks:
    paths = sorted(path for ending in _ENDINGS for path in source.path.glob(f"*{ending}") if path.is_file())
    if not paths:
        raise ValueError(
            f"--shapes {source.path}: expected a folder of NIfTI masks ({', '.join(_ENDINGS)}) or an .npz; found "
            + ("no such file in it" if source.path.is_dir() else "no such folder")
        )
    for place in _shuffled(len(paths)):
        volume, name = read_volume(paths[place]), paths[place].name
        for ending in _ENDINGS:
            name = name.removesuffix(ending)
        yield name, _is_lesion(volume.array, source), volume.spacing_mm


def _archive_masks(source: ShapeSource) -> _Masks:
    try:
        with np.load(source.path, allow_pickle=False) as archive:
            x, y, z = (float(side) for side in archive["spacing_mm"]) if "spacing_mm" in archive.files else (1.0,) * 3
            names = [name for name in archive.files if name != "spacing_mm"]
            for place in _shuffled(len(names)):
                array = archive[names[place]]
                if array.ndim != 3:
                    raise ValueError(f"expected 3-D arrays; {names[place]} has the shape {array.shape}")
                yield names[place], _is_lesion(array, source), (x, y, z)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"--shapes {source.path}: expected an .npz with one 3-D mask a case; found {error}") from error


def _is_lesion(array: Shaped[np.ndarray, "x y z"], source: ShapeSource) -> Bool[np.ndarray, "x y z"]:
    return np.asarray(array != 0 if source.label is None else array == source.label)


def _shuffled(count: int) -> list[int]:
    """Return a fixed order in which the first few are as good a sample as any."""
    return [int(place) for place in np.random.default_rng(0).permutation(count)]


def _bank(masks: _Masks, where: str) -> ShapeBank:
    """Take every connected part of the masks until there are enough, and order them by size."""
    shapes: list[BankShape] = []
    largest = 0
    for case, mask, spacing_mm in masks:
        components, _ = ndimage.label(mask, structure=ALL_26_NEIGHBOURS)
        for number, box in enumerate(ndimage.find_objects(components), start=1):
            part = components[box] == number
            largest = max(largest, int(part.sum()))
            if part.sum() >= _FEWEST_VOXELS:
                shapes.append(_packed(case, *_coarser(part, spacing_mm)))
        if len(shapes) >= _MOST_SHAPES:
            break
    if not shapes:
        raise ValueError(
            f"{where}: expected a mask of at least {_FEWEST_VOXELS} voxels to take a shape from; found "
            + (f"{largest} voxels at most" if largest else "none")
        )
    return bank_of(shapes[:_MOST_SHAPES])


def _coarser(
    mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]
) -> tuple[Bool[np.ndarray, "i j k"], tuple[float, float, float]]:
    """Return a large mask on a coarser grid, and its spacing: a shape needs no more than 64 voxels along an axis."""
    if max(mask.shape) <= _MOST_VOXELS:
        return mask, spacing_mm
    factors = [min(1.0, _MOST_VOXELS / length) for length in mask.shape]
    coarse = ndimage.zoom(mask.astype(np.float32), factors, order=1, grid_mode=True, mode="nearest") >= 0.5
    x, y, z = (mm * n / m for mm, n, m in zip(spacing_mm, mask.shape, coarse.shape, strict=True))
    return coarse, (x, y, z)


def _packed(
    case: str, mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float], hu_bytes: bytes = b""
) -> BankShape:
    i, j, k = mask.shape
    diameter_mm = sphere_diameter_mm(float(mask.sum()) * math.prod(spacing_mm))
    return BankShape(case, spacing_mm, (i, j, k), np.packbits(mask).tobytes(), diameter_mm, hu_bytes)
