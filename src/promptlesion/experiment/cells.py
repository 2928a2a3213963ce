"""What an experiment compares, and the pieces of it: each has a folder, what it needs, and a sign that it is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from promptlesion.experiment.subjects import subject_counts
from promptlesion.methods import REAL, compared_names, method_named, parse_methods
from promptlesion.training.run import is_finished_run

SCORES_FILE = "scores.json"
FIDELITY_FILE = "fidelity.json"
SCALE_FILE = "real_against_real.json"
"""Distances of held-out lesions from training lesions, for scale; measured once."""
Kind = Literal["autoencoder", "method", "cohort", "segmentation", "fidelity"]


@dataclass(frozen=True)
class Question:
    """What is to be compared with what, as it is typed: lists are text with commas."""

    methods: str = ",".join(compared_names())
    """Real is training on real scans alone."""
    seeds: int = 3
    """Trainings of each segmentation network, each with its own cohort."""
    ratios: str = "1"
    """Synthetic scans per real one."""
    real_fractions: str = "1"
    """Shares of the real training subjects."""
    lesions_per_type: int | None = None
    """To paint into a cohort; none: as many as the real scans have."""


@dataclass(frozen=True)
class Design:
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


@dataclass(frozen=True)
class Cell:
    """One piece of work. Its name is its folder below the experiment's."""

    kind: Kind
    name: str
    num_subjects: int
    method: str = REAL
    ratio: float = 0.0
    seed: int = 0
    needs: tuple[str, ...] = ()

    @property
    def wants_gpu(self) -> bool:
        """Whether networks compute in it; the baselines without one only paste."""
        return self.method == REAL or self.kind == "segmentation" or method_named(self.method).training_pass is not None

    def is_done(self, out: Path) -> bool:
        """Return whether it is there, whole."""
        folder = out / self.name
        if self.kind == "segmentation":
            return (folder / SCORES_FILE).is_file()
        if self.kind == "fidelity":
            return (folder / FIDELITY_FILE).is_file()
        return is_finished_run(folder)


def design_of(question: Question, *, num_subjects: int, first_seed: int) -> Design:
    """Read a question's lists.

    Args:
        question: as it is typed.
        num_subjects: real training subjects that there are.
        first_seed: the others follow it.

    Raises:
        ValueError: an unknown method, a number that is none, or nothing to compare.
    """
    found = parse_methods(question.methods)
    wanted = _numbers("--ratios", question.ratios)
    if any(ratio < 0 for ratio in wanted) or not any(wanted):
        raise ValueError(f"--ratios: expected numbers from 0 on, one of them above 0; found {question.ratios}")
    return Design(
        methods=found,
        seeds=tuple(range(first_seed, first_seed + question.seeds)),
        ratios=wanted,
        num_subjects=subject_counts(_numbers("--real-fractions", question.real_fractions), num_subjects),
    )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError as error:
        raise ValueError(f"{option}: expected numbers with commas, as in 0.5,1; found {text}") from error


def part_name(num_subjects: int) -> str:
    """Return the folder of all that so many real training subjects gave."""
    return f"{num_subjects}-subject{'s' if num_subjects > 1 else ''}"


def variant_name(method: str, ratio: float) -> str:
    """Return the folder of a method at a ratio; real scans alone have none."""
    return method if method == REAL else f"{method}/ratio-{ratio:g}"


def segmentation_name(num_subjects: int, method: str, ratio: float, seed: int) -> str:
    """Return the folder of a trained segmentation network."""
    return f"{part_name(num_subjects)}/segmentation/{variant_name(method, ratio)}/seed-{seed}"


def cohort_name(num_subjects: int, method: str, ratio: float, seed: int) -> str:
    """Return the dataset folder of painted scans."""
    return f"{part_name(num_subjects)}/synthetic/{variant_name(method, ratio)}/seed-{seed}"


def cell_named(name: str, cells: Sequence[Cell]) -> Cell:
    """Return the piece of work of a name.

    Raises:
        ValueError: there is none; the nearest are named.
    """
    by_name = {cell.name: cell for cell in cells}
    if name not in by_name:
        near = get_close_matches(name, by_name, cutoff=0.3) or list(by_name)[:3]
        raise ValueError(f"--cell: expected a name that --plan lists, such as {', '.join(near)}; found {name}")
    return by_name[name]


def plan_cells(design: Design) -> list[Cell]:
    """List all work, what others need first; with most subjects first, as that is what the tables show.

    A ratio of 0 is training on real scans alone, whatever the method; that is there once.
    """
    cells: list[Cell] = []
    for number in reversed(design.num_subjects):
        part = part_name(number)
        latent = [method for method in design.painting if method_named(method).needs_autoencoder]
        if latent:
            cells.append(Cell("autoencoder", f"{part}/autoencoder", number))
        for method in design.painting:
            needs = (f"{part}/autoencoder",) if method in latent else ()
            cells.append(Cell("method", f"{part}/{method}", number, method, needs=needs))
        cells += [
            Cell("segmentation", segmentation_name(number, REAL, 0.0, seed), number, seed=seed) for seed in design.seeds
        ]
        for ratio in _main_first(design):
            for seed in design.seeds:
                for method in design.painting:
                    cohort = cohort_name(number, method, ratio, seed)
                    trained = segmentation_name(number, method, ratio, seed)
                    cells += [
                        Cell("cohort", cohort, number, method, ratio, seed, (f"{part}/{method}",)),
                        Cell("segmentation", trained, number, method, ratio, seed, (cohort,)),
                    ]
        cells += [
            Cell(
                "fidelity",
                f"{part}/fidelity/{method}",
                number,
                method,
                design.main_ratio,
                needs=(
                    f"{part}/{method}",
                    *(cohort_name(number, method, design.main_ratio, seed) for seed in design.seeds),
                ),
            )
            for method in design.painting
        ]
    return cells


def _main_first(design: Design) -> Sequence[float]:
    return sorted((ratio for ratio in design.ratios if ratio > 0), key=lambda ratio: ratio != design.main_ratio)
