"""Drawing batches of patches, beside the steps that need them; and the sliding-window prediction of a whole scan."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference

from promptlesion.autoencoder.perceptual import build_perceptual_loss
from promptlesion.baselines.lesion_batches import LesionBatches
from promptlesion.check.workload import Bench, autoencoder_step, segmentation_step
from promptlesion.data.cache import CachedCase
from promptlesion.data.patch_batches import PatchBatches
from promptlesion.data.spec import DatasetSpec
from promptlesion.segmentation.inference import predict_scores
from promptlesion.segmentation.mixing import mixed_batches
from promptlesion.segmentation.network import build_segmentation_network
from promptlesion.training.device import place
from promptlesion.training.prefetch import prefetched
from timing.clock import Work, wait
from timing.lesion import small_data
from timing.made_up import LABELS
from timing.suite import PRECISIONS, Suite

PART, WAITING, PREDICTION = "patches", "waiting", "prediction"
_NUM_STEPS = 3
_MOST_WAITING = 0.05


def measure_patches(suite: Suite) -> None:
    """Time the drawing of a batch of every loop, one batch after another."""
    for name, cases, spec in suite.datasets(small_data(suite)):
        for loop, draw in _loops(suite, cases, spec).items():
            steps = iter(range(10**6))
            suite.compare(PART, f"{loop}, {name}", {"ours": lambda: draw(next(steps))}, precision="-")  # noqa: B023


def _loops(suite: Suite, cases: list[CachedCase], spec: DatasetSpec) -> dict[str, Callable[[int], object]]:
    config = suite.config
    first = PatchBatches(
        cases,
        spec=spec,
        patch_voxels=config.autoencoder.patch_voxels,
        batch_size=config.autoencoder.batch_size,
        seed=0,
    )
    third = mixed_batches(real_cases=cases, synthetic_cases=[], spec=spec, config=config.segmentation, seed=0)
    voxels = LesionBatches(cases, spec=spec, patch_voxels=config.med_ddpm.patch_voxels, seed=0)
    return {
        f"autoencoder, batch {config.autoencoder.batch_size}": first.draw,
        f"segmentation, batch {config.segmentation.batch_size}": third.draw,
        f"med-ddpm, batch {config.med_ddpm.batch_size}": partial(voxels.draw, items=range(config.med_ddpm.batch_size)),
    }


def measure_waiting(suite: Suite) -> None:
    """Let loops draw as training does, ahead of the steps, and see how long every step waits for its batch."""
    config, hardware = suite.config, suite.config.hardware
    bench = Bench(suite.device, is_counted=False)
    first = autoencoder_step(
        config.autoencoder,
        build_perceptual_loss(config.autoencoder, suite.device),
        patch_voxels=config.autoencoder.patch_voxels,
        is_adversarial=True,
        bench=bench,
    )
    third = segmentation_step(
        config.segmentation, patch_voxels=config.segmentation.patch_voxels, num_labels=len(LABELS), bench=bench
    )
    steps = {"autoencoder": first, "segmentation": third}
    for name, cases, spec in suite.datasets(small_data(suite)):
        for loop, draw in _loops(suite, cases, spec).items():
            step = steps.get(loop.split(",")[0])
            if step is None:
                continue
            waited, seconds = waiting_share(draw, step, num_batches=hardware.prefetch_batches, device=suite.device)
            text = f"{loop}, {name}: share of a step's {seconds:.2f} s that waits for data"
            suite.show(5, text, waited, _MOST_WAITING, is_least=False)


def waiting_share(
    draw: Callable[[int], object], step: Work, *, num_batches: int, device: torch.device
) -> tuple[float, float]:
    """Return the share of a loop's time that waits for a batch, and a step's seconds, by the wall clock.

    The first step starts the threads and is left out.
    """
    step()
    batches = prefetched(draw, range(_NUM_STEPS + 1), num_batches=num_batches)
    next(batches)
    step()
    wait(device)
    started, waited = time.perf_counter(), 0.0
    for _ in range(_NUM_STEPS):
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
        step()
        wait(device)
    seconds = time.perf_counter() - started
    return waited / seconds, seconds / _NUM_STEPS


def measure_prediction(suite: Suite) -> None:
    """Time the prediction of a scan of two by two by one and a half patches, beside MONAI's with the plain network."""
    config, (dataset, _) = suite.config.segmentation, small_data(suite)
    edge = config.patch_voxels
    scan = np.random.default_rng(0).integers(-200, 800, (2 * edge, 2 * edge, 3 * edge // 2)).astype(np.int16)
    torch.manual_seed(0)
    networks = [
        build_segmentation_network(config, len(LABELS)).requires_grad_(requires_grad=False).eval() for _ in "12"
    ]
    placed, plain = place(networks[0], suite.device), networks[1].to(suite.device)
    width = config.channels[0] if config.channels else 32
    for precision in PRECISIONS:
        forms = {
            "ours": partial(
                predict_scores,
                placed,
                scan,
                spec=dataset.spec,
                patch_voxels=edge,
                overlap=config.window_overlap,
                device=suite.device,
                precision=precision,
            )
        }
        if precision == "float32":
            forms["MONAI, plain network"] = partial(_plain_prediction, suite, plain, scan)
        suite.compare(PREDICTION, f"{' x '.join(map(str, scan.shape))} voxels", forms, precision=precision, width=width)


@torch.no_grad()
def _plain_prediction(suite: Suite, network: torch.nn.Module, scan: np.ndarray) -> None:
    config = suite.config.segmentation
    sliding_window_inference(
        torch.from_numpy(scan.astype(np.float32))[None, None],
        roi_size=(config.patch_voxels,) * 3,
        sw_batch_size=4,
        predictor=network,
        overlap=config.window_overlap,
        mode="gaussian",
        sw_device=suite.device,
        device="cpu",
    )
