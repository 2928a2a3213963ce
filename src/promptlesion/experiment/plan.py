"""The pieces of an experiment as whoever schedules them needs to know them."""

from dataclasses import dataclass

from promptlesion.experiment.cells import Cell, Kind
from promptlesion.experiment.estimate import CellEstimate


@dataclass(frozen=True)
class PlannedCell:
    """One piece of work, and what it needs and takes."""

    name: str
    """For `--cell`; its folder below the experiment's."""
    kind: Kind
    method: str
    num_subjects: int
    ratio: float
    seed: int
    needs: tuple[str, ...]
    """Names of what must be done before."""
    is_done: bool
    wants_gpu: bool
    """Whether networks compute in it."""
    estimated_seconds: float | None
    """On this machine; none where it is done already or times itself."""
    estimated_bytes: int | None
    """Most that is held on the device, on a CPU by the process; none where that is not known."""

    @classmethod
    def of(cls, cell: Cell, *, is_done: bool, estimate: CellEstimate | None) -> "PlannedCell":
        """Put a piece of work and its estimate together."""
        return cls(
            name=cell.name,
            kind=cell.kind,
            method=cell.method,
            num_subjects=cell.num_subjects,
            ratio=cell.ratio,
            seed=cell.seed,
            needs=cell.needs,
            is_done=is_done,
            wants_gpu=cell.wants_gpu,
            estimated_seconds=round(estimate.seconds, 1) if estimate else None,
            estimated_bytes=estimate.memory_bytes if estimate else None,
        )
