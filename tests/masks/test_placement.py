"""A placed lesion is as large as asked for, inside its host, apart from others and off the scan's edge."""

import re
import tracemalloc
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from scipy import ndimage, stats

from promptlesion.data.boxes import by_label, offsets_mm
from promptlesion.data.dataset import Dataset, read_case
from promptlesion.data.lesion_statistics import LesionStatistics, TypeStatistics
from promptlesion.data.spec import LesionType
from promptlesion.data.volume import Volume
from promptlesion.masks import placement
from promptlesion.masks.placement import PlacedLesion, PlacementError, _host_voxels, paint_labels, place_lesion
from promptlesion.masks.sizes_and_shapes import LesionDrawing

EDGE_MM = 2.0
ANY_SIZE = LesionDrawing(LesionStatistics(types={}), deformation=0.25, edge_mm=EDGE_MM, max_extent_mm=40.0)


def place(
    labels: Volume,
    dataset: Dataset,
    type_index: int = 0,
    *,
    seed: int = 0,
    edge_mm: float = EDGE_MM,
    max_extent_mm: float = 40.0,
    image: Volume | None = None,
    others: tuple[PlacedLesion, ...] = (),
    drawing: LesionDrawing = ANY_SIZE,
) -> PlacedLesion:
    return place_lesion(
        labels,
        dataset,
        type_index,
        drawing=replace(drawing, edge_mm=edge_mm, max_extent_mm=max_extent_mm),
        generator=np.random.default_rng(seed),
        image=image or Volume(np.broadcast_to(np.int16(0), labels.shape), labels.affine),
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
    x, y, _ = offsets_mm((slice(0, 50), slice(0, 48), slice(0, 52)), (25, 24, 26), affine).transpose(3, 0, 1, 2)
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
    offsets = offsets_mm((slice(1, 3), slice(2, 5), slice(0, 2)), (1, 4, 1), affine)
    assert offsets.shape == (2, 3, 2, 3)
    assert offsets[0, 2, 1].tolist() == [0, 0, 0]
    assert offsets[1, 0, 0].tolist() == [4, 0.5, -3]


def test_every_voxel_of_the_host_is_as_likely_as_another() -> None:
    labels = np.zeros((12, 10, 8), dtype=np.uint8)
    labels[3:7, 2:9, 1:6] = 1
    voxels = islice(_host_voxels(labels, by_label((1,)), np.random.default_rng(0)), 14_000)
    counts = np.zeros(labels.shape)
    np.add.at(counts, tuple(np.array(list(voxels)).T), 1)
    assert counts[labels == 0].sum() == 0
    assert stats.chisquare(counts[labels == 1]).pvalue > 0.01


def test_a_host_that_draws_miss_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_FIRST_BLOCK", 1)
    monkeypatch.setattr(placement, "_MOST_DRAWN", 2)
    labels = np.zeros((30, 30, 30), dtype=np.uint8)
    labels[4, 5, 6] = labels[20, 1, 2] = 1
    found = set(islice(_host_voxels(labels, by_label((1,)), np.random.default_rng(0)), 20))
    assert found == {(4, 5, 6), (20, 1, 2)}
    assert list(_host_voxels(np.zeros_like(labels), by_label((1,)), np.random.default_rng(0))) == []


def test_a_large_scan_takes_no_more_memory(scans: Dataset) -> None:
    """As bool the scan alone would be 36 MB; placing looks at boxes of it."""
    array = np.zeros((300, 300, 400), dtype=np.uint8)
    array[100:150, 120:170, 200:260] = 1
    labels = Volume(array, np.eye(4))
    tracemalloc.start()
    try:
        place(labels, scans, seed=2, others=(place(labels, scans, seed=1),))
        assert tracemalloc.get_traced_memory()[1] < 25e6
    finally:
        tracemalloc.stop()


def test_a_size_is_tried_at_several_places(scans: Dataset) -> None:
    """In a host that takes large lesions in its thick part alone, they come nearly as often as small ones."""
    array = np.zeros((60, 60, 60), dtype=np.uint8)
    array[20:40, 20:40, 6:36] = 1
    array[28:32, 28:32, 36:56] = 1
    zeros = (0.0, 0.0)
    sizes = TypeStatistics(
        diameters_mm=(4.2, 7.0), mean_hu=zeros, std_hu=zeros, contrast_hu=zeros, counts_per_case=(2,)
    )
    drawing = replace(ANY_SIZE, statistics=LesionStatistics(types={"bright": sizes}))
    labels = Volume(array, np.eye(4))
    drawn = [place(labels, scans, seed=seed, drawing=drawing).diameter_mm for seed in range(60)]
    assert 0.3 < np.mean(np.array(drawn) > 5.5) < 0.7


def test_crescents_and_ellipsoids_in_one_scan_keep_apart_and_off_the_lumen(scans: Dataset) -> None:
    """Crescents against the lumen of the tube, ellipsoids anywhere in the organ around it."""
    bright, dark = scans.spec.lesions
    crescent = LesionType(**{**bright.model_dump(), "shape": "crescent", "lumen": ("lumen",)})
    dataset = replace(scans, spec=scans.spec.model_copy(update={"lesions": (crescent, dark)}))
    for name in ("ras", "oblique_permuted"):
        labels = read_case(scans, scans.case(name))[1]
        lesions: tuple[PlacedLesion, ...] = ()
        for index in (0, 1, 0, 1):
            # an organ 13 mm thick takes little of a crescent around a voxel at its outer end
            lesions += (place(labels, dataset, index, seed=len(lesions), edge_mm=1.0, others=lesions),)
        assert [lesion.mask_origin for lesion in lesions] == ["crescent", "ellipsoid"] * 2
        masks = [on_scan(lesion, labels) for lesion in lesions]
        assert np.sum(masks, axis=0).max() == 1
        for index, mask in enumerate(masks):
            assert set(labels.array[mask]) == {1}
            others = np.any([other for place_, other in enumerate(masks) if place_ != index], axis=0)
            assert ndimage.distance_transform_edt(~others, sampling=labels.spacing_mm)[mask].min() > 2.0
            to_lumen = ndimage.distance_transform_edt(labels.array != 4, sampling=labels.spacing_mm)[mask].min()
            assert index % 2 or to_lumen < 2.0


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
        pattern = (
            r"bright: found no place in organ, looked at 60: too little of the host around it "
            r"\(60 times; room for 2\.8 mm where \d\.\d mm were asked for\)"
        )
        assert re.fullmatch(pattern, message)

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

    def test_reasons_are_counted_and_sum_to_the_places_looked_at(self, scans: Dataset, ras: Volume) -> None:
        skin_and_specks = np.zeros_like(ras.array)
        skin_and_specks[:8] = 1
        skin_and_specks[16:-6:4, 6:-6:4, 6:-6:4] = 1
        message = self.refusal(ras.with_array(skin_and_specks), scans, edge_mm=6.0)
        num_looks = int(re.search(r"looked at (\d+)", message).group(1))
        counts = [int(count) for count in re.findall(r"\((\d+) times; ", message)]
        assert len(counts) > 1
        assert sum(counts) == num_looks
        assert counts == sorted(counts, reverse=True)

    def test_figures_say_how_near_it_came(self, scans: Dataset, ras: Volume) -> None:
        message = self.refusal(ras, scans, max_extent_mm=4.2)
        found = re.search(
            r"larger than the model's patch allows \(\d+ times; ([\d.]+) mm along an axis where 4.2 mm", message
        )
        assert float(found.group(1)) > 4.2


@pytest.fixture
def organ_in_fat() -> tuple[Volume, Volume]:
    """A ball of 9 mm radius, label 1, in fat and beside a wall of muscle, blurred and noisy as a scan is."""
    spacing_mm, shape = np.array([0.5, 0.7, 1.2]), (100, 72, 40)
    x, y, z = np.moveaxis((np.indices(shape).T - (50, 36, 20)) * spacing_mm, -1, 0).swapaxes(1, 3)
    labels = (np.sqrt(x**2 + y**2 + z**2) <= 9).astype(np.uint8)
    hu = np.where(labels, 120.0, np.where(x > 12, 50.0, -100.0))
    hu = ndimage.gaussian_filter(hu, 0.6 / spacing_mm) + np.random.default_rng(0).normal(0, 15, shape)
    affine = np.diag([*spacing_mm, 1.0])
    return Volume(hu.round().astype(np.int16), affine), Volume(labels, affine)


def bulging(scans: Dataset, share: float) -> Dataset:
    lesion = scans.spec.lesions[0].model_copy(update={"diameter_mm": (9.0, 12.0), "exophytic_share": share})
    return replace(scans, spec=scans.spec.model_copy(update={"lesions": (lesion, *scans.spec.lesions[1:])}))


def test_a_lesion_bulges_into_fat_as_far_as_its_type_may(organ_in_fat: tuple[Volume, Volume], scans: Dataset) -> None:
    image, labels = organ_in_fat
    is_host = np.isin(labels.array, scans.host_labels(scans.spec.lesions[0]))
    shares = []
    for seed in range(25):
        mask = on_scan(place(labels, bulging(scans, 0.5), image=image, seed=seed), labels)
        outside = mask & ~is_host
        shares.append(outside.sum() / mask.sum())
        from_fat_mm = np.arange(mask.shape[0]) * 0.5 - 25 - 12
        assert not outside[from_fat_mm > 2].any()  # a border of a millimetre belongs to the fat
        assert ndimage.label(mask)[1] == 1
    assert max(shares) <= 0.5
    assert np.mean(np.array(shares) > 0.1) > 0.3


def test_what_would_bulge_too_far_is_clipped_to_its_host(organ_in_fat: tuple[Volume, Volume], scans: Dataset) -> None:
    image, labels = organ_in_fat
    is_host = np.isin(labels.array, scans.host_labels(scans.spec.lesions[0]))
    distances_mm = []
    for share in (0.0, 0.05):
        masks = [on_scan(place(labels, bulging(scans, share), image=image, seed=s), labels) for s in range(12)]
        assert all((mask & ~is_host).sum() <= share * mask.sum() for mask in masks)
        centroids = [(np.argwhere(mask).mean(axis=0) - (50, 36, 20)) * (0.5, 0.7, 1.2) for mask in masks]
        distances_mm.append(np.mean([np.linalg.norm(centroid) for centroid in centroids]))
    assert distances_mm[1] > 0.8 * distances_mm[0]  # not driven into the middle


def test_a_lesion_of_any_other_type_keeps_to_its_host(organ_in_fat: tuple[Volume, Volume], scans: Dataset) -> None:
    image, labels = organ_in_fat
    is_host = np.isin(labels.array, scans.host_labels(scans.spec.lesions[0]))
    for seed in range(10):
        mask = on_scan(place(labels, bulging(scans, 0.0), image=image, seed=seed), labels)
        assert is_host[mask].all()


def test_no_lesion_covers_what_nobody_labelled(scans: Dataset) -> None:
    """Nnunet's `ignore`: wherever a lesion may bulge to, and in whichever host, such voxels stay as they are."""
    image, labels = read_case(scans, scans.case("ras"))
    ignoring = replace(scans, labels={**scans.labels, "ignore": 200})
    array = labels.array.copy()
    host = np.isin(array, scans.host_labels(scans.spec.lesions[0]))
    array[host & (np.indices(array.shape).sum(axis=0) % 7 == 0)] = 200
    with pytest.raises(PlacementError):
        place(labels.with_array(np.where(host, np.uint8(200), array)), ignoring)
    half = labels.array.copy()
    half[np.where(host)[0].mean().astype(int) :][host[np.where(host)[0].mean().astype(int) :]] = 200
    placed = 0
    for seed in range(4):
        try:
            lesion = place(labels.with_array(half), ignoring, seed=seed, image=image)
        except PlacementError:
            continue
        placed += 1
        assert not (half[on_scan(lesion, labels)] == 200).any()
    assert placed
