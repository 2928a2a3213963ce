"""nnU-Net itself takes a cohort's folder as it comes: planned and preprocessed in a virtual environment of its own."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from promptlesion.data.dataset import Dataset, open_dataset

NNUNET = "2.6.0"  # the last that needs no torchvision; see CONTRIBUTING.md
ARCHITECTURES = "0.3.1"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def nnunet() -> Path:
    """The folder of nnU-Net's commands; made once, then kept in the user's cache. torch is this environment's own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir())
    folder = cache / f"promptlesion-nnunet-{NNUNET}-py{sys.version_info.major}.{sys.version_info.minor}"
    made_for, packages = folder / "made-for", str(Path(torch.__file__).parents[1])
    if not made_for.is_file() or made_for.read_text() != packages:
        checked([sys.executable, "-m", "venv", "--clear", str(folder)])
        purelib = checked([folder / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
        (Path(purelib.strip()) / "of_the_tests.pth").write_text(packages + "\n")
        constraints = ["-c", REPOSITORY / "constraints.txt"]
        wanted = [f"nnunetv2=={NNUNET}", f"dynamic-network-architectures=={ARCHITECTURES}"]
        checked([folder / "bin" / "python", "-m", "pip", "install", "-q", *constraints, *wanted])
        made_for.write_text(packages)
    return folder / "bin"


def checked(command: list[str | Path], **environment: str) -> str:
    """Run a command to its good end and return what it said."""
    ended = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout[-2000:]}{ended.stderr[-4000:]}"
    return ended.stdout


def hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_nnunet_plans_and_preprocesses_a_cohort_as_it_comes(
    nnunet: Path, tiny_data: Dataset, tiny_diffusion_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "raw" / "Dataset901_Synthetic"
    counts = ["--count", "bright=8", "--count", "dark=8"]
    settings = ["--preset", "demo", "--set", "synthesis.accept_all=true", "--set", "synthesis.lesions_per_case=2"]
    verb = ["synthesize", "--data", tiny_data.root, "--model", tiny_diffusion_run, "--device", "cpu", "--out", out]
    checked([sys.executable, "-m", "promptlesion", *verb, *counts, *settings, "--dicom"])
    as_it_came = hashes(out)
    cases = [case.name for case in open_dataset(out).cases]
    assert {"provenance.jsonl", "lesions.toml", "run.json", "contact_sheet.png"} <= set(as_it_came)
    assert (out / "dicom" / cases[0] / "seg.dcm").is_file()
    folders = {f"nnUNet_{name}": str(tmp_path / name) for name in ("raw", "preprocessed", "results")}
    command = [nnunet / "nnUNetv2_plan_and_preprocess", "-d", "901", "--verify_dataset_integrity", "-np", "1"]
    said = checked([*command, "-npfp", "1"], **folders, nnUNet_compile="f")
    assert "verify_dataset_integrity Done" in said
    preprocessed = tmp_path / "preprocessed" / out.name
    assert len(cases) >= 4
    for case in cases:
        assert list((preprocessed / "nnUNetPlans_3d_fullres").glob(f"{case}.*")), case
        assert (preprocessed / "gt_segmentations" / f"{case}.nii.gz").is_file()
    assert hashes(out) == as_it_came
