"""The configuration of the whole loop: presets, files and single settings, resolved into one frozen model."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.baselines.config import CopyPasteConfig, DiffTumorConfig, IntensityConfig, MedDDPMConfig
from promptlesion.data.config import DataConfig
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.evaluation.config import EvaluationConfig
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.training.atomic import read_text
from promptlesion.training.cluster import ClusterConfig
from promptlesion.training.hardware import HardwareConfig


class ConfigError(ValueError):
    """A configuration that is not as it should be; the message names every field at fault."""


class DemoConfig(BaseModel):
    """What `promptlesion demo` does beyond the stages themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phantom_cases: int = Field(36, ge=3, description="made-up subjects when no --data is given")
    synthetic_cases: int = Field(
        0, ge=0, description="synthetic cases; 0 makes as many as there are real training cases"
    )
    prompt_switch_lesions: int = Field(
        40, ge=2, description="masks painted under every prompt to measure what the prompt does"
    )


class Config(BaseModel):
    """Every setting of every stage. The defaults are the preset `paper`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataConfig = DataConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    difftumor: DiffTumorConfig = DiffTumorConfig()
    med_ddpm: MedDDPMConfig = MedDDPMConfig()
    copy_paste: CopyPasteConfig = CopyPasteConfig()
    intensity: IntensityConfig = IntensityConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    segmentation: SegmentationConfig = SegmentationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    demo: DemoConfig = DemoConfig()
    hardware: HardwareConfig = HardwareConfig()
    cluster: ClusterConfig = ClusterConfig()

    def of_results(self) -> dict[str, object]:
        """Return the settings that results depend on, JSON types only: not those of machine and cluster."""
        return self.model_dump(mode="json", exclude={"hardware", "cluster"})

    @model_validator(mode="after")
    def _patch_fits_the_stages(self) -> "Config":
        parts = 3 if self.diffusion.prompt_encoder == "mask-transformer" else 1
        divisor = self.autoencoder.downsampling * parts
        if self.diffusion.patch_voxels % divisor:
            raise ValueError(
                f"diffusion.patch_voxels: expected a multiple of {divisor}, {self.autoencoder.downsampling} for the "
                f"autoencoder's downsampling times {parts} for the prompt encoder's patches; "
                f"found {self.diffusion.patch_voxels}"
            )
        if self.difftumor.patch_voxels % self.autoencoder.downsampling:
            raise ValueError(
                f"difftumor.patch_voxels: expected a multiple of {self.autoencoder.downsampling}, the autoencoder's "
                f"downsampling; found {self.difftumor.patch_voxels}"
            )
        return self

    @model_validator(mode="after")
    def _guided_by_a_prompt(self) -> "Config":
        if self.diffusion.prompt_encoder == "none" and self.synthesis.guidance_scale != 1:
            raise ValueError(
                "synthesis.guidance_scale: expected 1, as diffusion.prompt_encoder = none leaves no prompt to be "
                f"guided by; found {self.synthesis.guidance_scale}"
            )
        return self


def preset_names() -> list[str]:
    """Return the presets that come with the package."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in resources.files("promptlesion.presets").iterdir()
        if entry.name.endswith(".toml")
    )


def resolve_config(*, preset: str, file: Path | None = None, settings: Iterable[str] = ()) -> Config:
    """Resolve a preset, then a TOML file over it, then single settings over both.

    Args:
        preset: `default`, `paper` or `demo`.
        file: a TOML file with any of the presets' keys.
        settings: `diffusion.num_steps=400` and the like; values as in TOML, a bare word is a string.

    Raises:
        ConfigError: an unknown preset, key or value; the message names it and says what was expected.
    """
    if preset not in preset_names():
        raise ConfigError(f"--preset: expected one of {', '.join(preset_names())}; found {preset!r}")
    content = tomllib.loads(
        resources.files("promptlesion.presets").joinpath(f"{preset}.toml").read_text(encoding="utf-8")
    )
    if file is not None:
        content = _merged(content, _read_toml(file))
    for setting in settings:
        content = _merged(content, _parse_setting(setting))
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}; found {_short(e['input'])}" for e in error.errors()]
        raise ConfigError("configuration: " + "\n".join(lines)) from error


def as_toml(config: Config) -> str:
    """Return the configuration as TOML that `--config` reads back, every field with its description."""
    lines: list[str] = []
    for section, model in config:
        fields = type(model).model_fields
        lines.append(f"[{section}]")
        for name, value in model.model_dump(mode="json").items():
            comment = fields[name].description
            lines.append(f"# {name}: {comment}" if value is None else f"{name} = {json.dumps(value)}  # {comment}")
        lines.append("")
    return "\n".join(lines)


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"--config {path}: expected a TOML file; found none")
    try:
        return tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: expected TOML; found {error}") from error


def _parse_setting(setting: str) -> dict[str, Any]:
    key, separator, value = setting.partition("=")
    parts = key.strip().split(".")
    if not separator or len(parts) != 2 or not all(parts):
        raise ConfigError(f"--set {setting}: expected SECTION.FIELD=VALUE, for example diffusion.num_steps=400")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return {parts[0]: {parts[1]: parsed}}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the entries of `over`, tables merged."""
    merged = dict(base)
    for name, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both_tables else value
    return merged


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
