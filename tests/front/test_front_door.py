"""`import promptlesion`: light, typed, and the README's example runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import promptlesion as pl
from promptlesion.data.dataset import Dataset

README = Path(__file__).parents[2] / "README.md"


def test_importing_it_takes_neither_torch_nor_numpy() -> None:
    code = "import sys, promptlesion; print({'torch', 'numpy', 'pydantic', 'typer'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_importing_it_takes_little_of_what_torch_takes() -> None:
    seconds = {}
    for name in ("promptlesion", "torch"):
        code = f"import time; before = time.process_time(); import {name}; print(time.process_time() - before)"
        seconds[name] = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert seconds["promptlesion"] < 0.3 * seconds["torch"]


def test_everything_public_is_there_and_documented() -> None:
    for name in pl.__all__:
        assert getattr(pl, name).__doc__, name
    assert dir(pl) == sorted(pl.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'painted'"):
        pl.painted  # noqa: B018


def test_a_function_keeps_its_name_beside_a_folder_of_the_same() -> None:
    import promptlesion.experiment.cells

    assert callable(pl.experiment)
    assert promptlesion.__name__ == "promptlesion"
    assert sys.modules["promptlesion.experiment.cells"].plan_cells


def test_types_are_known_to_a_type_checker(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    code = tmp_path / "example.py"
    code.write_text(
        "import promptlesion as pl\n"
        "model = pl.load_model('run')\n"
        "scan, labels = pl.read_scan('scan.nii.gz'), pl.read_labels('labels.nii.gz')\n"
        "reveal_type(pl.paint(model, scan, labels, {'bright': 1}).image)\n"
        "reveal_type(pl.experiment)\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "mypy", "--config-file", str(README.with_name("pyproject.toml")), str(code)]
    told = subprocess.run(command, capture_output=True, text=True, cwd=README.parent, check=False).stdout
    assert "promptlesion.data.volume.Volume" in told
    assert "-> promptlesion.experiment.results.ExperimentResults" in told


def test_the_example_of_the_readme_runs(
    tiny_data: Dataset, tiny_diffusion_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the tiny dataset in the place of the demo's, with its own lesion type."""
    found = re.search(r"^    import promptlesion as pl\n(?:(?:    .*)?\n)+", README.read_text(encoding="utf-8"), re.M)
    assert found is not None
    demo = tmp_path / "runs" / "demo"
    demo.mkdir(parents=True)
    for stage in ("autoencoder", "diffusion"):
        (demo / stage).symlink_to(tiny_diffusion_run.parent / stage)
    shutil.copytree(tiny_data.root, demo / "data")
    for path in sorted((demo / "data").rglob("tiny_*")):
        path.rename(path.with_name(path.name.replace("tiny_", "ccta_000")))
    monkeypatch.chdir(tmp_path)
    code = re.sub("^    ", "", found[0], flags=re.M).replace("calcified_plaque", "bright")
    exec(compile(code, str(README), "exec"), {})
    assert (tmp_path / "out" / "image.nii.gz").is_file()
