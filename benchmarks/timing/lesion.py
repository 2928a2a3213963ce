"""A lesion end to end: encoded, sampled, decoded; by each method's default sampler, and as the paper does it."""

from pathlib import Path

import numpy as np

from promptlesion.config import Config
from promptlesion.data.cache import CachedCase, build_cache
from promptlesion.data.dataset import Dataset
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion
from promptlesion.methods import load_method
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.synthesis.trial_painting import MaskedScan, paint_masks
from timing.clock import Work, timed
from timing.made_up import write_autoencoder, write_dataset, write_diffusion, write_med_ddpm
from timing.suite import Suite

PART = "lesion"
_LEAST_SPEED_UP = 20.0
_FEW, _MORE = 2, 10
_PAPER_STEPS = 400
BATCHES = (1, 4, 16)


def small_data(suite: Suite) -> tuple[Dataset, list[CachedCase]]:
    """Return four made-up cases of a phantom's size, and the same prepared."""
    edge = suite.config.diffusion.patch_voxels
    dataset = write_dataset(suite.folder / "data", num_cases=4, shape=(edge + 48, edge + 24, edge))
    return dataset, build_cache(dataset, suite.folder / "cache")


def promptlesion_run(suite: Suite, config: Config | None = None, name: str = "promptlesion") -> Path:
    """Return a run of stage 2 that was never trained."""
    dataset, cases = small_data(suite)
    chosen = config or suite.config
    autoencoder = write_autoencoder(suite.folder / f"{name}-autoencoder", chosen, cases, dataset.spec)
    return write_diffusion(suite.folder / name, autoencoder, chosen, chosen.diffusion, cases, dataset.spec)


def masked_scan(edge: int, number: int) -> MaskedScan:
    """Return a scan with balls to paint, each well inside its patch, no two of up to 64 at one place."""
    generator = np.random.default_rng(0)
    scan = Volume(generator.integers(0, 100, (edge + 32,) * 3).astype(np.int16), np.eye(4))
    middle, radius = (edge + 32) // 2, max(2, edge // 12)
    squares = sum((axis - 2 * radius) ** 2 for axis in np.ogrid[tuple(map(slice, (4 * radius,) * 3))])
    lesions = tuple(
        PlacedLesion(
            index % 2,
            tuple(slice(middle + 2 * k - 3 - 2 * radius, middle + 2 * k - 3 + 2 * radius) for k in place),
            squares <= radius**2,
            2.0 * radius,
        )
        for index, place in zip(range(number), np.ndindex(4, 4, 4), strict=False)
    )
    return MaskedScan("scan", "scan", scan, lesions, tuple(range(number)))


def measure_lesions(suite: Suite) -> None:
    """Time painting by each method, and hold ours against 400 ancestral steps in float32, eager, one by one."""
    config, edge = suite.config, suite.config.diffusion.patch_voxels
    ours = load_method(promptlesion_run(suite), config.synthesis, str(suite.device))
    precision = suite.chosen(config.diffusion.precision)
    sampler = f"{config.synthesis.sampler}, {config.synthesis.num_steps} steps"
    for batch in BATCHES:
        what = f"promptlesion, {sampler}, batch {batch}"
        rows = suite.compare(PART, what, {"ours": painting(ours, edge, batch)}, precision=precision)
        if suite.is_too_long(f"{PART}: batches of more than {batch}", 4 * rows[0].timing.seconds):
            break
    _against_the_paper(suite, ours, sampler)
    _baselines(suite, sampler)


def painting(synthesizer: Synthesizer, edge: int, batch: int) -> Work:
    """Return the painting of a batch of lesions into a made-up scan, another one each time.

    Of a scan that it saw lately the synthesizer remembers what the autoencoder makes of it, and would not encode it.
    """
    scan = masked_scan(edge, batch)

    def paint() -> None:
        scan.image.array[(len(scan.image.array) // 2,) * 3] += 1  # lies in every patch
        paint_masks(scan, synthesizer, batch_size=batch)

    return paint


def plain_run(suite: Suite) -> Path:
    """Return a run that computes in float32."""
    settings = {name: getattr(suite.config, name) for name in ("autoencoder", "diffusion")}
    plain = {name: model.model_copy(update={"precision": "float32"}) for name, model in settings.items()}
    return promptlesion_run(suite, suite.config.model_copy(update=plain), "plain")


def as_in_the_paper(num_steps: int) -> SynthesisConfig:
    """Return the paper's sampler, cut to some of its steps."""
    return SynthesisConfig(sampler="ancestral", num_steps=num_steps)


def _against_the_paper(suite: Suite, ours: Synthesizer, sampler: str) -> None:
    """Take turns with few and more of the paper's steps; what all take follows, as every step takes the same."""
    run, edge = plain_run(suite), suite.config.diffusion.patch_voxels
    num_steps = min(_PAPER_STEPS, suite.config.diffusion.num_levels)
    forms = {"ours": painting(ours, edge, 1)}
    for number in (_FEW, _MORE):
        plain = load_method(run, as_in_the_paper(number), str(suite.device))
        forms[f"{number} ancestral steps, float32"] = painting(plain, edge, 1)
    rows = suite.compare(PART, f"promptlesion, {sampler}, batch 1, again", forms, precision="mixed")
    one, few, more = (row.timing.fastest for row in rows)
    whole, told = few + (num_steps - _FEW) * (more - few) / (_MORE - _FEW), f"from {_FEW} and {_MORE} steps"
    if suite.is_whole:
        plain = load_method(run, as_in_the_paper(num_steps), str(suite.device))
        whole, told = timed(painting(plain, edge, 1), suite.device), "measured"
    paper = f"{num_steps} ancestral steps in float32 ({whole:.0f} s, {told})"
    what = f"lesion at {edge}³, {sampler}: times faster than {paper}; lesion-KID: docs/results/generator.md"
    suite.show(2, what, whole / one, _LEAST_SPEED_UP)


def _baselines(suite: Suite, sampler: str) -> None:
    config, (dataset, cases) = suite.config, small_data(suite)
    settings = config.difftumor.as_diffusion()
    autoencoder = suite.folder / "promptlesion-autoencoder"
    difftumor = write_diffusion(suite.folder / "difftumor", autoencoder, config, settings, cases, dataset.spec)
    unused = {"init": "noise", "guidance_scale": 1.0, "keep_noise": False, "reinject_background": False}
    voxels = SynthesisConfig.model_validate({**config.synthesis.model_dump(), **unused})
    runs = {
        "difftumor": (difftumor, config.synthesis.model_copy(update={"guidance_scale": 1.0}), settings.patch_voxels),
        "med-ddpm": (
            write_med_ddpm(suite.folder / "med-ddpm", config, cases, dataset.spec),
            voxels,
            config.med_ddpm.patch_voxels,
        ),
    }
    for name, (run, sampling, edge) in runs.items():
        what, a_step = f"{name}, {sampler}, batch 1", suite.seconds_of("denoiser", f"{name}, batch 1")
        if suite.is_too_long(f"{PART}: {what}", (a_step or 0.0) * sampling.num_steps):
            continue
        synthesizer = load_method(run, sampling, str(suite.device))
        suite.compare(PART, what, {"ours": painting(synthesizer, edge, 1)}, precision="auto")
