"""Lesions are painted in place, and what that costs follows the lesions."""

import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from threading import Event

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset, read_case
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion, place_lesion
from promptlesion.masks.sizes_and_shapes import LesionDrawing
from promptlesion.synthesis.painting import paint_lesions, paint_together
from promptlesion.synthesis.quality import QualityLimits
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, Synthesizer

BOTH = [QualityLimits((400.0, 600.0), None, None), QualityLimits((0.0, 40.0), None, None)]


@pytest.fixture
def scene(scans: Dataset, drawing: LesionDrawing) -> tuple[Volume, Volume, list[PlacedLesion]]:
    """A scan with a place for a lesion of either type."""
    image, labels = read_case(scans, scans.case("oblique"))
    lesions: list[PlacedLesion] = []
    for index in range(2):
        options = {"image": image, "others": lesions}
        generator = np.random.default_rng(index)
        lesions.append(place_lesion(labels, scans, index, drawing=drawing, generator=generator, **options))
    return image, labels, lesions


def test_what_passes_is_in_scan_and_label_map_and_what_does_not_is_in_neither(
    scene: tuple[Volume, Volume, list[PlacedLesion]], scans: Dataset, noise_painter: Callable[..., Synthesizer]
) -> None:
    image, labels, lesions = scene
    before, labels_before = image.array.copy(), labels.array.copy()
    painter = noise_painter(scans.spec, mean_hu=(500.0, 300.0), batch_size=4)
    work = paint_lesions(image, labels, lesions, scans, edge_mm=3.0, limits=BOTH, max_attempts=3, seed=1)
    (painted,) = paint_together([work], painter)
    assert [(entry.is_accepted, entry.attempts, len(entry.rejections)) for entry in painted] == [
        (True, 1, 0),
        (False, 3, 3),
    ]
    inside = np.zeros(before.shape, dtype=bool)
    inside[lesions[0].box] = lesions[0].mask
    assert np.array_equal(image.array != before, inside)
    assert np.array_equal(labels.array != labels_before, inside)
    assert set(labels.array[inside]) == {scans.spec.lesions[0].label}
    assert painted[0].measure.mean_hu == pytest.approx(image.array[inside].mean())
    assert len(painter.calls) == 3  # both at once, then the second alone, twice
    seeds = [seed for call in painter.calls for seed in call]
    assert len(set(seeds)) == len(seeds) == 4


def test_many_lesions_go_through_the_network_a_few_at_a_time(
    scene: tuple[Volume, Volume, list[PlacedLesion]], scans: Dataset, noise_painter: Callable[..., Synthesizer]
) -> None:
    image, labels, lesions = scene
    for batch_size, calls in ((16, [4, 4, 2]), (3, [3, 1, 3, 1, 2])):
        painter = noise_painter(scans.spec, batch_size=batch_size)
        work = paint_lesions(image, labels, lesions * 5, scans, edge_mm=3.0, limits=None, max_attempts=3, seed=1)
        paint_together([work], painter)
        assert [len(call) for call in painter.calls] == calls


class StoppedPainter:
    """A method during whose second batch someone presses Ctrl+C."""

    def __init__(self, painter: Synthesizer, stopped: Event) -> None:
        self.calls: list[tuple[int, ...]] = []
        self._painter, self._stopped, self.card = painter, stopped, painter.card

    def paint(
        self, images: Sequence[Volume], lesions: Sequence[PlacedLesion], *, types: Sequence[int], seeds: Sequence[int]
    ) -> list[np.ndarray]:
        self.calls.append(tuple(seeds))
        if len(self.calls) == 2:
            self._stopped.set()
        return self._painter.paint(images, lesions, types=types, seeds=seeds)


def test_once_stopped_no_batch_is_begun(
    scene: tuple[Volume, Volume, list[PlacedLesion]], scans: Dataset, noise_painter: Callable[..., Synthesizer]
) -> None:
    image, labels, lesions = scene
    stopped = Event()
    painter = StoppedPainter(noise_painter(scans.spec), stopped)
    for _ in range(2):
        work = paint_lesions(image, labels, lesions * 4, scans, edge_mm=3.0, limits=None, max_attempts=1, seed=1)
        with pytest.raises(CancelledError):
            paint_together([work], painter, stopped=stopped)
        assert len(painter.calls) == 2


def test_memory_follows_the_lesion_not_the_scan(
    scene: tuple[Volume, Volume, list[PlacedLesion]], scans: Dataset, synthesizer: PromptLesionSynthesizer
) -> None:
    image, labels, lesions = scene
    peaks = []
    for padding in (0, 150):
        wide = [((padding, padding), (padding, padding), (0, 0))] * 2
        large = [
            replace(v, array=np.pad(v.array, w), source_header=None) for v, w in zip((image, labels), wide, strict=True)
        ]
        x, y, z = lesions[0].box
        moved = (slice(x.start + padding, x.stop + padding), slice(y.start + padding, y.stop + padding), z)
        tracemalloc.start()
        options = {"edge_mm": synthesizer.card.edge_mm, "limits": None, "max_attempts": 1, "seed": 1}
        work = paint_lesions(*large, [replace(lesions[0], box=moved)], scans, **options)
        paint_together([work], synthesizer)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert large[0].array.nbytes > 50 * image.array.nbytes
    assert peaks[1] < 1.2 * peaks[0]
