"""What all parts of the suite share: the settings, the machine's own ceiling, rows, and what they must show."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from promptlesion.config import Config
from promptlesion.data.cache import CachedCase, build_cache
from promptlesion.data.dataset import open_dataset
from promptlesion.data.phantom import write_phantom_dataset
from promptlesion.data.spec import DatasetSpec
from promptlesion.training.device import autocast, resolve_precision
from promptlesion.training.optimisation import Precision
from timing.clock import Timing, Work, take_turns, timed

PRECISIONS: tuple[Precision, ...] = ("bfloat16", "float32")
SHARE_OF_OTHER_PRECISION = 1 / 8
"""Of the longest run: what larger batches may take in the precision that is not in use; batch 1 shows the ratio."""
_CONVOLVED_VOXELS = {64: 24, 32: 48, 16: 96}
"""Edge of the map that a convolution of so many channels is measured on: those of the networks at 96 voxels."""
_CALLS_AT_ONCE = 20
"""Of a small piece of work on a GPU: launching one and waiting for it would take as long as the work itself."""
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
    data: Sequence[tuple[Path, Path | None]] = ()
    """Dataset folders to draw patches from as well, each with another `lesions.toml` than its own or none."""
    is_whole: bool = False
    """Whether all is run that is else extrapolated (400 steps) or cut short on a CPU (batches)."""
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
        flops: float | None = None,
    ) -> list[Row]:
        """Time forms of the same work, the first of them ours, and keep and return their rows.

        Args:
            part: of the suite.
            what: the work.
            forms: ways to do it, by name.
            precision: of all of them.
            width: channels of the convolution they are held against; None where there is none to compare with.
            facts: more to say of a form.
            flops: operations of each form, where the counter cannot see them.
        """
        timings = take_turns(forms, device=self.device, seconds=self.seconds)
        if flops is not None:
            timings = {form: replace(timing, flops=flops) for form, timing in timings.items()}
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

    def is_too_long(self, what: str, seconds: float, *, share: float = 1.0) -> bool:
        """Whether work would take longer than a share of the longest run; then it is noted."""
        if seconds <= share * self.longest_run:
            return False
        self.notes.append(f"{what}: left out, a run would take about {seconds:.0f} s")
        return True

    def is_spare(self, part: str, what: str, precision: str, configured: Precision) -> bool:
        """Whether a row in float32 is left out: nobody asked for it, and twice what bfloat16 took is too long."""
        done = self.seconds_of(part, what)
        if precision != "float32" or self.chosen(configured) == "float32" or done is None:
            return False
        return self.is_too_long(f"{part}: {what}, float32", 2 * done)

    def few(self, batch: int, most: int) -> int:
        """Return a batch, on a CPU cut to so many: a step on more of them takes longer and shows nothing else."""
        return batch if self.is_whole or self.device.type != "cpu" else min(batch, most)

    def autocast(self, precision: str) -> AbstractContextManager[object]:
        """Return the context of a precision."""
        return autocast(self.device, "bfloat16" if precision == "bfloat16" else "float32")

    @property
    def precisions(self) -> list[Precision]:
        """The precisions that this machine computes in: bfloat16 without arithmetic for it would be float32."""
        return [precision for precision in PRECISIONS if self.chosen(precision) == precision]

    def chosen(self, precision: Precision) -> Precision:
        """Return what a configured precision comes to on this machine."""
        return "bfloat16" if resolve_precision(self.device, precision) is torch.bfloat16 else "float32"

    def datasets(self) -> list[tuple[str, list[CachedCase], DatasetSpec]]:
        """Return what patches are drawn from: two subjects of the phantom, and the datasets that were given."""
        phantom = self.folder / "phantom"
        write_phantom_dataset("five", num_cases=2, seed=0, out=phantom)
        found = []
        for number, (root, lesions) in enumerate([(phantom, None), *self.data]):
            dataset = open_dataset(root, lesions)
            found.append((root.name, build_cache(dataset, self.folder / f"prepared-{number}"), dataset.spec))
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
    calls = _CALLS_AT_ONCE if device.type == "cuda" else 1

    def several() -> None:
        for _ in range(calls):
            run()

    run()
    found: list[float] = []
    while len(found) < 3 or (sum(found) < seconds and len(found) < 100):
        found.append(timed(several, device))
    return min(found) / calls


def ratio(rows: list[Row], reference: str, ours: str = "ours") -> float:
    """Return how many times faster our form is than a reference, by the fastest of either: the least disturbed."""
    seconds = {row.form: row.timing.fastest for row in rows}
    return seconds[reference] / seconds[ours]
