"""Every method that paints lesions, chosen by the run it was trained in."""

from pathlib import Path

from promptlesion.baselines.copy_paste import COPY_PASTE, load_copy_paste
from promptlesion.baselines.difftumor import CARD, DIFFTUMOR, load_difftumor
from promptlesion.baselines.intensity import INTENSITY, load_intensity
from promptlesion.baselines.med_ddpm import MED_DDPM
from promptlesion.baselines.med_ddpm_synthesizer import load_med_ddpm_synthesizer
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import Synthesizer, load_synthesizer
from promptlesion.training.atomic import read_json
from promptlesion.training.checkpoint import CheckpointError
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig


def load_method(
    run_folder: Path,
    config: SynthesisConfig,
    device: str = "auto",
    *,
    asked: str | None = None,
    hardware: HardwareConfig = DEFAULT_HARDWARE,
) -> Synthesizer:
    """Read a finished run of any method.

    Args:
        run_folder: what `train diffusion` wrote.
        config: how lesions are sampled.
        device: `auto` or a device's name.
        asked: the method it should be; by default any.
        hardware: whether the denoiser's steps become CUDA graphs.

    Raises:
        CheckpointError: the run is not finished.
        ValueError: the run is of another method than asked for, or cannot be sampled as configured.
    """
    method = method_of(run_folder)
    if asked is not None and asked != method:
        raise ValueError(f"{run_folder}: expected a run of the method {asked!r}; found one of {method!r}")
    if method == DIFFTUMOR:
        return load_difftumor(run_folder, config, device=device, hardware=hardware)
    if method == MED_DDPM:
        return load_med_ddpm_synthesizer(run_folder, config, device=device, hardware=hardware)
    if method == COPY_PASTE:
        return load_copy_paste(run_folder, device=device)
    if method == INTENSITY:
        return load_intensity(run_folder, device=device)
    return load_synthesizer(run_folder, config, device=device, hardware=hardware)


def method_of(run_folder: Path) -> str:
    """Return the method that the card of a run names.

    Raises:
        CheckpointError: the run is not finished, or of one lesion type of several.
    """
    path = run_folder / CARD
    if not path.is_file():
        raise CheckpointError(f"{run_folder}: expected a finished diffusion run ({CARD}); found none")
    card = read_json(path)
    method = str(card.get("method", card.get("stage")))
    if method == DIFFTUMOR and "models" not in card:
        raise CheckpointError(
            f"{run_folder}: expected a run of DiffTumor with all its lesion types; found the model of one. "
            f"Give {run_folder.parent}"
        )
    return method
