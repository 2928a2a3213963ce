"""What a terminal shows of a checked dataset, and of the networks of a configuration: lines and tables."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from promptlesion.check.dataset_check import DatasetCheck
from promptlesion.check.finding import Finding
from promptlesion.config import Config
from promptlesion.cost.estimate import gib
from promptlesion.cost.parameters import count_parameters
from promptlesion.evaluation.wording import duration_text

_SEVERITY_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_SHOWN_A_KIND = 4


def check_parts(check: DatasetCheck) -> Iterator[RenderableType]:
    """Yield what a dataset folder has wrong with it, its lesions, what training will cost, and where the report is."""
    if check.findings:
        yield _findings_table(check.findings)
    if check.types:
        edge = " x ".join(f"{side:.3g}" for side in check.grid.latent_mm)
        columns = ("lesions", "cases", "mm", "latent voxels", "under one", "HU", "host cases", "host ml")
        table = _table("lesion type", *columns)
        for facts in check.types:
            sizes, hu = sorted(facts.diameters_mm), sorted(facts.mean_hu)
            table.add_row(
                facts.name,
                str(facts.num_lesions),
                str(facts.num_cases),
                _range(sizes, 1),
                _range([size / check.grid.latent_edge_mm for size in sizes], 1),
                str(facts.num_under_latent_voxel),
                _range(hu, 0),
                str(facts.num_host_cases),
                f"{facts.host_ml:.1f}",
            )
        yield f"Lesions, smallest to largest; a latent voxel is {edge} mm"
        yield table
    if check.stages:
        yield from _stage_parts(check)
    if check.is_spec_drafted:
        yield f"{check.spec_path} was written to start from: read it."
    counts = [sum(finding.severity == severity for finding in check.findings) for severity in _SEVERITY_STYLES]
    words = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in zip(counts, _SEVERITY_STYLES, strict=True)]
    verdict = "would spoil a run: " if check.would_spoil_a_run else "ready to train on: "
    yield f"{check.root}, {len(check.cases)} cases, {verdict}{', '.join(words)}"
    yield f"Report: {check.report_path}"


def _findings_table(findings: Sequence[Finding]) -> Table:
    """Lay the findings out by kind, worst kinds first, some of each."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.code), []).append(finding)
    table = _table("", "", "found")
    table.columns[2].overflow = "fold"
    for (severity, code), group in kinds.items():
        text = Text("\n".join(finding.message for finding in group[:_SHOWN_A_KIND]))
        if len(group) > _SHOWN_A_KIND:
            text.append(f"\nand {len(group) - _SHOWN_A_KIND} more")
        if group[0].remedy:
            text.append(f"\n-> {group[0].remedy}", style="dim")
        table.add_row(Text(severity, style=_SEVERITY_STYLES[severity]), Text(code), text)
    return table


def _stage_parts(check: DatasetCheck) -> Iterator[RenderableType]:
    table = _table("stage", "time", "memory", "disk", "work")
    for stage in check.stages:
        memory = gib(stage.memory_bytes) + (f" + {gib(stage.host_bytes)} main" if stage.host_bytes else "")
        table.add_row(stage.stage, duration_text(stage.seconds), memory, gib(stage.disk_bytes), stage.what)
    trust = "right within a factor of two"
    if check.machine.is_busy:
        trust = f"while others used it (load {check.machine.load:.1f} a core): alone it is faster"
    yield f"What it will cost: {check.machine.name}, {gib(check.machine.device_bytes)}; measured just now, {trust}"
    yield table


def parameter_parts(config: Config) -> Iterator[RenderableType]:
    """Yield every network module by module, and what share the prompt has."""
    for network in count_parameters(config):
        table = _table("module", "class", "parameters", "share", "buffers")
        for module in network.modules:
            share = f"{module.parameters / network.total:.2%}"
            table.add_row(module.name, module.kind, f"{module.parameters:,}", share, f"{module.buffers:,}")
        yield f"{network.name}: {network.total:,} parameters"
        yield table
        if network.injection_share:
            yield (
                f"PromptGenBlocks: {network.prompt_block_share:.2%} of the {network.name}'s parameters; "
                f"with the residual blocks that follow them {network.injection_share:.1%}"
            )


def _table(*columns: str) -> Table:
    return Table(*columns, box=SIMPLE)


def _range(values: Sequence[float], decimals: int) -> str:
    return f"{values[0]:.{decimals}f} to {values[-1]:.{decimals}f}" if values else "-"
