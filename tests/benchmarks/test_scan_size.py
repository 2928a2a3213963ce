"""`benchmarks/scan_size.py` on a tiny trained model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset, open_dataset, read_case

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scan_size.py"


@pytest.mark.slow
def test_a_lesion_is_painted_into_scans_of_either_size_and_measured(
    tiny_data: Dataset, tiny_diffusion_run: Path, tmp_path: Path
) -> None:
    options = ["--data", tiny_data.root, "--model", tiny_diffusion_run, "--out", tmp_path, "--repeats", 1]
    options += ["--type", "dark", "--diameter", 5, "--small", 32, 32, 32, "--large", 80, 70, 64]
    command = [sys.executable, SCRIPT, *options]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    content = json.loads((tmp_path / "scan_size.json").read_text())
    assert content["scans"] == {"small": [32] * 3, "large, filled": [80, 70, 64], "large, air around": [80, 70, 64]}
    for name, shape in content["scans"].items():
        found = content["medians"][name]
        assert found["diameter_mm"] == pytest.approx(5, rel=0.1)
        assert 0 < found["place_seconds"] + found["paint_seconds"] < 1.1 * found["work_seconds"]
        dataset = open_dataset(tmp_path / name.replace(", ", "-").replace(" ", "-"))
        image, labels = read_case(dataset, dataset.cases[0])
        assert list(image.shape) == shape
        assert image.spacing_mm == pytest.approx(tiny_data.spec.spacing_mm)
        has_air_around = bool((labels.array[:20] == 0).all() and (labels.array[:, :, -12:] == 0).all())
        assert has_air_around == (name == "large, air around")
        made = sorted(dataset.root.glob("made/*/imagesTr/*.nii.gz"))
        assert len(made) == 2 and np.median(list(content["ratios"][name].values())) > 0
    assert len((tmp_path / "scan_size.md").read_text().splitlines()) == 5
