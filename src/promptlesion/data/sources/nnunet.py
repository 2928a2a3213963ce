"""nnU-Net v2 raw datasets with images of any format, which this package reads as `.nii.gz` only."""

from pathlib import Path

from promptlesion.data.dataset_json import labels_of, read_dataset_json
from promptlesion.data.sources.image_files import pair_case, said_endings
from promptlesion.data.sources.source import Source
from promptlesion.data.spec import DatasetError
from promptlesion.data.splits import SPLITS_FILE


def open_nnunet(folder: Path) -> Source:
    """List the training cases; they keep their names, and `lesions.toml` and `splits_final.json` go along.

    Files lie where nnU-Net looks for them: where `dataset` in `dataset.json` says, or in `imagesTr` and `labelsTr`.
    """
    path = folder / "dataset.json"
    content = read_dataset_json(path)
    ending = content.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DatasetError(f"{path}: expected a `file_ending` such as '.nrrd', found {ending!r}")
    labels = labels_of(content, path)
    pairs = _named_files(folder, content["dataset"], path) if "dataset" in content else _found_files(folder, ending)
    companions = tuple(folder / name for name in ("lesions.toml", SPLITS_FILE) if (folder / name).is_file())
    cases = tuple(pair_case(name, image, label_map) for name, (image, label_map) in pairs.items())
    return Source(layout="nnunet", labels=labels, cases=cases, companions=companions)


def _found_files(folder: Path, ending: str) -> dict[str, tuple[Path, Path]]:
    images = folder / "imagesTr"
    listed = sorted(image for image in images.glob(f"*_0000{ending}") if not image.name.startswith("."))
    if not listed:
        found = said_endings(images.iterdir()) if images.is_dir() else "no such folder"
        raise DatasetError(f"{images}: expected CTs named CASE_0000{ending}, found {found}")
    names = [image.name.removesuffix(f"_0000{ending}") for image in listed]
    return {name: (image, folder / "labelsTr" / f"{name}{ending}") for name, image in zip(names, listed, strict=True)}


def _named_files(folder: Path, table: object, path: Path) -> dict[str, tuple[Path, Path]]:
    if not isinstance(table, dict) or not table:
        raise DatasetError(f"{path}: expected files by case in `dataset`, found {str(table)[:80]}")
    pairs = {}
    for name, entry in sorted(table.items()):
        images, label_map = (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        image = images[0] if isinstance(images, list) and len(images) == 1 else None
        if not isinstance(image, str) or not isinstance(label_map, str) or Path(name).name != name:
            raise DatasetError(
                f"{path}: expected one file in `images` and one in `label` for {name!r}, found {str(entry)[:80]}"
            )
        pairs[name] = (folder / image, folder / label_map)
    return pairs
