"""Training steps: of stage 2 with latents encoded once or in every step; and those of the segmentation network."""

import numpy as np
import torch

from promptlesion.autoencoder.autoencoder import TrainedAutoencoder, load_autoencoder
from promptlesion.cost.passes import Bench, diffusion_step, segmentation_step
from promptlesion.data.cache import CachedCase
from promptlesion.data.intensity import HUWindow
from promptlesion.data.lesion_attributes import NAMES
from promptlesion.data.lesion_patch import draw_lesion_patch
from promptlesion.data.spec import DatasetSpec
from promptlesion.diffusion.conditioning import blank_lesion, mask_on_latent_grid
from promptlesion.diffusion.latents import LesionLatents
from promptlesion.training.seeding import numpy_generator
from timing.lesion import plain_run, promptlesion_run, small_data
from timing.made_up import LABELS
from timing.suite import Suite, ratio

PART, SEGMENTATION = "diffusion", "segmentation"
_LEAST_SPEED_UP = 5.0
_NUM_LATENTS = 32


def measure_diffusion(suite: Suite) -> None:
    """Time a training step of stage 2 with cached latents, and with the lesions encoded in every step."""
    config = suite.config
    dataset, cases = small_data(suite)
    promptlesion_run(suite)
    plain_run(suite)
    latents = made_up_lesions(suite, _NUM_LATENTS)
    for precision in suite.precisions:
        settings = config.diffusion.model_copy(update={"precision": precision})
        what = f"training step, batch {settings.batch_size}"
        if suite.is_spare(PART, what, precision, config.diffusion.precision):
            continue
        step = diffusion_step(
            config.model_copy(update={"diffusion": settings}),
            patch_voxels=settings.patch_voxels,
            num_types=len(dataset.spec.lesions),
            bench=Bench(suite.device, is_counted=False),
        )
        name = "promptlesion" if precision == "bfloat16" else "plain"
        autoencoder = load_autoencoder(suite.folder / f"{name}-autoencoder", suite.device)

        def cached() -> None:
            latents.batch(range(config.diffusion.batch_size), suite.device)
            step()  # noqa: B023

        def encoded() -> None:
            _encode(suite, cases, dataset.spec, autoencoder)  # noqa: B023
            step()  # noqa: B023

        forms = {"ours": cached, "encoding in the loop": encoded}
        rows = suite.compare(PART, what, forms, precision=precision, width=settings.channels[0])
        if precision == suite.chosen(config.diffusion.precision):
            text = f"diffusion training with cached latents, {precision}: times the steps of encoding in the loop"
            suite.show(4, text, ratio(rows, "encoding in the loop"), _LEAST_SPEED_UP)


def made_up_lesions(suite: Suite, number: int) -> LesionLatents:
    """Return so many encoded lesions as stage 2 keeps them, of two types."""
    autoencoder = suite.config.autoencoder
    edge = suite.config.diffusion.patch_voxels // autoencoder.downsampling
    shape = (number, autoencoder.latent_channels, edge, edge, edge)
    clean = torch.randn(shape).half()
    mask = torch.zeros(number, 1, edge, edge, edge).half()
    return LesionLatents(clean, clean.clone(), mask, torch.arange(number) % 2, torch.zeros(number, len(NAMES)))


@torch.no_grad()
def _encode(suite: Suite, cases: list[CachedCase], spec: DatasetSpec, autoencoder: TrainedAutoencoder) -> None:
    """Draw and encode a batch of lesions as it is done once, before the training."""
    config = suite.config.diffusion
    lesions = [(case, lesion) for case in cases for lesion in case.lesions]
    images, masks = zip(
        *(
            draw_lesion_patch(
                *lesions[item % len(lesions)],
                spec,
                patch_voxels=config.patch_voxels,
                generator=numpy_generator(0, "benchmark", item),
            )
            for item in range(config.batch_size)
        ),
        strict=True,
    )
    image = torch.from_numpy(HUWindow(*spec.window_hu).normalize(np.stack(images).astype(np.float32)))[:, None]
    mask = torch.from_numpy(np.stack(masks))[:, None].to(suite.device)
    image = image.to(suite.device)
    network = autoencoder.network
    with suite.autocast(suite.chosen(autoencoder.config.precision)):
        network.encode(image)
        network.encode(blank_lesion(image, mask, margin_voxels=config.blank_margin_voxels))
    mask_on_latent_grid(mask, downsampling=network.downsampling)


def measure_segmentation(suite: Suite) -> None:
    """Time a training step of stage 3."""
    for precision in suite.precisions:
        config = suite.config.segmentation.model_copy(update={"precision": precision})
        what = f"training step, {config.network}, batch {config.batch_size}"
        if suite.is_spare(SEGMENTATION, what, precision, suite.config.segmentation.precision):
            continue
        step = segmentation_step(
            config,
            patch_voxels=config.patch_voxels,
            num_labels=len(LABELS),
            bench=Bench(suite.device, is_counted=False),
        )
        width = config.channels[0] if config.channels else 32
        suite.compare(SEGMENTATION, what, {"ours": step}, precision=precision, width=width)
