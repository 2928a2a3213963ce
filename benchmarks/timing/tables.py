"""The suite's figures as JSON and as Markdown tables, with the machine they were taken on."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from promptlesion.training.atomic import write_json, write_text
from timing.clock import clock_of
from timing.suite import Row, Suite, copy_rate

_GIGA = 1e9


def write_tables(out: Path, suite: Suite, *, preset: str, took: Mapping[str, float], command: str) -> None:
    """Write speed.json and speed.md; after every part, so that a broken run leaves what it found."""
    machine = describe_machine(suite.device)
    ceilings = {
        f"{width} channels, {str(dtype).removeprefix('torch.')}": rate
        for (width, dtype), rate in sorted(suite.ceilings.items(), key=str)
    }
    copied = copy_rate(suite.device)
    content = {
        "command": command,
        "preset": preset,
        "machine": machine,
        "ceilings_flop_rate": ceilings,
        "copy_bytes_per_second": copied,
        "must_show": [{**vars(show), "is_met": show.is_met} for show in suite.shows],
        "rows": [{**row.as_json(), "times_plain_float32": times_plain(row, suite.rows)} for row in suite.rows],
        "notes": suite.notes,
        "profiles": suite.profiles,
        "seconds_of_parts": dict(took),
    }
    write_json(out / "speed.json", content)
    lines = ["# Speed", "", f"    {command}", "", f"Preset {preset}. Machine: {'; '.join(machine.values())}.", ""]
    if ceilings:
        lines += ["Ceilings of this machine: the fastest 3x3x3 convolution of so many channels: "]
        lines += [f"{name} {rate / _GIGA:.0f} GFLOP/s; " for name, rate in ceilings.items()]
        lines += [f"a large copy {copied / _GIGA:.1f} GB/s, read and written.", ""]
    lines += _shown(suite)
    for part in dict.fromkeys(row.part for row in suite.rows):
        lines += [f"## {part}", "", *_table([row for row in suite.rows if row.part == part]), ""]
    lines += [f"- {note}" for note in suite.notes]
    for name, table in suite.profiles.items():
        lines += ["", f"Profile: {name}", "", *(f"    {line}" for line in table.splitlines())]
    write_text(out / "speed.md", "\n".join(lines) + "\n")


def _shown(suite: Suite) -> list[str]:
    if not suite.shows:
        return []
    lines = ["## Must show", "", "| | what | found | asked for | met |", "|---|---|---|---|---|"]
    for show in suite.shows:
        sign = "at least" if show.is_least else "at most"
        met = "yes" if show.is_met else "**no**"
        lines.append(f"| {show.number} | {show.what} | {show.value:.3g} | {sign} {show.threshold:g} | {met} |")
    return [*lines, ""]


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| what | form | precision | seconds: median (fastest to slowest) | repeats | times ours "
        "| times plain float32 | GFLOP | GFLOP/s | of the ceiling | extra MiB | |",
        "|" + "---|" * 12,
    ]
    for row in rows:
        timing = row.timing
        own = (row.what, row.precision, "ours")
        ours = next(other.timing.fastest for other in rows if (other.what, other.precision, other.form) == own)
        cells = [
            row.what,
            row.form,
            row.precision,
            f"{_short(timing.seconds)} ({_short(timing.fastest)} to {_short(timing.slowest)})",
            str(timing.repeats),
            f"{timing.fastest / ours:.2f}",
            "-" if (plain := times_plain(row, rows)) is None else f"{plain:.2f}",
            "-" if timing.flops is None else f"{timing.flops / _GIGA:.1f}",
            "-" if timing.flop_rate is None else f"{timing.flop_rate / _GIGA:.0f}",
            "-" if row.share is None else f"{100 * row.share:.0f} %",
            "-" if timing.extra_mib is None else f"{timing.extra_mib:.0f}",
            "; ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in row.facts.items()),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def times_plain(row: Row, rows: Sequence[Row]) -> float | None:
    """Return how many times faster a row is than the plain network in float32, if that was timed on the same work."""
    plain = (other for other in rows if other.what == row.what and other.form.startswith("plain"))
    found = next(plain, None)
    return None if found is None else found.timing.fastest / row.timing.fastest


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"


def describe_machine(device: torch.device) -> dict[str, str]:
    """Name processor, threads, device and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    wide = [name for name in ("avx512_bf16", "amx_bf16", "bf16") if capabilities.get(name)]
    return {
        "processor": f"{models[0] if models else platform.machine()}, {len(models) or '?'} cores",
        "threads": f"{torch.get_num_threads()} threads",
        "bfloat16": f"native bfloat16: {', '.join(wide) or 'no'}",
        "clock": clock_of(device)[1],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "software": f"Python {platform.python_version()}, torch {torch.__version__}",
    }
