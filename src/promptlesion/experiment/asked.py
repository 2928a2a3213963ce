"""What an experiment compares with what, as the command line says it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptlesion.experiment.subjects import subject_counts
from promptlesion.methods import REAL, parse_methods

if TYPE_CHECKING:
    from promptlesion.experiment.work import Experiment


@dataclass(frozen=True)
class Asked:
    """What is compared with what."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    ratios: tuple[float, ...]
    """Synthetic scans per real one."""
    num_subjects: tuple[int, ...]
    """Real training subjects, the fewest first."""

    @property
    def main_ratio(self) -> float:
        """The ratio that the tables show and the painted lesions are judged at: the one nearest to 1 : 1."""
        return min((ratio for ratio in self.ratios if ratio > 0), key=lambda ratio: abs(ratio - 1))

    @property
    def painting(self) -> tuple[str, ...]:
        """The methods that paint."""
        return tuple(method for method in self.methods if method != REAL)


def ask(experiment: "Experiment", *, methods: str, num_seeds: int, ratios: str, real_fractions: str) -> Asked:
    """Read the command line's lists.

    Raises:
        ValueError: an unknown method, a number that is none, or nothing to compare.
    """
    found = parse_methods(methods)
    wanted = _numbers("--ratios", ratios)
    if any(ratio < 0 for ratio in wanted) or not any(wanted):
        raise ValueError(f"--ratios: expected numbers from 0 on, one of them above 0; found {ratios}")
    subjects = {case.subject for case in experiment.prepared.train}
    return Asked(
        methods=found,
        seeds=tuple(range(experiment.seed, experiment.seed + num_seeds)),
        ratios=wanted,
        num_subjects=subject_counts(_numbers("--real-fractions", real_fractions), len(subjects)),
    )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError as error:
        raise ValueError(f"{option}: expected numbers with commas, as in 0.5,1; found {text}") from error
