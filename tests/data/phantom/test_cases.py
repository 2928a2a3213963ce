"""Phantom subjects: reproducible, different from each other, with the right tissue where labelled."""

from functools import lru_cache

import numpy as np
import pytest
from jaxtyping import Int16, UInt8
from scipy import ndimage

from promptlesion.data.phantom import Kind, PhantomCase, phantom_case, phantom_labels, phantom_spec

CCTA, ABDOMEN = phantom_labels("ccta"), phantom_labels("abdomen")
CROSS = ndimage.generate_binary_structure(3, 1)


@lru_cache(maxsize=32)
def subject(kind: Kind, index: int) -> PhantomCase:
    return phantom_case(kind, seed=0, index=index)


def arrays(kind: Kind, index: int) -> tuple[Int16[np.ndarray, "x y z"], UInt8[np.ndarray, "x y z"]]:
    case = subject(kind, index)
    return case.image.array, case.labels.array


@pytest.mark.parametrize("kind", ["ccta", "abdomen"])
def test_a_seed_and_an_index_give_the_same_voxels_in_any_order(kind: Kind) -> None:
    first, second = subject(kind, 3), phantom_case(kind, seed=0, index=3)
    assert np.array_equal(first.image.array, second.image.array)
    assert np.array_equal(first.labels.array, second.labels.array)
    assert np.array_equal(first.image.affine, second.image.affine)


@pytest.mark.parametrize("kind", ["ccta", "abdomen"])
def test_subjects_and_cohorts_differ(kind: Kind) -> None:
    others = [subject(kind, 0).labels.array, phantom_case(kind, seed=1, index=3).labels.array]
    for labels in others:
        overlap = ((labels > 0) & (subject(kind, 3).labels.array > 0)).sum() / (labels > 0).sum()
        assert overlap < 0.9


@pytest.mark.parametrize("kind", ["ccta", "abdomen"])
def test_a_subject_is_a_ct_on_the_grid_of_its_labels(kind: Kind) -> None:
    case = subject(kind, 0)
    assert (case.image.array.dtype, case.labels.array.dtype) == (np.int16, np.uint8)
    assert case.image.shape == case.labels.shape
    assert len(set(case.image.shape)) == 3
    assert np.array_equal(case.image.affine, case.labels.affine)
    assert case.image.spacing_mm == pytest.approx(phantom_spec(kind).spacing_mm, abs=1e-6)
    assert set(np.unique(case.labels.array)) <= set(phantom_labels(kind).values())
    assert case.image.array.min() < -800
    assert case.image.array.max() > 350


@pytest.mark.parametrize("kind", ["ccta", "abdomen"])
def test_twelve_subjects_show_every_lesion_type_and_some_show_none(kind: Kind) -> None:
    indices = range(12) if kind == "ccta" else range(6)
    spec = phantom_spec(kind)
    counts = {lesion.label: 0 for lesion in spec.lesions}
    num_healthy = 0
    for index in indices:
        present = set(np.unique(arrays(kind, index)[1])) & set(counts)
        num_healthy += not present
        for label in present:
            counts[label] += 1
    assert all(count >= len(indices) // 3 for count in counts.values())
    assert 1 <= num_healthy <= len(indices) // 2


@pytest.mark.parametrize("index", range(12))
def test_plaque_lies_in_the_wall_and_has_its_attenuation(index: int) -> None:
    hu, labels = arrays("ccta", index)
    spec = phantom_spec("ccta")
    vessel = ndimage.binary_dilation(np.isin(labels, [CCTA["lumen"], CCTA["wall"]]), CROSS)
    for lesion, (low, high) in zip(spec.lesions, [(380, 900), (10, 115)], strict=True):
        pieces, num_pieces = ndimage.label(labels == lesion.label, np.ones((3, 3, 3)))
        for piece in range(1, num_pieces + 1):
            inside = pieces == piece
            diameter_mm = (6 * inside.sum() * 0.6**3 / np.pi) ** (1 / 3)
            assert inside.sum() >= 20
            assert lesion.diameter_mm[0] * 0.9 <= diameter_mm <= lesion.diameter_mm[1] * 1.1
            assert low < hu[inside].mean() < high
            assert lesion.hu[0] < hu[inside].mean() < lesion.hu[1]
            shell = ndimage.binary_dilation(inside, CROSS) & ~inside
            assert vessel[shell].mean() > 0.6


@pytest.mark.parametrize("index", range(6))
def test_tissues_of_the_heart_have_their_attenuation(index: int) -> None:
    hu, labels = arrays("ccta", index)
    lumen_core = ndimage.binary_erosion(labels == CCTA["lumen"], CROSS)
    assert 270 < hu[lumen_core].mean() < 450
    assert 10 < hu[labels == CCTA["wall"]].mean() < 90
    around = ndimage.binary_dilation(labels > 0, CROSS, iterations=5) & (labels == 0)
    assert -110 < np.median(hu[around]) < 120
    assert ((hu > -130) & (hu < -60)).mean() > 0.1


@pytest.mark.parametrize("index", range(8))
def test_the_wall_closes_around_the_lumen(index: int) -> None:
    _, labels = arrays("ccta", index)
    lumen = labels == CCTA["lumen"]
    shell = ndimage.binary_dilation(lumen, CROSS) & ~lumen
    leaks, num_leaks = ndimage.label(shell & (labels == 0), np.ones((3, 3, 3)))
    assert (leaks > 0).sum() < 0.05 * shell.sum()
    # What is open are cut ends: few, and no larger than a vessel's cross-section.
    assert num_leaks <= 12
    assert np.bincount(leaks.ravel())[1:].max() < 200
    assert (labels == CCTA["wall"]).sum() > 2 * lumen.sum()


@pytest.mark.parametrize("index", range(6))
def test_abdominal_organs_have_their_size_and_attenuation(index: int) -> None:
    hu, labels = arrays("abdomen", index)
    millilitres = np.bincount(labels.ravel(), minlength=8) * 0.01
    assert 500 < millilitres[ABDOMEN["liver"]] < 1800
    assert 150 < millilitres[ABDOMEN["kidney"]] < 450
    assert 30 < millilitres[ABDOMEN["pancreas"]] < 130
    assert 30 < millilitres[ABDOMEN["spleen"]] < 300
    ranges = {"liver": (80, 130), "kidney": (120, 200), "pancreas": (55, 115), "spleen": (85, 140)}
    for name, (low, high) in ranges.items():
        assert low < hu[labels == ABDOMEN[name]].mean() < high
    assert hu[:, 0].max() < -300
    # Right is +x: the liver lies there, the spleen does not.
    middle = (labels.shape[0] - 1) / 2
    assert ndimage.center_of_mass(labels == ABDOMEN["liver"])[0] > middle + 10
    assert ndimage.center_of_mass(labels == ABDOMEN["spleen"])[0] < middle - 25


@pytest.mark.parametrize("index", range(6))
def test_tumours_touch_their_organ_and_are_darker(index: int) -> None:
    hu, labels = arrays("abdomen", index)
    for lesion in phantom_spec("abdomen").lesions:
        host = labels == ABDOMEN[lesion.host[0]]
        pieces, num_pieces = ndimage.label(labels == lesion.label, np.ones((3, 3, 3)))
        for piece in range(1, num_pieces + 1):
            inside = pieces == piece
            assert (ndimage.binary_dilation(inside, CROSS) & host).any()
            assert lesion.hu[0] < hu[inside].mean() < lesion.hu[1]
            assert hu[inside].mean() < hu[host].mean()


@pytest.mark.parametrize("index", [0, 1])
def test_five_is_both_anatomies_in_turn_under_one_label_map_at_one_voxel_size(index: int) -> None:
    kind: Kind = "abdomen" if index else "ccta"
    labels, original = phantom_labels("five"), subject(kind, 0)
    case = subject("five", index)
    assert np.array_equal(case.image.array, original.image.array)
    for name, value in phantom_labels(kind).items():
        is_here = case.labels.array == labels[name]
        assert np.array_equal(is_here, original.labels.array == value)
    names = [lesion.name for lesion in phantom_spec("five").lesions]
    assert names == ["calcified_plaque", "non_calcified_plaque", "liver_tumor", "kidney_tumor", "pancreas_tumor"]
    assert len(set(labels.values())) == len(labels)
    assert case.image.spacing_mm == pytest.approx((0.6, 0.6, 0.75) if index else (0.6, 0.6, 0.6), abs=1e-6)


@pytest.mark.parametrize("kind", ["ccta", "abdomen"])
def test_without_noise_the_anatomy_is_the_same_and_only_the_noise_is_gone(kind: Kind) -> None:
    noisy, clean = subject(kind, 1), phantom_case(kind, seed=0, index=1, is_noisy=False)
    assert np.array_equal(noisy.labels.array, clean.labels.array)
    is_unclipped = (clean.image.array > -950) & (clean.image.array < 2000)
    noise = (noisy.image.array.astype(float) - clean.image.array)[is_unclipped]
    low, high = (18, 28) if kind == "ccta" else (9, 15)
    assert low * 0.95 < noise.std() < high * 1.05
    assert abs(noise.mean()) < 0.5
    air = np.diff(clean.image.array[:8, :8, :8].astype(float), axis=0)
    assert np.abs(air).max() <= 40  # smooth: the scanner's blur alone
