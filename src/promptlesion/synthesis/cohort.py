"""Many synthetic cases, written as a dataset folder that is an input like any other."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptlesion.data.dataset import Case, Dataset, read_case, write_case, write_dataset_json, write_spec
from promptlesion.data.provenance import PROVENANCE_FILE
from promptlesion.data.splits import Split
from promptlesion.data.volume import Volume
from promptlesion.synthesis.blend import blend
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.placement import PlacedLesion, PlacementError, paint_labels, place_lesion
from promptlesion.synthesis.quality import is_plausible, mean_hu_inside
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.training.atomic import write_json, write_text
from promptlesion.training.checkpoint import differences, file_hash
from promptlesion.training.progress import progress_bar
from promptlesion.training.run import Run
from promptlesion.training.seeding import derive_seed, numpy_generator

logger = logging.getLogger(__name__)

_RECORDS_FOLDER = "provenance"


@dataclass(frozen=True)
class PlannedCase:
    """A synthetic case to be made: its name, and the lesion types to paint, in prompt order."""

    name: str
    index: int
    types: tuple[int, ...]


def parse_counts(texts: Sequence[str]) -> dict[str, int]:
    """Read `TYPE=N` texts.

    Raises:
        ValueError: a text of another form, or a type named twice.
    """
    counts: dict[str, int] = {}
    for text in texts:
        name, separator, number = text.partition("=")
        if not separator or not number.isdigit() or name in counts:
            raise ValueError(f"--count {text}: expected TYPE=N, every type once; for example calcified_plaque=20")
        counts[name] = int(number)
    return counts


def source_scans(dataset: Dataset, synthesizer: Synthesizer, held_out: Split) -> Dataset:
    """Return the scans a cohort may be painted into: never those of validation or test subjects.

    A dataset the model was not trained on has none of its training cases; there the dataset's own split decides.

    Raises:
        ValueError: the model was trained with another window or spacing or other lesion types, or no scan is left.
    """
    others = differences(dataset.spec.facts(), synthesizer.spec.facts())
    if others:
        raise ValueError(
            f"{dataset.root}: expected a dataset like the one the model was trained on; found one with other "
            + "; ".join(others)
        )
    return dataset.select(held_out.train)


def plan_cohort(dataset: Dataset, counts: Mapping[str, int], *, lesions_per_case: int, seed: int) -> list[PlannedCase]:
    """Spread the asked-for lesions over as few cases as hold them, types mixed.

    Args:
        dataset: names the lesion types.
        counts: lesions to paint of each type, by name.
        lesions_per_case: most lesions in one case.
        seed: of the mixing.

    Raises:
        ValueError: an unknown type, or nothing to paint.
    """
    names = [lesion.name for lesion in dataset.spec.lesions]
    for name, count in counts.items():
        if name not in names:
            raise ValueError(
                f"--count {name}={count}: expected one of the lesion types {', '.join(names)}; found {name!r}"
            )
    types = [index for index, name in enumerate(names) for _ in range(counts.get(name, 0))]
    if not types:
        raise ValueError(f"--count: expected at least one lesion of {', '.join(names)}; found none")
    shuffled = [int(index) for index in numpy_generator(seed, "plan").permutation(types)]
    num_cases = -(-len(shuffled) // lesions_per_case)
    return [PlannedCase(f"synthetic_{k:04d}", k, tuple(sorted(shuffled[k::num_cases]))) for k in range(num_cases)]


def synthesize_cohort(
    dataset: Dataset,
    synthesizer: Synthesizer,
    *,
    counts: Mapping[str, int],
    config: SynthesisConfig,
    out: Path,
    seed: int,
) -> Run:
    """Paint the asked-for lesions into the dataset's scans and write them as a dataset folder.

    A case that is already there whole is kept; `provenance.jsonl` and `dataset.json` are written last.

    Args:
        dataset: the scans to paint into; give only those of training subjects.
        synthesizer: the method.
        counts: lesions to paint of each type, by name.
        config: how lesions are drawn.
        out: the dataset folder to write.
        seed: of every case; a case's voxels depend on the seed and its number alone.

    Returns:
        The finished run; its record lies in the dataset folder.

    Raises:
        PlacementError: no scan has room for a lesion that was asked for.
        RunError: the folder holds a cohort made from something else.
    """
    planned = plan_cohort(dataset, counts, lesions_per_case=config.lesions_per_case, seed=seed)
    run = Run(
        out,
        stage="synthesis",
        config={**config.model_dump(mode="json"), "counts": dict(counts)},
        seed=seed,
        inputs={
            "model": synthesizer.model_hash,
            "cases": ", ".join(case.name for case in dataset.cases),
            "scans": _scans_hash(dataset),
            "lesions": dataset.spec.model_dump_json(),
        },
        device=synthesizer.device,
    )
    if run.is_finished:
        return run
    records = [out / _RECORDS_FOLDER / f"{case.name}.json" for case in planned]
    with progress_bar("synthesis", len(planned), done=sum(path.is_file() for path in records)) as bar:
        for done, (case, record) in enumerate(zip(planned, records, strict=True), start=1):
            if not record.is_file():
                write_json(
                    record,
                    _make_case(case, dataset, synthesizer, config, out, derive_seed(seed, "case", case.index)),
                )
            bar.update(done)
    lines = [json.loads(path.read_text(encoding="utf-8")) for path in records]
    _warn_of_shortfall([lesion for line in lines for lesion in line["lesions"]], sum(counts.values()), config)
    write_text(out / PROVENANCE_FILE, "".join(json.dumps(line) + "\n" for line in lines))
    write_spec(dataset.spec, out / "lesions.toml")
    write_dataset_json(
        out,
        labels=dataset.labels,
        num_training=len(planned),
        extra={"is_synthetic": True, "method": synthesizer.method},
    )
    run.finish()
    return run


def _warn_of_shortfall(painted: Sequence[Mapping[str, object]], num_asked: int, config: SynthesisConfig) -> None:
    """Say when the cohort has fewer lesions than were asked for, and why."""
    if len(painted) < num_asked:
        logger.warning(
            "%d of %d lesions found no room beside the others of their case", num_asked - len(painted), num_asked
        )
    rejected = sum(not lesion["is_accepted"] for lesion in painted)
    if rejected:
        logger.warning(
            "%d of %d lesions were not plausible after %d attempts and were left out",
            rejected,
            len(painted),
            config.max_attempts,
        )


def _scans_hash(dataset: Dataset) -> str:
    """Return a hash of the files the cohort is painted into."""
    hashes = (file_hash(path) for case in dataset.cases for path in (case.image_path, case.label_path))
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def _make_case(
    planned: PlannedCase,
    dataset: Dataset,
    synthesizer: Synthesizer,
    config: SynthesisConfig,
    out: Path,
    seed: int,
) -> dict[str, object]:
    """Paint one case, write it, and return its line of provenance."""
    source, image, labels, lesions = _place_all(planned, dataset, synthesizer, config, seed)
    painted_image, painted_labels, entries = _paint_all(image, labels, lesions, dataset, synthesizer, config, seed)
    write_case(out, planned.name, painted_image, painted_labels)
    return {
        "case": planned.name,
        "source": source.name,
        "subject": source.subject,
        "method": synthesizer.method,
        "model": synthesizer.model_hash,
        "sampler": config.sampler,
        "num_steps": config.num_steps,
        "seed": seed,
        "edge_mm": synthesizer.edge_mm,
        "lesions": entries,
    }


def _place_all(
    planned: PlannedCase, dataset: Dataset, synthesizer: Synthesizer, config: SynthesisConfig, seed: int
) -> tuple[Case, Volume, Volume, list[PlacedLesion]]:
    """Find a scan that has room for a planned case's lesions; scans take turns.

    What has no room beside the first is left out: three sarcomas hardly fit into one thigh.
    """
    failures: list[str] = []
    for attempt in range(len(dataset.cases)):
        source = dataset.cases[(planned.index + attempt) % len(dataset.cases)]
        image, labels = read_case(dataset, source)
        generator = numpy_generator(seed, "place", source.name)
        lesions: list[PlacedLesion] = []
        full: set[int] = set()
        for type_index in planned.types:
            if type_index in full:
                continue
            try:
                lesion = place_lesion(
                    labels,
                    dataset,
                    type_index,
                    generator=generator,
                    edge_mm=synthesizer.edge_mm,
                    deformation=config.deformation,
                    max_extent_mm=synthesizer.max_extent_mm,
                    others=lesions,
                )
            except PlacementError as error:
                full.add(type_index)
                failures.append(f"{source.name}: {error}")
            else:
                lesions.append(lesion)
        if lesions:
            return source, image, labels, lesions
    raise PlacementError(f"{planned.name}: no scan has room for it. " + "; ".join(failures[:3]))


def _paint_all(
    image: Volume,
    labels: Volume,
    lesions: Sequence[PlacedLesion],
    dataset: Dataset,
    synthesizer: Synthesizer,
    config: SynthesisConfig,
    seed: int,
) -> tuple[Volume, Volume, list[dict[str, object]]]:
    """Paint all lesions, those that are not plausible again, and leave out what never is."""
    hu, label_map = image.array.copy(), labels.array.copy()
    entries: dict[int, dict[str, object]] = {}
    waiting = list(range(len(lesions)))
    for attempt in range(1, config.max_attempts + 1):
        painted = synthesizer.paint(
            image,
            [lesions[index] for index in waiting],
            types=[lesions[index].type_index for index in waiting],
            seeds=[derive_seed(seed, "lesion", index, attempt) for index in waiting],
        )
        failed = []
        for index, box_hu in zip(waiting, painted, strict=True):
            lesion = lesions[index]
            lesion_type = dataset.spec.lesions[lesion.type_index]
            mean_hu = mean_hu_inside(box_hu, lesion.mask)
            is_accepted = is_plausible(mean_hu, lesion_type)
            if is_accepted:
                hu[lesion.box] = blend(
                    hu[lesion.box],
                    box_hu,
                    lesion.mask,
                    spacing_mm=image.spacing_mm,
                    edge_mm=synthesizer.edge_mm,
                )
                paint_labels(label_map, lesion, lesion_type.label)
                mean_hu = mean_hu_inside(hu[lesion.box], lesion.mask)
            else:
                failed.append(index)
            entries[index] = _entry(lesion, lesion_type.name, image, mean_hu, attempt, is_accepted=is_accepted)
        waiting = failed
        if not waiting:
            break
    return (
        image.with_array(hu),
        labels.with_array(label_map),
        [entries[index] for index in range(len(lesions))],
    )


def _entry(
    lesion: PlacedLesion, type_name: str, image: Volume, mean_hu: float, attempts: int, *, is_accepted: bool
) -> dict[str, object]:
    """Return a lesion's part of the provenance; the centre is in world millimetres, RAS+."""
    center_mm = image.affine[:3, :3] @ np.array(lesion.center_voxel) + image.affine[:3, 3]
    return {
        "type": type_name,
        "mask_origin": lesion.mask_origin,
        "center_mm": [round(float(value), 2) for value in center_mm],
        "diameter_mm": round(lesion.diameter_mm, 2),
        "mean_hu": round(mean_hu, 1),
        "attempts": attempts,
        "is_accepted": is_accepted,
    }
