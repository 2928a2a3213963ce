"""Drawing batches of patches, beside the steps that need them; and the sliding-window prediction of a whole scan."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference

from promptlesion.autoencoder.perceptual import build_perceptual_loss
from promptlesion.baselines.lesion_batches import LesionBatches
from promptlesion.config import Config
from promptlesion.cost.passes import Bench, autoencoder_step, diffusion_step, segmentation_step
from promptlesion.data.cache import CachedCase
from promptlesion.data.patch_batches import PatchBatches
from promptlesion.data.spec import DatasetSpec
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.segmentation.inference import predict_scores
from promptlesion.segmentation.mixing import SegmentationData, mixed_batches
from promptlesion.segmentation.network import build_segmentation_network
from promptlesion.training.device import place, send
from promptlesion.training.prefetch import prefetched
from promptlesion.training.seeding import numpy_generator, torch_generator
from timing.clock import Work, wait
from timing.lesion import small_data
from timing.made_up import LABELS
from timing.suite import Suite
from timing.training import made_up_lesions

PART, WAITING, PREDICTION = "patches", "waiting", "prediction"
_NUM_STEPS, _NUM_LATENTS = 3, 32
_MOST_WAITING = 0.05


def measure_patches(suite: Suite) -> None:
    """Time the drawing of a batch of every loop, one batch after another."""
    for name, cases, spec in suite.datasets():
        for loop, draw in _loops(suite.config, cases, spec).items():
            steps = iter(range(10**6))
            suite.compare(PART, f"{loop}, {name}", {"ours": lambda: draw(next(steps))}, precision="-")  # noqa: B023


def _loops(config: Config, cases: list[CachedCase], spec: DatasetSpec) -> dict[str, Callable[[int], object]]:
    first = PatchBatches(
        cases,
        spec=spec,
        patch_voxels=config.autoencoder.patch_voxels,
        batch_size=config.autoencoder.batch_size,
        seed=0,
    )
    third = mixed_batches(SegmentationData(cases, [], [], [], spec, {}), config.segmentation, seed=0)
    voxels = LesionBatches(cases, spec=spec, patch_voxels=config.med_ddpm.patch_voxels, seed=0)
    return {
        f"autoencoder, batch {config.autoencoder.batch_size}": first.draw,
        f"segmentation, batch {config.segmentation.batch_size}": third.draw,
        f"med-ddpm, batch {config.med_ddpm.batch_size}": partial(voxels.draw, items=range(config.med_ddpm.batch_size)),
    }


def measure_waiting(suite: Suite) -> None:
    """Let loops draw as training does, ahead of the steps, and see how long every step waits for its batch.

    What a step takes and what is drawn for it both follow the batch, so that small ones show the share.
    """
    config, hardware = _with_small_batches(suite), suite.config.hardware
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
    loops: list[tuple[str, Callable[[int], object], Work]] = []
    for name, cases, spec in suite.datasets():
        for loop, draw in _loops(config, cases, spec).items():
            if (step := steps.get(loop.split(",")[0])) is not None:
                loops.append((f"{loop}, {name}", draw, step))
    second = diffusion_step(config, patch_voxels=config.diffusion.patch_voxels, num_types=len(LABELS) - 2, bench=bench)
    loops.append((f"diffusion, batch {config.diffusion.batch_size}", _latents_draw(suite, config.diffusion), second))
    warmed_up: list[Work] = []
    for name, draw, step in loops:
        if step not in warmed_up:
            step()
            warmed_up.append(step)
        waited, seconds = waiting_share(draw, step, num_batches=hardware.prefetch_batches, device=suite.device)
        text = f"{name}: share of a step's {seconds:.2f} s that waits for data"
        suite.show(5, text, waited, _MOST_WAITING, is_least=False)


def _with_small_batches(suite: Suite) -> Config:
    config = suite.config
    most = {"autoencoder": 1, "diffusion": 1, "segmentation": 3}
    return config.model_copy(
        update={
            name: stage.model_copy(update={"batch_size": suite.few(stage.batch_size, batch)})
            for name, batch in most.items()
            for stage in [getattr(config, name)]
        }
    )


def _latents_draw(suite: Suite, config: DiffusionConfig) -> Callable[[int], object]:
    """Return the drawing of a batch of stage 2: latents that are there, their conditioning, and noise for them."""
    latents = made_up_lesions(suite, _NUM_LATENTS).kept_on(suite.device)

    def draw(step: int) -> object:
        chooser, generator = numpy_generator(0, "choice", step), torch_generator(0, "noise", step)
        chosen = chooser.integers(len(latents), size=config.batch_size).tolist()
        clean, conditioning = latents.batch(chosen, suite.device)
        level = torch.randint(config.num_levels, (config.batch_size,), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        is_dropped = torch.rand(config.batch_size, generator=generator) < config.prompt_dropout
        return clean, conditioning, *(send(part, suite.device) for part in (level, noise, is_dropped))

    return draw


def waiting_share(
    draw: Callable[[int], object], step: Work, *, num_batches: int, device: torch.device
) -> tuple[float, float]:
    """Return the share of a loop's time that waits for a batch, and a step's seconds, by the wall clock.

    The first batches, drawn while the threads started, are passed over: a loop that waits would live on them for a
    while. So is the step that follows them; it was warmed up before.
    """
    batches = prefetched(draw, range(num_batches + 1 + _NUM_STEPS), num_batches=num_batches)
    for _ in range(num_batches + 1):
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
    """Time the prediction of a scan of one and a half patches, two windows, beside MONAI's with the plain network."""
    config, (dataset, _) = suite.config.segmentation, small_data(suite)
    edge = config.patch_voxels
    scan = np.random.default_rng(0).integers(-200, 800, (3 * edge // 2, edge, edge)).astype(np.int16)
    torch.manual_seed(0)
    networks = [
        build_segmentation_network(config, len(LABELS)).requires_grad_(requires_grad=False).eval() for _ in "12"
    ]
    placed, plain = place(networks[0], suite.device), networks[1].to(suite.device)
    width = config.channels[0] if config.channels else 32
    for precision in suite.precisions:
        forms = {
            "ours": partial(
                predict_scores,
                placed,
                scan,
                spec=dataset.spec,
                config=config.model_copy(update={"precision": precision}),
                device=suite.device,
            )
        }
        if precision == "float32":
            forms["plain network, MONAI's windows"] = partial(_plain_prediction, suite, plain, scan)
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
