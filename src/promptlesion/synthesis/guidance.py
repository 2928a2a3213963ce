"""Guidance of each lesion type: with how much of it painted lesions are as bright as the training lesions.

Guidance pushes a lesion away from the mean of all types: calcium gets brighter, and soft plaque, its neighbour in the
same wall, darker than it is. So each type has a scale of its own.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptlesion.data.spec import DatasetSpec
from promptlesion.synthesis.config import SynthesisConfig

GUIDANCE_FILE = "guidance.json"
_SAMPLING = ("sampler", "num_steps", "init", "reinject_background")
"""Settings that change how bright a lesion becomes."""


class TypeGuidance(BaseModel):
    """What was measured of one lesion type, and the scale that comes nearest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float = Field(description="of classifier-free guidance")
    training_mean_hu: float | None = Field(description="mean of the training lesions' means; none where there are none")
    painted_mean_hu: dict[float, float] = Field(description="mean of the painted lesions' means, at each scale")
    num_painted: int = Field(description="lesions painted at scale 1, at new places in training scans")
    num_guided: int = Field(description="those of them painted at every other scale too, which shows what it adds")


class FittedGuidance(BaseModel):
    """Guidance fitted to one denoiser, sampled in one way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights_sha256: str = Field(description="of the denoiser")
    sampling: dict[str, str | int | bool] = Field(description="settings of synthesis that it was fitted with")
    types: dict[str, TypeGuidance] = Field(description="by the lesion type's name")


def sampling_settings(config: SynthesisConfig) -> dict[str, str | int | bool]:
    """Return the settings that a fitted guidance holds for."""
    return {name: getattr(config, name) for name in _SAMPLING}


def read_guidance(run_folder: Path, config: SynthesisConfig, weights_sha256: str) -> FittedGuidance | None:
    """Return the guidance fitted to a denoiser sampled so; none where there is none, or one of something else."""
    try:
        fitted = FittedGuidance.model_validate_json((run_folder / GUIDANCE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None
    is_current = fitted.weights_sha256 == weights_sha256 and fitted.sampling == sampling_settings(config)
    return fitted if is_current else None


def guidance_scales(
    run_folder: Path, config: SynthesisConfig, weights_sha256: str, spec: DatasetSpec
) -> tuple[float, ...]:
    """Return the guidance scale of each lesion type, in prompt order: the configuration's, or as fitted.

    Raises:
        ValueError: it is to be fitted, and was not for this denoiser sampled so.
    """
    if config.guidance_scale != "fitted":
        return (config.guidance_scale,) * len(spec.lesions)
    fitted = read_guidance(run_folder, config, weights_sha256)
    if fitted is None:
        wanted = ", ".join(f"{name} {value}" for name, value in sampling_settings(config).items())
        raise ValueError(
            f"{run_folder / GUIDANCE_FILE}: expected guidance fitted to this denoiser with {wanted}; found none. "
            "Give the same settings to `promptlesion train diffusion`, which fits it and does not train again, or "
            "--set synthesis.guidance_scale=1"
        )
    return tuple(fitted.types[lesion.name].scale for lesion in spec.lesions)
