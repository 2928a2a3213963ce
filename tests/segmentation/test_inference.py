from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from promptlesion.data.cache import CachedCase
from promptlesion.data.dataset import DatasetSpec
from promptlesion.data.intensity import HUWindow
from promptlesion.data.resampling import resample_array, resample_to_spacing
from promptlesion.data.volume import Volume, read_volume, write_volume
from promptlesion.segmentation import inference as inference_module
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.inference import (
    TrainedSegmentation,
    likeliest,
    load_segmentation,
    predict_case,
    predict_scores,
)
from promptlesion.segmentation.label_classes import LabelClasses
from promptlesion.segmentation.validation import validation_dice
from promptlesion.training.checkpoint import CheckpointError
from promptlesion.training.run import Run

CPU = torch.device("cpu")
SMALL = SegmentationConfig(patch_voxels=16, channels=(4, 8), precision="float32")
THRESHOLDS_HU = (0.0, 200.0)


class Thresholds(nn.Module):
    """A network whose answer is known: class by brightness, below 0 HU, below 200 HU, above."""

    def __init__(self, window: HUWindow) -> None:
        super().__init__()
        self.low, self.high = (float(window.normalize(value)) for value in THRESHOLDS_HU)

    def forward(self, image: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch 3 x y z"]:
        scores = torch.cat([self.low - image, torch.zeros_like(image), image - self.high], dim=1)
        scores[:, 1] = torch.minimum(image - self.low, self.high - image)[:, 0]
        return 20.0 * scores


def by_thresholds(spec: DatasetSpec) -> TrainedSegmentation:
    return TrainedSegmentation(
        network=Thresholds(HUWindow(*spec.window_hu)),
        config=SegmentationConfig(patch_voxels=16, precision="float32"),
        spec=spec,
        classes=LabelClasses((0, 2, 9)),
        model_hash="",
        card={},
    )


def smooth_scan(shape: tuple[int, int, int], affine: np.ndarray) -> Volume:
    """Two blobs, placed in the world, so that their label map is known on any grid."""
    index = np.stack(np.meshgrid(*(np.arange(side) for side in shape), indexing="ij"), axis=-1)
    world_mm = index @ affine[:3, :3].T + affine[:3, 3]
    hu = np.full(shape, -300.0)
    for center_mm, peak_hu in (((10.0, 12.0, 14.0), 800.0), ((24.0, 20.0, 20.0), 500.0)):
        distance_mm = np.linalg.norm(world_mm - center_mm, axis=-1)
        hu += peak_hu * np.exp(-((distance_mm / 8.0) ** 2))
    return Volume(hu.astype(np.float32), affine)


def test_windows_together_give_what_the_network_gives_for_the_whole(spec: DatasetSpec) -> None:
    """Sides smaller than, equal to and no multiple of the window."""
    hu = np.random.default_rng(0).integers(-500, 900, (37, 16, 11)).astype(np.int16)
    scores = predict_scores(Thresholds(HUWindow(*spec.window_hu)), hu, spec=spec, config=SMALL, device=CPU)
    labels = LabelClasses((0, 2, 9)).to_values(likeliest(scores).numpy())
    is_clear = (np.abs(hu - THRESHOLDS_HU[0]) > 1) & (np.abs(hu - THRESHOLDS_HU[1]) > 1)
    expected = np.select([hu < THRESHOLDS_HU[0], hu < THRESHOLDS_HU[1]], [0, 2], 9)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels[is_clear], expected[is_clear])


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR"])
def test_labels_come_back_on_the_scans_own_grid(orientation: str, spec: DatasetSpec, tmp_path: Path) -> None:
    """An anisotropic, flipped or permuted file: same geometry out, labels where the tissue is."""
    affine = np.diag([0.75, 1.25, 2.5, 1.0])  # exact in float32, as NIfTI stores it
    affine[:3, 3] = (-2.0, -1.0, 1.5)
    scan = smooth_scan((48, 26, 12), affine)
    image = nib.Nifti1Image(scan.array, affine)
    target = nib.orientations.axcodes2ornt(orientation)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(affine), target))
    nib.save(turned, tmp_path / "scan.nii.gz")

    volume = read_volume(tmp_path / "scan.nii.gz")
    prediction = predict_case(by_thresholds(spec), volume, CPU)
    write_volume(prediction, tmp_path / "labels.nii.gz")
    written = nib.load(tmp_path / "labels.nii.gz")

    assert written.shape == turned.shape
    assert np.array_equal(written.affine, turned.affine)
    found, hu = np.asarray(written.dataobj), turned.get_fdata()
    expected = np.select([hu < THRESHOLDS_HU[0], hu < THRESHOLDS_HU[1]], [0, 2], 9)
    assert set(np.unique(found)) == {0, 2, 9}
    assert (found == expected).mean() > 0.95
    for value in (2, 9):
        overlap = 2 * ((found == value) & (expected == value)).sum()
        assert overlap / ((found == value).sum() + (expected == value).sum()) > 0.85


def test_probabilities_take_the_scores_place_and_stay_the_same(spec: DatasetSpec) -> None:
    """As a softmax of all scores at once, but for the last bit; 19 slices are no multiple of a slab's."""
    prepared = smooth_scan((19, 12, 15), np.diag([*spec.spacing_mm, 1.0]))
    scan = smooth_scan((23, 14, 12), np.diag([*(0.8 * length for length in spec.spacing_mm), 1.0]))
    scores = torch.randn((3, *prepared.shape), generator=torch.Generator().manual_seed(0))
    probabilities = scores.softmax(dim=0)
    resampled = [
        resample_array(each.numpy(), prepared.affine, scan.affine, scan.shape, order=1, fill=None)
        for each in probabilities
    ]
    found = inference_module._classes_on_grid(scores, prepared, scan)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.argmax(resampled, axis=0))
    torch.testing.assert_close(scores, probabilities, rtol=1e-6, atol=0)


def test_scan_at_the_models_spacing_is_not_resampled(spec: DatasetSpec) -> None:
    scan = smooth_scan((30, 24, 20), np.diag([*spec.spacing_mm, 1.0]))
    assert resample_to_spacing(scan, spec.spacing_mm, order=1) is scan
    prediction = predict_case(by_thresholds(spec), scan, CPU)
    expected = np.select([scan.array < THRESHOLDS_HU[0], scan.array < THRESHOLDS_HU[1]], [0, 2], 9)
    assert (prediction.array == expected).mean() > 0.999
    assert np.array_equal(prediction.affine, scan.affine)


def test_loaded_network_repeats_the_dice_of_its_card(
    trained_run: Run, cases: list[CachedCase], spec: DatasetSpec
) -> None:
    model = load_segmentation(trained_run.folder, CPU)
    dice = validation_dice(
        model.network,
        cases[3:5],
        spec=spec,
        config=model.config,
        classes=model.classes,
        device=CPU,
    )
    assert np.mean(list(dice.values())) == pytest.approx(model.card["best_dice"], abs=1e-12)
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert model.spec == spec


class Positional(nn.Module):
    """A network that sees where in the window it is: mirrored windows come out otherwise."""

    def forward(self, image: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch 2 x y z"]:
        x, y, z = image.shape[2:]
        place = torch.arange(x * y * z).reshape(x, y, z) / (x * y * z)
        return torch.cat([image + place, image * place], dim=1)


def scores_of(hu: np.ndarray, spec: DatasetSpec, *, is_mirrored: bool) -> Tensor:
    return predict_scores(
        Positional(),
        hu,
        spec=spec,
        config=SMALL,
        device=CPU,
        is_mirrored=is_mirrored,
    )


def test_mirrored_prediction_is_the_mean_over_all_eight_mirror_images(spec: DatasetSpec) -> None:
    hu = np.random.default_rng(0).integers(-500, 900, (16, 16, 16)).astype(np.int16)
    mirrorings = [[axis for axis in range(3) if number >> axis & 1] for number in range(8)]
    by_hand = [
        scores_of(np.flip(hu, axes).copy(), spec, is_mirrored=False).flip([axis + 1 for axis in axes])
        for axes in mirrorings
    ]
    found = scores_of(hu, spec, is_mirrored=True)
    torch.testing.assert_close(found, torch.stack(by_hand).mean(dim=0))
    assert not torch.allclose(found, by_hand[0])


def test_mirrored_prediction_of_a_mirrored_scan_is_mirrored(spec: DatasetSpec) -> None:
    hu = np.random.default_rng(0).integers(-500, 900, (16, 14, 11)).astype(np.int16)
    found = scores_of(hu, spec, is_mirrored=True)
    from_other_side = scores_of(np.flip(hu, 1).copy(), spec, is_mirrored=True)
    torch.testing.assert_close(from_other_side.flip(2), found)


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found none"):
        load_segmentation(tmp_path, CPU)


def test_trained_network_finds_lesions_on_another_grid(
    trained_run: Run, scan_maker: Callable[..., tuple[Volume, Volume]]
) -> None:
    image, labels = scan_maker(100)
    finer = resample_to_spacing(image, (0.8, 0.7, 0.9), order=1)
    prediction = predict_case(load_segmentation(trained_run.folder, CPU), finer, CPU)
    truth = resample_to_spacing(labels, (0.8, 0.7, 0.9), order=0).array
    hard = prediction.array == 5
    assert prediction.shape == finer.shape
    assert 2 * (hard & (truth == 5)).sum() / (hard.sum() + (truth == 5).sum()) > 0.6
