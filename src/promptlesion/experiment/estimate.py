"""How long each piece of an experiment will take, timed on this machine before it begins."""

import math
import time
from collections.abc import Sequence

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


def estimate_cells(cells: Sequence[Cell], experiment: Experiment, *, num_workers: int) -> dict[str, float]:
    """Time the networks with as many threads as each worker will have, and return the seconds of every piece by name.

    nnU-Net times itself; its training is left out.
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
        is_own = config.segmentation.network != "nnunetv2"
        timed = config if is_own else config.model_copy(update={"segmentation": type(config.segmentation)()})
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
        self._seconds = {stage.stage: stage.seconds for stage in stages}
        self._seconds["segmentation"] *= is_own
        self._step_seconds: dict[str, float] = {}

    def of(self, cells: Sequence[Cell]) -> dict[str, float]:
        """Return the seconds of each."""
        return {cell.name: _STARTING_SECONDS + self._one(cell) for cell in cells}

    def _one(self, cell: Cell) -> float:
        if cell.kind in ("autoencoder", "segmentation"):
            return self._seconds[cell.kind]
        if cell.kind == "method":
            return self._training(method_named(cell.method))
        num_cases = cell.ratio * cell.num_subjects
        if self._experiment.lesions_per_type is not None and self._lesions_a_case:
            num_cases = self._experiment.lesions_per_type * self._types / self._lesions_a_case
        if cell.kind == "fidelity":
            return _SECONDS_A_FEATURE * (num_cases * self._lesions_a_case + self._num_test_lesions)
        return num_cases * (3 * self._reading + self._lesions_a_case * self._painting(method_named(cell.method)))

    def _painting(self, method: Method) -> float:
        """Return the seconds of one lesion; a sampling step is the forward third of a training step."""
        if method.training_pass is None:
            return _SECONDS_A_PASTE
        if method.needs_autoencoder:
            return self._seconds["synthesis"]
        config = method.configured(self._experiment.config)
        batch_size: int = method.own_settings(config).batch_size
        return config.synthesis.num_steps * self._step(method) / (3 * batch_size)

    def _training(self, method: Method) -> float:
        if method.section in self._seconds:  # a stage, which is timed already
            return self._seconds[method.section]
        if method.training_pass is None:
            return 0.0
        num_models = self._types if method.is_one_model_a_type else 1
        return num_models * int(method.own_settings(self._experiment.config).num_steps) * self._step(method)

    def _step(self, method: Method) -> float:
        """Time a training step of a method's network, once."""
        if method.name not in self._step_seconds:
            config, device = self._experiment.config, self._machine.device
            dataset = self._experiment.prepared.dataset
            step = training_step(
                config,
                method.name,
                num_types=self._types,
                num_labels=len(dataset.labels),
                spacing_mm=dataset.spec.spacing_mm,
                device=device,
            )
            downsampling = config.autoencoder.downsampling if method.needs_autoencoder else 1
            self._step_seconds[method.name] = cost_of(
                step.pass_of,
                patch_voxels=step.patch_voxels,
                smallest_patch=_SMALLEST_PATCH * downsampling,
                updating_seconds=step.num_parameters * updating_seconds_a_parameter(device),
                device=device,
                free_bytes=self._machine.device_bytes - self._machine.resident_bytes,
            ).seconds
        return self._step_seconds[method.name]
