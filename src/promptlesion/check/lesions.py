"""The lesions of every type against `lesions.toml`, the networks' grid, and the hosts they are to be painted into."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from promptlesion.check.facts import CaseFacts, LesionFacts
from promptlesion.check.finding import Finding, Severity, in_mm, listed
from promptlesion.check.intensity import HU_OF_BIN, LOWEST_HU, NUM_BINS
from promptlesion.data.spec import DatasetSpec, LesionType

_CRUMB_VOXELS = 3
_MOST_OUTSIDE_WINDOW = 0.05


@dataclass(frozen=True)
class NetworkGrid:
    """What the networks can show: voxels, latent voxels, and the largest lesion that is painted in one patch."""

    spacing_mm: tuple[float, float, float]
    downsampling: int
    patch_voxels: int

    @property
    def latent_mm(self) -> tuple[float, float, float]:
        """Sides of a latent voxel."""
        x, y, z = (side * self.downsampling for side in self.spacing_mm)
        return x, y, z

    @property
    def latent_edge_mm(self) -> float:
        """Edge of the cube with a latent voxel's volume."""
        return float(np.cbrt(np.prod(self.latent_mm)))

    @property
    def largest_extent_mm(self) -> float:
        """Longest lesion that one patch of the diffusion model has room for: three quarters of it."""
        return 0.75 * self.patch_voxels * min(self.spacing_mm)


@dataclass(frozen=True)
class TypeFacts:
    """All lesions of a type, and the room there is for more."""

    name: str
    label: int
    num_lesions: int
    num_cases: int
    diameters_mm: tuple[float, ...]
    mean_hu: tuple[float, ...]
    num_under_latent_voxel: int
    share_outside_window: float
    hosts: tuple[str, ...]
    num_host_cases: int
    host_ml: float
    """Median over the cases that have any of it."""
    hu_counts: Int64[np.ndarray, " hu"]
    host_hu_counts: Int64[np.ndarray, " hu"]


def type_facts(
    cases: Sequence[CaseFacts], spec: DatasetSpec, labels: Mapping[str, int], grid: NetworkGrid
) -> list[TypeFacts]:
    """Collect what was measured of every lesion type, in prompt order."""
    collected = []
    for lesion_type in spec.lesions:
        lesions = [one for case in cases for one in case.lesions if one.label == lesion_type.label]
        hosts = [labels[name] for name in lesion_type.host if name in labels]
        room = [sum(case.labels[host].volume_ml for host in hosts if host in case.labels) for case in cases]
        counts = summed_hu(cases, [lesion_type.label])
        low, high = spec.window_hu
        is_outside = (low > HU_OF_BIN) | (high < HU_OF_BIN)
        collected.append(
            TypeFacts(
                name=lesion_type.name,
                label=lesion_type.label,
                num_lesions=len(lesions),
                num_cases=sum(any(one.label == lesion_type.label for one in case.lesions) for case in cases),
                diameters_mm=tuple(one.diameter_mm for one in lesions),
                mean_hu=tuple(
                    one.mean_hu
                    for case in cases
                    if case.hu is not None
                    for one in case.lesions
                    if one.label == lesion_type.label
                ),
                num_under_latent_voxel=sum(one.diameter_mm < grid.latent_edge_mm for one in lesions),
                share_outside_window=float(counts[is_outside].sum() / max(counts.sum(), 1)),
                hosts=lesion_type.host,
                num_host_cases=sum(ml > 0 for ml in room),
                host_ml=float(np.median([ml for ml in room if ml > 0] or [0.0])),
                hu_counts=counts,
                host_hu_counts=summed_hu(cases, hosts),
            )
        )
    return collected


def summed_hu(cases: Sequence[CaseFacts], labels: Sequence[int]) -> Int64[np.ndarray, " hu"]:
    """Return how often each HU occurs inside some labels, over all cases whose voxels are HU."""
    total = np.zeros(NUM_BINS, dtype=np.int64)
    for case in cases:
        for label in labels if case.hu is not None else ():
            if label in case.labels:
                facts = case.labels[label]
                first = facts.lowest_hu - LOWEST_HU
                total[first : first + len(facts.hu_counts)] += facts.hu_counts
    return total


def lesion_findings(
    cases: Sequence[CaseFacts], spec: DatasetSpec, labels: Mapping[str, int], grid: NetworkGrid
) -> list[Finding]:
    """Say which lesions a model cannot learn or paint, case by case and type by type."""
    found: list[Finding] = []
    for lesion_type in spec.lesions:
        for case in cases:
            lesions = [one for one in case.lesions if one.label == lesion_type.label]
            found += _case_findings(case, lesion_type, lesions, grid)
    for facts in type_facts(cases, spec, labels, grid):
        found += _type_findings(facts, spec, grid, len(cases))
    return found


def _case_findings(
    case: CaseFacts, lesion_type: LesionType, lesions: Sequence[LesionFacts], grid: NetworkGrid
) -> Iterator[Finding]:
    """Say which lesions of a type in a case are too small, too large or of another brightness."""
    expected, total = f"{case.name}: expected {lesion_type.name}", len(lesions)
    low, high = lesion_type.hu
    small = [one for one in lesions if one.diameter_mm < grid.latent_edge_mm]
    if small:
        where = listed(f"{one.diameter_mm:.1f} mm at {_point(one)}{_crumb(one)}" for one in small)
        found = f"found {len(small)} of {total} smaller: {where}"
        message = f"{expected} larger than a latent voxel of {in_mm(grid.latent_mm)} mm, {found}"
        remedy = (
            "the autoencoder cannot show them: choose a finer spacing_mm in lesions.toml or fewer autoencoder.widths, "
            "or remove crumbs"
        )
        yield Finding("warning", "lesion-under-latent-voxel", case.name, message, remedy)
    large = [one for one in lesions if one.extent_mm > grid.largest_extent_mm]
    if large:
        where = listed(f"{one.extent_mm:.0f} mm at {_point(one)}" for one in large)
        limit = f"{grid.largest_extent_mm:.0f} mm, three quarters of the model's patch"
        remedy = "the model sees such a lesion in part: choose a coarser spacing_mm or a larger diffusion.patch_voxels"
        message = f"{expected} no longer than {limit}, found {where}"
        yield Finding("warning", "lesion-over-patch", case.name, message, remedy)
    off = [one for one in lesions if not low <= one.mean_hu <= high and one.num_voxels > _CRUMB_VOXELS]
    if off and case.hu is not None:
        where = listed(f"{one.mean_hu:.0f} HU at {_point(one)}" for one in off)
        found = f"found {len(off)} of {total} outside: {where}"
        remedy = "widen the type's hu in lesions.toml, or look whether the label map is shifted or the type another"
        message = f"{expected} of {low:g} to {high:g} HU on average, {found}"
        yield Finding("warning", "lesion-hu", case.name, message, remedy)


def _type_findings(facts: TypeFacts, spec: DatasetSpec, grid: NetworkGrid, num_cases: int) -> list[Finding]:
    found: list[Finding] = []

    def say(severity: Severity, code: str, message: str, remedy: str) -> None:
        found.append(Finding(severity, code, "", f"{facts.name}: {message}", remedy))

    if facts.num_lesions == 0:
        say(
            "warning",
            "no-lesions",
            f"expected lesions of label {facts.label} to learn from, found none in {num_cases} cases",
            "a model trained here cannot paint it; fine where a model from elsewhere does",
        )
    elif facts.num_under_latent_voxel > facts.num_lesions / 2:
        say(
            "error",
            "type-under-latent-voxel",
            f"expected lesions larger than a latent voxel of {in_mm(grid.latent_mm)} mm, found "
            f"{facts.num_under_latent_voxel} of {facts.num_lesions} smaller",
            "choose a finer spacing_mm in lesions.toml, or fewer autoencoder.widths",
        )
    if facts.num_host_cases == 0:
        say(
            "error",
            "no-host",
            f"expected its host, {' or '.join(facts.hosts) or 'which lesions.toml does not name'}, in some case, found "
            f"it in none of {num_cases}",
            "nothing can be painted without a host: label it, or name another structure as host",
        )
    if facts.share_outside_window > _MOST_OUTSIDE_WINDOW:
        say(
            "warning",
            "window",
            f"expected its voxels inside window_hu, {spec.window_hu[0]:g} to {spec.window_hu[1]:g} HU, found "
            f"{facts.share_outside_window:.0%} outside, which the networks see clipped",
            "widen window_hu in lesions.toml",
        )
    return found


def _point(lesion: LesionFacts) -> str:
    return "(" + ", ".join(f"{place:.0f}" for place in lesion.center_mm) + ") mm"


def _crumb(lesion: LesionFacts) -> str:
    is_crumb = lesion.num_voxels <= _CRUMB_VOXELS
    return f" ({lesion.num_voxels} voxel{'s' if lesion.num_voxels > 1 else ''}, a crumb?)" if is_crumb else ""
