"""What an experiment writes to `results.json`, and its tables, figures and report read."""

from pydantic import Field, TypeAdapter

from promptlesion.evaluation.fidelity import Fidelity
from promptlesion.evaluation.method_comparison import MethodRow, Metric, rows_of
from promptlesion.evaluation.results import FidelityRow, Frozen, IntensityRow, PromptSwitch

FIDELITY_ROWS = TypeAdapter(tuple[FidelityRow, ...])


class DatasetSummary(Frozen):
    """The real scans."""

    name: str
    path: str
    is_phantom: bool
    lesion_types: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    window_hu: tuple[float, float]
    num_cases: dict[str, int] = Field(description="by part: train, validation, test")
    num_subjects: dict[str, int]


class Comparison(Frozen):
    """All methods, trained with so many real subjects at one ratio."""

    num_subjects: int = Field(description="real training subjects")
    num_cases: int = Field(description="real training scans")
    num_lesions: dict[str, int] = Field(description="real training lesions of each type")
    ratio: float = Field(description="synthetic scans and patches per real one")
    num_synthetic: dict[str, float] = Field(description="painted lesions of a cohort, mean over seeds, by method")
    num_synthetic_cases: dict[str, float] = Field(default={}, description="scans of a cohort, likewise")
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

    def rows_of(self, metric: Metric = "dice") -> list[MethodRow]:
        """Return a metric against real scans alone, of lesions of all sizes together."""
        return rows_of(self.rows, metric)


class CaseScore(Frozen):
    """One held-out case, lesion type and network; None where nothing was counted."""

    method: str
    seed: int
    case: str
    subject: str
    lesion_type: str
    dice: float | None
    surface_dice: float | None
    hd95_mm: float | None
    num_truth_voxels: int
    num_predicted_voxels: int


class MethodFidelity(Frozen):
    """What the lesions of one method are like, those of all seeds together, against held-out real ones."""

    num_subjects: int
    method: str
    measured: Fidelity = Field(description="distances, distributions and copies")
    intensity: tuple[IntensityRow, ...] = Field(
        default=(), description="mean HU of the painted lesions, and of PromptLesion's autoencoded ones, by type"
    )
    prompt_switch: PromptSwitch | None = Field(
        default=None, description="what the prompt alone does; None: no prompt, one type only, or no room for the masks"
    )
    volumes_per_minute: float = Field(description="painted patches a minute, four at a time, after a first round")
    sampling: str = Field(description="sampler and steps, or how else it paints")
    patch_voxels: int | None = Field(description="edge of the patch; none: it paints the lesion's box alone")
    seconds: float = Field(default=0.0, description="what measuring took")


class CellTime(Frozen):
    """Wall-clock seconds of one piece of work."""

    name: str = Field(description="its folder, or what else was done")
    kind: str = ""
    num_subjects: int = 0
    method: str = ""
    seconds: float


class ExperimentResults(Frozen):
    """Everything the report shows besides the pictures."""

    title: str
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
    case_scores: tuple[CaseScore, ...] = Field(description="of the main comparison")
    fidelity: tuple[MethodFidelity, ...]
    real_against_real: tuple[FidelityRow, ...] = Field(description="held-out against training lesions, for scale")
    times: tuple[CellTime, ...]
    failures: dict[str, str] = Field(description="why pieces of work failed, by name")
    unfinished: tuple[str, ...] = Field(description="names of the other pieces of work that are not done")
    configuration: dict[str, object]
    limits: tuple[str, ...]
    interval_level: float = 0.95
    num_resamples: int
    surface_tolerance_mm: float = 2.0

    @property
    def main(self) -> Comparison | None:
        """The comparison at the main ratio with all real subjects, if it is there."""
        for comparison in self.comparisons:
            if (comparison.num_subjects, comparison.ratio) == (self.main_num_subjects, self.main_ratio):
                return comparison
        return None
