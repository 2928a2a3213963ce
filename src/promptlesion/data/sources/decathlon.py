"""Tasks of the Medical Segmentation Decathlon, and nnU-Net v1 folders, which share their `dataset.json`."""

from pathlib import Path

from promptlesion.data.dataset_json import read_dataset_json
from promptlesion.data.sources.image_files import image_stem, pair_case
from promptlesion.data.sources.label_map import label_name
from promptlesion.data.sources.source import Source
from promptlesion.data.spec import DatasetError


def open_decathlon(folder: Path) -> Source:
    """List the training cases of a task; they keep their names, as `liver_12`.

    Raises `DatasetError` for tasks that are not CT or have several channels, with the reason.
    """
    path = folder / "dataset.json"
    content = read_dataset_json(path)
    modalities = content.get("modality")
    if modalities is None:
        raise DatasetError(f"{path}: expected `modality`, as the Decathlon and nnU-Net v1 have it, found none")
    if not isinstance(modalities, dict) or len(modalities) != 1:
        raise DatasetError(
            f"{path}: expected one modality, CT, found {modalities}: the scans of this task are 4-D with a channel "
            "each, and lesions are painted in Hounsfield units of a single CT"
        )
    (modality,) = (str(value) for value in modalities.values())
    if modality.upper() != "CT":
        raise DatasetError(f"{path}: expected the modality CT, which has Hounsfield units, found {modality!r}")
    pairs = [_files(folder, entry, path) for entry in content.get("training") or ()]
    if not pairs:
        raise DatasetError(f"{path}: expected cases in `training`, found none")
    num_test = len(content.get("test") or ())
    return Source(
        layout="decathlon",
        labels=_labels(content.get("labels"), path),
        cases=tuple(pair_case(image_stem(image).removesuffix("_0000"), image, labels) for image, labels in pairs),
        notes=(f"{num_test} test scan(s) left out: they have no labels",) if num_test else (),
    )


def _files(folder: Path, entry: object, path: Path) -> tuple[Path, Path]:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("image", "label")):
        raise DatasetError(
            f"{path}: expected `image` and `label` for every case in `training`, found {str(entry)[:80]}"
        )
    image, labels = folder / entry["image"], folder / entry["label"]
    if not image.is_file():  # nnU-Net v1 names files without their channel
        with_channel = image.with_name(f"{image_stem(image)}_0000{image.name[len(image_stem(image)) :]}")
        image = with_channel if with_channel.is_file() else image
    return image, labels


def _labels(table: object, path: Path) -> dict[str, int]:
    if not isinstance(table, dict) or not all(str(value).isdigit() and int(value) <= 255 for value in table):
        raise DatasetError(f"{path}: expected `labels`, names by value from 0 to 255, found {str(table)[:120]}")
    named = {label_name(str(name)) or f"label_{value}": int(value) for value, name in table.items() if int(value) > 0}
    if len(named) < sum(int(value) > 0 for value in table):
        raise DatasetError(f"{path}: expected a name of its own for every label, found {table}")
    return {"background": 0, **dict(sorted(named.items(), key=lambda item: item[1]))}
