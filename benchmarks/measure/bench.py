"""What all measurements share: the held-out subjects, the runs, parts that are computed once, and tables."""

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from promptlesion.baselines.med_ddpm import MED_DDPM
from promptlesion.config import Config, resolve_config
from promptlesion.data.cache import data_fingerprint
from promptlesion.data.prepared import PreparedDataset, prepare_dataset
from promptlesion.evaluation.results import Estimate
from promptlesion.masks.sizes_and_shapes import build_drawing
from promptlesion.methods import load_method
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.synthesis.trial_painting import MaskedScan, scans_with_new_masks
from promptlesion.training.atomic import write_json, write_text
from promptlesion.training.device import resolve_device

_console = Console(stderr=True)


@dataclass(frozen=True)
class Model:
    """A run to measure."""

    name: str
    run: Path
    card: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """What it was trained with."""
        return {"method": self.card.get("method", "promptlesion"), **self.card["config"]}

    @property
    def has_prompt(self) -> bool:
        """Whether it can be guided."""
        return str(self.settings.get("prompt_encoder", "none")) != "none"

    @property
    def sees_scan(self) -> bool:
        """Whether it starts from the scan and its surroundings; Med-DDPM does not."""
        return str(self.settings["method"]) != MED_DDPM


@dataclass(frozen=True)
class Bench:
    """What all commands share."""

    name: str
    prepared: PreparedDataset
    config: Config
    models: tuple[Model, ...]
    out: Path
    seed: int
    device: str
    batch_size: int

    @property
    def types(self) -> list[str]:
        """Lesion types in prompt order."""
        return [lesion.name for lesion in self.prepared.dataset.spec.lesions]

    @property
    def where(self) -> dict[str, object]:
        """What every row of a table is to say, besides its own figures."""
        return {"seed": self.seed, "command": _command(), "machine": _machine(self.device)}

    def sampling(self, model: Model, **settings: object) -> SynthesisConfig:
        """Return the sampling as configured, but for the given settings and those a method has no use for."""
        unused: dict[str, object] = {} if model.has_prompt else {"guidance_scale": 1.0}
        if not model.sees_scan:
            unused |= {"init": "noise", "reinject_background": False}
        return SynthesisConfig.model_validate({**self.config.synthesis.model_dump(), **settings, **unused})

    def load(self, model: Model, **settings: object) -> Synthesizer:
        """Read a model, to be sampled with these settings."""
        return load_method(model.run, self.sampling(model, **settings), self.device)

    def part(self, name: str, identity: Mapping[str, object], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a part of the measurement, from its file where that was made from the same."""
        asked = json.loads(json.dumps({**identity, "seed": self.seed, **self.scope()}))
        path = self.out / "parts" / f"{self.name}-{name}.json"
        if path.is_file():
            stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if stored["made_from"] == asked:
                return stored["found"]  # type: ignore[no-any-return]
        say(f"{self.name}: {name}")
        found = compute()
        write_json(path, {"made_from": asked, "found": found})
        return found

    def scope(self) -> dict[str, object]:
        """Identify the scans that are measured on."""
        return {"data": data_fingerprint([*self.prepared.train, *self.prepared.test])}

    def new_masks(
        self, synthesizers: Sequence[Synthesizer], num_per_type: int, margin_mm: float = 0
    ) -> list[MaskedScan]:
        """Place masks that all of the methods can paint; `margin_mm` keeps them smaller than the patch by that."""
        max_extent_mm = min(each.card.max_extent_mm for each in synthesizers) - 2 * margin_mm
        return scans_with_new_masks(
            self.prepared.part("test"),
            num_per_type=num_per_type,
            drawing=build_drawing(
                self.prepared.part("train"),
                synthesizers[0].card.statistics,
                self.config.synthesis,
                edge_mm=max(each.card.edge_mm for each in synthesizers),
                max_extent_mm=max_extent_mm,
            ),
            seed=self.seed,
        )


def open_bench(
    name: str,
    *,
    data: Path,
    cache: Path,
    models: Sequence[str],
    out: Path,
    lesions: Path | None,
    preset: str,
    config: Path | None,
    settings: Sequence[str],
    seed: int,
    device: str,
    batch_size: int,
) -> Bench:
    """Open data and runs, and check that no held-out subject was trained on."""
    resolved = resolve_config(preset=preset, file=config, settings=settings)
    prepared = prepare_dataset(data, cache=cache, lesions=lesions, **resolved.data.split_options())
    found = tuple(_read_model(text, prepared) for text in models)
    return Bench(name, prepared, resolved, found, out, seed, device, batch_size)


def _read_model(text: str, prepared: PreparedDataset) -> Model:
    name, separator, run = text.partition("=")
    if not separator or not name or not run:
        raise ValueError(f"--model {text}: expected NAME=RUN")
    card = json.loads((Path(run) / "checkpoint" / "card.json").read_text(encoding="utf-8"))
    trained_on = {case.subject for case in prepared.test} & set(card["training_subjects"])
    if trained_on:
        raise ValueError(f"{run}: expected no held-out subject in its training; found {', '.join(sorted(trained_on))}")
    return Model(name, Path(run), card)


def sampling_words(bench: Bench) -> str:
    """Return how lesions were sampled, for a table's footer."""
    found = bench.config.synthesis
    guidance = f"guidance {found.guidance_scale}{' of models with a prompt' if found.guidance_scale != 1 else ''}"
    background = ", background re-injected" if found.reinject_background else ""
    return f"{found.sampler}, {found.num_steps} steps, {guidance}, init {found.init}{background}"


def masks_hash(scans: Sequence[MaskedScan]) -> str:
    """Identify masks and seeds."""
    digest = hashlib.sha256()
    for scan in scans:
        for lesion, seed in zip(scan.lesions, scan.seeds, strict=True):
            digest.update(f"{scan.case} {lesion.type_index} {lesion.box} {seed}".encode())
            digest.update(np.packbits(lesion.mask).tobytes())
    return digest.hexdigest()[:16]


def write(bench: Bench, lines: Sequence[str], content: Mapping[str, object]) -> None:
    """Write a table as Markdown, and everything behind it as JSON."""
    where = bench.where
    footer = ["", f"    {where['command']}", "", f"Seed {where['seed']}. Machine: {where['machine']}.", ""]
    write_text(bench.out / f"{bench.name}.md", "\n".join([*lines, *footer]))
    write_json(bench.out / f"{bench.name}.json", {**where, **content})
    say(f"{bench.out / bench.name}.md")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]


def interval(estimate: Estimate, decimals: int, *, sign: bool = False) -> str:
    """Return an estimate and its interval as a cell."""
    form = f"{'+' if sign else ''}.{decimals}f"
    if estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def _command() -> str:
    return " ".join(["python", *sys.argv])


def _machine(device: str) -> str:
    torch_device = resolve_device(device)
    name = torch.cuda.get_device_name(torch_device) if torch_device.type == "cuda" else str(torch_device)
    threads = torch.get_num_threads()
    return f"{platform.machine()}, {os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''}, device {name}"


def clock_of(device: str) -> tuple[Callable[[], float], str]:
    """Return the clock that times painting, and its name; other processes do not disturb that of the processor."""
    if resolve_device(device).type == "cpu":
        return time.process_time, "processor time of all threads"
    return time.perf_counter, "wall clock"


def say(text: str) -> None:
    """Print a line on standard error."""
    _console.print(text, highlight=False, soft_wrap=True)
