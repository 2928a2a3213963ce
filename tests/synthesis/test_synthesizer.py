"""What PromptLesion paints depends on mask, prompt, seed and start, and on nothing else."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.trained import trained

from promptlesion.data.cache import CachedCase
from promptlesion.data.dataset import Dataset, read_case
from promptlesion.data.lesion_attributes import ATTRIBUTES
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.volume import Volume
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.train import train_diffusion
from promptlesion.masks.placement import PlacedLesion, place_lesion
from promptlesion.masks.sizes_and_shapes import LesionDrawing
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, load_synthesizer
from promptlesion.training import device as device_module


@pytest.fixture(scope="module", params=["ras", "oblique_permuted"])
def scene(
    request: pytest.FixtureRequest, scans: Dataset, synthesizer: PromptLesionSynthesizer, drawing: LesionDrawing
) -> tuple[Volume, list[PlacedLesion]]:
    """A scan on the model's own spacing, or one turned and with another; two lesions placed in it."""
    image, labels = read_case(scans, scans.case(request.param))
    lesions: list[PlacedLesion] = []
    for seed in range(2):
        lesion = place_lesion(
            labels,
            scans,
            0,
            drawing=replace(drawing, edge_mm=synthesizer.card.edge_mm, max_extent_mm=synthesizer.card.max_extent_mm),
            generator=np.random.default_rng(seed),
            image=image,
            others=lesions,
        )
        lesions.append(lesion)
    return image, lesions


def test_a_box_of_hu_comes_back_for_every_lesion(
    scene: tuple[Volume, list[PlacedLesion]], synthesizer: PromptLesionSynthesizer
) -> None:
    image, lesions = scene
    before = image.array.copy()
    painted = synthesizer.paint([image] * 2, lesions, types=[0, 1], seeds=[1, 2])
    assert np.array_equal(image.array, before)
    low, high = synthesizer.card.spec.window_hu
    for hu, lesion in zip(painted, lesions, strict=True):
        assert hu.shape == lesion.mask.shape
        assert low - 0.01 <= hu[lesion.mask].min() <= hu[lesion.mask].max() <= high + 0.01


def test_a_seed_gives_the_same_voxels_and_another_others(
    scene: tuple[Volume, list[PlacedLesion]], synthesizer: PromptLesionSynthesizer
) -> None:
    image, lesions = scene
    first, again, other = (synthesizer.paint([image] * 2, lesions, types=[0, 0], seeds=[seed, 5]) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_guidance_changes_the_lesions_of_every_type(
    scene: tuple[Volume, list[PlacedLesion]], synthesizer: PromptLesionSynthesizer
) -> None:
    image, lesions = scene

    def paint(scale: float) -> list[np.ndarray]:
        guided = replace(synthesizer, config=synthesizer.config.model_copy(update={"guidance_scale": scale}))
        return guided.paint([image] * 2, [lesions[0]] * 2, types=[0, 1], seeds=[3, 3])

    assert all(np.abs(plain - strong).max() > 1 for plain, strong in zip(paint(1.0), paint(3.0), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"sampler": "dpm-solver++", "reinject_background": True},
        {"sampler": "ancestral", "reinject_background": True},
    ],
)
def test_a_lesion_does_not_depend_on_the_others_of_its_batch(
    scene: tuple[Volume, list[PlacedLesion]], synthesizer: PromptLesionSynthesizer, change: dict[str, object]
) -> None:
    image, lesions = scene
    synthesizer = replace(synthesizer, config=synthesizer.config.model_copy(update=change))
    together = synthesizer.paint([image] * 2, lesions, types=[0, 1], seeds=[3, 4])
    turned = synthesizer.paint([image] * 2, lesions[::-1], types=[1, 0], seeds=[4, 3])
    for index, hu in enumerate(together):
        alone = synthesizer.paint([image], [lesions[index]], types=[index], seeds=[3 + index])[0]
        # in HU of a window 1000 wide; batches of other sizes take other float32 kernels
        np.testing.assert_allclose(alone, hu, atol=0.1)
        np.testing.assert_allclose(turned[1 - index], hu, atol=0.1)


def test_a_second_attempt_encodes_nothing_anew_and_paints_as_if_it_had(
    scene: tuple[Volume, list[PlacedLesion]], synthesizer: PromptLesionSynthesizer
) -> None:
    image, lesions = scene
    encoded: list[int] = []
    hook = synthesizer.model.autoencoder.network.encoder.register_forward_hook(
        lambda _, inputs, __: encoded.append(len(inputs[0]))
    )
    try:
        used, fresh = replace(synthesizer), replace(synthesizer)
        used.paint([image] * 2, lesions, types=[0, 1], seeds=[1, 2])
        again = used.paint([image], lesions[:1], types=[1], seeds=[3])[0]
        assert encoded == [4]  # both lesions, with what is there and blanked
        np.testing.assert_allclose(again, fresh.paint([image], lesions[:1], types=[1], seeds=[3])[0], atol=0.1)
        changed = image.with_array(image.array + np.asarray(5, image.array.dtype))
        other = used.paint([changed], lesions[:1], types=[1], seeds=[3])[0]
        np.testing.assert_allclose(other, fresh.paint([changed], lesions[:1], types=[1], seeds=[3])[0], atol=0.1)
        assert encoded == [4, 2, 2, 2]
        assert fresh.paint([image] * 3, [lesions[0]] * 3, types=[0, 1, 0], seeds=[1, 2, 3])
        assert encoded == [4, 2, 2, 2]
    finally:
        hook.remove()


def test_memory_of_patches_is_bounded(
    scene: tuple[Volume, list[PlacedLesion]], synthesizer: PromptLesionSynthesizer
) -> None:
    image, lesions = scene
    used = replace(synthesizer, config=synthesizer.config.model_copy(update={"num_steps": 1}))
    for first in range(0, 60, 20):
        images = [image.with_array(image.array + np.asarray(first + n, image.array.dtype)) for n in range(20)]
        used.paint(images, lesions[:1] * 20, types=[0] * 20, seeds=[1] * 20)
    assert len(used._looks.kept) == 4 * used.card.batch_size + 16


def test_each_thread_remembers_what_it_looked_at_itself(
    scene: tuple[Volume, list[PlacedLesion]], synthesizer: PromptLesionSynthesizer
) -> None:
    """What is remembered, so which patches are encoded together, does not depend on who is faster."""
    image, lesions = scene
    used = replace(synthesizer, config=synthesizer.config.model_copy(update={"num_steps": 1}))

    def paint_and_count(first: int) -> tuple[bytes, int]:
        few = lesions[first:]
        painted = used.paint([image] * len(few), few, types=[0] * len(few), seeds=[1, 2][first:])
        return painted[-1].tobytes(), len(used._looks.kept)

    own, count = paint_and_count(0)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(paint_and_count, 1).result()[1] == 1
        assert threads.submit(paint_and_count, 0).result()[1] == 2
    assert (own, count) == paint_and_count(0)


def test_the_prompt_changes_what_is_painted(
    scene: tuple[Volume, list[PlacedLesion]], synthesizer: PromptLesionSynthesizer
) -> None:
    image, lesions = scene
    bright, dark = synthesizer.paint([image] * 2, [lesions[0]] * 2, types=[0, 1], seeds=[3, 3])
    assert np.abs(bright - dark).max() > 1


@pytest.mark.parametrize(
    "change",
    [
        {"init": "noise"},
        {"sampler": "ancestral"},
        {"sampler": "dpm-solver++"},
        {"num_steps": 20},
        {"reinject_background": True},
    ],
)
def test_every_setting_changes_what_is_painted(
    scene: tuple[Volume, list[PlacedLesion]],
    synthesizer: PromptLesionSynthesizer,
    config: SynthesisConfig,
    change: dict[str, object],
) -> None:
    image, lesions = scene
    changed = replace(synthesizer, config=config.model_copy(update=change))
    plain, other = (s.paint([image], lesions[:1], types=[0], seeds=[3])[0] for s in (synthesizer, changed))
    assert np.abs(plain - other).max() > 1


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm-solver++"])
@torch.no_grad()
def test_reinjection_leaves_the_healthy_latent_where_nothing_is_painted(
    synthesizer: PromptLesionSynthesizer, config: SynthesisConfig, sampler: str
) -> None:
    """A lesion of 2 x 1 x 3 voxels with its margin of two voxels lies in 2 x 2 x 2 latent voxels of four."""
    network = synthesizer.model.autoencoder.network
    image = torch.rand(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(3)) - 0.5
    mask = torch.zeros(1, 1, 24, 24, 24, dtype=torch.bool)
    mask[0, 0, 11:13, 6:7, 14:17] = True
    is_painted = torch.zeros(6, 6, 6, dtype=torch.bool)
    is_painted[2:4, 1:3, 3:5] = True
    encoded = network.encode(image)
    decoded: list[torch.Tensor] = []
    hook = network.decoder.register_forward_pre_hook(lambda _, inputs: decoded.append(inputs[0]))
    try:
        for reinject_background in (True, False):
            update = {"sampler": sampler, "reinject_background": reinject_background}
            variant = replace(synthesizer, config=config.model_copy(update=update))
            nothing_asked = torch.full((1, len(ATTRIBUTES)), torch.nan)
            variant._sample(encoded, encoded, mask, torch.tensor([0]), nothing_asked, [5])
        network.decode(encoded)
    finally:
        hook.remove()
    reinjected, plain, healthy = (latent[0] for latent in decoded)
    assert torch.equal(reinjected[:, ~is_painted], healthy[:, ~is_painted])
    assert not torch.equal(plain[:, ~is_painted], healthy[:, ~is_painted])
    assert not torch.equal(reinjected[:, is_painted], healthy[:, is_painted])


def test_what_the_window_cuts_off_beside_the_lesion_stays(
    scene: tuple[Volume, list[PlacedLesion]], synthesizer: PromptLesionSynthesizer
) -> None:
    """The model sees air and the window's lower end alike; air beside a lesion stays darker by what it was."""
    image, lesions = scene
    lesion, (low, _) = lesions[0], synthesizer.card.spec.window_hu
    clipped, air = image.array.clip(low), image.array.clip(low)
    air[lesion.box][~lesion.mask] = low - 800
    clipped[lesion.box][~lesion.mask] = low
    below, at_low = (
        synthesizer.paint([image.with_array(array)], [lesion], types=[0], seeds=[3])[0] for array in (air, clipped)
    )
    if image.spacing_mm == pytest.approx(synthesizer.card.spec.spacing_mm):
        np.testing.assert_allclose(below[~lesion.mask], at_low[~lesion.mask] - 800, atol=0.1)
        np.testing.assert_allclose(below[lesion.mask], at_low[lesion.mask], atol=0.1)
    assert below[~lesion.mask].mean() < at_low[~lesion.mask].mean() - 500
    assert below[lesion.mask].min() >= low - 0.01


def test_edge_and_extent_follow_the_model(
    synthesizer: PromptLesionSynthesizer, tiny_diffusion_config: DiffusionConfig
) -> None:
    """Two voxels are blanked and one more blended, of 1.5 mm; 24 voxels of 1 mm less an eighth on either side."""
    assert tiny_diffusion_config.blank_margin_voxels == 2
    assert synthesizer.card.edge_mm == 4.5
    assert synthesizer.card.max_extent_mm == 18.0
    assert len(synthesizer.card.model_hash) == 64


@pytest.mark.parametrize(
    ("precision", "has_bfloat16", "dtype"),
    [("float32", True, torch.float32), ("bfloat16", True, torch.bfloat16), ("bfloat16", False, torch.float32)],
)
def test_weights_are_loaded_in_the_precision_of_sampling(
    tmp_path: Path,
    tiny_diffusion_run: Path,
    config: SynthesisConfig,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    has_bfloat16: bool,
    dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bfloat16})
    monkeypatch.setattr(device_module, "os", SimpleNamespace(environ={}))
    run = tmp_path / "diffusion"
    shutil.copytree(tiny_diffusion_run, run)
    path = run / "checkpoint" / "card.json"
    card = json.loads(path.read_text())
    card["autoencoder"] = str((tiny_diffusion_run / card["autoencoder"]).resolve())
    card["config"]["precision"] = precision
    path.write_text(json.dumps(card))
    network = load_synthesizer(run, config, device="cpu").model.denoiser.network
    assert network.inlet.weight.dtype is network.time[0].weight.dtype is dtype
    assert network.outlet[0].weight.dtype is torch.float32


def test_more_steps_than_levels_are_refused(tiny_diffusion_run: Path, config: SynthesisConfig) -> None:
    with pytest.raises(ValueError, match="20"):
        load_synthesizer(tiny_diffusion_run, config.model_copy(update={"num_steps": 21}), device="cpu")


def test_a_model_without_prompt_paints_and_cannot_be_guided(
    tiny_cases: list[CachedCase],
    tiny_spec: DatasetSpec,
    tiny_labels: dict[str, int],
    tiny_autoencoder_run: Path,
    tiny_diffusion_config: DiffusionConfig,
    config: SynthesisConfig,
    scene: tuple[Volume, list[PlacedLesion]],
) -> None:
    out = tiny_autoencoder_run.parent / "diffusion-without-prompt"
    update = {"prompt_encoder": "none", "num_steps": 2, "patches_per_lesion": 1, "loss": "l1"}
    trained(
        train_diffusion,
        train_cases=tiny_cases[:1],
        spec=tiny_spec,
        labels=tiny_labels,
        autoencoder_run=tiny_autoencoder_run,
        config=tiny_diffusion_config.model_copy(update=update),
        out=out,
        seed=7,
        device="cpu",
    )
    image, lesions = scene
    synthesizer = load_synthesizer(out, config, device="cpu")
    first, second = synthesizer.paint([image] * 2, [lesions[0]] * 2, types=[0, 1], seeds=[3, 3])
    assert np.array_equal(first, second)
    with pytest.raises(ValueError, match=r"without-prompt: expected guidance_scale 1, as the model has no prompt"):
        load_synthesizer(out, config.model_copy(update={"guidance_scale": 1.5}), device="cpu")
