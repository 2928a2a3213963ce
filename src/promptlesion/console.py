"""What the command line says: tables and lines on one console. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from promptlesion.check.dataset_check import DatasetCheck
    from promptlesion.check.finding import Finding
    from promptlesion.cost.parameters import NetworkParameters
    from promptlesion.evaluation.distributions import DistributionRow
    from promptlesion.evaluation.memorisation import Memorisation
    from promptlesion.evaluation.method_comparison import MethodRow
    from promptlesion.evaluation.reconstruction import ReconstructionRow
    from promptlesion.evaluation.results import DemoResults, FidelityRow
    from promptlesion.evaluation.segmentation_metrics import LesionScore
    from promptlesion.experiment.results import ExperimentResults

console = Console(markup=False, emoji=False)  # a path may hold brackets, a name colons


def say(text: str) -> None:
    """Print a line."""
    console.print(text, highlight=False, soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE)
    for column in columns:
        table.add_column(column)
    return table


def _text(value: float | None, decimals: int = 3) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def print_results(results: "DemoResults") -> None:
    """Print what the synthetic data did, and whether the painted lesions are right."""
    table = _table("lesion type", "metric", "N", "real", "mixed", "difference")
    for row in results.segmentation:
        real, mixed, difference = (_text(estimate.value) for estimate in (row.real, row.mixed, row.difference))
        interval = f"{difference} ({_text(row.difference.low)} to {_text(row.difference.high)})"
        table.add_row(row.lesion_type, row.metric, str(row.num_subjects), real, mixed, interval)
    say(f"Held-out subjects, real only against real + synthetic, {results.interval_level:.0%} bootstrap intervals")
    console.print(table)
    bias = _table("lesion type", "compared", "real HU", "its HU", "bias", "allowed", "within")
    for entry in results.intensity:
        figures = (f"{v:.0f}" for v in (entry.real_mean_hu, entry.compared_mean_hu, entry.bias_hu, entry.tolerance_hu))
        bias.add_row(entry.lesion_type, entry.compared, *figures, "yes" if entry.is_within_tolerance else "NO")
    say("Mean HU inside lesions")
    console.print(bias)
    for switch in results.prompt_switch:
        aucs = ", ".join(f"{pair.first} / {pair.second} {max(pair.auc, 1 - pair.auc):.2f}" for pair in switch.pairs)
        if aucs:
            say(f"Only the prompt switched ({switch.encoder}, {switch.num_lesions} masks): AUC {aucs}")
    print_fidelity(results.fidelity)


def print_parameters(networks: "Sequence[NetworkParameters]") -> None:
    """Print every network module by module, and what share the prompt has."""
    for network in networks:
        table = _table("module", "class", "parameters", "share", "buffers")
        for module in network.modules:
            share = f"{module.parameters / network.total:.2%}"
            table.add_row(module.name, module.kind, f"{module.parameters:,}", share, f"{module.buffers:,}")
        say(f"{network.name}: {network.total:,} parameters")
        console.print(table)
        if network.injection_share:
            say(
                f"PromptGenBlocks: {network.prompt_block_share:.2%} of the {network.name}'s parameters; "
                f"with the residual blocks that follow them {network.injection_share:.1%}"
            )


def print_fidelity(rows: "Sequence[FidelityRow]") -> None:
    """Print lesion FID and KID per type."""
    if not rows:
        say("No lesions to compare")
    for network in dict.fromkeys(row.network for row in rows):
        table = _table("lesion type", "compared", "N", "FID", "KID")
        for row in rows:
            if row.network == network:
                count = f"{row.num_real} and {row.num_synthetic}"
                table.add_row(row.lesion_type, row.compared, count, _text(row.fid.value, 2), _text(row.kid.value, 2))
        say(f"Lesion FID and KID, {network}")
        console.print(table)


def print_distributions(rows: "Sequence[DistributionRow]") -> None:
    """Print how HU, texture and size of real and synthetic lesions are spread."""
    table = _table("lesion type", "measure", "N", "real", "synthetic", "Wasserstein", "KS p")
    table.columns[1].overflow = "fold"
    for row in rows:
        real = f"{row.real_mean:.3g} ± {row.real_std:.2g}"
        synthetic = f"{row.synthetic_mean:.3g} ± {row.synthetic_std:.2g}"
        count = f"{row.num_real} and {row.num_synthetic}"
        distance = f"{row.wasserstein:.3g}"
        table.add_row(row.lesion_type, row.measure, count, real, synthetic, distance, _text(row.ks_p_value))
    say("Distributions, mean ± standard deviation between lesions")
    console.print(table)


def print_memorisation(found: "Memorisation") -> None:
    """Print how near synthetic lesions come to training lesions, and name the copies."""
    table = _table("lesion type", "N", "distance to the nearest", "between real ones", "copies")
    for name in dict.fromkeys(row.lesion_type for row in found.synthetic):
        painted = [row for row in found.synthetic if row.lesion_type == name]
        nearest = [sorted(row.distance for row in rows if row.lesion_type == name) for rows in (painted, found.real)]
        copies = sum(row.is_copy for row in painted)
        table.add_row(name, str(len(painted)), *(_range(distances, 2) for distances in nearest), str(copies))
    say(f"Copies of training lesions: {len(found.copies)}; by chance 1 in {1 / found.false_alarm_rate:.0f}")
    console.print(table)
    for row in found.copies:
        say(
            f"{row.case}: {row.lesion_type} at voxel {row.center_voxel} is a copy of {row.nearest_case}'s at "
            f"{row.nearest_center_voxel}, distance {row.distance:.2f} (allowed {row.threshold:.2f})"
        )


def print_reconstruction(rows: "Sequence[ReconstructionRow]") -> None:
    """Print what every autoencoder keeps of every dataset, trilinear sampling beside it."""
    say("Errors in HU, PSNR in dB; detail: power above half the Nyquist frequency, as a multiple of the scan's")
    for dataset in dict.fromkeys(row.dataset for row in rows):
        shown = [row for row in rows if row.dataset == dataset]
        table = _table("", "MAE", "at edges", "PSNR", "SSIM", "detail", "codes", "perplexity")
        table.columns[0].overflow = "fold"
        sampled = f"trilinear {shown[0].downsampling}x"
        lines = [
            ("/".join(Path(row.model).parts[-2:]), row.autoencoder, f"{row.codes_used:.0%}", f"{row.perplexity:.0f}")
            for row in shown
        ]
        for name, score, *usage in (*lines, (sampled, shown[0].trilinear, "-", "-")):
            errors = (_text(score.mae_hu, 2), _text(score.edge_mae_hu, 2), _text(score.psnr_db, 1), _text(score.ssim))
            table.add_row(name, *errors, _text(score.high_frequency_ratio), *usage)
        say(f"{dataset}, {len(shown[0].cases)} scans")
        console.print(table)


def print_scores(scores: "Sequence[LesionScore]", tolerance_mm: float) -> None:
    """Print the score of every case and lesion type."""
    table = _table("case", "lesion type", "Dice", f"surface Dice ({tolerance_mm:g} mm)", "HD95 mm")
    for score in scores:
        figures = (_text(score.dice), _text(score.surface_dice), _text(score.hd95_mm, 1))
        table.add_row(score.case, score.lesion_type, *figures)
    console.print(table)


def print_methods(rows: "Sequence[MethodRow]", tolerance_mm: float) -> None:
    """Print the mean of every metric by type, size and method, then each method's difference from the reference."""
    from promptlesion.evaluation.wording import readable

    decimals = {"hd95_mm": 1, "volume_error_percent": 0, "false_positives_per_scan": 2}
    names = {
        "dice": "Dice",
        "surface_dice": "NSD",
        "hd95_mm": "HD95 mm",
        "volume_error_percent": "volume",
        "sensitivity": "sens.",
        "precision": "prec.",
        "false_positives_per_scan": "FP/scan",
    }
    groups: dict[tuple[str, str, str], dict[str, MethodRow]] = {}
    for row in rows:
        groups.setdefault((row.lesion_type, row.size, row.method), {})[row.metric] = row
    say(
        f"Means over the N subjects that have such a lesion. NSD: surface Dice within {tolerance_mm:g} mm; volume: its "
        "error in %; sens., prec.: of lesions; FP/scan: false positives, over all scans; '-': not counted"
    )
    for lesion_type in dict.fromkeys(key[0] for key in groups):
        table = _table("size, method", "N", *names.values())
        table.padding, table.pad_edge = (0, 1, 0, 0), False
        for (kind, size, method), found in groups.items():
            if kind == lesion_type:
                figures = [
                    _text(found[metric].value.value if metric in found else None, decimals.get(metric, 3))
                    for metric in names
                ]
                number = found["dice"].num_subjects if "dice" in found else 0
                table.add_row(f"{size}, {method}", str(number), *figures)
        for column in table.columns[1:]:
            column.no_wrap = True  # rather a name on two lines than a figure cut off
        say(readable(lesion_type))
        console.print(table)
    table = _table("type", "metric", "method", "N", "difference (95 %)", "p")
    for row in rows:
        if row.size == "all sizes" and row.difference is not None and row.difference.value is not None:
            places, ends = decimals.get(row.metric, 3), (row.difference.low, row.difference.high)
            interval = " to ".join(f"{end:+.{places}f}" for end in ends if end is not None) or "-"
            change = f"{row.difference.value:+.{places}f} ({interval})"
            name = readable(row.lesion_type)
            table.add_row(
                name, names[row.metric], row.method, str(row.num_paired_subjects), change, _text(row.p_value, 3)
            )
    if not table.row_count:
        return
    say("Differences from the reference, paired by subject; p: permutation test, not corrected for many comparisons")
    console.print(table)


_SEVERITY_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_SHOWN_A_KIND = 4


def print_check(check: "DatasetCheck", report: Path) -> None:
    """Print what a dataset folder has wrong with it, its lesions, what training will cost, and where the report is."""
    if check.findings:
        console.print(_findings_table(check.findings))
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
        say(f"Lesions, smallest to largest; a latent voxel is {edge} mm")
        console.print(table)
    if check.stages:
        _print_stages(check)
    if check.is_spec_drafted:
        say(f"{check.spec_path} was written to start from: read it.")
    counts = [sum(finding.severity == severity for finding in check.findings) for severity in _SEVERITY_STYLES]
    words = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in zip(counts, _SEVERITY_STYLES, strict=True)]
    verdict = "would spoil a run: " if check.would_spoil_a_run else "ready to train on: "
    say(f"{check.root}, {len(check.cases)} cases, {verdict}{', '.join(words)}")
    say(f"Report: {report}")


def _findings_table(findings: "Sequence[Finding]") -> Table:
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


def _print_stages(check: "DatasetCheck") -> None:
    from promptlesion.cost.estimate import gib
    from promptlesion.evaluation.wording import duration_text

    table = _table("stage", "time", "memory", "disk", "work")
    for stage in check.stages:
        memory = gib(stage.memory_bytes) + (f" + {gib(stage.host_bytes)} main" if stage.host_bytes else "")
        table.add_row(stage.stage, duration_text(stage.seconds), memory, gib(stage.disk_bytes), stage.what)
    trust = "right within a factor of two"
    if check.machine.is_busy:
        trust = f"while others used it (load {check.machine.load:.1f} a core): alone it is faster"
    say(f"What it will cost: {check.machine.name}, {gib(check.machine.device_bytes)}; measured just now, {trust}")
    console.print(table)


def _range(values: "Sequence[float]", decimals: int) -> str:
    return f"{values[0]:.{decimals}f} to {values[-1]:.{decimals}f}" if values else "-"


def print_experiment(results: "ExperimentResults") -> None:
    """Print in plain words what every method did, and the Dice table."""
    from promptlesion.experiment.report import summary_sentences
    from promptlesion.experiment.tables import dice_table, main_comparison

    comparison = main_comparison(results)
    if comparison is not None:
        dice = dice_table(results, comparison)
        table = _table("lesion type", "method", "Dice", "less real (p)")
        for column, name in enumerate(dice.columns[2::2]):  # side by side they would not fit a terminal
            for index, (method, _, *cells) in enumerate(dice.rows):
                table.add_row("" if index else name, method, *cells[2 * column : 2 * column + 2])
        say(dice.caption)
        console.print(table)
    for sentence in summary_sentences(results):
        say(sentence)
