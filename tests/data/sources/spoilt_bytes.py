"""Spoil bytes in the headers of small scans, and prepare them: each ends well or in a refusal.

    python -m tests.data.sources.spoilt_bytes --seconds 600 --seed 0 --keep /tmp/spoilt

What ends otherwise is kept, and the command ends with 1. Run as a process of its own: a library may abort it.
"""

import argparse
import logging
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from tests.data.sources.conftest import write_ct
from tests.data.sources.enhanced_ct import write_enhanced
from tests.data.sources.test_dicom_labels import outline, write_rtstruct, write_seg

from promptlesion.data.sources import open_source, write_source
from promptlesion.data.volume import Volume, write_volume

SHAPE = (7, 6, 4)
HEADER_BYTES = {".nii": 352, ".nrrd": 400, ".mha": 400}
DICOM_HEADER_BYTES = 4000


def scans() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    hu = generator.integers(-1000, 900, SHAPE).astype(np.int16)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[2:5, 2:5, 1:3] = 1
    return hu, labels


def dicom(folder: Path) -> None:
    hu, labels = scans()
    datasets = write_ct(folder, hu)
    write_seg(folder / "seg", datasets, {"tumor": labels > 0})
    squares = [outline(dataset, (1.0, 4.0), (1.0, 4.0)) for dataset in datasets]
    write_rtstruct(folder / "rtstruct", datasets, {"GTV": squares})


def enhanced(folder: Path) -> None:
    datasets = write_ct(folder, scans()[0])
    for path in folder.glob("slice*"):
        path.unlink()
    write_enhanced(folder, datasets)


def images(ending: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for part, array in zip(("images", "labels"), scans(), strict=True):
            path = folder / part / f"a{ending}"
            path.parent.mkdir(parents=True)
            if ending == ".nii":
                write_volume(Volume(array, np.diag([0.8, 0.9, 2.5, 1.0])), path)
            else:
                sitk.WriteImage(sitk.GetImageFromArray(array.T), str(path))

    return write


KINDS: dict[str, Callable[[Path], None]] = {
    "dicom": dicom,
    "enhanced": enhanced,
    "nifti": images(".nii"),
    "nrrd": images(".nrrd"),
    "metaimage": images(".mha"),
}


def spoilt(content: bytes, ending: str, generator: np.random.Generator) -> bytes:
    """Return the content with some header bytes changed, or cut short."""
    changed = bytearray(content)
    size = min(len(changed), HEADER_BYTES.get(ending, DICOM_HEADER_BYTES))
    for place in generator.integers(size, size=generator.integers(1, 5)):
        changed[place] = (
            changed[place] ^ (1 << generator.integers(8)) if generator.random() < 0.5 else generator.integers(256)
        )
    return bytes(changed[: generator.integers(len(changed))] if generator.random() < 0.05 else changed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "spoilt")
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    generator = np.random.default_rng(options.seed)
    ends = {"written": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as parent:
        for name, write in KINDS.items():
            write(Path(parent, name))
        files = {name: sorted(path for path in Path(parent, name).rglob("*") if path.is_file()) for name in KINDS}
        stop = time.monotonic() + options.seconds
        while time.monotonic() < stop:
            name = list(KINDS)[generator.integers(len(KINDS))]
            path = files[name][generator.integers(len(files[name]))]
            whole = path.read_bytes()
            path.write_bytes(spoilt(whole, path.suffix, generator))
            options.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, options.keep / f"{name}-{path.name}")  # there also where a library ends the process
            try:
                write_source(open_source(Path(parent, name)), Path(parent, "out"), skips_refused=True)
                ends["written"] += 1
            except (ValueError, MemoryError):
                ends["refused"] += 1
            except Exception:
                traceback.print_exc()
                print(f"{options.keep / f'{name}-{path.name}'} after {ends}", file=sys.stderr)  # noqa: T201
                return 1
            path.write_bytes(whole)
            shutil.rmtree(Path(parent, "out"), ignore_errors=True)
    print(f"{ends['written']} written, {ends['refused']} refused")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
