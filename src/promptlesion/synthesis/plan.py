"""What a cohort is to hold: which scans may be painted into, and how the asked-for lesions spread over cases."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptlesion.data.dataset import Dataset
from promptlesion.data.lesion_statistics import LesionStatistics
from promptlesion.data.splits import SPLITS_FILE, dataset_split
from promptlesion.data.trained_on import check_unseen
from promptlesion.synthesis.batch_size import SCANS_TOGETHER
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.training.checkpoint import differences
from promptlesion.training.seeding import numpy_generator

logger = logging.getLogger(__name__)

_FEWEST_TO_SPLIT = 3


@dataclass(frozen=True)
class PlannedCase:
    """A synthetic case to be made: its name, and the lesion types to paint, in prompt order."""

    name: str
    index: int
    types: tuple[int, ...]


Group = tuple[PlannedCase, ...]
"""Cases whose lesions go through the network together."""


def parse_counts(texts: Sequence[str]) -> dict[str, int]:
    """Read `TYPE=N` texts.

    Raises:
        ValueError: a text of another form, or a type named twice.
    """
    counts: dict[str, int] = {}
    for text in texts:
        name, separator, number = text.partition("=")
        if not separator or not (number.isascii() and number.isdigit()) or name in counts:
            raise ValueError(f"--count {text}: expected TYPE=N, every type once; for example calcified_plaque=20")
        counts[name] = int(number)
    return counts


def parse_attributes(texts: Sequence[str]) -> dict[str, dict[str, tuple[float, float]]]:
    """Read `TYPE.ATTRIBUTE=VALUE` and `TYPE.ATTRIBUTE=LOW..HIGH` texts.

    Raises:
        ValueError: a text of another form, or an attribute of a type named twice.
    """
    asked: dict[str, dict[str, tuple[float, float]]] = {}
    for text in texts:
        key, _, value = text.partition("=")
        name, _, attribute = key.rpartition(".")
        low, separator, high = value.partition("..")
        try:
            bounds = (float(low), float(high if separator else low))
        except ValueError:
            bounds = None
        if not name or bounds is None or attribute in asked.get(name, {}):
            raise ValueError(
                f"--attribute {text}: expected TYPE.ATTRIBUTE=VALUE or TYPE.ATTRIBUTE=LOW..HIGH, every one once; for "
                "example calcified_plaque.mean_hu=400..900"
            )
        asked.setdefault(name, {})[attribute] = bounds
    return asked


def source_scans(
    dataset: Dataset, synthesizer: Synthesizer, *, validation_fraction: float, test_fraction: float, seed: int
) -> Dataset:
    """Return the scans a cohort may be painted into: never those of validation or test subjects.

    A dataset the model was not trained on has none of its training cases; there the dataset's own split decides. One
    of fewer than three subjects has no split that a training could use, and all of its scans are painted into.

    Raises:
        ValueError: the model was trained with another window or spacing or other lesion types, or on subjects that
            validate or test now.
    """
    others = differences(dataset.spec.facts(), synthesizer.card.spec.facts())
    if others:
        raise ValueError(
            f"{dataset.root}: expected a dataset like the one the model was trained on; found one with other "
            + "; ".join(others)
        )
    num_subjects = len({case.subject for case in dataset.cases})
    if num_subjects < _FEWEST_TO_SPLIT and not (dataset.root / SPLITS_FILE).is_file():
        logger.info("%s: %d subjects are too few to hold any out; all scans are used", dataset.root, num_subjects)
        return dataset
    split = dataset_split(dataset, seed=seed, validation_fraction=validation_fraction, test_fraction=test_fraction)
    check_unseen(synthesizer.card.learned_from, dataset, split, source=f"the {synthesizer.card.method} model")
    return dataset.select(split.train)


def plan_cohort(
    dataset: Dataset,
    counts: Mapping[str, int],
    *,
    statistics: LesionStatistics,
    lesions_per_case: int,
    max_extent_mm: float,
    seed: int,
) -> list[PlannedCase]:
    """Spread the asked-for lesions over cases as the training lesions are spread over theirs.

    Every case gets the lesions of a training case drawn at random, types together, as far as they are still to be
    painted; the totals are exact. A type that no training case has comes one to a case.

    Raises:
        ValueError: an unknown type, one that is always too large to be painted, or nothing to paint.
    """
    names = [lesion.name for lesion in dataset.spec.lesions]
    for name, count in counts.items():
        if name not in names:
            raise ValueError(
                f"--count {name}={count}: expected one of the lesion types {', '.join(names)}; found {name!r}"
            )
    remaining = [counts.get(name, 0) for name in names]
    if not any(remaining):
        raise ValueError(f"--count: expected at least one lesion of {', '.join(names)}; found none")
    _check_sizes(dataset, remaining, max_extent_mm)
    generator = numpy_generator(seed, "plan")
    examples = _examples(names, statistics)
    planned: list[PlannedCase] = []
    most = [max(numbers) for numbers in zip(*examples, strict=True)]
    possible: list[list[int]] = []
    known_for: tuple[int, ...] = ()
    while any(remaining):
        left = tuple(min(pair) for pair in zip(remaining, most, strict=True))
        if left != known_for:  # while there are enough of every type, it stays as it is
            possible, known_for = _possible(examples, left), left
        chosen = generator.permutation(possible[generator.integers(len(possible))])[:lesions_per_case]
        types = tuple(sorted(int(kind) for kind in chosen))
        for kind in types:
            remaining[kind] -= 1
        planned.append(PlannedCase(f"synthetic_{len(planned):04d}", len(planned), types))
    return planned


def group_cases(planned: Sequence[PlannedCase]) -> list[Group]:
    """Join cases that follow each other.

    Groups depend on the plan alone, never on who works on it, on what machine, nor on what is done already: shares fit
    together, and a lesion meets the same others. How many of them make a batch is the device's to say, and the last
    bits depend on that.
    """
    return [tuple(planned[first : first + SCANS_TOGETHER]) for first in range(0, len(planned), SCANS_TOGETHER)]


def mean_lesions_per_case(names: Sequence[str], statistics: LesionStatistics, *, lesions_per_case: int) -> float:
    """Return how many lesions a planned case has on average while there are enough of every type to paint."""
    numbers = [min(total, lesions_per_case) for example in _examples(names, statistics) if (total := sum(example))]
    return sum(numbers) / len(numbers)


def _possible(examples: Sequence[tuple[int, ...]], left: tuple[int, ...]) -> list[list[int]]:
    """Return the types of each example's lesions as far as they are left to be painted; examples with none go."""
    drawn = ([k for k, n in enumerate(example) for _ in range(min(n, left[k]))] for example in examples)
    return [types for types in drawn if types]


def _examples(names: Sequence[str], statistics: LesionStatistics) -> list[tuple[int, ...]]:
    """Return the number of lesions of each type in each training case; a type that none has comes alone."""
    columns = [statistics.types[name].counts_per_case if name in statistics.types else () for name in names]
    num_cases = max((len(column) for column in columns), default=0)
    filled = [column if len(column) == num_cases else (0,) * num_cases for column in columns]
    alone = [
        tuple(int(other == index) for other in range(len(names)))
        for index, column in enumerate(filled)
        if not any(column)
    ]
    return [*zip(*filled, strict=True), *alone]


def _check_sizes(dataset: Dataset, remaining: Sequence[int], max_extent_mm: float) -> None:
    for lesion, count in zip(dataset.spec.lesions, remaining, strict=True):
        if count and lesion.diameter_mm[0] > max_extent_mm:
            raise ValueError(
                f"{lesion.name}: expected lesions that fit into the model's patch, up to {max_extent_mm:.1f} mm along "
                f"an axis; found {lesion.diameter_mm[0]:g} mm as the smallest diameter in lesions.toml. Lower it "
                "there, or train with a larger patch_voxels or a coarser spacing_mm"
            )
