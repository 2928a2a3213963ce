import tracemalloc

import numpy as np
import pytest

from promptlesion.data.case_check import check_hounsfield, check_same_grid, checked_labels, label_values
from promptlesion.data.spec import DatasetError
from promptlesion.data.volume import Volume

SHAPE = (9, 7, 5)


def volume(spacing_mm: tuple[float, float, float] = (0.8, 0.8, 5.0)) -> Volume:
    hu = np.random.default_rng(0).integers(-1000, 1200, SHAPE).astype(np.int16)
    return Volume(array=hu, affine=np.diag([*spacing_mm, 1.0]))


def moved(row: int, column: int, amount: float) -> Volume:
    affine = volume().affine.copy()
    affine[row, column] += amount
    return Volume(array=volume().array, affine=affine)


def test_one_grid_is_fine_up_to_rounding() -> None:
    check_same_grid("case_012", volume(), volume())
    check_same_grid("case_012", volume(), moved(0, 3, 9e-4))
    check_same_grid("case_012", volume(), moved(2, 2, -9e-4))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            volume((0.8, 0.8, 2.5)),
            "case_012: label spacing (0.8, 0.8, 2.5) mm differs from the CT's (0.8, 0.8, 5.0) mm",
        ),
        (
            Volume(array=volume().array[:, :, 1:], affine=volume().affine),
            "case_012: label shape (9, 7, 4) voxels differs from the CT's (9, 7, 5) voxels",
        ),
        (
            moved(1, 3, 2.0),
            "case_012: label origin (0.0, 2.0, 0.0) mm differs from the CT's (0.0, 0.0, 0.0) mm",
        ),
        (moved(0, 1, 0.03), "case_012: label directions [(0.8, 0.03, 0.0)"),
    ],
)
def test_another_grid_is_described(labels: Volume, message: str) -> None:
    with pytest.raises(DatasetError) as raised:
        check_same_grid("case_012", volume(), labels)
    assert message in str(raised.value)


def test_small_differences_add_up_over_a_large_scan() -> None:
    affine = np.eye(4)
    affine[0, 0] = 1.0009
    with pytest.raises(DatasetError, match=r"big: a corner of the label map lies 0\.\d+ mm away"):
        check_same_grid(
            "big",
            Volume(array=np.zeros((600, 2, 3), np.int16), affine=np.eye(4)),
            Volume(array=np.zeros((600, 2, 3), np.uint8), affine=affine),
        )


def test_hounsfield_units_are_fine() -> None:
    check_hounsfield("case", volume().array)
    check_hounsfield("case", volume().array.astype(np.float32) + 0.25)
    check_hounsfield("case", np.where(volume().array < -900, -3024, volume().array).astype(np.int16))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ((volume().array + 1000) / np.float32(2200), "these intensities are scaled or standardised"),
        (
            volume().array / np.float32(1200),
            "found -0.8.* to 0.99.*: these intensities are scaled",
        ),
        ((volume().array - 100) / np.float32(600), "these intensities are scaled or standardised"),
        (((volume().array + 1000) // 9).astype(np.uint8), "found 0 to 24.: these are 8-bit grey values"),
        (((volume().array + 1000) // 9).astype(np.int16), "these are 8-bit grey values"),
        (
            np.maximum(volume().array + 500, 0).astype(np.uint16),
            r"found 0 to 1693 with 21% of the voxels at 0: these are stored values without their",
        ),
        (np.full(SHAPE, -1024, np.int16), "found -1024 in every voxel"),
        (volume().array.astype(np.int32) * 100, "HU between -32768 and 32767, found -9"),
    ],
)
def test_other_numbers_are_not(image: np.ndarray, message: str) -> None:
    with pytest.raises(DatasetError, match=f"^case_012: expected .*{message}"):
        check_hounsfield("case_012", image)


def in_padding(image: np.ndarray, padding: float = -2000) -> np.ndarray:
    """Corners of slices as scanners fill them: the lowest value of the volume, which no tissue has."""
    padded = image.copy() if image.dtype.kind == "f" else image.astype(np.int16)
    padded[:2, :3] = padding
    return padded


@pytest.mark.parametrize("padding", [-1024, -2000, -3024])
@pytest.mark.parametrize(
    ("image", "message"),
    [
        ((volume().array + 1000) / np.float32(2200), "these intensities are scaled or standardised"),
        ((volume().array - 100) / np.float32(600), "these intensities are scaled or standardised"),
        ((volume().array + 1000) // 9, "found 0 to 24.: these are 8-bit grey values"),
        (volume().array + 1024, "found [23][0-9] to 22.* these are stored values without their rescale intercept"),
    ],
)
def test_padding_does_not_make_them_hu(image: np.ndarray, message: str, padding: float) -> None:
    with pytest.raises(DatasetError, match=f"^case_012: expected .*{message}"):
        check_hounsfield("case_012", in_padding(image, padding))


@pytest.mark.parametrize("padding", [-1024, -3024])
def test_a_masked_organ_is_hu(padding: int) -> None:
    """A liver alone, with nothing around it: no fat and no air, and still HU."""
    image = np.full((20, 18, 9), padding, np.int16)
    image[5:12, 6:14, 2:7] = np.random.default_rng(1).integers(20, 140, (7, 8, 5))
    check_hounsfield("case", image)


def test_made_up_tissue_in_air_of_a_single_value_is_hu() -> None:
    image = np.full((20, 18, 9), -1000, np.int16)
    image[2:18, 2:16] = 50
    image[5:9, 5:9, 3:6] = 700
    check_hounsfield("case", image)


def test_one_slice_without_its_intercept_is_named() -> None:
    image = np.random.default_rng(0).integers(-1000, 1200, (11, 9, 5)).astype(np.int16)
    image[:, :, 3] += 1024
    with pytest.raises(DatasetError, match=r"case_012: expected HU in every slice, .* in slice 4 of 5: its rescale"):
        check_hounsfield("case_012", image)
    with pytest.raises(DatasetError, match=r"in IM003: its rescale"):
        check_hounsfield("case_012", in_padding(image), [f"IM{number:03d}" for number in range(5)])


def test_not_a_number_is_counted() -> None:
    image = volume().array.astype(np.float32)
    image[0, :3, 0] = np.nan
    image[1, 1, 1] = -np.inf
    with pytest.raises(DatasetError, match="case_012: expected finite HU, found 3 NaN and 1 infinite voxels"):
        check_hounsfield("case_012", image)


def test_whole_labels_of_any_type_become_uint8() -> None:
    labels = np.random.default_rng(0).integers(0, 3, SHAPE)
    for dtype in (np.uint8, np.int16, np.int32, np.float32):
        found = checked_labels("case", labels.astype(dtype), [0, 1, 2])
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(
    ("dtype", "value", "listed"),
    [(np.uint8, 7, "7"), (np.int16, -1, "-1"), (np.int32, 258, "258"), (np.float32, 0.5, "0.5")],
)
def test_unknown_labels_are_listed(dtype: type, value: float, listed: str) -> None:
    labels = np.zeros(SHAPE, dtype)
    labels[2, 3, 1] = value
    with pytest.raises(DatasetError, match=rf"case_012: expected the label values \[0, 2\] .* found {listed}$"):
        checked_labels("case_012", labels, [2, 0])


def test_many_unknown_labels_are_cut_short() -> None:
    labels = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    with pytest.raises(DatasetError, match="found 1, 2, 3, 4, 5, 6, 7, 8, …"):
        checked_labels("case", labels, [0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int64, np.float32, np.float64])
def test_values_found_plane_by_plane_are_those_of_the_whole(dtype: type) -> None:
    labels = np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)
    labels[3] = 5
    if np.dtype(dtype).kind == "f":
        labels[4, 2, 1], labels[5, 2, 1] = 0.25, np.nan
        labels[6, 2, 1] = np.nan
    if dtype != np.uint8:
        labels[7, 2, 1] = -3
    found = label_values(labels)
    np.testing.assert_array_equal(found, np.unique(labels))
    assert [type(value) for value in found] == [type(value) for value in np.unique(labels).tolist()]


def test_counting_the_labels_of_a_large_map_takes_little_memory() -> None:
    labels = np.zeros((200, 200, 100), np.uint8)
    labels[7, 8, 9] = 255
    image = labels.astype(np.int16) - 1000
    tracemalloc.start()
    try:
        assert checked_labels("case", labels, [0, 255]) is labels
        check_hounsfield("case", image)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < labels.nbytes / 8
