"""Planned cases made: scans that have room for their lesions, the lesions painted, and the record of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np
import torch

from promptlesion.data.dataset import Case, Dataset, image_path, label_path, read_case, write_case
from promptlesion.data.dataset_json import IGNORE_LABEL
from promptlesion.data.dicom_export.writer import export_dicom
from promptlesion.data.lesion_attributes import as_mapping, as_row
from promptlesion.data.volume import Volume, read_volume
from promptlesion.masks.placement import PlacedLesion, PlacementError, place_lesion
from promptlesion.masks.sizes_and_shapes import LesionDrawing
from promptlesion.synthesis.asking import ask
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.painting import PaintedLesion, Painting, paint_lesions, paint_together
from promptlesion.synthesis.plan import PlannedCase
from promptlesion.synthesis.quality import QualityLimits, limits_of
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.training.atomic import file_hash, read_json, write_json
from promptlesion.training.run import RunError
from promptlesion.training.seeding import derive_seed, numpy_generator

_RECORDS_FOLDER = "provenance"
_DICOM_FOLDER = "dicom"
_MOST_SCANS = 16
"""Scans with its host in which a lesion is tried before it is given up."""
_COARSE = 2.0


@dataclass(frozen=True)
class Recipe:
    """All that a case is made from besides the method and its own plan; it survives pickling."""

    dataset: Dataset
    drawing: LesionDrawing
    config: SynthesisConfig
    out: Path
    seed: int
    is_dicom: bool = False

    def record_path(self, planned: PlannedCase) -> Path:
        """Return where the record of a planned case lies; its presence means that the case is done."""
        return self.out / _RECORDS_FOLDER / f"{planned.name}.json"

    def read_record(self, planned: PlannedCase) -> dict[str, Any]:
        """Return the record of a planned case that is done."""
        return read_json(self.record_path(planned))


def is_painted(line: Mapping[str, Any]) -> bool:
    """Return whether a line of provenance tells of a case with a new lesion; without one no case is written."""
    return any(lesion["is_accepted"] for lesion in line["lesions"])


@dataclass
class _Progress:
    """How far a planned case has come."""

    waiting: list[tuple[int, int]]
    """Number and type of the lesions that have no place yet."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    """Why a type found no place in the last scan that has its host."""


class CaseMaker:
    """Makes planned cases, and remembers what it has learnt about the scans."""

    def __init__(self, recipe: Recipe, synthesizer: Synthesizer) -> None:
        """Look at nothing yet."""
        self._recipe = recipe
        self._synthesizer = synthesizer
        self._turn = Lock()
        self._stopped = Event()
        self._hostless: set[tuple[str, int]] = set()
        self._hashes: dict[str, dict[str, str]] = {}
        types, known = recipe.dataset.spec.lesions, synthesizer.card.statistics.types
        self._limits: list[QualityLimits] | None = None
        if not recipe.config.accept_all:
            self._limits = [limits_of(lesion_type, known.get(lesion_type.name)) for lesion_type in types]

    @property
    def device(self) -> torch.device:
        """What the method computes on."""
        return self._synthesizer.card.device

    def check_source(self, planned: PlannedCase) -> None:
        """Make sure that what a finished case was made from is still there.

        Raises:
            RunError: its scan is another one by now.
        """
        for line in self._recipe.read_record(planned)["cases"]:
            if line["source_sha256"] != self._hashes_of(self._recipe.dataset.case(line["source"])):
                raise RunError(
                    f"{line['source']}: expected the scan and label map that {line['case']} was painted into; found "
                    "other files of these names. Choose another --out, or remove the folder"
                )

    def make(self, group: Sequence[PlannedCase], *, own: Sequence[PlannedCase] | None = None) -> None:
        """Make cases whose lesions go through the network together, or the DICOM series of those that are there.

        The record of a case comes last. A case that has one, or is another process's, is painted once more where one
        of the group is still to be made, and not written: a lesion's last bits depend on its batch. Several threads may
        call this; one paints while another reads and writes.

        Args:
            group: the cases.
            own: those of them to write, by default all.
        """
        own = group if own is None else own
        missing = {case.name for case in own if not self._recipe.record_path(case).is_file()}
        for case in own:
            if case.name not in missing:
                self._add_dicom(case)
        if missing:
            works = [self._make(case, is_written=case.name in missing) for case in group]
            paint_together(works, self._synthesizer, turn=self._turn, stopped=self._stopped)

    def stop(self) -> None:
        """End what is being made, in whatever thread, before its next batch; it leaves no record."""
        self._stopped.set()

    def _make(self, planned: PlannedCase, *, is_written: bool) -> Painting[None]:
        """Make a case; what finds no room in its own scan becomes a case of its own in another one."""
        recipe = self._recipe
        progress = _Progress(list(enumerate(planned.types)))
        cases = recipe.dataset.cases
        num_tried = 0
        for turn in range(len(cases)):
            source = cases[(planned.index + turn) % len(cases)]
            if not progress.waiting or num_tried == _MOST_SCANS:
                break
            if all((source.name, kind) in self._hostless for _, kind in progress.waiting):
                continue
            num_tried += yield from self._use_scan(planned, source, progress, is_written=is_written)
        if not is_written:
            return
        names = [lesion_type.name for lesion_type in recipe.dataset.spec.lesions]
        unplaced = [{"type": names[kind], "reason": self._reason(kind, progress)} for _, kind in progress.waiting]
        record = {"cases": progress.lines, "unplaced": unplaced, "remarks": progress.remarks}
        write_json(recipe.record_path(planned), record)

    def _use_scan(self, planned: PlannedCase, source: Case, progress: _Progress, *, is_written: bool) -> Painting[bool]:
        """Paint what a scan has room for, and return whether it has the host of any lesion that waited."""
        recipe = self._recipe
        image, labels = read_case(recipe.dataset, source)
        seed = derive_seed(recipe.seed, "case", planned.name, source.name)
        kinds = {kind for _, kind in progress.waiting}
        lesions = self._place(source, image, labels, progress, seed)
        if lesions:
            number = len(progress.lines) + 1
            name = planned.name if number == 1 else f"{planned.name}_{number}"
            line = yield from self._paint(name, source, image, labels, lesions, seed)
            if is_written and is_painted(line):
                write_case(recipe.out, name, image, labels, description=self._description)
                if recipe.is_dicom:
                    self._export(line, image, labels)
            progress.lines.append(line)
            progress.remarks += self._remarks(source, image)
        return any((source.name, kind) not in self._hostless for kind in kinds)

    def _place(self, source: Case, image: Volume, labels: Volume, progress: _Progress, seed: int) -> list[PlacedLesion]:
        """Find places for the lesions that wait; once a type has found none, the rest of it waits on."""
        dataset = self._recipe.dataset
        lesions: list[PlacedLesion] = []
        left: list[tuple[int, int]] = []
        for number, kind in progress.waiting:
            if any(kind == other for _, other in left):
                left.append((number, kind))
                continue
            try:
                lesion = place_lesion(
                    labels,
                    dataset,
                    kind,
                    drawing=self._recipe.drawing,
                    generator=numpy_generator(seed, "place", number),
                    others=lesions,
                    image=image,
                )
            except PlacementError as error:
                left.append((number, kind))
                self._note_failure(source, labels, kind, f"{source.name}: {error}", progress)
            else:
                asked = ask(
                    lesion,
                    image,
                    labels,
                    dataset,
                    card=self._synthesizer.card,
                    generator=numpy_generator(seed, "ask", number),
                )
                lesions.append(asked)
        progress.waiting = left
        return lesions

    def _note_failure(self, source: Case, labels: Volume, kind: int, reason: str, progress: _Progress) -> None:
        dataset = self._recipe.dataset
        host_labels = dataset.host_labels(dataset.spec.lesions[kind])
        if any((labels.array == value).any() for value in host_labels):
            progress.failures[kind] = reason
        else:
            self._hostless.add((source.name, kind))

    def _reason(self, kind: int, progress: _Progress) -> str:
        lesion_type = self._recipe.dataset.spec.lesions[kind]
        return progress.failures.get(kind, f"no scan has its host ({', '.join(lesion_type.host)})")

    def _paint(
        self, name: str, source: Case, image: Volume, labels: Volume, lesions: Sequence[PlacedLesion], seed: int
    ) -> Painting[dict[str, Any]]:
        """Paint a case into its scan, and return its line of provenance."""
        recipe, synthesizer = self._recipe, self._synthesizer
        painted = yield from paint_lesions(
            image,
            labels,
            lesions,
            recipe.dataset,
            edge_mm=synthesizer.card.edge_mm,
            limits=self._limits,
            max_attempts=recipe.config.max_attempts,
            seed=seed,
        )
        return {
            "case": name,
            "source": source.name,
            "subject": source.subject,
            "method": synthesizer.card.method,
            "model": synthesizer.card.model_hash,
            "sampler": recipe.config.sampler,
            "num_steps": recipe.config.num_steps,
            "guidance_scale": recipe.config.guidance_scale,
            "seed": seed,
            "edge_mm": synthesizer.card.edge_mm,
            "source_sha256": self._hashes_of(source),
            "lesions": [lesion_record(lesion, image, recipe.dataset) for lesion in painted],
        }

    def _remarks(self, source: Case, image: Volume) -> list[str]:
        """Say that a scan is so coarse that the model's lesions lose what it paints into them."""
        wanted = self._synthesizer.card.spec.spacing_mm
        if all(own <= _COARSE * model for own, model in zip(image.spacing_mm, wanted, strict=True)):
            return []
        own, model = (" x ".join(f"{side:.2f}" for side in spacing) for spacing in (image.spacing_mm, wanted))
        return [f"{source.name}: its voxels of {own} mm are far coarser than the model's of {model} mm"]

    def _hashes_of(self, source: Case) -> dict[str, str]:
        if source.name not in self._hashes:
            paths = {"image": source.image_path, "labels": source.label_path}
            self._hashes[source.name] = {name: file_hash(path) for name, path in paths.items()}
        return self._hashes[source.name]

    @property
    def _description(self) -> str:
        return f"synthetic: promptlesion {version('promptlesion')}, {self._synthesizer.card.method}"

    def _add_dicom(self, planned: PlannedCase) -> None:
        """Export what was written by a run without DICOM, or by one that was stopped in between."""
        out = self._recipe.out
        for line in missing_dicom(self._recipe, planned):
            name = line["case"]
            image, labels = read_volume(image_path(out, name)), read_volume(label_path(out, name))
            self._export(line, image, labels)

    def _export(self, line: Mapping[str, Any], image: Volume, labels: Volume) -> None:
        dataset = self._recipe.dataset
        export_dicom(
            image,
            labels,
            name=line["case"],
            subject=line["subject"],
            label_names={name: value for name, value in dataset.labels.items() if name != IGNORE_LABEL},
            description=self._description,
            folder=dicom_folder(self._recipe, line),
            lesion_types=[lesion_type.name for lesion_type in dataset.spec.lesions],
        )


def lesion_record(painted: PaintedLesion, image: Volume, dataset: Dataset) -> dict[str, Any]:
    """Return a lesion's part of the provenance; the centre is in world millimetres, RAS+."""
    lesion, measure = painted.lesion, painted.measure
    center_mm = image.affine[:3, :3] @ np.array(lesion.center_voxel) + image.affine[:3, 3]
    return {
        "type": dataset.spec.lesions[lesion.type_index].name,
        "mask_origin": lesion.mask_origin,
        "center_mm": [round(float(value), 2) for value in center_mm],
        "diameter_mm": round(lesion.diameter_mm, 2),
        "mean_hu": round(measure.mean_hu, 1),
        "std_hu": round(measure.std_hu, 1),
        "contrast_hu": round(measure.contrast_hu, 1),
        "asked": as_mapping(as_row(lesion.asked)),
        "painted": as_mapping(painted.attributes),
        "seam_hu": round(painted.seam_hu, 1),
        "attempts": painted.attempts,
        "rejections": painted.rejections,
        "is_accepted": painted.is_accepted,
    }


def missing_dicom(recipe: Recipe, planned: PlannedCase) -> list[dict[str, Any]]:
    """Return the lines of a finished case whose DICOM series is asked for and not there."""
    if not recipe.is_dicom:
        return []
    lines = recipe.read_record(planned)["cases"]
    return [line for line in lines if is_painted(line) and not dicom_folder(recipe, line).is_dir()]


def dicom_folder(recipe: Recipe, line: Mapping[str, Any]) -> Path:
    """Return where the DICOM series of a case lies."""
    return recipe.out / _DICOM_FOLDER / str(line["case"])
