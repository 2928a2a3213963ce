"""The axes along which cost may grow: the same work at one size, timed and counted."""

import cProfile
import pstats
import shutil
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scan_size import paint_one, write_scan

from promptlesion.autoencoder.quantizer import nearest_code
from promptlesion.baselines.config import IntensityConfig
from promptlesion.baselines.intensity import load_intensity, train_intensity
from promptlesion.check.dataset_check import check_dataset
from promptlesion.config import resolve_config
from promptlesion.data.cache import CachedCase, build_cache
from promptlesion.data.crops import crop
from promptlesion.data.dataset import Dataset, open_dataset
from promptlesion.data.lesion_statistics import measure_lesions
from promptlesion.data.patch_sampling import AIR_HU, PatchSampler
from promptlesion.data.splits import dataset_split
from promptlesion.data.training_data import TrainingData
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion, place_lesion
from promptlesion.masks.sizes_and_shapes import build_drawing
from promptlesion.methods import load_method
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.plan import plan_cohort
from promptlesion.synthesis.trial_painting import MaskedScan, paint_masks
from promptlesion.training.run import RunOptions
from timing.clock import extra_mib, timed
from timing.cohort import painted
from timing.made_up import LABELS, write_autoencoder, write_dataset, write_diffusion

LIGHT = (36, 34, 32)
"""Voxels of a light case."""
_MOST_COUNTED_CASES, _LEAST_CASES_CHECKED_AGAIN = 100, 1000
"""A cohort of more is timed only; a middle number is not checked, as what a few and many take tells how it grows."""
_DRAWN = 200
_NUM_PATCH, _TOKENS = 16, 2**14
_TINY = (
    "autoencoder.widths=[8,8,8]",
    "autoencoder.patch_voxels=16",
    "autoencoder.discriminator_layers=1",
    "diffusion.patch_voxels=24",
    "diffusion.channels=[8,8]",
    "diffusion.attention_levels=[1]",
    "difftumor.patch_voxels=24",
    "difftumor.channels=[8,8]",
    "difftumor.attention_levels=[1]",
    "segmentation.patch_voxels=16",
    "segmentation.channels=[4,8]",
)
"""Networks so small that the estimates of `check` cost nothing."""


@dataclass(frozen=True)
class Point:
    """What one piece of work takes at one size."""

    axis: str
    work: str
    size: int
    seconds: float
    mib: float | None = None
    calls: int | None = None


def measured(
    axis: str, work: str, size: int, run: Callable[[Path], object], folder: Path, *, is_counted: bool = True
) -> Point:
    """Run once to be timed and once to be counted, each in a new folder; what came before has warmed up.

    Counting takes several times as long as the work itself.
    """
    target = folder / "timed"
    started = time.process_time()
    run(target)
    seconds = time.process_time() - started
    shutil.rmtree(target, ignore_errors=True)
    if not is_counted:
        return Point(axis, work, size, seconds)
    target = folder / "counted"
    tracemalloc.start()
    profiler = cProfile.Profile()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    profiler.runcall(run, target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    shutil.rmtree(target, ignore_errors=True)
    calls = int(pstats.Stats(profiler).total_calls)  # type: ignore[attr-defined]
    return Point(axis, work, size, seconds, (peak - before) / 2**20, calls)


def of_cases(num_cases: int, folder: Path) -> list[Point]:
    """Open, check, prepare, measure, plan, sample patches from and paint into light cases."""

    root = folder / "data"
    dataset = write_dataset(root, num_cases=num_cases, shape=LIGHT)
    cached = build_cache(dataset, folder / "cache")
    counts = {lesion.name: num_cases // 2 for lesion in dataset.spec.lesions}
    statistics = measure_lesions(cached, dataset.spec, LABELS)
    config = SynthesisConfig(accept_all=True, lesions_per_case=1)

    def plan(_: Path) -> object:
        return plan_cohort(dataset, counts, statistics=statistics, lesions_per_case=1, max_extent_mm=20.0, seed=0)

    def sample(_: Path) -> None:
        sampler = PatchSampler(cached, (_NUM_PATCH,) * 3, [0, 2, 3])
        generator = np.random.default_rng(0)
        for _ in range(_DRAWN):
            case, start = sampler.draw_place(generator)
            crop(case.image, start, (_NUM_PATCH,) * 3, AIR_HU)
            crop(case.labels, start, (_NUM_PATCH,) * 3, 0)

    def check(out: Path) -> object:
        return check_dataset(root, out=out, config=resolve_config(preset="demo", settings=_TINY), device="cpu")

    train_intensity(
        TrainingData(cached[:10], dataset.spec, LABELS),
        config=IntensityConfig(),
        options=RunOptions(folder / "intensity", 0, "cpu"),
    )
    synthesizer = load_intensity(folder / "intensity", device="cpu")

    def paint(out: Path) -> object:
        return synthesize_cohort(dataset, synthesizer, counts=counts, config=config, out=out, seed=0, num_workers=1)

    works: dict[str, Callable[[Path], object]] = {
        "open": lambda _: open_dataset(root),
        "split": lambda _: dataset_split(dataset, seed=0, validation_fraction=0.15, test_fraction=0.3),
        "check": check,
        "prepare": lambda out: build_cache(dataset, out),
        "prepare again": lambda _: build_cache(dataset, folder / "cache"),
        "measure lesions": lambda _: measure_lesions(cached, dataset.spec, LABELS),
        "plan": plan,
        f"sample {_DRAWN} patches": sample,
        "paint a cohort": paint,
    }
    if _MOST_COUNTED_CASES <= num_cases < _LEAST_CASES_CHECKED_AGAIN:
        del works["check"]
    timed_only = {"paint a cohort"} if num_cases > _MOST_COUNTED_CASES else set()
    return [
        measured("cases", name, num_cases, run, folder, is_counted=name not in timed_only)
        for name, run in works.items()
    ]


def _tiny_run(folder: Path) -> tuple[Dataset, list[CachedCase], Path]:
    """Return a run of stage 2 that was never trained, and what it was made for."""

    config = resolve_config(preset="demo", settings=_TINY)
    dataset = write_dataset(folder / "data", num_cases=4, shape=(64, 60, 56))
    cases = build_cache(dataset, folder / "cache")
    autoencoder = write_autoencoder(folder / "autoencoder", config, cases, dataset.spec)
    run = write_diffusion(folder / "diffusion", autoencoder, config, config.diffusion, cases, dataset.spec)
    return dataset, cases, run


def of_scans(edge: int, folder: Path) -> list[Point]:
    """Paint one lesion into a scan: what is between reading and writing must not follow the scan's size."""

    dataset, _, run = _tiny_run(folder)
    write_scan(dataset.root, folder / "scan", shapes=[(edge,) * 3], lesion_type=None, diameter_mm=8.0)
    found = paint_one(folder / "scan", run, "demo", "cpu", 0)
    axis = "scan edge, voxels"
    return [
        Point(axis, "read", edge, found["read_seconds"]),
        Point(axis, "place and paint", edge, found["work_cpu_seconds"], found["work_peak_mib"]),
        Point(axis, "write", edge, found["write_seconds"]),
    ]


def of_lesions(number: int, folder: Path) -> list[Point]:
    """Place many lesions in one scan, each off all others, and paint them."""

    dataset, _, run = _tiny_run(folder)
    config = resolve_config(preset="demo").synthesis
    synthesizer = load_method(run, config, "cpu")
    limits = {"edge_mm": synthesizer.card.edge_mm, "max_extent_mm": synthesizer.card.max_extent_mm}
    drawing = build_drawing(dataset, synthesizer.card.statistics, config, **limits)
    shape = (160, 160, 160)
    labels = np.full(shape, LABELS["organ"], dtype=np.uint8)
    image = Volume(np.zeros(shape, dtype=np.int16), np.eye(4))

    def place(_: Path) -> list[PlacedLesion]:
        placed: list[PlacedLesion] = []
        for index in range(number):
            placed.append(
                place_lesion(
                    Volume(labels, np.eye(4)),
                    dataset,
                    index % 2,
                    drawing=drawing,
                    generator=np.random.default_rng(index),
                    image=image,
                    others=placed,
                )
            )
        return placed

    scan = MaskedScan("scan", "scan", image, tuple(place(folder)), tuple(range(number)))
    axis = "lesions in a scan"
    return [
        measured(axis, "place", number, place, folder),
        measured(axis, "paint", number, lambda _: paint_masks(scan, synthesizer, batch_size=4), folder),
    ]


def of_codes(number: int, folder: Path) -> list[Point]:
    """Find the nearest of so many codes; memory as the process takes it."""

    del folder
    tokens, codebook, device = torch.randn(_TOKENS, 8), torch.randn(number, 8), torch.device("cpu")
    run = partial(nearest_code, tokens, codebook)
    run()
    return [Point("codes", "nearest code", number, min(timed(run, device) for _ in range(3)), extra_mib(run, device))]


def of_workers(number: int, folder: Path) -> list[Point]:
    """Paint the same cohort with so many workers, by the wall clock: it should take the number-th part."""

    dataset, _, run = _tiny_run(folder)
    config = resolve_config(preset="demo").synthesis
    seconds, rate = painted(folder / "cohort", str(run), dataset, config, workers=number, num_cases=32, device="cpu")
    assert rate is not None
    return [
        Point("workers", "cohort of 32, start included", number, seconds),
        Point("workers", "cohort of 32, once started", number, 32 / rate),
    ]
