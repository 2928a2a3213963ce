"""How synthetic lesions compare with real ones, all that is measured of it: distances, distributions, looks, copies."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import Field

from promptlesion.data.config import SplitOptions
from promptlesion.data.dataset import Dataset, LesionType
from promptlesion.data.splits import dataset_split
from promptlesion.data.trained_on import GENERATOR_FILE, check_unseen, generator_of
from promptlesion.evaluation.appearance import TypeAppearance, compare_appearance, profile_figure
from promptlesion.evaluation.asked_attributes import AskedLesion, AskedRow, asked_lesions, asked_rows
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

logger = logging.getLogger(__name__)


class ExtractorRecord(Frozen):
    """Which network gave the features, down to its weights."""

    name: str = Field(description="network and data that it was trained on")
    layer: str = Field(description="whose features were taken, and how they were averaged")
    dimension: int = Field(description="features of a lesion")
    weights_sha256: str = Field(description="SHA-256 of its file of weights")


class Fidelity(Frozen):
    """The whole comparison."""

    part: str = Field(
        default="test", description="real lesions compared with: those of the train, val or test subjects, or all"
    )
    extractors: tuple[ExtractorRecord, ...] = Field(description="networks behind the distances")
    fidelity: tuple[FidelityRow, ...] = Field(description="FID and KID by extractor and lesion type")
    distributions: tuple[DistributionRow, ...] = Field(description="HU, texture and size by lesion type")
    appearance: tuple[TypeAppearance, ...] = Field(
        default=(), description="brightness, edge, halo, mottling and noise by lesion type"
    )
    asked: tuple[AskedRow, ...] = Field(
        default=(), description="attributes as painted against as asked for; empty where nothing was asked"
    )
    memorisation: Memorisation | None = Field(description="search for copies; None where there is no training lesion")


def measure_fidelity(
    real: Sequence[LesionCrop],
    synthetic: Sequence[LesionCrop],
    training: Sequence[LesionCrop],
    *,
    lesion_types: Sequence[LesionType],
    extractors: Sequence[FeatureExtractor],
    seed: int,
    num_resamples: int,
    part: str = "test",
    asked: Sequence[AskedLesion] = (),
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
        num_resamples: bootstrap resamples behind the intervals of looks and attributes.
        part: of the dataset that `real` is.
        asked: what was asked of the painted lesions.
        on_progress: is told how many lesions of how many were searched.
    """
    names = [lesion.name for lesion in lesion_types]
    sides = by_type(real, names), by_type(synthetic, names)
    return Fidelity(
        part=part,
        extractors=tuple(
            ExtractorRecord(name=one.name, layer=one.layer, dimension=one.dimension, weights_sha256=one.weights_sha256)
            for one in extractors
        ),
        fidelity=tuple(row for one in extractors for row in fidelity_rows(one, *sides, seed=seed)),
        distributions=distribution_rows(*sides, plaque_types=plaque_types(lesion_types)),
        appearance=compare_appearance(*sides, seed=seed, num_resamples=num_resamples),
        asked=asked_rows(asked, names, seed=seed, num_resamples=num_resamples),
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


def part_cases(
    dataset: Dataset, part: str, *, validation_fraction: float, test_fraction: float, seed: int
) -> tuple[str, set[str]]:
    """Return the cases of a part, `train`, `val`, `test` or `all`, and the part they are.

    That is `all`, with a warning, where there are too few subjects to split, or the split leaves the part empty.

    Raises:
        ValueError: there is no such part.
    """
    everything = {case.name for case in dataset.cases}
    if part not in ("train", "val", "test", "all"):
        raise ValueError(f"part: expected train, val, test or all; found {part!r}")
    if part == "all":
        return part, everything
    if len({case.subject for case in dataset.cases}) < 3:
        logger.warning("%s: fewer than three subjects, none is held out; all their lesions are compared", dataset.root)
        return "all", everything
    split = dataset_split(dataset, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed)
    cases = set({"train": split.train, "val": split.validation, "test": split.test}[part])
    if not cases:
        logger.warning("%s: its split has no %s part; all lesions are compared", dataset.root, part)
    return (part, cases) if cases else ("all", everything)


def evaluate_folders(
    real: Dataset,
    synthetic: Dataset,
    *,
    training: Dataset | None,
    part: str,
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
        part: of `real` whose lesions are compared with: `train`, `val`, `test` or `all`.
        split: of `real`, where its folder has none.
        config: networks and margins.
        seed: of the intervals.
        device: `auto` or a device's name.
        figure: file for a picture of how HU, texture and size are spread; `profile_path` shows HU across the edge.

    Raises:
        ValueError: there is no such part, or no painted lesion of a type that has real ones.
    """
    margin = config.feature_margin_voxels
    part, compared = part_cases(real, part, **split)
    extractors = build_extractors(config, window=real.window, device=resolve_device(device))
    with progress_reports("cutting lesions out") as report:
        real_lesions = collect_lesions(real, margin_voxels=margin, on_progress=report)
    painted_lesions = collect_lesions(synthetic, source=real, margin_voxels=margin)
    seen = training_cases(real, synthetic, **split)
    if training is None:
        training_lesions = [lesion for lesion in real_lesions if lesion.case in seen]
    else:
        training_lesions = collect_lesions(training)
    real_lesions = [lesion for lesion in real_lesions if lesion.case in compared]
    with progress_reports("searching for copies") as report:
        measured = measure_fidelity(
            real_lesions,
            painted_lesions,
            training_lesions,
            lesion_types=real.spec.lesions,
            extractors=extractors,
            seed=seed,
            num_resamples=config.num_resamples,
            part=part,
            asked=asked_lesions(synthetic.root),
            on_progress=report,
        )
    if not measured.fidelity:
        where = str(real.root) if part == "all" else f"the {part} part of {real.root}"
        raise ValueError(f"{synthetic.root}: expected painted lesions of a type that {where} has; found none")
    if figure:
        names = [lesion.name for lesion in real.spec.lesions]
        sides = by_type(real_lesions, names), {"synthetic": by_type(painted_lesions, names)}
        save_figure(distribution_figure(*sides, plaque_types=plaque_types(real.spec.lesions)), figure)
        save_figure(profile_figure(*sides), profile_path(figure))
    return measured


def profile_path(figure: Path) -> Path:
    """Return where the picture of HU across the edge lies: `spread-profiles.png` beside `spread.png`."""
    return figure.with_name(f"{figure.stem}-profiles{figure.suffix}")
