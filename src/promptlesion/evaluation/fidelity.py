"""How synthetic lesions compare with real ones, all that is measured of it: distances, distributions, copies."""

from collections.abc import Callable, Iterable, Sequence

from pydantic import Field

from promptlesion.data.dataset import Dataset, LesionType
from promptlesion.data.splits import dataset_split
from promptlesion.data.trained_on import GENERATOR_FILE, check_unseen, generator_of
from promptlesion.evaluation.distances import fidelity_rows
from promptlesion.evaluation.distributions import DistributionRow, distribution_rows
from promptlesion.evaluation.features import FeatureExtractor
from promptlesion.evaluation.lesions import LesionCrop, by_type
from promptlesion.evaluation.memorisation import Memorisation, find_copies
from promptlesion.evaluation.results import FidelityRow, Frozen


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
