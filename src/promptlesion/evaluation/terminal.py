"""What a terminal shows of measurements: lines and tables."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table

from promptlesion.evaluation.appearance import SHOWN, TypeAppearance
from promptlesion.evaluation.asked_attributes import AskedRow
from promptlesion.evaluation.distributions import DistributionRow
from promptlesion.evaluation.memorisation import Memorisation
from promptlesion.evaluation.method_comparison import MethodRow
from promptlesion.evaluation.reconstruction import ReconstructionRow
from promptlesion.evaluation.results import Estimate, FidelityRow
from promptlesion.evaluation.segmentation_metrics import LesionScore
from promptlesion.evaluation.wording import estimate_text, measure_text, readable


def fidelity_parts(rows: Sequence[FidelityRow]) -> Iterator[RenderableType]:
    """Yield lesion FID and KID per type."""
    if not rows:
        yield "No lesions to compare"
    for network in dict.fromkeys(row.network for row in rows):
        table = _table("lesion type", "compared", "N", "FID", "KID")
        for row in rows:
            if row.network == network:
                count = f"{row.num_real} and {row.num_synthetic}"
                table.add_row(row.lesion_type, row.compared, count, _text(row.fid.value, 2), _text(row.kid.value, 2))
        yield f"Lesion FID and KID, {network}"
        yield table


def distribution_parts(rows: Sequence[DistributionRow]) -> Iterator[RenderableType]:
    """Yield how HU, texture and size of real and synthetic lesions are spread."""
    table = _table("lesion type", "measure", "N", "real", "synthetic", "Wasserstein", "KS p")
    table.columns[1].overflow = "fold"
    for row in rows:
        real = f"{row.real_mean:.3g} ± {row.real_std:.2g}"
        synthetic = f"{row.synthetic_mean:.3g} ± {row.synthetic_std:.2g}"
        count = f"{row.num_real} and {row.num_synthetic}"
        distance = f"{row.wasserstein:.3g}"
        table.add_row(row.lesion_type, row.measure, count, real, synthetic, distance, _text(row.ks_p_value))
    yield "Distributions, mean ± standard deviation between lesions"
    yield table


def appearance_parts(types: Sequence[TypeAppearance]) -> Iterator[RenderableType]:
    """Yield how lesions look, the measures that matter most; the others stand in the JSON."""
    for found in types:
        table = _table("measure", "real", "synthetic", "difference (95 %)")
        for row in found.measures:
            if row.measure in SHOWN:
                sides = (_text(row.real.value, 1), _text(row.synthetic.value, 1))
                table.add_row(measure_text(row.measure, row.unit), *sides, _change_text(row.difference, 1))
        yield (
            f"Looks of {readable(found.lesion_type)}, {found.num_real} real and {found.num_synthetic} synthetic. "
            f"Energy distance of all measures {_text(found.energy_distance, 2)}; of halves of the real ones "
            f"{estimate_text(found.energy_distance_of_halves, 2)}"
        )
        yield table


def asked_parts(rows: Sequence[AskedRow]) -> Iterator[RenderableType]:
    """Yield what was painted against what was asked for; nothing where nothing was asked."""
    for name in dict.fromkeys(row.lesion_type for row in rows):
        table = _table("attribute", "N", "asked", "painted", "apart", "close", "slope", "r")
        for row in rows:
            if row.lesion_type == name:
                means = [_text(each.value, 1) for each in (row.asked, row.painted, row.absolute_difference)]
                close = "-" if row.share_close.value is None else f"{row.share_close.value:.0%}"
                fits = (_text(row.slope.value, 2), _text(row.correlation.value, 2))
                table.add_row(row.attribute, str(row.num_lesions), *means, close, *fits)
        yield (
            f"Asked of {readable(name)}, and painted; close: within 5 % (mean: or 8 HU); "
            "slope: of painted on asked, 1 where it follows"
        )
        yield table


def memorisation_parts(found: Memorisation) -> Iterator[RenderableType]:
    """Yield how near synthetic lesions come to training lesions, and name the copies."""
    table = _table("lesion type", "N", "distance to the nearest", "between real ones", "copies")
    for name in dict.fromkeys(row.lesion_type for row in found.synthetic):
        painted = [row for row in found.synthetic if row.lesion_type == name]
        nearest = [sorted(row.distance for row in rows if row.lesion_type == name) for rows in (painted, found.real)]
        copies = sum(row.is_copy for row in painted)
        table.add_row(name, str(len(painted)), *(_range(distances, 2) for distances in nearest), str(copies))
    yield f"Copies of training lesions: {len(found.copies)}; by chance 1 in {1 / found.false_alarm_rate:.0f}"
    yield table
    for row in found.copies:
        yield (
            f"{row.case}: {row.lesion_type} at voxel {row.center_voxel} is a copy of {row.nearest_case}'s at "
            f"{row.nearest_center_voxel}, distance {row.distance:.2f} (allowed {row.threshold:.2f})"
        )


def reconstruction_parts(rows: Sequence[ReconstructionRow]) -> Iterator[RenderableType]:
    """Yield what every autoencoder keeps of every dataset, trilinear sampling beside it."""
    yield "Errors in HU, PSNR in dB; detail: power above half the Nyquist frequency, as a multiple of the scan's"
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
        yield f"{dataset}, {len(shown[0].cases)} scans"
        yield table


def score_parts(scores: Sequence[LesionScore], tolerance_mm: float) -> Iterator[RenderableType]:
    """Yield the score of every case and lesion type."""
    table = _table("case", "lesion type", "Dice", f"surface Dice ({tolerance_mm:g} mm)", "HD95 mm")
    for score in scores:
        figures = (_text(score.dice), _text(score.surface_dice), _text(score.hd95_mm, 1))
        table.add_row(score.case, score.lesion_type, *figures)
    yield table


def method_parts(rows: Sequence[MethodRow], tolerance_mm: float) -> Iterator[RenderableType]:
    """Yield the mean of every metric by type, size and method, then each method's difference from the reference."""
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
    yield (
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
        yield (readable(lesion_type))
        yield table
    table = _table("type", "metric", "method", "N", "difference (95 %)", "p")
    for row in rows:
        if row.size == "all sizes" and row.difference is not None and row.difference.value is not None:
            change = _change_text(row.difference, decimals.get(row.metric, 3))
            name = readable(row.lesion_type)
            table.add_row(
                name, names[row.metric], row.method, str(row.num_paired_subjects), change, _text(row.p_value, 3)
            )
    if not table.row_count:
        return
    yield "Differences from the reference, paired by subject; p: permutation test, not corrected for many comparisons"
    yield table


def _table(*columns: str) -> Table:
    return Table(*columns, box=SIMPLE)


def _text(value: float | None, decimals: int = 3) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _change_text(difference: Estimate, decimals: int) -> str:
    if difference.value is None:
        return "-"
    ends = (difference.low, difference.high)
    interval = " to ".join(f"{end:+.{decimals}f}" for end in ends if end is not None) or "-"
    return f"{difference.value:+.{decimals}f} ({interval})"


def _range(values: Sequence[float], decimals: int) -> str:
    return f"{values[0]:.{decimals}f} to {values[-1]:.{decimals}f}" if values else "-"
