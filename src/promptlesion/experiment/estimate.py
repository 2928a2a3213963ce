"""How long each piece of an experiment will take, timed on this machine before it begins."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from promptlesion.cost.estimate import Extent
from promptlesion.cost.fitting import training_step
from promptlesion.cost.machine import this_machine
from promptlesion.cost.measure import cost_of, updating_seconds_a_parameter
from promptlesion.cost.stages import estimate_stages
from promptlesion.data.dataset import read_case
from promptlesion.experiment.cells import Cell
from promptlesion.experiment.experiment import Experiment
from promptlesion.methods import Method, method_named

_STARTING_SECONDS = 6.0
"""Until a process has imported everything."""
_SECONDS_A_PASTE = 0.1
_SECONDS_A_FEATURE = 0.3
_SMALLEST_PATCH = 16


@dataclass(frozen=True)
class CellEstimate:
    """What a piece of work takes."""

    seconds: float
    memory_bytes: int | None
    """Most that is held on the device, on a CPU by the process; none where it is not known."""


def estimate_cells(cells: Sequence[Cell], experiment: Experiment, *, num_workers: int) -> dict[str, CellEstimate]:
    """Time the networks with as many threads as each worker will have, and estimate every piece, by name.

    nnU-Net times itself; its trainings are left out.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // num_workers))
    try:
        return _Estimates(experiment).of(cells)
    finally:
        torch.set_num_threads(threads)


class _Estimates:
    """What the pieces are made of."""

    def __init__(self, experiment: Experiment) -> None:
        prepared, config = experiment.prepared, experiment.config
        dataset = prepared.dataset
        started = time.perf_counter()
        image, _ = read_case(dataset, dataset.cases[0])
        reading = time.perf_counter() - started
        seen = (*prepared.train, *prepared.validation, *prepared.test)
        num_rounds = math.ceil(config.segmentation.num_epochs / config.segmentation.validate_every_epochs)
        self._experiment, self._reading = experiment, reading
        self._types = len(dataset.spec.lesions)
        self._lesions_a_case = sum(len(case.lesions) for case in prepared.train) / len(prepared.train)
        self._num_test_lesions = sum(len(case.lesions) for case in prepared.test)
        machine = this_machine(experiment.device, experiment.out)
        self._is_nnunet = config.segmentation.network == "nnunetv2"
        timed = config.model_copy(update={"segmentation": type(config.segmentation)()}) if self._is_nnunet else config
        stages = estimate_stages(
            timed,
            Extent(
                num_train=len(prepared.train),
                # the held-out scans are predicted once, the validation scans after every round
                num_validation=len(prepared.validation) + math.ceil(len(prepared.test) / num_rounds),
                num_lesions=sum(len(case.lesions) for case in prepared.train),
                num_types=self._types,
                num_labels=len(dataset.labels),
                prepared_voxels=tuple(case.image.size for case in seen),
                spacing_mm=dataset.spec.spacing_mm,
                window_hu=dataset.spec.window_hu,
                scan_voxels=float(image.array.size),
                seconds_read=reading,
            ),
            machine,
        )
        self._machine = machine
        self._stages = {each.stage: CellEstimate(each.seconds, each.memory_bytes) for each in stages}
        self._steps: dict[str, CellEstimate] = {}

    def of(self, cells: Sequence[Cell]) -> dict[str, CellEstimate]:
        """Return what each takes, its process's start included."""
        known = [cell for cell in cells if not (cell.kind == "segmentation" and self._is_nnunet)]
        found = {cell.name: self._one(cell) for cell in known}
        return {name: replace(each, seconds=_STARTING_SECONDS + each.seconds) for name, each in found.items()}

    def _one(self, cell: Cell) -> CellEstimate:
        if cell.kind in ("autoencoder", "segmentation"):
            return self._stages[cell.kind]
        method = method_named(cell.method)
        if cell.kind == "method":
            return self._training(method)
        num_cases = cell.ratio * cell.num_subjects
        if self._experiment.lesions_per_type is not None and self._lesions_a_case:
            num_cases = self._experiment.lesions_per_type * self._types / self._lesions_a_case
        if cell.kind == "fidelity":
            num_features = num_cases * self._lesions_a_case + self._num_test_lesions
            return CellEstimate(_SECONDS_A_FEATURE * num_features, None)
        lesion = self._painting(method)
        seconds = num_cases * (3 * self._reading + self._lesions_a_case * lesion.seconds)
        return replace(lesion, seconds=seconds)

    def _painting(self, method: Method) -> CellEstimate:
        """Estimate one lesion; a sampling step takes the forward third of a training step, and less memory."""
        if method.training_pass is None:
            return CellEstimate(_SECONDS_A_PASTE, None)
        if method.needs_autoencoder:
            return self._stages["synthesis"]
        config = method.configured(self._experiment.config)
        batch_size: int = method.own_settings(config).batch_size
        step = self._step(method)
        return replace(step, seconds=config.synthesis.num_steps * step.seconds / (3 * batch_size))

    def _training(self, method: Method) -> CellEstimate:
        if method.section in self._stages:  # a stage, which is timed already
            return self._stages[method.section]
        if method.training_pass is None:
            return CellEstimate(0.0, None)
        num_models = self._types if method.is_one_model_a_type else 1
        num_steps = num_models * int(method.own_settings(self._experiment.config).num_steps)
        step = self._step(method)
        return replace(step, seconds=num_steps * step.seconds)

    def _step(self, method: Method) -> CellEstimate:
        """Time a training step of a method's network, once."""
        if method.name not in self._steps:
            config, machine = self._experiment.config, self._machine
            dataset = self._experiment.prepared.dataset
            step = training_step(
                config,
                method.name,
                num_types=self._types,
                num_labels=len(dataset.labels),
                spacing_mm=dataset.spec.spacing_mm,
                device=machine.device,
            )
            downsampling = config.autoencoder.downsampling if method.needs_autoencoder else 1
            cost = cost_of(
                step.pass_of,
                patch_voxels=step.patch_voxels,
                smallest_patch=_SMALLEST_PATCH * downsampling,
                updating_seconds=step.num_parameters * updating_seconds_a_parameter(machine.device),
                device=machine.device,
                free_bytes=machine.device_bytes - machine.resident_bytes,
            )
            resident = machine.resident_bytes if machine.device.type == "cpu" else 0
            self._steps[method.name] = CellEstimate(cost.seconds, int(step.held_bytes(cost.peak_bytes) + resident))
        return self._steps[method.name]
