"""What the experiment writes to `results.json`, and its tables and report read."""

from pydantic import BaseModel, ConfigDict, Field

from promptlesion.evaluation.fidelity import Fidelity
from promptlesion.evaluation.method_comparison import MethodRow, dice_rows
from promptlesion.evaluation.results import DatasetSummary, FidelityRow


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Comparison(_Model):
    """All methods, trained with so many real subjects at one ratio."""

    num_subjects: int = Field(description="real training subjects")
    num_cases: int = Field(description="real training scans")
    num_lesions: dict[str, int] = Field(description="real training lesions of each type")
    ratio: float = Field(description="synthetic scans and patches per real one")
    num_synthetic: dict[str, float] = Field(description="painted lesions of a cohort, mean over seeds, by method")
    rows: tuple[MethodRow, ...]
    training_dice: dict[str, float] = Field(
        default={},
        description="Dice of real scans alone on the scans it was trained on, by type: mean over these that have the "
        "type, and over the seeds",
    )
    rivals: tuple[MethodRow, ...] = Field(
        default=(),
        description="every metric of each other method that paints, less PromptLesion's, paired by subject, of lesions "
        "of all sizes: PromptLesion is the reference and among the rows; empty where it or all others are missing",
    )

    @property
    def held_against_rivals(self) -> str:
        """The method that `rivals` are held against, PromptLesion; there must be some."""
        return next(row.method for row in self.rivals if row.difference is None)

    @property
    def dice_rows(self) -> list[MethodRow]:
        """Dice against real scans alone, lesions of all sizes together."""
        return dice_rows(self.rows)


class MethodFidelity(_Model):
    """What the lesions of one method are like, those of all seeds together, against held-out real ones."""

    num_subjects: int
    method: str
    measured: Fidelity = Field(description="distances, distributions and copies")
    volumes_per_minute: float = Field(description="painted patches a minute, four at a time, after a first round")
    sampling: str = Field(description="sampler and steps, or how else it paints")
    patch_voxels: int | None = Field(description="edge of the patch; none: it paints the lesion's box alone")


class MethodTime(_Model):
    """What training a method took."""

    num_subjects: int
    method: str
    autoencoder_seconds: float | None = Field(description="stage 1, shared by the latent methods; none: it has none")
    training_seconds: float
    volumes_per_minute: float | None
    sampling: str
    patch_voxels: int | None


class ExperimentResults(_Model):
    """Everything the report shows besides the pictures."""

    title: str = "PromptLesion experiment"
    command: str
    created: str = Field(description="ISO 8601, UTC")
    seed: int
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    machine: str
    versions: dict[str, str]
    dataset: DatasetSummary
    main_num_subjects: int
    main_ratio: float
    comparisons: tuple[Comparison, ...]
    fidelity: tuple[MethodFidelity, ...]
    real_against_real: tuple[FidelityRow, ...] = Field(description="held-out against training lesions, for scale")
    times: tuple[MethodTime, ...]
    failures: dict[str, str] = Field(description="why pieces of work failed, by name")
    unfinished: tuple[str, ...] = Field(description="names of the other pieces of work that are not done")
    configuration: dict[str, object]
    limits: tuple[str, ...]
    interval_level: float = 0.95
    num_resamples: int
