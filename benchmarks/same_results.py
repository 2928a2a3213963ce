"""Are the results still the same? Hashes of a tiny run of everything, to be compared before and after a change.

    python benchmarks/same_results.py --out before.json
    python benchmarks/same_results.py --out after.json --compare before.json

A dataset of four made-up scans goes through every verb, in one thread of the processor with fixed seeds: prepared
data, weights and metrics of all stages and methods, cohorts of one and of two workers, segmentations, scores, the
tables of an experiment and the results of a demo. `--out` gets the SHA-256 of each, by the verb and the file; times,
versions, paths and pictures are left out. With `--compare` every file that differs is named, and the exit code is 1 if
one does. Only the command line is called, so the script outlives any move inside the package. Between two machines or
versions of torch floats may differ in their last bits, and all that follows with them.
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import gzip
import hashlib
import json
import re
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import typer

CONFIG = Path(__file__).with_name("same-results.toml")
UNHASHED = {"run.json", "card.json", "table2-time.csv", "times.csv"}
VARIES = {"command", "configuration", "created", "data", "file_bytes", "files", "key", "limits", "machine", "model"}
VARIES |= {"seen", "settings", "stages", "weights_sha256"}
"""Keys of JSON files that say when, where and of what a result was made, not what it is."""
VOXELS = ["synthesis.init=noise", "synthesis.keep_noise=false"]
"""What Med-DDPM must be told, as it has no latents."""
LESIONS = """
[preprocessing]
window_hu = [-200.0, 800.0]
spacing_mm = [1.0, 1.0, 1.5]

[lesions.bright]
label = 2
host = ["organ"]
diameter_mm = [3.0, 8.0]
hu = [-1000.0, 3000.0]

[lesions.dark]
label = 3
host = ["organ"]
diameter_mm = [3.0, 8.0]
hu = [-1000.0, 3000.0]
"""


def main(
    out: Annotated[Path, typer.Option("--out", help="JSON file for the hashes.", dir_okay=False)],
    compare: Annotated[Path | None, typer.Option("--compare", help="An earlier --out.", dir_okay=False)] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="A part of the run; repeatable.")] = None,
) -> None:
    """Run everything, write hashes, and compare them with earlier ones."""
    parts = only or list(PARTS)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(root / "source")
        for part in dict.fromkeys(["prepare", "autoencoder", *parts]):
            PARTS[part](root)
        found = dict(hashes(root))
    out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(found)} hashes in {out}")  # noqa: T201
    if compare is not None:
        before = json.loads(compare.read_text(encoding="utf-8"))
        differing = differences(before, found)
        print("\n".join([f"{len(differing)} of {len(before)} differ from {compare}", *differing]))  # noqa: T201
        sys.exit(bool(differing))


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return a line for every file that differs, is missing now or was not there before."""
    told = [(name, before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())]
    return [
        f"{'missing' if now is None else 'new' if was is None else 'differs'}: {name}"
        for name, was, now in told
        if was != now
    ]


def write_data(root: Path) -> None:
    """Write four scans of an organ with a bright and a dark ball, as an nnU-Net dataset."""
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    for index in range(4):
        generator = np.random.default_rng(index)
        labels = np.zeros((30, 26, 34), dtype=np.uint8)
        labels[3:27, 3:23, 3:31] = 1
        for label, z in ((2, 10), (3, 23)):
            center = generator.integers((9, 9, z - 2), (21, 17, z + 3))
            distance = np.linalg.norm(np.indices(labels.shape).T - center, axis=-1).T
            labels[distance <= generator.uniform(1.5, 3.5)] = label
        image = np.array([-100, 150, 550, 0])[labels] + generator.normal(0, 20, labels.shape)
        for array, path in (
            (image.astype(np.int16), f"imagesTr/tiny_{index}_0000"),
            (labels, f"labelsTr/tiny_{index}"),
        ):
            nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 1.5, 1.0])), root / f"{path}.nii.gz")
    described = {"channel_names": {"0": "CT"}, "numTraining": 4, "file_ending": ".nii.gz"}
    described["labels"] = {"background": 0, "organ": 1, "bright": 2, "dark": 3}
    (root / "dataset.json").write_text(json.dumps(described), encoding="utf-8")


def verb(*arguments: object) -> None:
    """Run a verb of the command line in this process."""
    typed, sys.argv = sys.argv, ["promptlesion", *map(str, arguments)]
    try:
        runpy.run_module("promptlesion", run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"{' '.join(sys.argv)}: exit code {ended.code}") from None
    finally:
        sys.argv = typed


def prepare(root: Path) -> None:
    """Data: scans converted by one process and by two, and a phantom."""
    for workers in (1, 2):
        verb("prepare", root / "source", "--workers", workers, "--out", root / f"prepared-{workers}")
    verb("prepare", "phantom", "--kind", "five", "--cases", 2, "--seed", 3, "--out", root / "phantom")
    (root / "prepared-1" / "lesions.toml").write_text(LESIONS, encoding="utf-8")


def on_data(root: Path, *settings: str) -> list[object]:
    """Return the options of most verbs."""
    chosen = [f"--set={setting}" for setting in settings]
    return ["--data", root / "prepared-1", *_configured(), *chosen]


def _configured() -> list[object]:
    return ["--preset", "default", "--config", CONFIG, "--device", "cpu"]


def autoencoder(root: Path) -> None:
    """Stage 1, and what it keeps of the scans."""
    run, scores = root / "autoencoder", root / "scores" / "reconstruction.json"
    verb("train", "autoencoder", *on_data(root), "--seed", 5, "--out", run)
    verb("evaluate", "reconstruction", *on_data(root), "--model", run, "--part", "all", "--out", scores)


def method(name: str, root: Path, *options: object, settings: Sequence[str] = ()) -> None:
    """Stage 2 of a method, and a cohort of it; `options` name the method."""
    run = root / "methods" / name
    verb("train", "diffusion", *on_data(root, *settings), *options, "--seed", 6, "--out", run)
    cohort(root, run, root / "cohorts" / name, settings=settings)


def cohort(root: Path, run: Path, out: Path, *, settings: Sequence[str] = (), num_workers: int = 1) -> None:
    """Paint six lesions."""
    counts = ["--count", "bright=3", "--count", "dark=3", "--accept-all", "--workers", num_workers]
    verb("synthesize", *on_data(root, *settings), "--model", run, *counts, "--seed", 7, "--out", out)


def prompt(encoder: str, root: Path, *, settings: Sequence[str] = ()) -> None:
    """PromptLesion with a prompt encoder."""
    settings = [f"diffusion.prompt_encoder={encoder}", *settings]
    method(encoder, root, "--autoencoder", root / "autoencoder", settings=settings)


def workers(root: Path) -> None:
    """A cohort of two workers; how like real lesions it is."""
    run, out = root / "methods" / "mask-transformer", root / "cohorts" / "two-workers"
    if not run.is_dir():
        PARTS[run.name](root)
    cohort(root, run, out, settings=["synthesis.guidance_scale=1.5"], num_workers=2)
    real = ["--real", root / "prepared-1", "--synthetic", out, *_configured()]
    verb("evaluate", "fidelity", *real, "--out", root / "scores" / "fidelity.json")


def segmentation(network: str, root: Path) -> None:
    """Stage 3 with a network, on real scans and painted ones; label maps and scores of all scans."""
    run, painted = root / "segmentation" / network, root / "cohorts" / "copy-paste"
    if not painted.is_dir():
        PARTS[painted.name](root)
    own = ["--network", network, "--synthetic", painted, "--seed", 8]
    verb("train", "segmentation", *on_data(root), *own, "--out", run)
    data, maps = ["--data", root / "prepared-1"], root / "maps" / network
    verb("segment", *data, "--model", run, "--device", "cpu", "--mirror", "--out", maps)
    scores = ["--predictions", maps, "--out", root / "scores" / f"{network}.json"]
    verb("evaluate", "segmentation", *data, "--config", CONFIG, *scores)


def experiment(root: Path) -> None:
    """A small experiment on two workers."""
    methods = ["--methods", "real,copy-paste,promptlesion-onehot", "--seeds", 1, "--workers", 2]
    verb("experiment", *on_data(root), *methods, "--seed", 9, "--out", root / "experiment")


def demo(root: Path) -> None:
    """The whole loop on the scans."""
    verb("demo", *on_data(root), "--seed", 10, "--out", root / "demo")


PARTS: dict[str, Callable[[Path], None]] = {
    "prepare": prepare,
    "autoencoder": autoencoder,
    "mask-transformer": partial(prompt, "mask-transformer", settings=["synthesis.guidance_scale=1.5"]),
    "one-hot": partial(prompt, "one-hot"),
    "none": partial(prompt, "none", settings=["diffusion.attributes=false"]),
    "difftumor": lambda root: method("difftumor", root, "--method", "difftumor", "--autoencoder", root / "autoencoder"),
    "med-ddpm": lambda root: method("med-ddpm", root, "--method", "med-ddpm", settings=VOXELS),
    "copy-paste": lambda root: method("copy-paste", root, "--method", "copy-paste"),
    "intensity": lambda root: method("intensity", root, "--method", "intensity"),
    "workers": workers,
    "unet": partial(segmentation, "unet"),
    "dynunet": partial(segmentation, "dynunet"),
    "experiment": experiment,
    "demo": demo,
}


def hashes(root: Path) -> Iterator[tuple[str, str]]:
    """Give the hash of every file that should not change, by its path."""
    for path in sorted(root.rglob("*")):
        read, place = _reader(path), path.relative_to(root).as_posix()
        if read is not None and not place.startswith("source/"):
            content = read(path).replace(os.fsencode(root), b"")
            yield re.sub("-[0-9a-f]{8}/", "/", place), hashlib.sha256(content).hexdigest()


def _reader(path: Path) -> Callable[[Path], bytes] | None:
    """Return what reads of a file that which should not change; nothing where it has none."""
    if path.name in UNHASHED or path.name.startswith(".") or path.parent.name == "provenance" or path.is_dir():
        return None
    return READERS.get("".join(path.suffixes)) or READERS.get(path.suffix)


def _unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes())


def _tensors(path: Path) -> bytes:
    """Return names, types, shapes and values of a safetensors file, without what it says of itself."""
    stored = path.read_bytes()
    start = 8 + int.from_bytes(stored[:8], "little")
    header = json.loads(stored[8:start])
    header.pop("__metadata__", None)
    return json.dumps(header, sort_keys=True).encode() + stored[start:]


def _arrays(path: Path) -> bytes:
    with np.load(path) as stored:
        return b"".join(name.encode() + stored[name].tobytes() for name in sorted(stored.files))


def _said(path: Path) -> bytes:
    text = path.read_text(encoding="utf-8")
    entries = map(json.loads, text.splitlines()) if path.suffix == ".jsonl" else [json.loads(text)]
    return json.dumps([_lasting(entry) for entry in entries], sort_keys=True).encode()


def _lasting(value: object) -> object:
    """Drop what varies from a JSON value."""
    if isinstance(value, dict):
        kept = {name: each for name, each in value.items() if name not in VARIES and not _is_time(name)}
        return {name: _lasting(each) for name, each in kept.items()}
    return [_lasting(each) for each in value] if isinstance(value, list) else value


def _is_time(name: str) -> bool:
    return any(word in name for word in ("second", "minute", "version", "times"))


READERS: dict[str, Callable[[Path], bytes]] = {
    ".nii.gz": _unpacked,
    ".safetensors": _tensors,
    ".npz": _arrays,
    ".npy": Path.read_bytes,
    ".csv": Path.read_bytes,
    ".json": _said,
    ".jsonl": _said,
}

if __name__ == "__main__":
    typer.run(main)
