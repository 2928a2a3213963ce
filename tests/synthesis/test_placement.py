"""A placed lesion is as large as asked for, inside its host, apart from others and off the scan's edge."""

import numpy as np
import pytest
from scipy import ndimage

from promptlesion.data.dataset import Dataset, read_case
from promptlesion.data.volume import Volume
from promptlesion.synthesis.placement import PlacedLesion, PlacementError, offsets_mm, paint_labels, place_lesion

EDGE_MM = 2.0


def place(
    labels: Volume,
    dataset: Dataset,
    type_index: int = 0,
    *,
    seed: int = 0,
    edge_mm: float = EDGE_MM,
    max_extent_mm: float = 40.0,
    others: tuple[PlacedLesion, ...] = (),
) -> PlacedLesion:
    return place_lesion(
        labels,
        dataset,
        type_index,
        generator=np.random.default_rng(seed),
        edge_mm=edge_mm,
        deformation=0.25,
        max_extent_mm=max_extent_mm,
        others=others,
    )


def on_scan(lesion: PlacedLesion, labels: Volume) -> np.ndarray:
    mask = np.zeros(labels.shape, dtype=bool)
    mask[lesion.box] = lesion.mask
    return mask


@pytest.fixture(params=["ras", "lps", "permuted", "oblique", "oblique_permuted"])
def labels(request: pytest.FixtureRequest, scans: Dataset) -> Volume:
    return read_case(scans, scans.case(request.param))[1]


def test_a_placed_lesion_keeps_every_promise(scans: Dataset, labels: Volume) -> None:
    low, high = scans.spec.lesions[0].diameter_mm
    others: tuple[PlacedLesion, ...] = ()
    voxel_mm3 = np.prod(labels.spacing_mm)
    for seed in range(3):
        lesion = place(labels, scans, seed=seed, others=others)
        mask = on_scan(lesion, labels)
        assert mask.sum() == lesion.mask.sum()
        assert lesion.diameter_mm == pytest.approx((6 / np.pi * mask.sum() * voxel_mm3) ** (1 / 3))
        assert low <= lesion.diameter_mm <= high
        assert ndimage.label(mask)[1] == 1
        assert (labels.array[mask] == 1).all()
        taken = np.isin(labels.array, scans.lesion_labels)
        for other in others:
            taken |= on_scan(other, labels)
        assert ndimage.distance_transform_edt(~taken, sampling=labels.spacing_mm)[mask].min() > 2 * EDGE_MM
        for axis, (length, spacing) in enumerate(zip(labels.shape, labels.spacing_mm, strict=True)):
            index = np.argwhere(mask)[:, axis]
            assert min(index.min(), length - 1 - index.max()) * spacing >= EDGE_MM - spacing
            assert np.ptp(index) * spacing < 40
        others = (*others, lesion)


def test_the_box_holds_the_whole_edge(scans: Dataset, labels: Volume) -> None:
    lesion = place(labels, scans)
    distance = ndimage.distance_transform_edt(~on_scan(lesion, labels), sampling=labels.spacing_mm)
    outside = np.ones(labels.shape, dtype=bool)
    outside[lesion.box] = False
    assert distance[outside].min() >= EDGE_MM


def test_diameters_never_leave_the_asked_range(scans: Dataset) -> None:
    """A deformed ellipsoid may hold more than its sphere; a clipped one grows."""
    labels = read_case(scans, scans.case("ras"))[1]
    low, high = scans.spec.lesions[0].diameter_mm
    diameters = [place(labels, scans, seed=seed).diameter_mm for seed in range(60)]
    assert low <= min(diameters) < low + 1
    assert high - 1.5 < max(diameters) <= high
    # log-uniform draws: half of them below the geometric mean
    assert np.median(diameters) == pytest.approx(np.sqrt(low * high), rel=0.15)


def test_in_a_thin_wall_it_grows_along_the_wall(scans: Dataset) -> None:
    affine = np.diag([0.8, 1.0, 0.9, 1.0])
    array = np.zeros((50, 48, 52), dtype=np.uint8)
    x, y, _ = offsets_mm((slice(0, 50), slice(0, 48), slice(0, 52)), np.array([25, 24, 26]), affine).transpose(
        3, 0, 1, 2
    )
    radius = np.hypot(x, y)
    array[(radius < 8) & (radius >= 6)] = 1
    array[radius < 6] = 4
    labels = Volume(array, affine)
    for seed in range(5):
        lesion = place(labels, scans, seed=seed)
        assert (array[on_scan(lesion, labels)] == 1).all()
        assert lesion.diameter_mm >= scans.spec.lesions[0].diameter_mm[0]


def test_a_generator_gives_the_same_lesion_again(scans: Dataset, labels: Volume) -> None:
    first, again, other = (place(labels, scans, seed=seed) for seed in (3, 3, 4))
    assert first.box == again.box
    assert np.array_equal(first.mask, again.mask)
    assert first.box != other.box or not np.array_equal(first.mask, other.mask)


def test_the_centre_is_the_centroid(scans: Dataset, labels: Volume) -> None:
    lesion = place(labels, scans)
    assert np.abs(np.argwhere(on_scan(lesion, labels)).mean(axis=0) - lesion.center_voxel).max() <= 0.5


def test_painting_writes_the_mask_alone_and_the_last_one_wins() -> None:
    mask = np.array([[[True, False, True]]])
    box = (slice(1, 2), slice(0, 1), slice(2, 5))
    labels = np.ones((2, 2, 6), dtype=np.uint8)
    paint_labels(labels, PlacedLesion(0, box, mask, 1.0), 7)
    expected = np.ones((2, 2, 6), dtype=np.uint8)
    expected[1, 0, 2] = expected[1, 0, 4] = 7
    assert np.array_equal(labels, expected)
    paint_labels(labels, PlacedLesion(1, box, np.array([[[True, False, False]]]), 1.0), 9)
    assert labels[1, 0].tolist() == [1, 1, 9, 1, 7, 1]


def test_vectors_are_those_of_the_world() -> None:
    affine = np.array([[0, -2.0, 0, 5], [0.5, 0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    offsets = offsets_mm((slice(1, 3), slice(2, 5), slice(0, 2)), np.array([1, 4, 1]), affine)
    assert offsets.shape == (2, 3, 2, 3)
    assert offsets[0, 2, 1].tolist() == [0, 0, 0]
    assert offsets[1, 0, 0].tolist() == [4, 0.5, -3]


class TestRefusals:
    @pytest.fixture
    def ras(self, scans: Dataset) -> Volume:
        return read_case(scans, scans.case("ras"))[1]

    def refusal(self, labels: Volume, dataset: Dataset, **options: object) -> str:
        with pytest.raises(PlacementError) as caught:
            place(labels, dataset, **options)
        return str(caught.value)

    def test_a_scan_without_host(self, scans: Dataset, ras: Volume) -> None:
        message = self.refusal(ras.with_array(np.zeros_like(ras.array)), scans, type_index=1)
        assert message == "dark: expected voxels of its host (organ); found none"

    def test_a_host_too_small(self, scans: Dataset, ras: Volume) -> None:
        speck = np.zeros_like(ras.array)
        speck[20:22, 20:22, 20:22] = 1
        message = self.refusal(ras.with_array(speck), scans)
        assert message == (
            "bright: found no place in organ after 40 tries: too little of the host around it (40 times)"
        )

    def test_another_lesion_everywhere_near(self, scans: Dataset, ras: Volume) -> None:
        crowded = ras.array.copy()
        crowded[::6, ::6, ::6] = 3
        assert "too near another lesion" in self.refusal(ras.with_array(crowded), scans)

    def test_a_host_at_the_edge_of_the_scan(self, scans: Dataset, ras: Volume) -> None:
        skin = np.zeros_like(ras.array)
        skin[:8] = 1
        message = self.refusal(ras.with_array(skin), scans, edge_mm=6.0)
        assert "too near the edge of the scan" in message

    def test_a_lesion_larger_than_the_patch(self, scans: Dataset, ras: Volume) -> None:
        assert "larger than the model's patch allows" in self.refusal(ras, scans, max_extent_mm=2.0)

    def test_reasons_are_counted_and_sum_to_the_tries(self, scans: Dataset, ras: Volume) -> None:
        skin_and_specks = np.zeros_like(ras.array)
        skin_and_specks[:8] = 1
        skin_and_specks[16:-6:4, 6:-6:4, 6:-6:4] = 1
        message = self.refusal(ras.with_array(skin_and_specks), scans, edge_mm=6.0)
        assert message.count("times)") > 1
        counts = [int(part.split(" times")[0]) for part in message.split("(")[1:]]
        assert sum(counts) == 40
        assert counts == sorted(counts, reverse=True)
