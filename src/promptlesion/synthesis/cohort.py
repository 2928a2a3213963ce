"""Many synthetic cases, written as a dataset folder that is an input like any other.

Any number of processes may work on one cohort, on one machine or on several that share the folder: what a case becomes
depends on the seed and the plan alone, every process takes its share of it, and the last one to end writes what belongs
to all. Cases that follow each other make a group, whose lesions go through the network together. `provenance/` holds
the record of every case; a case with a record is never written again.
"""

import hashlib
import json
import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from promptlesion.data.dataset import Dataset, write_dataset_json, write_spec
from promptlesion.data.provenance import PROVENANCE_FILE
from promptlesion.data.trained_on import GENERATOR_FILE
from promptlesion.data.volume import read_shape
from promptlesion.masks.shape_bank import ShapeSource
from promptlesion.masks.sizes_and_shapes import build_drawing
from promptlesion.synthesis.batch_size import default_num_workers, groups_a_turn, groups_at_once
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.plan import Group, PlannedCase, group_cases, plan_cohort
from promptlesion.synthesis.shard import Shard
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.synthesis.synthetic_case import CaseMaker, Recipe, is_painted, missing_dicom
from promptlesion.training.atomic import remove_leftovers, write_json, write_text
from promptlesion.training.device import worker_device
from promptlesion.training.locks import LOCKS_FOLDER, check_locks, lock_if_free, locked
from promptlesion.training.pool import run_in_processes, worker_number
from promptlesion.training.progress import progress_bar
from promptlesion.training.run import Run, RunError, RunOptions, is_finished_run

logger = logging.getLogger(__name__)

_MOST_NAMED = 3


class CohortError(RuntimeError):
    """Not one of the asked-for lesions could be painted; the message says why."""


def synthesize_cohort(
    dataset: Dataset,
    synthesizer: Synthesizer,
    *,
    counts: Mapping[str, int],
    config: SynthesisConfig,
    out: Path,
    seed: int,
    shapes: Mapping[str, ShapeSource] | None = None,
    is_dicom: bool = False,
    shard: Shard | None = None,
    load: Callable[[str], Synthesizer] | None = None,
    num_workers: int | None = None,
    on_complete: Callable[[], None] | None = None,
) -> Run:
    """Paint the asked-for lesions into the dataset's scans and write them as a dataset folder.

    A case that is there whole is kept; `provenance.jsonl` and `dataset.json` come last, from whoever finds all cases
    done. The folder is the same for every number of shards and workers.

    Args:
        dataset: the scans to paint into; give only those of training subjects.
        synthesizer: the method.
        counts: lesions to paint of each type, by name.
        config: how lesions are drawn and judged.
        out: the dataset folder to write.
        seed: of every case.
        shapes: folders or archives of masks to draw from, by type name.
        is_dicom: also write every case as a DICOM series with a segmentation.
        shard: this process's cases where several work on the cohort; by default all.
        load: loads the method on a device in a worker process; without it this process does the work.
        num_workers: processes to share the work between, by default as many as pays off.
        on_complete: called once all that belongs to the cohort is written, before it counts as finished.

    Returns:
        The run, which lies in the dataset folder; not finished where others still work on their share.

    Raises:
        ValueError: an unknown type, or one too large for the method; a scan that cannot be read.
        RunError: the folder holds a cohort made from something else, or a dataset that is none.
        CohortError: no lesion at all could be painted.
        WorkerError: workers at one group of cases were killed again and again.
        LockError: locks do not work in the folder.
    """
    planned = plan_cohort(
        dataset,
        counts,
        statistics=synthesizer.card.statistics,
        lesions_per_case=config.lesions_per_case,
        max_extent_mm=synthesizer.card.max_extent_mm,
        seed=seed,
    )
    drawing = build_drawing(
        dataset,
        synthesizer.card.statistics,
        config,
        edge_mm=synthesizer.card.edge_mm,
        max_extent_mm=synthesizer.card.max_extent_mm,
        shapes=shapes,
        own_lesions=synthesizer.card.own_lesions,
    )
    recipe = Recipe(dataset, drawing, config, out, seed, is_dicom)
    groups = group_cases(planned)
    is_dataset = any((out / name).exists() for name in ("dataset.json", "imagesTr"))
    if is_dataset and not (out / "run.json").is_file():
        raise RunError(f"{out}: expected a new folder, or one that synthesis wrote; found another dataset")
    was_finished = is_finished_run(out)
    if not was_finished:
        check_locks(out)
    with nullcontext() if was_finished else locked(_lock(out, "cohort")):
        run = _open_run(recipe, synthesizer, counts)
    if was_finished and not any(missing_dicom(recipe, case) for case in planned):
        return run
    own = shard or Shard()
    waiting = [sum(not _is_done(recipe, case) for case in group) for group in own.of(groups)]
    wanted = num_workers
    if wanted is None:
        largest = max(math.prod(read_shape(case.image_path)) for case in dataset.cases)
        wanted = default_num_workers(synthesizer.card.device, sum(waiting), scan_voxels=largest)
    num_groups = sum(number > 0 for number in waiting)
    _work(recipe, synthesizer, groups, own, load, max(1, min(wanted, num_groups)))
    with locked(_lock(out, "cohort")):
        num_left = len(_not_done(recipe, planned))
        if num_left:
            logger.info("%s: this shard is done; others have %d of %d cases left", out, num_left, len(planned))
            return run
        records = [recipe.read_record(case) for case in planned]
        shortfall = _shortfall(records, counts)
        if not any(is_painted(line) for record in records for line in record["cases"]):
            _clear(out)
            raise CohortError(f"{out}: no lesion could be painted. " + "; ".join(shortfall))
        if not is_finished_run(out):
            _finish(recipe, synthesizer, records)
            if on_complete is not None:
                on_complete()
            for text in (*shortfall, *_remarks(records, synthesizer)):
                logger.warning("%s", text)
            run.finish()
        _clear(out)
    return _open_run(recipe, synthesizer, counts)


def _is_done(recipe: Recipe, case: PlannedCase) -> bool:
    return recipe.record_path(case).is_file() and not missing_dicom(recipe, case)


def _open_run(recipe: Recipe, synthesizer: Synthesizer, counts: Mapping[str, int]) -> Run:
    """Take the cohort up, or say that the folder holds another one.

    The scans' names and sizes are part of what it is; their contents are looked at case by case.
    """
    cases = recipe.dataset.cases
    sizes = [[path.stat().st_size for path in (case.image_path, case.label_path)] for case in cases]
    with _one_thread():  # which the record tells
        return Run(
            RunOptions(recipe.out, recipe.seed, synthesizer.card.device),
            stage="synthesis",
            config={**recipe.config.model_dump(mode="json"), "counts": dict(counts)},
            inputs={
                "model": synthesizer.card.model_hash,
                "cases": ", ".join(case.name for case in cases),
                "scan_sizes": hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:16],
                "lesions": recipe.dataset.spec.model_dump_json(),
                "drawing": recipe.drawing.fingerprint,
            },
        )


def _work(
    recipe: Recipe,
    synthesizer: Synthesizer,
    groups: Sequence[Group],
    shard: Shard,
    load: Callable[[str], Synthesizer] | None,
    num_workers: int,
) -> None:
    """Make the cases of a shard, here or in worker processes, and show how far the whole cohort is."""
    planned, mine = [case for group in groups for case in group], shard.of(groups)
    count = _count_done(recipe, planned)
    shown = progress_bar("synthesis", len(planned), done=count()) if shard.index == 0 else nullcontext()
    with shown as bar:

        def show() -> None:
            if bar is not None:
                bar.update(count())

        was_there = frozenset(case.name for group in mine for case in group if recipe.record_path(case).is_file())
        if load is None or num_workers == 1:
            _make_groups(CaseMaker(recipe, synthesizer), recipe, mine, was_there, on_group=show)
        else:
            device = synthesizer.card.device
            size = groups_a_turn(device, len(mine), num_workers=num_workers)
            items = [mine[start : start + size] for start in range(0, len(mine), size)]
            worker = _Worker(recipe, load, device, was_there)
            made = run_in_processes(worker, items, num_workers=num_workers, name_of=lambda item: item[0][0].name)
            with closing(made):
                for _ in made:
                    show()
        if bar is not None:
            bar.update(len(planned) - len(_not_done(recipe, planned)))


def _not_done(recipe: Recipe, planned: Sequence[PlannedCase]) -> list[PlannedCase]:
    return [case for case in planned if not recipe.record_path(case).is_file()]


def _count_done(recipe: Recipe, planned: Sequence[PlannedCase]) -> Callable[[], int]:
    """Return what counts the cases that are done, whoever made them.

    It looks for as many files as cases are left, so only as often as that takes a hundredth of the time.
    """
    left, next_look = list(planned), 0.0

    def count() -> int:
        nonlocal left, next_look
        started = time.monotonic()
        if started >= next_look:
            left = _not_done(recipe, left)
            ended = time.monotonic()
            next_look = ended + 100 * (ended - started)
        return len(planned) - len(left)

    return count


@dataclass(frozen=True)
class _Worker:
    """Makes groups of cases in a process of its own, which loads the method once."""

    recipe: Recipe
    load: Callable[[str], Synthesizer]
    device: torch.device
    was_there: frozenset[str]

    @cached_property
    def maker(self) -> CaseMaker:
        """With the method on this process's device."""
        return CaseMaker(self.recipe, self.load(worker_device(self.device, worker_number())))

    def __call__(self, groups: Sequence[Group]) -> None:
        _make_groups(self.maker, self.recipe, groups, self.was_there, on_group=lambda: None)


def _make_groups(
    maker: CaseMaker,
    recipe: Recipe,
    groups: Sequence[Group],
    was_there: frozenset[str],
    *,
    on_group: Callable[[], None],
) -> None:
    """Make the cases that are not there yet; of those that were there from the start, the sources are looked at.

    What another command is making is left to it. On an accelerator one group is read and written while another is
    sampled.
    """

    def make(group: Group) -> None:
        for case in group:
            if case.name in was_there:
                maker.check_source(case)
        with ExitStack() as locks:
            own = list(takewhile(lambda case: locks.enter_context(lock_if_free(_lock(recipe.out, case.name))), group))
            maker.make(group, own=own)

    with _one_thread(), ThreadPoolExecutor(groups_at_once(maker.device)) as threads:
        made = (map if maker.device.type == "cpu" else threads.map)(make, groups)
        try:
            for _ in made:
                on_group()
        except BaseException:
            maker.stop()
            threads.shutdown(cancel_futures=True)
            raise


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: rounding depends on their number, and lesions must not."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finish(recipe: Recipe, synthesizer: Synthesizer, records: Sequence[Mapping[str, Any]]) -> None:
    """Write what belongs to all cases."""
    lines = [line for record in records for line in record["cases"] if is_painted(line)]
    write_text(recipe.out / PROVENANCE_FILE, "".join(json.dumps(line) + "\n" for line in lines))
    card = synthesizer.card
    generator = {"method": card.method, "model": card.model_hash, **card.learned_from.as_card()}
    write_json(recipe.out / GENERATOR_FILE, generator)
    write_spec(recipe.dataset.spec, recipe.out / "lesions.toml")
    write_dataset_json(
        recipe.out,
        labels=recipe.dataset.labels,
        num_training=len(lines),
        extra={"is_synthetic": True, "method": card.method},
    )


def _clear(out: Path) -> None:
    """Remove what killed processes left, and the locks; all cases are done, so that nobody needs them any more."""
    remove_leftovers(out)
    shutil.rmtree(out / LOCKS_FOLDER, ignore_errors=True)


def _shortfall(records: Sequence[Mapping[str, Any]], counts: Mapping[str, int]) -> list[str]:
    """Say for every type of which fewer lesions were painted than asked for, how many are missing and why."""
    lesions = [lesion for record in records for line in record["cases"] for lesion in line["lesions"]]
    texts = []
    for name, count in counts.items():
        own = [lesion for lesion in lesions if lesion["type"] == name]
        rejected = [lesion["rejections"][-1] for lesion in own if not lesion["is_accepted"]]
        unplaced = [entry["reason"] for record in records for entry in record["unplaced"] if entry["type"] == name]
        if not rejected and not unplaced:
            continue
        text = f"{name}: {len(own) - len(rejected)} of {count} painted"
        if unplaced:
            text += f"; {len(unplaced)} found no room ({_most_common(unplaced)})"
        if rejected:
            text += (
                f"; {len(rejected)} did not pass the quality filter ({_most_common(rejected)}); --accept-all keeps them"
            )
        texts.append(text)
    return texts


def _most_common(texts: Sequence[str]) -> str:
    text, number = Counter(texts).most_common(1)[0]
    return text if len(texts) == 1 else f"{text}, {number} times" if number > 1 else f"for example {text}"


def _remarks(records: Sequence[Mapping[str, Any]], synthesizer: Synthesizer) -> list[str]:
    """Return what else one should know: scans that are coarse for the model, and lesions too small for it."""
    remarks = list(dict.fromkeys(text for record in records for text in record["remarks"]))
    more = len(remarks) - _MOST_NAMED
    texts = remarks[:_MOST_NAMED] + ([f"and {more} more scans like these"] if more > 0 else [])
    painted = [
        (lesion["diameter_mm"], lesion["type"], line["case"])
        for record in records
        for line in record["cases"]
        for lesion in line["lesions"]
        if lesion["is_accepted"]
    ]
    small = [entry for entry in painted if entry[0] < synthesizer.card.finest_mm]
    if small:
        diameter_mm, name, case = min(small)
        texts.append(
            f"{len(small)} of {len(painted)} lesions are smaller than what the model resolves, a sphere of "
            f"{synthesizer.card.finest_mm:.1f} mm; the smallest, {diameter_mm:.1f} mm, is a {name} in {case}"
        )
    return texts


def _lock(out: Path, name: str) -> Path:
    return out / LOCKS_FOLDER / f"{name}.lock"
