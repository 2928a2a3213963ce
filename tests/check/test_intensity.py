"""Histograms by label, and what they tell of a scan."""

import numpy as np
import pytest
from tests.check.conftest import body

from promptlesion.check import intensity
from promptlesion.check.intensity import HU_OF_BIN, hu_facts, hu_histograms, intensity_findings


def codes(hu: np.ndarray) -> list[str]:
    _, counts = hu_histograms(hu, np.zeros(hu.shape, dtype=np.uint8))
    facts = hu_facts(counts.sum(axis=0), lowest=float(hu.min()), highest=float(hu.max()))
    return [finding.code for finding in intensity_findings("case", facts)]


def test_histograms_count_every_voxel_once_under_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = body()
    monkeypatch.setattr(intensity, "_VOXELS_AT_ONCE", 3 * 40 * 32)  # several slabs
    values, counts = hu_histograms(image.array, labels.array)
    assert values == [0, 1, 2, 3]
    for value, histogram in zip(values, counts, strict=True):
        inside = image.array[labels.array == value]
        assert histogram.sum() == inside.size
        assert (histogram * HU_OF_BIN).sum() == inside.sum(dtype=np.int64)


def test_what_lies_beyond_or_is_no_number_counts_at_the_ends() -> None:
    image = np.array([[[-3000.0, np.nan, 5000.0, 7.4]]])
    _, counts = hu_histograms(image, np.zeros((1, 1, 4), dtype=np.uint8))
    assert counts[0, [0, -1]].tolist() == [1, 1]
    assert counts[0, 0 - HU_OF_BIN[0]] == 1  # NaN as 0
    assert counts[0, 7 - HU_OF_BIN[0]] == 1


def test_a_ct_as_scanned_gives_no_finding() -> None:
    assert codes(body()[0].array) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda hu: hu.clip(-175, 250), "clipped-hu"),
        (lambda hu: hu.clip(-1024, 400), "clipped-hu"),
        (lambda hu: hu - 1024, "no-soft-tissue"),
        (lambda hu: np.where(np.arange(hu.shape[0])[:, None, None] < 4, -3000, hu), "padding"),
        (lambda hu: hu[20:30, 14:18, 10:20], "no-air"),
        (lambda hu: np.where(hu > 300, hu - 500, hu), "no-bone"),
        (lambda hu: np.where(hu > 580, 3071, hu), "metal"),
        (lambda hu: np.where(hu > -500, hu + 400, hu), "no-soft-tissue"),
    ],
)
def test_what_no_scanner_gives_is_named(change: object, code: str) -> None:
    assert callable(change)
    assert code in codes(change(body()[0].array))


def test_a_clipped_scan_says_where_it_was_cut() -> None:
    hu = body()[0].array.clip(-175, 250)
    _, counts = hu_histograms(hu, np.zeros(hu.shape, dtype=np.uint8))
    facts = hu_facts(counts.sum(axis=0), lowest=-175.0, highest=250.0)
    assert (facts.clipped_below, facts.clipped_above) == (-175, 250)
    (finding,) = intensity_findings("case_3", facts)
    assert "case_3: expected HU as scanned" in finding.message
    assert "everything beyond -175 and 250 HU cut off" in finding.message
