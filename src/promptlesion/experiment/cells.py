"""The pieces of an experiment, each with a folder of its own, what it needs, and how one sees that it is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from promptlesion.experiment.asked import Asked
from promptlesion.methods import REAL, method_named
from promptlesion.training.run import is_finished_run

SCORES_FILE = "scores.json"
FIDELITY_FILE = "fidelity.json"
Kind = Literal["autoencoder", "method", "cohort", "segmentation", "fidelity"]


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

    def is_done(self, out: Path) -> bool:
        """Return whether it is there, whole."""
        folder = out / self.name
        if self.kind == "segmentation":
            return (folder / SCORES_FILE).is_file()
        if self.kind == "fidelity":
            return (folder / FIDELITY_FILE).is_file()
        return is_finished_run(folder)


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


def plan_cells(asked: Asked) -> list[Cell]:
    """List all work, what others need first; with most subjects first, as that is what the tables show.

    A ratio of 0 is training on real scans alone, whatever the method; that is there once.
    """
    cells: list[Cell] = []
    for number in reversed(asked.num_subjects):
        part = part_name(number)
        latent = [method for method in asked.painting if method_named(method).needs_autoencoder]
        if latent:
            cells.append(Cell("autoencoder", f"{part}/autoencoder", number))
        for method in asked.painting:
            needs = (f"{part}/autoencoder",) if method in latent else ()
            cells.append(Cell("method", f"{part}/{method}", number, method, needs=needs))
        cells += [
            Cell("segmentation", segmentation_name(number, REAL, 0.0, seed), number, seed=seed) for seed in asked.seeds
        ]
        for ratio in _main_first(asked):
            for seed in asked.seeds:
                for method in asked.painting:
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
                asked.main_ratio,
                needs=tuple(cohort_name(number, method, asked.main_ratio, seed) for seed in asked.seeds),
            )
            for method in asked.painting
        ]
    return cells


def _main_first(asked: Asked) -> Sequence[float]:
    return sorted((ratio for ratio in asked.ratios if ratio > 0), key=lambda ratio: ratio != asked.main_ratio)
