"""nnU-Net v2 raw datasets with images of any format, which this package reads as `.nii.gz` only."""

from pathlib import Path
from typing import Any

from promptlesion.data.dataset_json import labels_of
from promptlesion.data.sources.image_files import pair_case
from promptlesion.data.sources.source import Source
from promptlesion.data.spec import DatasetError
from promptlesion.data.splits import SPLITS_FILE


def open_nnunet(folder: Path, content: dict[str, Any]) -> Source:
    """List the training cases; they keep their names, and `lesions.toml` and `splits_final.json` go along."""
    path = folder / "dataset.json"
    ending = content.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DatasetError(f"{path}: expected a `file_ending` such as '.nrrd', found {ending!r}")
    labels = labels_of(content, path)
    images = sorted(image for image in (folder / "imagesTr").glob(f"*_0000{ending}") if not image.name.startswith("."))
    if not images:
        raise DatasetError(f"{folder / 'imagesTr'}: expected CTs named CASE_0000{ending}, found none")
    names = [image.name.removesuffix(f"_0000{ending}") for image in images]
    companions = tuple(folder / name for name in ("lesions.toml", SPLITS_FILE) if (folder / name).is_file())
    return Source(
        layout="nnunet",
        labels=labels,
        cases=tuple(
            pair_case(name, image, folder / "labelsTr" / f"{name}{ending}")
            for name, image in zip(names, images, strict=True)
        ),
        companions=companions,
    )
