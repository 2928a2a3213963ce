"""How synthetic lesions compare with real ones, all that is measured of it: distances, distributions, copies."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import Field

from promptlesion.data.config import SplitOptions
from promptlesion.data.dataset import Dataset, LesionType
from promptlesion.data.splits import dataset_split
from promptlesion.data.trained_on import GENERATOR_FILE, check_unseen, generator_of
from promptlesion.evaluation.config import EvaluationConfig
from promptlesion.evaluation.distances import fidelity_rows
from promptlesion.evaluation.distributions import DistributionRow, distribution_figure, distribution_rows
from promptlesion.evaluation.extractors import build_extractors
from promptlesion.evaluation.features import FeatureExtractor
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.lesions import LesionCrop, by_type, collect_lesions
from promptlesion.evaluation.memorisation import Memorisation, find_copies
from promptlesion.evaluation.results import FidelityRow, Frozen
from promptlesion.training.device import resolve_device
from promptlesion.training.progress import progress_reports


class ExtractorRecord(Frozen):
    """Which network gave the features, down to its weights."""

    name: str = Field(description="network and data that it was trained on")
    layer: str = Field(description="whose features were taken, and how they were averaged")
    dimension: int = Field(description="features of a lesion")
    weights_sha256: str = Field(description="SHA-256 of its file of weights")


class Fidelity(Frozen):
    """The whole comparison."""

    extractors: tuple[ExtractorRecord, ...] = Field(description="networks behind the distances")
    fidelity: tuple[FidelityRow, ...] = Field(description="FID and KID by extractor and lesion type")
    distributions: tuple[DistributionRow, ...] = Field(description="HU, texture and size by lesion type")
    memorisation: Memorisation | None = Field(description="search for copies; None where there is no training lesion")


def measure_fidelity(
    real: Sequence[LesionCrop],
    synthetic: Sequence[LesionCrop],
    training: Sequence[LesionCrop],
    *,
    lesion_types: Sequence[LesionType],
    extractors: Sequence[FeatureExtractor],
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Fidelity:
    """Compare synthetic lesions with real ones, and search them for copies of the training lesions.

    Args:
        real: the lesions to be like.
        synthetic: the painted lesions.
        training: the real lesions that the generator saw.
        lesion_types: in prompt order.
        extractors: networks to compute FID and KID with, each.
        seed: of the intervals.
        on_progress: is told how many lesions of how many were searched.
    """
    names = [lesion.name for lesion in lesion_types]
    sides = by_type(real, names), by_type(synthetic, names)
    return Fidelity(
        extractors=tuple(
            ExtractorRecord(name=one.name, layer=one.layer, dimension=one.dimension, weights_sha256=one.weights_sha256)
            for one in extractors
        ),
        fidelity=tuple(row for one in extractors for row in fidelity_rows(one, *sides, seed=seed)),
        distributions=distribution_rows(*sides, plaque_types=plaque_types(lesion_types)),
        memorisation=find_copies(synthetic, training, on_progress=on_progress) if training else None,
    )


def plaque_types(lesion_types: Iterable[LesionType]) -> tuple[str, ...]:
    """Return the types that lie against a lumen: their calcium is counted."""
    return tuple(lesion.name for lesion in lesion_types if lesion.lumen)


def training_cases(
    dataset: Dataset, synthetic: Dataset, *, validation_fraction: float, test_fraction: float, seed: int
) -> set[str]:
    """Return the cases that a generator was trained on: those of the split, all where there are too few to split.

    Raises:
        DatasetError: what painted `synthetic` has learned from a subject that validates or tests now.
    """
    if len({case.subject for case in dataset.cases}) < 3:
        return {case.name for case in dataset.cases}
    split = dataset_split(dataset, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed)
    check_unseen(generator_of(synthetic), dataset, split, source=synthetic.root / GENERATOR_FILE)
    return set(split.train)


def evaluate_folders(
    real: Dataset,
    synthetic: Dataset,
    *,
    training: Dataset | None,
    split: SplitOptions,
    config: EvaluationConfig,
    seed: int,
    device: str,
    figure: Path | None = None,
) -> Fidelity:
    """Compare painted lesions with real ones, and look for copies of training lesions.

    Args:
        real: dataset with real lesions.
        synthetic: what `synthesize` wrote.
        training: dataset the generator was trained on, all of it; by default the training part of `real`.
        split: of `real`, where its folder has none.
        config: networks and margins.
        seed: of the intervals.
        device: `auto` or a device's name.
        figure: file for a picture of how HU, texture and size are spread.

    Raises:
        ValueError: there is no painted lesion of a type that has real ones.
    """
    margin = config.feature_margin_voxels
    extractors = build_extractors(config, window=real.window, device=resolve_device(device))
    with progress_reports("cutting lesions out") as report:
        real_lesions = collect_lesions(real, margin_voxels=margin, on_progress=report)
    painted_lesions = collect_lesions(synthetic, source=real, margin_voxels=margin)
    seen = training_cases(real, synthetic, **split)
    if training is None:
        training_lesions = [lesion for lesion in real_lesions if lesion.case in seen]
    else:
        training_lesions = collect_lesions(training)
    with progress_reports("searching for copies") as report:
        measured = measure_fidelity(
            real_lesions,
            painted_lesions,
            training_lesions,
            lesion_types=real.spec.lesions,
            extractors=extractors,
            seed=seed,
            on_progress=report,
        )
    if not measured.fidelity:
        raise ValueError(f"{synthetic.root}: expected painted lesions of a type that {real.root} has; found none")
    if figure:
        names = [lesion.name for lesion in real.spec.lesions]
        sides = by_type(real_lesions, names), {"synthetic": by_type(painted_lesions, names)}
        save_figure(distribution_figure(*sides, plaque_types=plaque_types(real.spec.lesions)), figure)
    return measured
