"""Training of stage 2: learn to see lesions under noise, told their type, place and surroundings."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from promptlesion.autoencoder.autoencoder import TrainedAutoencoder, check_dataset, load_autoencoder
from promptlesion.autoencoder.lesion_bias import LesionBias
from promptlesion.data.lesion_attributes import NAMES, scale_of
from promptlesion.data.lesion_statistics import LesionStatistics
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.training_data import TrainingData
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.denoiser import Denoiser, build_denoiser
from promptlesion.diffusion.latents import LesionLatents, encode_lesions
from promptlesion.diffusion.loss import NoisedBatch, noise_loss
from promptlesion.diffusion.network import BLOCKS
from promptlesion.diffusion.schedule import build_schedule
from promptlesion.training.checkpoint import differences, load_checkpoint
from promptlesion.training.device import place, resolve_device, send
from promptlesion.training.launch import main_process_first, share_of_batch
from promptlesion.training.loop import averaged_stage, train
from promptlesion.training.run import Run, RunOptions
from promptlesion.training.seeding import derive_seed, numpy_generator, torch_generator

logger = logging.getLogger(__name__)


def train_diffusion(
    data: TrainingData,
    *,
    autoencoder_run: Path,
    config: DiffusionConfig,
    options: RunOptions,
    method: str = "promptlesion",
) -> Run:
    """Train the denoiser on the lesions of the training cases, or go on with an interrupted run.

    Args:
        autoencoder_run: finished run of stage 1, which the checkpoint names.
        method: name of the method, for the card and the provenance of what it paints.

    Raises:
        ValueError: the autoencoder was trained with another window or spacing.
    """
    share, seed, spec, out = share_of_batch(config.batch_size), options.seed, data.spec, options.out
    autoencoder = load_autoencoder(autoencoder_run, resolve_device(options.device))
    check_dataset(autoencoder, spec, run_folder=autoencoder_run)
    _warn_of_lesion_bias(autoencoder.card, spec)
    autoencoder_hash = str(autoencoder.card["weights_sha256"])
    inputs = {"autoencoder": autoencoder_hash, "method": method}
    run = data.open_run(options, stage="diffusion", config=config, inputs=inputs)
    if run.is_finished:
        return run
    device, scales = run.device, _attribute_scales(data.statistics, spec)
    with main_process_first():
        latents = encode_lesions(
            data,
            autoencoder,
            config,
            seed=derive_seed(seed, "diffusion", "patches"),
            path=out / "latents.safetensors",
            key=f"{autoencoder_hash} {data.fingerprint} {config.patch_voxels} "
            f"{config.patches_per_lesion} {config.blank_margin_voxels} {config.denoise_lesions} {seed} "
            f"{config.mask} {config.attributes} {config.warp_probability} {config.brightness_jitter}",
            device=device,
        )
    torch.manual_seed(derive_seed(seed, "diffusion", "weights"))
    denoiser = _build(config, autoencoder, spec)
    if denoiser.attributes is not None:
        denoiser.attributes.set_scale(*scales)
    denoiser = place(denoiser, device)

    def card() -> dict[str, object]:
        return {
            **run.facts(method),
            **data.facts(data.statistics),
            "schedule": config.schedule,
            **build_schedule(config).facts(),
            "latent_scale": autoencoder.network.latent_scale(),
            "autoencoder": os.path.relpath(autoencoder_run, out),
            "autoencoder_sha256": autoencoder_hash,
        }

    stage = averaged_stage(
        "denoiser",
        denoiser,
        config,
        compiled=denoiser.network,
        blocks=BLOCKS,
        draw=_drawing(latents.kept_on(device), share, config=config, std=send(scales[1], device), seed=seed),
        loss=partial(
            noise_loss,
            denoiser,
            kind=config.loss,
            lesion_weight=config.lesion_weight,
            min_snr_gamma=config.min_snr_gamma,
            precision=config.precision,
            device=device,
        ),
        card=card,
    )
    train(run, stage, config, hardware=options.hardware)
    run.finish()
    return run


def _drawing(
    latents: LesionLatents,
    share: range,
    *,
    config: DiffusionConfig,
    std: Float[torch.Tensor, "type attribute"],
    seed: int,
) -> Callable[[int], NoisedBatch]:
    """Return what draws the batch of a step; of what is drawn, this process takes its share.

    `std` are the deviations of each type's attributes, by which they are jittered, on the device to train on.
    """
    device = std.device
    patches_of_type = [
        torch.nonzero(latents.lesion_type == index).flatten().tolist()
        for index in sorted(set(latents.lesion_type.tolist()))
    ]

    def draw(step: int) -> NoisedBatch:
        chooser = numpy_generator(seed, "diffusion", "choice", step)
        generator = torch_generator(seed, "diffusion", "noise", step)
        kinds = chooser.integers(len(patches_of_type), size=config.batch_size)
        chosen = [patches_of_type[kind][chooser.integers(len(patches_of_type[kind]))] for kind in kinds]
        clean, conditioning = latents.batch([chosen[item] for item in share], device)
        level = torch.randint(config.num_levels, (config.batch_size,), generator=generator)[share]
        noise = torch.randn(config.batch_size, *clean.shape[1:], generator=generator)[share]
        is_dropped = torch.rand(config.batch_size, generator=generator)[share] < config.prompt_dropout
        if config.attributes:
            shape = (config.batch_size, len(NAMES))
            jitter = torch.randn(shape, generator=generator)[share] * config.attribute_jitter
            is_open = torch.rand(shape, generator=generator) < config.attribute_dropout
            is_open |= torch.rand(config.batch_size, 1, generator=generator) < config.attribute_dropout
            jitter = send(jitter.masked_fill(is_open[share], torch.nan), device)
            assert conditioning.attributes is not None
            asked = conditioning.attributes + jitter * std[conditioning.lesion_type]
            conditioning = replace(conditioning, attributes=asked)
        level, noise, is_dropped = (send(part, device) for part in (level, noise, is_dropped))
        return NoisedBatch(clean, level, noise, (conditioning, is_dropped), conditioning.lesion_mask)

    return draw


@dataclass(frozen=True)
class TrainedDiffusion:
    """A finished stage 2 together with the autoencoder its latents belong to."""

    denoiser: Denoiser
    config: DiffusionConfig
    autoencoder: TrainedAutoencoder
    spec: DatasetSpec
    card: dict[str, object]


def load_diffusion(run_folder: Path, device: torch.device) -> TrainedDiffusion:
    """Read a finished run of stage 2 and the autoencoder it names, both frozen.

    Raises:
        CheckpointError: either run is not finished, damaged, of another stage or of other networks.
        ValueError: the autoencoder there is not the one the denoiser was trained with.
    """
    checkpoint = load_checkpoint(run_folder / "checkpoint", stage="diffusion")
    card = checkpoint.card
    autoencoder_run = (run_folder / str(card["autoencoder"])).resolve()
    autoencoder = load_autoencoder(autoencoder_run, device)
    others = differences(autoencoder.card, {"weights_sha256": card["autoencoder_sha256"]})
    if others:
        raise ValueError(
            f"{autoencoder_run}: expected the autoencoder {run_folder} was trained with; "
            f"found another one, with {others[0]}"
        )
    config = DiffusionConfig.of_card(card["config"])
    spec = DatasetSpec.model_validate(card["dataset"])
    denoiser = _build(config, autoencoder, spec)
    checkpoint.restore(denoiser, part="denoiser", device=device)
    return TrainedDiffusion(denoiser, config, autoencoder, spec, card)


def _attribute_scales(
    statistics: LesionStatistics, spec: DatasetSpec
) -> tuple[Float[torch.Tensor, "type attribute"], Float[torch.Tensor, "type attribute"]]:
    """Return mean and deviation of the attributes of each type's training lesions."""
    scales = [scale_of(statistics.types[lesion.name].rows) for lesion in spec.lesions]
    mean, std = (torch.from_numpy(np.stack(part)).float() for part in zip(*scales, strict=True))
    return mean, std


def _build(config: DiffusionConfig, autoencoder: TrainedAutoencoder, spec: DatasetSpec) -> Denoiser:
    return build_denoiser(
        config,
        latent_channels=autoencoder.config.latent_channels,
        latent_voxels=config.patch_voxels // autoencoder.config.downsampling,
        num_types=len(spec.lesions),
    )


def _warn_of_lesion_bias(card: dict[str, object], spec: DatasetSpec) -> None:
    entries = card["lesion_bias"]
    assert isinstance(entries, list)
    by_type = {bias.lesion_type: bias for bias in (LesionBias(**entry) for entry in entries)}
    for lesion in spec.lesions:
        bias = by_type.get(lesion.name)
        if bias is None:
            logger.warning("how the autoencoder shows %s was never measured: no validation case had one", lesion.name)
        elif not bias.is_faithful:
            logger.warning(
                "the autoencoder shows %s at %.0f HU where the real ones have %.0f (%d validation lesions); "
                "no lesion drawn with it can be brighter or darker than it can show",
                bias.lesion_type,
                bias.autoencoded_mean_hu,
                bias.real_mean_hu,
                bias.num_lesions,
            )
