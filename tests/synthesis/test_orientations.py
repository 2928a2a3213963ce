"""A scan stored in any of the 48 orders and directions of its axes gets the same lesion, and comes back as it came."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from tests.synthesis.conftest import LABELS, TILT, tube
from tests.synthesis.contract import check_contract

from promptlesion.data.dataset import (
    Dataset,
    image_path,
    label_path,
    open_dataset,
    read_case,
    write_dataset_json,
    write_spec,
)
from promptlesion.data.provenance import read_provenance
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer

SPACING_MM = (0.9, 1.1, 1.7)
ORIENTATIONS = [
    np.array([*zip(order, flips, strict=True)])
    for order in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]


def name_of(orientation: np.ndarray) -> str:
    return "".join(f"{'xyz'[axis]}{'-' if flip < 0 else ''}" for axis, flip in orientation.tolist())


def oblique_scan() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU, label map and affine, of unequal sides, anisotropic and tilted; the affine as a file holds it."""
    labels = tube((48, 42, 30), SPACING_MM)
    hu = np.array([-900, 120, 550, 0, 330])[labels] + np.random.default_rng(0).normal(0, 20, labels.shape)
    affine = np.eye(4)
    affine[:3, :3] = (TILT * SPACING_MM).astype(np.float32)
    affine[:3, 3] = np.float32([-83.7, 41.3, 1017.9])
    return hu.astype(np.int16), labels, affine


def written(root: Path, orientation: np.ndarray, like: Dataset) -> Dataset:
    """The scan as a dataset of one case, its axes in another order and direction."""
    hu, labels, affine = oblique_scan()
    for path, array in ((image_path(root, "scan"), hu), (label_path(root, "scan"), labels)):
        path.parent.mkdir(parents=True)
        turned = apply_orientation(array, orientation)
        nib.Nifti1Image(turned, affine @ inv_ornt_aff(orientation, array.shape)).to_filename(path)
    write_dataset_json(root, labels=LABELS, num_training=1, extra={})
    write_spec(like.spec, root / "lesions.toml")
    return open_dataset(root)


@pytest.fixture(scope="module")
def straight(
    scans: Dataset,
    synthesizer: PromptLesionSynthesizer,
    config: SynthesisConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Dataset:
    """A cohort painted into the scan as it lies."""
    root = tmp_path_factory.mktemp("straight")
    source = written(root / "scan", ORIENTATIONS[0], scans)
    synthesize_cohort(source, synthesizer, counts={"bright": 1}, config=config, out=root / "out", seed=5)
    return open_dataset(root / "out")


def test_there_are_48_and_they_differ(scans: Dataset, tmp_path: Path) -> None:
    assert len({orientation.tobytes() for orientation in ORIENTATIONS}) == 48
    codes = set()
    for index, orientation in enumerate(ORIENTATIONS):
        source = written(tmp_path / str(index), orientation, scans)
        codes.add(nib.aff2axcodes(nib.load(source.cases[0].image_path).affine))
    assert len(codes) == 48


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=name_of)
def test_the_same_lesion_comes_into_the_same_place_and_the_scan_comes_back_as_it_was(
    straight: Dataset,
    scans: Dataset,
    synthesizer: PromptLesionSynthesizer,
    config: SynthesisConfig,
    tmp_path: Path,
    orientation: np.ndarray,
) -> None:
    source = written(tmp_path / "scan", orientation, scans)
    synthesize_cohort(source, synthesizer, counts={"bright": 1}, config=config, out=tmp_path / "out", seed=5)
    made = open_dataset(tmp_path / "out")
    check_contract(made, source)
    for volume, expected in zip(read_case(made, made.cases[0]), read_case(straight, straight.cases[0]), strict=True):
        assert volume.array.tobytes() == expected.array.tobytes()
        np.testing.assert_allclose(volume.affine, expected.affine, rtol=0, atol=1e-3)
    (line,), (expected_line,) = (read_provenance(d.root).values() for d in (made, straight))
    (lesion,), (expected_lesion,) = line["lesions"], expected_line["lesions"]
    assert lesion.pop("center_mm") == pytest.approx(expected_lesion["center_mm"], abs=0.02)
    assert lesion == {key: value for key, value in expected_lesion.items() if key != "center_mm"}
