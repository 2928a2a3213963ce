"""What the demo writes to `results.json` and the report reads: one frozen model, the only channel."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from promptlesion.training.atomic import write_text


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(_Model):
    """A figure and its bootstrap interval; None where nothing was counted, no interval below two values."""

    value: float | None = Field(description="the estimate itself")
    low: float | None = Field(default=None, description="lower end of the interval")
    high: float | None = Field(default=None, description="upper end of the interval")


class SegmentationRow(_Model):
    """One lesion type and metric on the held-out cases that have such a lesion; mean over subjects."""

    lesion_type: str
    metric: str = Field(description="for example 'Dice' or 'surface Dice (2 mm)'; 0 to 1, higher is better")
    num_subjects: int
    num_cases: int
    real: Estimate = Field(description="trained on real scans only")
    mixed: Estimate = Field(description="trained on real and synthetic scans")
    difference: Estimate = Field(description="mixed minus real, paired by subject")


class FalsePositiveRow(_Model):
    """Held-out cases without a lesion of a type, and in how many each network drew one all the same."""

    lesion_type: str
    num_cases: int
    num_real: int
    num_mixed: int


class CaseScoreRow(_Model):
    """One held-out case, lesion type and network; the raw figures under the table."""

    trained_on: str = Field(description="'real' or 'mixed'")
    case: str
    subject: str
    lesion_type: str
    dice: float | None
    surface_dice: float | None
    hd95_mm: float | None
    num_truth_voxels: int
    num_predicted_voxels: int


class FidelityRow(_Model):
    """Distance between two sets of lesions of one type in the features of one network."""

    lesion_type: str
    compared: str = Field(description="for example 'real against synthetic' or 'real against real'")
    network: str
    layer: str
    dimension: int
    num_real: int
    num_synthetic: int
    fid: Estimate
    kid: Estimate


class IntensityRow(_Model):
    """Mean HU inside lesions of one type against the real ones."""

    lesion_type: str
    compared: str = Field(description="'autoencoded' or 'synthetic'")
    num_real: int
    num_compared: int
    real_mean_hu: float
    compared_mean_hu: float
    bias_hu: float
    relative_bias: float | None = Field(description="bias over |real mean|; None where the real mean is 0 HU")
    tolerance_hu: float = Field(description="25 % of the real mean or 30 HU, whichever is more")
    is_within_tolerance: bool


class PromptRow(_Model):
    """Mean HU inside the same masks in the same surroundings under one prompt."""

    prompt: str
    mean_hu: float
    std_hu: float
    real_mean_hu: float | None = Field(default=None, description="mean of the real lesions of that type")
    is_within_tolerance: bool | None = None


class PromptPair(_Model):
    """How well two prompts separate by the lesions' mean HU."""

    first: str
    second: str
    auc: float = Field(ge=0, le=1, description="probability that `second` is the brighter; 0 or 1: separate")


class PromptSwitch(_Model):
    """Only the prompt was switched; masks, surroundings and noise stayed the same."""

    encoder: str = Field(description="prompt encoder, 'one-hot' or 'mask transformer'")
    num_lesions: int
    rows: tuple[PromptRow, ...]
    pairs: tuple[PromptPair, ...]


class StageTime(_Model):
    """Wall-clock seconds of one stage."""

    stage: str
    seconds: float
    note: str = Field(default="", description="for example the number of steps, or that it was resumed")


class DatasetSummary(_Model):
    """What the run was made on."""

    name: str
    path: str
    is_phantom: bool
    lesion_types: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    window_hu: tuple[float, float]
    num_train_cases: int
    num_validation_cases: int
    num_test_cases: int
    num_train_subjects: int
    num_validation_subjects: int
    num_test_subjects: int
    num_synthetic_cases: int


class DemoResults(_Model):
    """Everything the report shows besides the pictures."""

    title: str = "PromptLesion demo"
    command: str
    created: str = Field(description="ISO 8601, UTC")
    seed: int
    machine: str
    versions: dict[str, str] = Field(description="package name to version")
    dataset: DatasetSummary
    segmentation: tuple[SegmentationRow, ...]
    false_positives: tuple[FalsePositiveRow, ...] = ()
    case_scores: tuple[CaseScoreRow, ...] = ()
    fidelity: tuple[FidelityRow, ...]
    intensity: tuple[IntensityRow, ...]
    prompt_switch: tuple[PromptSwitch, ...]
    stages: tuple[StageTime, ...]
    configuration: dict[str, object] = Field(description="the resolved configuration, nested as in its TOML file")
    limits: tuple[str, ...] = Field(description="what was not run, and what the figures do not show")
    interval_level: float = 0.95
    num_resamples: int = 2000

    @model_validator(mode="after")
    def _names_known_lesion_types(self) -> "DemoResults":
        known = set(self.dataset.lesion_types)
        named = [row.lesion_type for row in self.segmentation]
        named += [row.lesion_type for row in self.fidelity]
        named += [row.lesion_type for row in self.intensity]
        for name in named:
            if name not in known:
                raise ValueError(f"lesion type {name!r}: expected one of {sorted(known)}")
        return self


def read_results(path: Path) -> DemoResults:
    """Read `results.json`; unknown or missing keys are errors."""
    return DemoResults.model_validate_json(path.read_bytes())


def write_results(results: DemoResults, path: Path) -> None:
    """Write `results.json`, whole or not at all."""
    write_text(path, results.model_dump_json(indent=2) + "\n")
