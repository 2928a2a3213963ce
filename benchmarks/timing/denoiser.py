"""A step of every method's denoiser, beside MONAI's U-Net of as many parameters and the plain network in float32."""

import itertools
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from promptlesion.baselines.voxel_denoiser import build_voxel_denoiser
from promptlesion.diffusion.bound_network import cast_weights
from promptlesion.diffusion.conditioning import Conditioning, condition
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.cuda_graph import StepRecorder
from promptlesion.diffusion.denoiser import Denoiser, build_denoiser
from promptlesion.training.device import place
from promptlesion.training.optimisation import Precision
from timing.clock import Work
from timing.suite import SHARE_OF_OTHER_PRECISION, Suite, best_convolution

PART = "denoiser"
BATCHES = (1, 4, 16)
NUM_TYPES = 5
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_CLOSE = 0.05
_LEAST_SHARE = 0.5
_SHOWN = 12
_GROUPS = 8
Prepare = Callable[[int], Work]
"""Returns a step for batches of so many."""


@torch.no_grad()
def measure_denoisers(suite: Suite) -> None:
    """Time a step of each method in every precision and batch."""
    config = suite.config
    methods = {"promptlesion": config.diffusion, "difftumor": config.difftumor.as_diffusion()}
    for name, settings in methods.items():
        _latent_steps(suite, name, settings)
    _voxel_steps(suite)
    _shown_step(suite)


def latent_denoiser(suite: Suite, settings: DiffusionConfig, precision: str = "float32") -> Denoiser:
    """Build an untrained denoiser, frozen, its weights as they are loaded to sample in a precision.

    What it computes does not depend on its weights.
    """
    torch.manual_seed(0)
    autoencoder = suite.config.autoencoder
    denoiser = build_denoiser(
        settings,
        latent_channels=autoencoder.latent_channels,
        latent_voxels=settings.patch_voxels // autoencoder.downsampling,
        num_types=NUM_TYPES,
    )
    cast_weights(denoiser.network, DTYPES[precision])
    return denoiser.requires_grad_(requires_grad=False).eval()


def made_up_latents(suite: Suite, settings: DiffusionConfig, batch: int) -> tuple[Tensor, Conditioning]:
    """Return noisy latents and what the denoiser is told of them."""
    edge = settings.patch_voxels // suite.config.autoencoder.downsampling
    shape = (batch, suite.config.autoencoder.latent_channels, edge, edge, edge)
    generator = torch.Generator().manual_seed(0)
    low, high = settings.patch_voxels // 3, settings.patch_voxels // 2
    mask = torch.zeros(batch, 1, *[settings.patch_voxels] * 3, dtype=torch.bool)
    mask[..., low:high, low:high, low:high] = True
    noisy, surroundings = (torch.randn(shape, generator=generator).to(suite.device) for _ in range(2))
    kind = (torch.arange(batch) % NUM_TYPES).to(suite.device)
    return noisy, condition(surroundings, mask.to(suite.device), kind, is_whole=settings.mask == "whole")


def bound_step(
    suite: Suite,
    denoiser: Denoiser,
    settings: DiffusionConfig,
    batch: int,
    precision: str,
    recorder: StepRecorder | None = None,
) -> Work:
    """Return one of the steps of a sample, as sampling takes them: what is the same in all of them is done.

    The denoiser is one for this precision. A recorder records a shape the second time.
    """
    noisy, conditioning = made_up_latents(suite, settings, batch)
    levels = denoiser.schedule.spaced_levels(min(10, denoiser.schedule.num_levels))
    with suite.autocast(precision):
        for _ in range(1 if recorder is None else 2):
            denoise = denoiser.bound(conditioning, levels, recorder=recorder)

    @torch.no_grad()
    def step() -> None:
        with suite.autocast(precision):
            denoise(noisy, levels[0])

    return step


def _plain_step(suite: Suite, denoiser: Denoiser, settings: DiffusionConfig, batch: int) -> Work:
    """Return a pass of the network as it was built: float32, eager, nothing done beforehand."""
    noisy, conditioning = made_up_latents(suite, settings, batch)
    level = torch.full((batch,), settings.num_levels - 1, device=suite.device)
    is_dropped = torch.zeros(batch, dtype=torch.bool, device=suite.device)

    @torch.no_grad()
    def step() -> None:
        denoiser(noisy, level, conditioning, is_dropped)

    return step


def _latent_steps(suite: Suite, name: str, settings: DiffusionConfig) -> None:
    plain = latent_denoiser(suite, settings).to(suite.device)
    has_reference = name == "promptlesion"
    reference = equal_unet(suite, plain.network, settings) if has_reference else None
    parameters = {"ours": {"parameters": num_parameters(plain)}}
    if reference is not None:
        parameters["MONAI DiffusionModelUNet"] = {"parameters": num_parameters(reference)}
    for precision in suite.precisions:
        ours, one = place(latent_denoiser(suite, settings, precision), suite.device), 0.0
        for batch in BATCHES:
            what = f"{name}, batch {batch}"
            if _is_too_long(suite, what, precision, settings.precision, one, batch):
                continue
            forms = {"ours": bound_step(suite, ours, settings, batch, precision)}
            if reference is not None:
                forms["MONAI DiffusionModelUNet"] = _reference_step(suite, reference, settings, batch, precision)
            if precision == "float32":
                forms["plain"] = _plain_step(suite, plain, settings, batch)
            rows = suite.compare(PART, what, forms, precision=precision, width=settings.channels[0], facts=parameters)
            one = max(one, rows[0].timing.seconds / batch)


def _is_too_long(
    suite: Suite, what: str, precision: str, configured: Precision, seconds_of_one: float, batch: int
) -> bool:
    """Whether a row is left out; in the precision that is not in use, larger batches are for small networks only."""
    share = 1.0 if precision == suite.chosen(configured) else SHARE_OF_OTHER_PRECISION
    return suite.is_too_long(f"{PART}: {what}, {precision}", seconds_of_one * batch, share=share)


def _voxel_steps(suite: Suite) -> None:
    settings = suite.config.med_ddpm
    edge = settings.patch_voxels
    for precision in suite.precisions:
        torch.manual_seed(0)
        denoiser = build_voxel_denoiser(settings, num_types=NUM_TYPES).requires_grad_(requires_grad=False).eval()
        cast_weights(denoiser.network, DTYPES[precision])
        place(denoiser, suite.device)
        one = 0.0
        for batch in BATCHES:
            what = f"med-ddpm, batch {batch}"
            if suite.is_spare(PART, what, precision, settings.precision):
                continue
            if _is_too_long(suite, what, precision, settings.precision, one, batch):
                continue
            noisy = torch.randn(batch, 1, edge, edge, edge, device=suite.device)
            labels = torch.zeros(batch, NUM_TYPES, edge, edge, edge, device=suite.device)
            with suite.autocast(precision):
                step = partial(_in_precision, suite, precision, partial(denoiser.bound(labels, [0]), noisy, 0))
            facts = {"ours": {"parameters": num_parameters(denoiser)}}
            rows = suite.compare(
                PART, what, {"ours": step}, precision=precision, width=settings.channels[0], facts=facts
            )
            one = max(one, rows[0].timing.seconds / batch)


@torch.no_grad()
def _in_precision(suite: Suite, precision: str, run: Work) -> None:
    with suite.autocast(precision):
        run()


def num_parameters(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def equal_unet(suite: Suite, network: nn.Module, settings: DiffusionConfig) -> DiffusionModelUNet:
    """Build MONAI's U-Net with the number of parameters nearest to a network's, at the same resolutions.

    Raises:
        ValueError: none comes within 5 %.
    """
    wanted, heads = num_parameters(network), settings.attention_head_channels
    steps = [heads if level in settings.attention_levels else _GROUPS for level in range(len(settings.channels))]

    def rounded(scale: float) -> tuple[int, ...]:
        widths = zip(settings.channels, steps, strict=True)
        return tuple(max(step, round(width * scale / step) * step) for width, step in widths)

    def build(channels: tuple[int, ...]) -> DiffusionModelUNet:
        return DiffusionModelUNet(
            spatial_dims=3,
            in_channels=2 * suite.config.autoencoder.latent_channels + 1,
            out_channels=suite.config.autoencoder.latent_channels,
            num_res_blocks=settings.blocks_per_level,
            channels=channels,
            attention_levels=[level in settings.attention_levels for level in range(len(channels))],
            norm_num_groups=_GROUPS,
            num_head_channels=heads,
            use_flash_attention=True,
        )

    def distance(channels: tuple[int, ...]) -> float:
        with torch.device("meta"):
            return abs(num_parameters(build(channels)) / wanted - 1)

    best = min(sorted({rounded(index / 16) for index in range(8, 33)}), key=distance)
    near = itertools.product(*((width, width + step) for width, step in zip(best, steps, strict=True)))
    best = min((*near, *(rounded(index / 64) for index in range(48, 97, 3))), key=distance)
    if distance(best) > _CLOSE:
        suite.notes.append(f"{PART}: MONAI's U-Net comes within {100 * distance(best):.0f} % of the parameters at best")
    return build(best).requires_grad_(requires_grad=False).eval().to(suite.device)


def _reference_step(
    suite: Suite, network: DiffusionModelUNet, settings: DiffusionConfig, batch: int, precision: str
) -> Work:
    noisy, conditioning = made_up_latents(suite, settings, batch)
    inputs = torch.cat([noisy, conditioning.surroundings, conditioning.lesion_mask], dim=1)
    levels = torch.full((batch,), settings.num_levels - 1, device=suite.device)
    return partial(_in_precision, suite, precision, partial(network, inputs, levels))


def _shown_step(suite: Suite) -> None:
    """Hold the step at batch 1 against the convolution in the same minute, and look for the slow one in its profile."""
    settings = suite.config.diffusion
    for precision in suite.precisions:
        denoiser = place(latent_denoiser(suite, settings, precision), suite.device)
        step = bound_step(suite, denoiser, settings, 1, precision)
        width, edge = settings.channels[0], settings.patch_voxels // suite.config.autoencoder.downsampling
        dtype = DTYPES[precision]
        rates = []
        for _ in range(2):  # before and after: the better one counts
            rates.append(best_convolution(width, edge, dtype, suite.device, seconds=suite.seconds / 4))
            rows = suite.compare(PART, "promptlesion, batch 1, again", {"ours": step}, precision=precision)
        slow, table = slow_convolutions(step)
        rate = rows[0].timing.flop_rate or 0.0
        text = f"denoiser step at {edge}³ latents, batch 1, {precision}"
        if precision == suite.chosen(settings.precision):
            suite.show(1, f"{text}: share of the best {width}-channel convolution", rate / max(rates), _LEAST_SHARE)
        suite.show(1, f"{text}: calls of slow_conv3d", slow, 0, is_least=False)
        suite.profiles[text] = table


def slow_convolutions(run: Work) -> tuple[int, str]:
    """Return how often a run calls torch's slow convolution, and the operations that it spends most time in."""
    run()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    events = profiler.key_averages()
    calls = Counter({event.key: event.count for event in events})
    slow = sum(count for name, count in calls.items() if "slow_conv3d" in name)
    return slow, events.table(sort_by="self_cpu_time_total", row_limit=_SHOWN, max_name_column_width=40)
