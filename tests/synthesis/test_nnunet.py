"""nnU-Net itself takes a cohort's folder as it comes: planned and preprocessed in a virtual environment of its own."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from promptlesion.data.dataset import Dataset, open_dataset
from promptlesion.data.splits import Split, write_splits


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
    data, names = tmp_path / "data", [case.name for case in tiny_data.cases]
    shutil.copytree(tiny_data.root, data)
    write_splits(data, Split(train=tuple(names[:3]), validation=(), test=(names[3],)))
    out = tmp_path / "raw" / "Dataset901_Synthetic"
    counts = ["--count", "bright=8", "--count", "dark=8"]
    settings = ["--preset", "demo", "--set", "synthesis.accept_all=true", "--set", "synthesis.lesions_per_case=2"]
    verb = ["synthesize", "--data", data, "--model", tiny_diffusion_run, "--device", "cpu", "--out", out]
    checked([sys.executable, "-m", "promptlesion", *verb, *counts, *settings, "--dicom"])
    as_it_came = hashes(out)
    cases = [case.name for case in open_dataset(out).cases]
    assert {"provenance.jsonl", "lesions.toml", "run.json", "contact_sheet.png"} <= set(as_it_came)
    assert (out / "dicom" / cases[0] / "seg.dcm").is_file()
    folders = {f"nnUNet_{name}": str(tmp_path / name) for name in ("raw", "preprocessed", "results")}
    command = [nnunet / "bin" / "nnUNetv2_plan_and_preprocess", "-d", "901", "--verify_dataset_integrity", "-np", "1"]
    said = checked([*command, "-npfp", "1"], **folders, nnUNet_compile="f")
    assert "verify_dataset_integrity Done" in said
    preprocessed = tmp_path / "preprocessed" / out.name
    assert len(cases) >= 4
    for case in cases:
        assert list((preprocessed / "nnUNetPlans_3d_fullres").glob(f"{case}.*")), case
        assert (preprocessed / "gt_segmentations" / f"{case}.nii.gz").is_file()
    assert hashes(out) == as_it_came
