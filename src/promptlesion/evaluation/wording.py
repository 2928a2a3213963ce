"""Names, figures and durations as a reader wants them."""

from promptlesion.evaluation.results import Estimate


def readable(name: str) -> str:
    """`non_calcified_plaque` as a reader wants it: `non-calcified plaque`."""
    return name.replace("non_", "non-").replace("_", " ")


def measure_text(measure: str, unit: str) -> str:
    """`edge_hu_per_mm` in HU/mm as a reader wants it: `edge (HU/mm)`."""
    name = readable(measure.removesuffix("_per_mm").removesuffix("_hu").removesuffix("_mm"))
    return f"{name} ({unit})" if unit else name


def estimate_text(estimate: Estimate, decimals: int = 3) -> str:
    """`0.512 [0.43, 0.60]`, without brackets where there is no interval; a dash where nothing was counted."""
    if estimate.value is None:
        return "–"
    text = _number(estimate.value, decimals)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{_number(estimate.low, decimals)}, {_number(estimate.high, decimals)}]"


def signed_text(estimate: Estimate, decimals: int = 3) -> str:
    """Like `estimate_text`, with a sign in front of every figure."""
    if estimate.value is None:
        return "–"
    text = f"{estimate.value:+.{decimals}f}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{estimate.low:+.{decimals}f}, {estimate.high:+.{decimals}f}]"


def duration_text(seconds: float) -> str:
    """`45 s`, `3 min 20 s` or `1 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def hu_text(value: float) -> str:
    """Whole HU."""
    return f"{value:.0f}"


def _number(value: float, decimals: int) -> str:
    is_tiny = value != 0 and abs(value) < 10**-decimals
    return f"{value:.1e}" if is_tiny else f"{value:.{decimals}f}"
