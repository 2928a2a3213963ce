"""What painting gives: image, label map and lesions, and the files of them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from promptlesion.data.case_check import whole_labels
from promptlesion.data.volume import write_volume
from promptlesion.front.images import as_volume
from promptlesion.training.atomic import write_json

Scan = TypeVar("Scan")
Labels = TypeVar("Labels")


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
    asked: dict[str, float]
    """What it was to be like, of the attributes of `ATTRIBUTES`."""
    painted: dict[str, float]
    """What it is like, of the same."""
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
