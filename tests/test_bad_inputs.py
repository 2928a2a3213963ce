"""A corpus of bad inputs: each ends in one message that names file and cause; no traceback, nothing half-written."""

import gzip
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from promptlesion.cli import main
from promptlesion.data.dataset import Dataset, image_path, label_path
from promptlesion.data.volume import read_volume

CASE = "tiny_0"


@dataclass(frozen=True)
class Bench:
    """A dataset folder to spoil, with one case to paint into, and a trained model."""

    data: Path
    model: Path
    out: Path
    arguments: list[str] = field(default_factory=list)

    @property
    def image(self) -> Path:
        return image_path(self.data, CASE)

    @property
    def labels(self) -> Path:
        return label_path(self.data, CASE)

    def command(self) -> list[str]:
        usual = {"--data": str(self.data), "--model": str(self.model), "--out": str(self.out), "--count": "bright=1"}
        given = self.arguments[::2]
        kept = [part for name, value in usual.items() if name not in given for part in (name, value)]
        steps = [] if "--preset" in given else ["--preset", "demo"]
        return ["synthesize", *kept, *steps, "--set", "synthesis.num_steps=2", *self.arguments]


Spoil = Callable[[Bench], None]


def image(make: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    """Other voxels in the CT, on its own grid."""

    def spoil(bench: Bench) -> None:
        nifti = nib.load(bench.image)
        nib.save(nib.Nifti1Image(make(np.asarray(nifti.dataobj)), nifti.affine), bench.image)

    return spoil


def labels(make: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    """Other voxels in the label map, on its own grid."""

    def spoil(bench: Bench) -> None:
        nifti = nib.load(bench.labels)
        nib.save(nib.Nifti1Image(make(np.asarray(nifti.dataobj)), nifti.affine), bench.labels)

    return spoil


def affine(change: Callable[[np.ndarray], np.ndarray], *, of: str = "labels") -> Spoil:
    """The same voxels elsewhere in the world."""

    def spoil(bench: Bench) -> None:
        path = getattr(bench, of)
        nifti = nib.load(path)
        voxels = np.asarray(nifti.dataobj)
        header = nib.Nifti1Header()
        header.set_data_shape(voxels.shape)
        header.set_data_dtype(voxels.dtype)
        header["sform_code"] = 1
        header["srow_x"], header["srow_y"], header["srow_z"] = change(nifti.affine.copy())[:3]
        path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 4 + voxels.tobytes(order="F")))

    return spoil


def content(of: str, change: Callable[[bytes], bytes]) -> Spoil:
    """Other bytes in a file."""

    def spoil(bench: Bench) -> None:
        path = getattr(bench, of)
        path.write_bytes(change(path.read_bytes()))

    return spoil


def text(name: str, change: Callable[[str], str]) -> Spoil:
    """Another text in a file of the folder."""

    def spoil(bench: Bench) -> None:
        path = bench.data / name
        changed = change(path.read_text(encoding="utf-8") if path.is_file() else "")
        assert not path.is_file() or changed != path.read_text(encoding="utf-8"), "the file is as it was"
        path.write_text(changed, encoding="utf-8")

    return spoil


def described(**changes: object) -> Spoil:
    """Other keys in `dataset.json`."""
    return text("dataset.json", lambda old: json.dumps({**json.loads(old), **changes}))


def removed(of: str) -> Spoil:
    return lambda bench: getattr(bench, of, bench.data / of).unlink()


def asked(*arguments: object) -> Spoil:
    return lambda bench: bench.arguments.extend(str(argument) for argument in arguments)


def with_paths(make: Callable[[Bench], list[object]]) -> Spoil:
    return lambda bench: bench.arguments.extend(str(argument) for argument in make(bench))


def shifted(row: int, column: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(matrix: np.ndarray) -> np.ndarray:
        matrix[row, column] += value
        return matrix

    return change


def flipped(matrix: np.ndarray) -> np.ndarray:
    matrix[0] *= -1
    return matrix


def truncated_inside(content: bytes) -> bytes:
    return gzip.compress(gzip.decompress(content)[:-5000])


def another_cohort(bench: Bench) -> None:
    bench.out.mkdir()
    (bench.out / "run.json").write_text(
        json.dumps({"stage": "synthesis", "seed": 9, "inputs": {}, "config": {}, "seconds": 1, "is_finished": True})
    )


def someone_elses_scans(bench: Bench) -> None:
    (bench.out / "imagesTr").mkdir(parents=True)
    (bench.out / "imagesTr" / "mine_0000.nii.gz").write_bytes(b"precious")


def spoiled_model(name: str, change: Callable[[bytes], bytes] | None) -> Spoil:
    def spoil(bench: Bench) -> None:
        copy = bench.data.parent / "model"
        shutil.copytree(bench.model.parent, copy)
        path = copy / "diffusion" / name
        path.write_bytes(change(path.read_bytes())) if change else path.unlink()
        bench.arguments.extend(["--model", str(copy / "diffusion")])

    return spoil


def noisy(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)


def rgb(array: np.ndarray) -> np.ndarray:
    return np.zeros(array.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


CORPUS: dict[str, tuple[Spoil, str]] = {
    # the CT
    "no image": (removed("image"), CASE),
    "empty image": (content("image", lambda _: b""), f"{CASE}_0000.nii.gz.*empty"),
    "truncated gzip": (content("image", lambda old: old[: len(old) // 2]), f"{CASE}_0000.nii.gz.*truncated"),
    "truncated voxels": (content("image", truncated_inside), f"{CASE}_0000.nii.gz.*truncated"),
    "no NIfTI at all": (content("image", lambda _: b"<html>404</html>" * 99), f"{CASE}_0000.nii.gz.*damaged"),
    "noise for a file": (content("image", lambda _: np.random.default_rng(0).bytes(4000)), f"{CASE}_0000.nii.gz"),
    "header alone": (content("image", lambda old: gzip.compress(gzip.decompress(old)[:352])), f"{CASE}_0000.nii.gz"),
    "flipped bits": (content("image", lambda old: old[:900] + b"\xff" * 64 + old[964:]), f"{CASE}_0000.nii.gz"),
    "2-D": (image(lambda old: old[:, :, 0]), f"{CASE}_0000.nii.gz.*3-D"),
    "4-D": (image(lambda old: np.stack([old, old], axis=-1)), f"{CASE}_0000.nii.gz.*3-D"),
    "RGB": (image(rgb), f"{CASE}_0000.nii.gz.*one number a voxel"),
    "complex": (image(lambda old: old.astype(np.complex64)), f"{CASE}_0000.nii.gz.*one number a voxel"),
    "NaN": (image(lambda old: np.where(old > 500, np.nan, old).astype(np.float32)), f"{CASE}.*NaN"),
    "infinite": (image(lambda old: np.where(old > 500, np.inf, old).astype(np.float32)), f"{CASE}.*infinite"),
    "scaled to [0, 1]": (image(lambda old: ((old + 300) / 1300).clip(0, 1).astype(np.float32)), f"{CASE}.*scaled"),
    "standardised": (image(lambda old: ((old - old.mean()) / old.std()).astype(np.float32)), f"{CASE}.*standardised"),
    "8 bit": (image(lambda old: ((old + 300) / 5).clip(0, 255).astype(np.uint8)), f"{CASE}.*8-bit"),
    "no intercept": (image(lambda old: (old + 1024).clip(0).astype(np.int16)), f"{CASE}.*intercept"),
    "constant": (image(lambda old: np.full_like(old, 7)), f"{CASE}.*every voxel"),
    "absurd HU": (image(lambda old: old.astype(np.float64) * 1e9), f"{CASE}.*HU between"),
    "singular affine": (affine(lambda old: old * np.array([[1.0], [0], [1], [1]]), of="image"), f"{CASE}.*affine"),
    "NaN affine": (affine(lambda old: old * np.nan, of="image"), f"{CASE}.*affine"),
    # the label map
    "no label map": (removed("labels"), f"{CASE}.*label map"),
    "empty label map": (content("labels", lambda _: b""), f"{CASE}.nii.gz.*empty"),
    "truncated label map": (content("labels", lambda old: old[: len(old) // 2]), f"{CASE}.nii.gz.*truncated"),
    "unknown label": (labels(lambda old: np.where(old == 2, 77, old).astype(np.uint8)), f"{CASE}.*77"),
    "negative label": (labels(lambda old: np.where(old == 2, -1, old.astype(np.int16))), f"{CASE}.*-1"),
    "half a label": (labels(lambda old: (old / 2).astype(np.float32)), f"{CASE}.*0.5"),
    "NaN label": (labels(lambda old: np.where(old == 2, np.nan, old).astype(np.float32)), f"{CASE}.*nan"),
    "probabilities": (labels(lambda old: (old * 0.31).astype(np.float32)), f"{CASE}.*label values"),
    "flipped label map": (affine(flipped), f"{CASE}.*(direction|origin|orientation)"),
    "wrong label spacing": (affine(shifted(2, 2, 0.4)), f"{CASE}.*spacing"),
    "shifted label map": (affine(shifted(0, 3, 2.0)), f"{CASE}.*origin"),
    "other label shape": (labels(lambda old: old[:-1]), f"{CASE}.*shape"),
    "4-D label map": (labels(lambda old: np.stack([old, old], axis=-1)), f"{CASE}.*3-D"),
    "missing host": (labels(lambda old: np.zeros_like(old)), "(?s)bright.*organ"),
    "host too small": (
        labels(lambda old: np.where(np.arange(old.size).reshape(old.shape) == 9000, 1, 0).astype(np.uint8)),
        "(?s)bright.*organ",
    ),
    # dataset.json
    "no dataset.json": (removed("dataset.json"), r"dataset\.json.*none"),
    "broken JSON": (text("dataset.json", lambda old: old[:-9]), r"dataset\.json.*JSON"),
    "empty JSON": (text("dataset.json", lambda _: ""), r"dataset\.json.*JSON"),
    "a list for JSON": (text("dataset.json", lambda _: "[]"), r"dataset\.json.*object"),
    "two channels": (described(channel_names={"0": "CT", "1": "PET"}), r"dataset\.json.*channel"),
    "other file ending": (described(file_ending=".nrrd"), r"dataset\.json.*file_ending"),
    "regions": (described(labels={"background": 0, "organ": [1, 2], "bright": 2}), r"dataset\.json.*region"),
    "no background": (described(labels={"organ": 1, "bright": 2}), r"dataset\.json.*background"),
    "names by value": (described(labels={"0": "background", "1": "organ"}), r"dataset\.json.*background"),
    "one value twice": (described(labels={"background": 0, "organ": 1, "bright": 2, "dark": 2}), r"dataset\.json"),
    "label 300": (described(labels={"background": 0, "organ": 1, "bright": 300}), r"dataset\.json.*300"),
    "label as text": (described(labels={"background": 0, "organ": "1"}), r"dataset\.json.*organ"),
    # lesions.toml
    "no lesions.toml": (removed("lesions.toml"), r"lesions\.toml"),
    "broken TOML": (text("lesions.toml", lambda old: old.replace("]", "", 1)), r"lesions\.toml.*TOML"),
    "unknown key": (
        text("lesions.toml", lambda old: old.replace("diameter_mm", "diameter", 1)),
        r"lesions\.toml.*diameter",
    ),
    "unknown lesion label": (
        text("lesions.toml", lambda old: old.replace("label = 2", "label = 9")),
        r"lesions\.toml.*9",
    ),
    "unknown host": (text("lesions.toml", lambda old: old.replace('"organ"', '"heart"')), r"lesions\.toml.*heart"),
    "no host": (text("lesions.toml", lambda old: old.replace('"organ"', "")), r"lesions\.toml.*host"),
    "zero-size lesion": (
        text("lesions.toml", lambda old: old.replace("[3.0, 8.0]", "[0.0, 0.0]")),
        r"lesions\.toml.*diameter_mm",
    ),
    "reversed diameters": (
        text("lesions.toml", lambda old: old.replace("[3.0, 8.0]", "[8.0, 3.0]")),
        r"lesions\.toml.*diameter_mm",
    ),
    "reversed window": (
        text("lesions.toml", lambda old: old.replace("[-200.0, 800.0]", "[800.0, -200.0]")),
        r"lesions\.toml.*window_hu",
    ),
    "no spacing": (
        text("lesions.toml", lambda old: old.replace("[1.0, 1.0, 1.5]", "[0.0, 1.0, 1.5]")),
        r"lesions\.toml.*spacing_mm",
    ),
    "two spacings": (
        text("lesions.toml", lambda old: old.replace("[1.0, 1.0, 1.5]", "[1.0, 1.5]")),
        r"lesions\.toml.*spacing_mm",
    ),
    "NaN spacing": (
        text("lesions.toml", lambda old: old.replace("[1.0, 1.0, 1.5]", "[nan, 1.0, 1.5]")),
        r"lesions\.toml.*spacing_mm",
    ),
    "no lesions": (text("lesions.toml", lambda old: old.split("[lesions")[0]), r"lesions\.toml.*lesions"),
    "a lesion name that the labels do not have": (
        text("lesions.toml", lambda old: old.replace("lesions.dark", 'lesions."schädlich"')),
        "schädlich",
    ),
    "one label for two types": (
        text("lesions.toml", lambda old: old.replace("label = 3", "label = 2")),
        r"lesions\.toml.*label",
    ),
    "other types than the model": (
        text("lesions.toml", lambda old: old.replace("lesions.dark", "lesions.grey")),
        "grey",
    ),
    "other window than the model": (text("lesions.toml", lambda old: old.replace("800.0]", "700.0]")), "700"),
    "pattern without group": (
        text("lesions.toml", lambda old: old + '\n[subjects]\npattern = "tiny"\n'),
        r"lesions\.toml.*group",
    ),
    "pattern that is none": (
        text("lesions.toml", lambda old: old + '\n[subjects]\npattern = "(tiny"\n'),
        r"lesions\.toml.*regular",
    ),
    "pattern that fits none": (
        text("lesions.toml", lambda old: old + '\n[subjects]\npattern = "(patient\\\\d+)"\n'),
        f"{CASE}.*pattern",
    ),
    # names and splits
    "several channels": (
        lambda bench: shutil.copy(bench.image, bench.image.with_name(f"{CASE}_0001.nii.gz")) and None,
        f"{CASE}_0001.*channel",
    ),
    "name without channel": (
        lambda bench: bench.image.rename(bench.image.with_name(f"{CASE}.nii.gz")) and None,
        f"{CASE}.nii.gz.*channel",
    ),
    "no scans": (lambda bench: shutil.rmtree(bench.data / "imagesTr"), "imagesTr.*none"),
    "broken splits": (text("splits_final.json", lambda _: "[{]"), r"splits_final\.json.*JSON"),
    "unknown case in splits": (text("splits_final.json", lambda old: old.replace("tiny_3", "tiny_9")), "tiny_9"),
    "leaking splits": (
        text("splits_final.json", lambda old: old.replace("tiny_3", CASE)),
        r"splits_final\.json.*" + CASE,
    ),
    "empty part in splits": (
        text("splits_final.json", lambda _: '[{"train": [], "val": ["tiny_1"]}]'),
        r"splits_final\.json.*train",
    ),
    "splits without folds": (text("splits_final.json", lambda _: "[]"), r"splits_final\.json.*fold"),
    # the model
    "no model": (with_paths(lambda bench: ["--model", bench.data.parent / "nowhere"]), "nowhere"),
    "stage 1 for a model": (with_paths(lambda bench: ["--model", bench.model.parent / "autoencoder"]), "autoencoder"),
    "unfinished model": (spoiled_model("checkpoint/card.json", None), "diffusion"),
    "broken card": (spoiled_model("checkpoint/card.json", lambda old: old[: len(old) // 2]), r"card\.json"),
    "broken weights": (spoiled_model("checkpoint/weights.safetensors", lambda old: old[: len(old) // 2]), "weights"),
    "changed weights": (spoiled_model("checkpoint/weights.safetensors", lambda old: old[:-4] + b"\1\2\3\4"), "weights"),
    # the command
    "unknown type": (asked("--count", "mauve=3"), "--count.*mauve"),
    "count without number": (asked("--count", "bright"), "--count.*TYPE=N"),
    "count twice": (asked("--count", "bright=1", "--count", "bright=2"), "--count.*once"),
    "nothing to paint": (asked("--count", "bright=0"), "--count.*at least one"),
    "negative seed": (asked("--seed", "-1"), "--seed"),
    "unknown device": (asked("--device", "tpu"), "tpu"),
    "unknown preset": (asked("--preset", "huge"), "huge"),
    "unknown setting": (asked("--set", "synthesis.beauty=9"), "beauty"),
    "more steps than levels": (asked("--set", "synthesis.num_steps=999"), "999"),
    "no such configuration": (asked("--config", "nowhere.toml"), r"nowhere\.toml"),
    "no such dataset": (with_paths(lambda bench: ["--data", bench.data.parent / "nowhere"]), "nowhere"),
    "the source for an output": (
        with_paths(lambda bench: ["--out", bench.data]),
        "data: expected a new folder.*another dataset",
    ),
    "another cohort there": (another_cohort, "expected a run with the asked-for settings.*--out"),
    "other scans there": (someone_elses_scans, "expected a new folder.*another dataset"),
    "output inside a file": (with_paths(lambda bench: ["--out", bench.image / "cohort"]), "cohort"),
    "output in a read-only place": (asked("--out", "/proc/cohort"), "/proc/cohort"),
}


@pytest.fixture
def bench(tiny_data: Dataset, tiny_diffusion_run: Path, tmp_path: Path) -> Bench:
    data = tmp_path / "data"
    shutil.copytree(tiny_data.root, data)
    fold = {"train": [CASE], "val": [], "test": ["tiny_3"]}  # of the others the model has learned
    (data / "splits_final.json").write_text(json.dumps([fold]))
    return Bench(data, tiny_diffusion_run, tmp_path / "cohort")


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command line; exit code, and what stands on standard error."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "argv", ["promptlesion", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capsys.readouterr().err


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_whole(folder: Path) -> None:
    """Whatever lies in a folder is whole: no temporary file, every NIfTI file readable, no claim to be a dataset."""
    for path in files(folder):
        assert not path.name.startswith(".partial"), path
        if path.name.endswith(".nii.gz") and path.read_bytes() != b"precious":
            read_volume(path)
    assert not (folder / "dataset.json").exists()


def test_the_corpus_is_large_and_the_bench_itself_is_sound(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(CORPUS) >= 60
    bench.arguments.append("--accept-all")
    code, err = call(bench.command(), monkeypatch, capsys)
    assert code == 0, err
    assert (bench.out / "dataset.json").is_file()


@pytest.mark.parametrize("name", CORPUS)
def test_a_bad_input_ends_in_a_message(
    name: str, bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    spoil, expected = CORPUS[name]
    spoil(bench)
    before = files(bench.data)
    code, err = call(bench.command(), monkeypatch, capsys)
    assert code in (1, 2), err
    assert re.search(expected, err), err
    assert "Traceback" not in err
    assert files(bench.data) == before
    check_whole(bench.out)


@contextmanager
def full_disk(largest_file_bytes: int) -> Iterator[None]:
    """No file grows beyond this, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_ends_in_a_message_and_the_cohort_goes_on_when_there_is_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*bench.command(), "--accept-all"]
    with full_disk(10_000):
        code, err = call(arguments, monkeypatch, capsys)
    assert code == 1
    assert "cohort" in err and "Traceback" not in err
    check_whole(bench.out)
    code, err = call(arguments, monkeypatch, capsys)
    assert code == 0, err
    assert (bench.out / "dataset.json").is_file()


def test_names_beyond_ascii_work(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bench.data.with_name("Bücher und Körper")
    bench.data.rename(data)
    for path, name in ((image_path(data, CASE), "Ärger_0000.nii.gz"), (label_path(data, CASE), "Ärger.nii.gz")):
        path.rename(path.with_name(name))
    (data / "splits_final.json").write_text(
        json.dumps([{"train": ["Ärger"], "val": [], "test": ["tiny_3"]}], ensure_ascii=False), encoding="utf-8"
    )
    spoken: Any = Bench(data, bench.model, bench.out.with_name("Kohorte ñ"), ["--accept-all"])
    code, err = call(spoken.command(), monkeypatch, capsys)
    assert code == 0, err
    assert json.loads((spoken.out / "provenance.jsonl").read_text(encoding="utf-8"))["source"] == "Ärger"


# Sources of `prepare`: each entry writes one that is bad, and may say how the command is called

AFFINE = np.diag([-0.9, -0.8, 2.5, 1.0])
HU = np.random.default_rng(4).integers(-1020, 900, (9, 8, 7)).astype(np.int16)
LABELS = (HU > 0).astype(np.uint8)
LABELS[3:5, 3:5, 3] = 2


@dataclass(frozen=True)
class Archive:
    """A folder of scans to prepare."""

    source: Path
    out: Path
    arguments: list[str] = field(default_factory=list)

    def write(self, name: str, array: np.ndarray, matrix: np.ndarray = AFFINE) -> Path:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, matrix, dtype=array.dtype), path)
        return path


Make = Callable[[Archive], object]


def pair(scan: np.ndarray = HU, label_map: np.ndarray = LABELS, of_labels: np.ndarray = AFFINE) -> Make:
    """Folders `images` and `labels` with a case."""

    def make(archive: Archive) -> None:
        archive.write("images/scan 1.nii.gz", scan)
        archive.write("labels/scan 1.nii.gz", label_map, of_labels)

    return make


def then(*makes: Make) -> Make:
    """One after the other."""
    return lambda archive: [make(archive) for make in makes]


def called(*arguments: str) -> Make:
    """With these arguments; SOURCE and OUT stand for the folders."""

    def make(archive: Archive) -> None:
        places = {"SOURCE": str(archive.source), "OUT": str(archive.out)}
        for argument in arguments:
            for word, place in places.items():
                argument = argument.replace(word, place)
            archive.arguments.append(argument)

    return make


def written(name: str, content: bytes | str) -> Make:
    """With a file of this content."""

    def make(archive: Archive) -> None:
        path = archive.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def decathlon(**changes: object) -> Make:
    """A task with a case."""
    described = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": [{"image": "./imagesTr/liver_1.nii.gz", "label": "./labelsTr/liver_1.nii.gz"}],
    }

    def make(archive: Archive) -> None:
        archive.write("imagesTr/liver_1.nii.gz", HU)
        written("dataset.json", json.dumps({**described, **changes}))(archive)

    return make


def atlas(mask: np.ndarray, matrix: np.ndarray = AFFINE) -> Make:
    """A folder a case, with a mask."""

    def make(archive: Archive) -> None:
        archive.write("BDMAP_1/ct.nii.gz", HU)
        archive.write("BDMAP_1/segmentations/liver.nii.gz", mask, matrix)

    return make


def series(change: Callable[[Any, int], None] = lambda dataset, index: None, **options: Any) -> Make:
    """A DICOM series."""

    def make(archive: Archive) -> None:
        from tests.data.sources.conftest import write_ct

        write_ct(archive.source / "SER 1", HU, change=change, **options)

    return make


def tagged(**values: object) -> Callable[[Any, int], None]:
    def change(dataset: Any, _: int) -> None:
        for tag, value in values.items():
            setattr(dataset, tag, value)

    return change


def moved(dataset: Any, index: int) -> None:
    dataset.ImagePositionPatient[2] += 0.9 * (index >= 4)


def label_object(**values: object) -> Make:
    """A file that claims to hold labels."""

    def make(archive: Archive) -> None:
        from tests.data.sources.conftest import write_ct

        (dataset, *_) = write_ct(archive.source / "SER 1", HU)
        del dataset.PixelData
        tagged(SOPInstanceUID="1.2.3.4", **values)(dataset, 0)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.save_as(archive.source / "labels.dcm", enforce_file_format=True)

    return make


SEG = {"Modality": "SEG", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}
RTSTRUCT = {"Modality": "RTSTRUCT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3"}
KITS = then(
    lambda archive: archive.write("case_1/imaging.nii.gz", HU),
    lambda archive: archive.write("case_1/segmentation.nii.gz", LABELS),
)


def cut(name: str, length: int) -> Make:
    """With a file that ends too soon."""
    return lambda archive: (archive.source / name).write_bytes((archive.source / name).read_bytes()[:length])


def in_out(name: str, content: bytes) -> Make:
    """With something in the folder to write."""

    def make(archive: Archive) -> None:
        (archive.out / name).parent.mkdir(parents=True)
        (archive.out / name).write_bytes(content)

    return make


PREPARE_CORPUS: dict[str, tuple[Make, str]] = {
    # SOURCE
    "no such source": (lambda archive: archive.source.rmdir(), "scans ü: expected a folder of scans, found none"),
    "a file for a source": (then(written("a.zip", "PK"), called("SOURCE/a.zip")), r"a\.zip: .*found a file"),
    "an empty source": (then(), "scans ü: expected DICOM files.*found 0 files"),
    "nothing known": (written("notes.txt", "x" * 200), "scans ü: expected DICOM files.*found 1 files of none"),
    "one level too high": (
        then(KITS, called("SOURCE/..")),
        "found 2 files of none; .*scans ü is one",
    ),
    "two layouts": (then(KITS, atlas(LABELS)), "scans ü: expected one layout, found kits and abdomen-atlas"),
    "links to nothing": (
        lambda archive: [(archive.source / f"{index}.dcm").symlink_to("nowhere") for index in range(4)],
        "scans ü: expected DICOM files.*found 4 files of none",
    ),
    # OUT
    "output inside the source": (then(pair(), called("SOURCE", "--out", "SOURCE/out")), "--out .*outside"),
    "the source for an output": (then(pair(), called("SOURCE", "--out", "SOURCE")), "--out .*outside"),
    "the source inside the output": (then(pair(), called("SOURCE", "--out", "SOURCE/..")), "--out .*inside it"),
    "a file for an output": (then(pair(), lambda archive: archive.out.write_text("mine")), "(?s)--out.*file"),
    "output in a read-only place": (then(pair(), called("SOURCE", "--out", "/proc/cohort")), "/proc/cohort"),
    "scans of another kind in the output": (
        then(pair(), in_out("imagesTr/mine_0000.nii.gz", b"precious")),
        "--out .*expected an empty folder.*found 1 other case",
    ),
    "another format in the output": (
        then(pair(), in_out("imagesTr/mine_0000.mha", b"precious")),
        "--out .*expected an empty folder.*found 1 other case",
    ),
    "another dataset in the output": (
        then(pair(), in_out("dataset.json", b"{}")),
        r"--out .*expected an empty folder.*found the dataset\.json",
    ),
    "key inside the output": (then(pair(), called("SOURCE", "--key", "OUT/key.csv")), r"--key .*key\.csv: .*outside"),
    "key in a read-only place": (then(pair(), called("SOURCE", "--key", "/proc/key.csv")), "/proc/.*key"),
    # options
    "another layout": (then(pair(), called("SOURCE", "--layout", "kits")), "expected folders of cases with imaging"),
    "unknown layout": (then(pair(), called("SOURCE", "--layout", "bids")), "(?s)--layout.*bids"),
    "label without value": (then(pair(), called("SOURCE", "--label", "liver")), "--label liver: expected NAME=VALUE"),
    "label names elsewhere": (then(KITS, called("SOURCE", "--label", "a=1")), "--label: expected with the layout"),
    "no label folder": (then(pair(), called("SOURCE/images", "--labels", "SOURCE/masks")), "masks: expected a folder"),
    "no worker": (then(pair(), called("SOURCE", "--workers", "0")), "--workers"),
    "phantom with a layout": (called("phantom", "--layout", "kits"), r"--layout: expected .*\./phantom"),
    "folder with a phantom's option": (then(pair(), called("SOURCE", "--cases", "3")), "--cases: expected"),
    # Decathlon, KiTS, AbdomenAtlas, nnU-Net
    "MRI": (decathlon(modality={"0": "MRI"}), r"dataset\.json: expected the modality CT"),
    "two channels": (decathlon(modality={"0": "CT", "1": "PET"}), r"dataset\.json: expected one modality"),
    "no label names": (decathlon(labels=None), r"dataset\.json: expected `labels`"),
    "a list of nothing": (decathlon(training=[]), r"dataset\.json: expected cases in `training`"),
    "label map not there": (decathlon(), r"liver_1: expected the file .*labelsTr/liver_1\.nii\.gz, found none"),
    "broken JSON": (written("dataset.json", '{"training"'), r"dataset\.json: expected a JSON file"),
    "KiTS without segmentations": (
        lambda archive: archive.write("case_1/imaging.nii.gz", HU),
        r"scans ü: expected segmentation\.nii\.gz beside",
    ),
    "a mask elsewhere": (atlas(LABELS, AFFINE @ np.diag([1, 1.2, 1, 1])), r"liver\.nii\.gz: label spacing"),
    "a mask of another shape": (atlas(LABELS[1:]), r"liver\.nii\.gz: label shape"),
    "half a mask": (atlas((LABELS * 0.4).astype(np.float32)), r"liver\.nii\.gz: expected whole label values.*0\.4"),
    "no file ending": (written("dataset.json", '{"labels": {}}'), r"dataset\.json: expected a `file_ending`"),
    # folders of images
    "no label map": (
        then(pair(), lambda archive: archive.write("images/scan 2.nii.gz", HU)),
        r"images/scan 2\.nii\.gz: expected a label map of the same name",
    ),
    "two label maps": (
        then(pair(), lambda archive: archive.write("labels/scan 1_seg.nii.gz", LABELS)),
        r"scan 1_seg\.nii\.gz: expected one file a case",
    ),
    "label maps for images": (pair(LABELS), r"images/scan 1\.nii\.gz: expected HU"),
    "images for label maps": (pair(HU, HU), r"labels/scan 1\.nii\.gz: expected whole label values"),
    "another grid": (pair(of_labels=AFFINE @ np.diag([1, 1, 1.5, 1])), r"scan 1\.nii\.gz: label spacing"),
    "4-D": (pair(np.stack([HU, HU], axis=-1)), r"images/scan 1\.nii\.gz: expected a 3-D volume"),
    "NaN": (pair(np.where(HU > 800, np.nan, HU).astype(np.float32)), r"images/scan 1\.nii\.gz: .*NaN"),
    "labels without a name": (
        then(pair(), called("SOURCE", "--label", "liver=1")),
        r"labels/scan 1\.nii\.gz: expected the label values .*found \[2\]; name them with --label",
    ),
    "truncated image": (then(pair(), cut("images/scan 1.nii.gz", 300)), r"images/scan 1\.nii\.gz: .*truncated"),
    "empty label map": (then(pair(), cut("labels/scan 1.nii.gz", 0)), r"labels/scan 1\.nii\.gz: .*empty"),
    "no NRRD": (
        then(written("images/a.nrrd", "<html>"), lambda archive: archive.write("labels/a.nii.gz", LABELS)),
        r"images/a\.nrrd: expected a whole image",
    ),
    # DICOM
    "a slice missing": (series(skip=(3,)), r"SER 1: series .*1 slice\(s\) missing, between .*slice002.*slice004"),
    "uneven slices": (series(moved), "SER 1: series .*expected a slice every 2.5 mm, found 3.4 mm"),
    "two slices": (series(skip=(0, 1, 2, 3, 4)), "(?s)expected CT series.*of 2 slices: left out"),
    "MR": (series(tagged(Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")), "(?s)expected CT.*modality MR"),
    "scouts": (series(tagged(ImageType=["DERIVED", "LOCALIZER"])), "(?s)expected CT series.*CT localizer"),
    "no pixels": (series(lambda dataset, _: dataset.pop("PixelData")), r"slice000\.dcm: expected pixels"),
    "truncated slice": (then(series(), cut("SER 1/slice006.dcm", 900)), r"expected slope .*slice006\.dcm"),
    "no rescale": (series(tagged(RescaleIntercept=0)), r"SER 1: series .*: expected HU.*intercept"),
    "an empty SEG": (label_object(**SEG), r"labels\.dcm: expected a whole SEG or RTSTRUCT"),
    "an empty RTSTRUCT": (label_object(**RTSTRUCT), r"labels\.dcm: expected a whole SEG or RTSTRUCT"),
}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    (tmp_path / "in" / "scans ü").mkdir(parents=True)
    return Archive(tmp_path / "in" / "scans ü", tmp_path / "dataset")


def prepare_command(archive: Archive) -> list[str]:
    given = archive.arguments or [str(archive.source)]
    return ["prepare", *given, *([] if "--out" in given else ["--out", str(archive.out)])]


@pytest.mark.parametrize("name", PREPARE_CORPUS)
def test_a_bad_source_ends_in_a_message(
    name: str, archive: Archive, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    make, expected = PREPARE_CORPUS[name]
    make(archive)
    place = archive.source.parents[1]
    before = files(place)
    code, err = call(prepare_command(archive), monkeypatch, capsys)
    assert code in (1, 2), err
    assert re.search(expected, err), err
    assert "Traceback" not in err
    after = files(place)
    assert {path: after.get(path) for path in before} == before
    new = set(after) - set(before)
    assert not [path for path in new if path.name.startswith(".partial")]
    # a key that cannot be written is the last to fail: the dataset is whole by then
    assert ("read-only" in name and "key" in name) == any(path.name == "dataset.json" for path in new)
    for path in new:
        if path.name.endswith(".nii.gz"):
            read_volume(path)


def test_a_good_source_is_prepared_once(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(PREPARE_CORPUS) >= 15
    pair()(archive)
    assert call(prepare_command(archive), monkeypatch, capsys)[0] == 0
    written_at = {path: path.stat().st_mtime_ns for path in files(archive.out)}
    assert len(written_at) == 4  # the CT, its label map, its card, dataset.json
    assert call(prepare_command(archive), monkeypatch, capsys)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in files(archive.out)} == written_at


def test_a_disk_that_is_full_while_preparing_ends_in_a_message(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pair()(archive)
    with full_disk(900):
        code, err = call(prepare_command(archive), monkeypatch, capsys)
    assert code == 1
    assert "imagesTr/S0001_01_0000.nii.gz" in err and "Traceback" not in err
    check_whole(archive.out)
    assert call(prepare_command(archive), monkeypatch, capsys)[0] == 0
    assert (archive.out / "dataset.json").is_file()


WITH_LITTLE_MEMORY = """
import resource, sys
import promptlesion.cli, promptlesion.front.preparation
from pathlib import Path
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 100_000_000, resource.RLIM_INFINITY))
promptlesion.cli.main()
"""
"""The command line in a process that may have 100 MB more than it takes to start; in ours, earlier tests leave room."""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="asks Linux how much memory is taken")
def test_too_little_memory_ends_in_a_message(archive: Archive) -> None:
    large = np.full((400, 400, 400), -1000, np.int16)
    pair(large, np.zeros(large.shape, np.uint8))(archive)
    arguments = [*prepare_command(archive), "--label", "liver=1"]
    ended = subprocess.run(
        [sys.executable, "-c", WITH_LITTLE_MEMORY, *arguments], capture_output=True, text=True, check=False
    )
    err = ended.stderr
    assert ended.returncode == 1
    assert "Out of memory" in err and "images/scan 1.nii.gz" in err and "Traceback" not in err
    check_whole(archive.out)
