"""A corpus of bad inputs: each ends in one message that names file and cause; no traceback, nothing half-written."""

import gzip
import json
import resource
import shutil
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
    "non-ASCII lesion name": (
        text("lesions.toml", lambda old: old.replace("lesions.dark", 'lesions."schädlich"')),
        r"lesions\.toml.*schädlich",
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
    "unknown case in splits": (text("splits_final.json", lambda old: old.replace("tiny_1", "tiny_9")), "tiny_9"),
    "leaking splits": (
        text("splits_final.json", lambda old: old.replace("tiny_1", CASE)),
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
    "the source for an output": (with_paths(lambda bench: ["--out", bench.data]), "--out"),
    "another cohort there": (another_cohort, "cohort.*--out"),
    "other scans there": (someone_elses_scans, "cohort"),
    "output inside a file": (with_paths(lambda bench: ["--out", bench.image / "cohort"]), "cohort"),
    "output in a read-only place": (asked("--out", "/proc/cohort"), "/proc/cohort"),
}


@pytest.fixture
def bench(tiny_data: Dataset, tiny_diffusion_run: Path, tmp_path: Path) -> Bench:
    data = tmp_path / "data"
    shutil.copytree(tiny_data.root, data)
    fold = {"train": [CASE], "val": ["tiny_1"], "test": ["tiny_2", "tiny_3"]}
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
        json.dumps([{"train": ["Ärger"], "val": ["tiny_1"], "test": ["tiny_2"]}], ensure_ascii=False), encoding="utf-8"
    )
    spoken: Any = Bench(data, bench.model, bench.out.with_name("Kohorte ñ"), ["--accept-all"])
    code, err = call(spoken.command(), monkeypatch, capsys)
    assert code == 0, err
    assert json.loads((spoken.out / "provenance.jsonl").read_text(encoding="utf-8"))["source"] == "Ärger"
