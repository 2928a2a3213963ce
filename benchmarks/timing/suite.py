"""What all parts of the suite share: the settings, the machine's own ceiling, rows, and what they must show."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from promptlesion.config import Config
from promptlesion.data.cache import CachedCase, build_cache
from promptlesion.data.dataset import Dataset, open_dataset
from promptlesion.data.spec import DatasetSpec
from promptlesion.training.device import Precision, autocast, resolve_precision
from timing.clock import Timing, Work, take_turns, timed

PRECISIONS: tuple[Precision, ...] = ("bfloat16", "float32")
_CONVOLVED_VOXELS = {64: 24, 32: 48, 16: 96}
"""Edge of the map that a convolution of so many channels is measured on: those of the networks at 96 voxels."""
_COPIED_BYTES = _LARGEST_BYTES = 2**28


@dataclass(frozen=True)
class Row:
    """One form of one piece of work."""

    part: str
    """Of the suite: denoiser, lesion, vqgan …"""
    what: str
    form: str
    """`ours`, or what it is compared with."""
    precision: str
    timing: Timing
    ceiling: float | None = None
    """FLOP/s of the best convolution of the same width in the same precision."""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def share(self) -> float | None:
        """Of the ceiling."""
        rate = self.timing.flop_rate
        return rate / self.ceiling if rate and self.ceiling else None

    def as_json(self) -> dict[str, object]:
        """Return all of it, with what follows from it."""
        content = {**asdict(self), "facts": dict(self.facts)}
        return {**content, "flop_rate": self.timing.flop_rate, "share_of_ceiling": self.share}


@dataclass(frozen=True)
class Show:
    """One of the things the suite must show, by its number in the issue."""

    number: int
    what: str
    value: float
    threshold: float
    is_least: bool = True
    """Whether the threshold is the least the value may be, or the most."""

    @property
    def is_met(self) -> bool:
        """Whether it is shown."""
        return self.value >= self.threshold if self.is_least else self.value <= self.threshold


@dataclass(frozen=True)
class Suite:
    """The settings of a run of the suite."""

    config: Config
    device: torch.device
    folder: Path
    """For what has to lie on a disk to be measured."""
    seconds: float
    """For the rounds of one comparison."""
    longest_run: float
    """Seconds of a run; what would take longer is left out, and said so."""
    data: Path | None = None
    """A dataset folder to draw patches from as well."""
    is_whole: bool = False
    """Whether references of 400 steps are run, not extrapolated."""
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""
    rows: list[Row] = field(default_factory=list)
    shows: list[Show] = field(default_factory=list)
    profiles: dict[str, str] = field(default_factory=dict)
    """Tables of what a run spends its time in."""
    ceilings: dict[tuple[int, torch.dtype], float] = field(default_factory=dict)

    def compare(
        self,
        part: str,
        what: str,
        forms: Mapping[str, Work],
        *,
        precision: str,
        width: int | None = None,
        facts: Mapping[str, Mapping[str, object]] | None = None,
    ) -> list[Row]:
        """Time forms of the same work, the first of them ours, and keep and return their rows.

        Args:
            part: of the suite.
            what: the work.
            forms: ways to do it, by name.
            precision: of all of them.
            width: channels of the convolution they are held against; None where there is none to compare with.
            facts: more to say of a form.
        """
        timings = take_turns(forms, device=self.device, seconds=self.seconds)
        ceiling = self.ceiling(width, precision) if width is not None else None
        rows = [
            Row(part, what, form, precision, timing, ceiling, (facts or {}).get(form, {}))
            for form, timing in timings.items()
        ]
        self.rows.extend(rows)
        return rows

    def show(self, number: int, what: str, value: float, threshold: float, *, is_least: bool = True) -> None:
        """Keep one of the things that must be shown."""
        self.shows.append(Show(number, what, value, threshold, is_least))

    def seconds_of(self, part: str, what: str) -> float | None:
        """Return the shortest that a row of the suite took, if there is one."""
        return min((r.timing.seconds for r in self.rows if (r.part, r.what) == (part, what)), default=None)

    def is_too_long(self, what: str, seconds: float) -> bool:
        """Whether work would take too long; then it is noted."""
        if seconds <= self.longest_run:
            return False
        self.notes.append(f"{what}: left out, a run would take about {seconds:.0f} s")
        return True

    def autocast(self, precision: str) -> AbstractContextManager[object]:
        """Return the context of a precision."""
        return autocast(self.device, "bfloat16" if precision == "bfloat16" else "float32")

    def chosen(self, precision: Precision) -> Precision:
        """Return what a configured precision comes to on this machine."""
        return "bfloat16" if resolve_precision(self.device, precision) is torch.bfloat16 else "float32"

    def datasets(self, made_up: tuple[Dataset, list[CachedCase]]) -> list[tuple[str, list[CachedCase], DatasetSpec]]:
        """Return what patches are drawn from: made-up scans, and a dataset where one was given."""
        found = [("made-up scans", made_up[1], made_up[0].spec)]
        if self.data is not None:
            dataset = open_dataset(self.data)
            found.append((self.data.name, build_cache(dataset, self.folder / "given"), dataset.spec))
        return found

    def ceiling(self, width: int, precision: str) -> float:
        """Return the FLOP/s of the best 3x3x3 convolution of so many channels, measured once."""
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        if (width, dtype) not in self.ceilings:
            edge = _CONVOLVED_VOXELS.get(width, 24)
            self.ceilings[width, dtype] = best_convolution(width, edge, dtype, self.device, seconds=self.seconds / 4)
        return self.ceilings[width, dtype]


@torch.no_grad()
def best_convolution(width: int, edge: int, dtype: torch.dtype, device: torch.device, *, seconds: float) -> float:
    """Return the FLOP/s of the fastest of some 3x3x3 convolutions: batches of 1, 4 and 16, in either memory order."""
    best = 0.0
    weight = torch.randn(width, width, 3, 3, 3, device=device, dtype=dtype)
    for batch in (1, 4, 16):
        if batch > 1 and batch * width * edge**3 * dtype.itemsize > _LARGEST_BYTES:
            break
        features = torch.randn(batch, width, edge, edge, edge, device=device, dtype=dtype)
        flops = 2 * 27 * width * width * batch * edge**3
        for memory_format in (torch.contiguous_format, torch.channels_last_3d):
            operands = [part.contiguous(memory_format=memory_format) for part in (features, weight)]
            best = max(best, flops / _fastest(partial(_convolve, *operands), device, seconds))
    return best


def _convolve(features: Tensor, weight: Tensor) -> Tensor:
    return F.conv3d(features, weight, padding=1)


def best_product(edge: int, dtype: torch.dtype, device: torch.device) -> float:
    """Return the FLOP/s of a product of two square matrices."""
    left, right = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    return 2 * edge**3 / _fastest(partial(torch.mm, left, right), device)


def copy_rate(device: torch.device) -> float:
    """Return the bytes a second, read and written, of a large copy."""
    source = torch.zeros(_COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * _COPIED_BYTES / _fastest(partial(target.copy_, source), device)


def _fastest(run: Work, device: torch.device, seconds: float = 0.2) -> float:
    run()
    found: list[float] = []
    while len(found) < 3 or (sum(found) < seconds and len(found) < 100):
        found.append(timed(run, device))
    return min(found)


def ratio(rows: list[Row], reference: str, ours: str = "ours") -> float:
    """Return how many times faster our form is than a reference, by the fastest of either: the least disturbed."""
    seconds = {row.form: row.timing.fastest for row in rows}
    return seconds[reference] / seconds[ours]
