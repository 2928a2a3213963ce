"""How long each piece of an experiment will take, timed on this machine before it begins."""

import math
import time
from collections.abc import Sequence

import torch

from promptlesion.check.cost import cost_of, updating_seconds_a_parameter
from promptlesion.check.estimate import Extent
from promptlesion.check.machine import this_machine
from promptlesion.check.stages import estimate_stages
from promptlesion.check.workload import voxel_step
from promptlesion.data.dataset import read_case
from promptlesion.experiment.cells import Cell
from promptlesion.experiment.work import Experiment

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
        self._seconds = {stage.stage: stage.seconds for stage in stages}
        self._seconds["segmentation"] *= is_own
        self._denoising = next(stage.seconds_a_step for stage in stages if stage.stage == "diffusion")
        self._voxel_step = cost_of(
            lambda edge, bench: voxel_step(config.med_ddpm, patch_voxels=edge, num_types=self._types, bench=bench),
            patch_voxels=config.med_ddpm.patch_voxels,
            smallest_patch=_SMALLEST_PATCH,
            updating_seconds=1e6 * updating_seconds_a_parameter(machine.device),
            device=machine.device,
            free_bytes=machine.device_bytes - machine.resident_bytes,
        ).seconds

    def of(self, cells: Sequence[Cell]) -> dict[str, float]:
        """Return the seconds of each."""
        return {cell.name: _STARTING_SECONDS + self._one(cell) for cell in cells}

    def _one(self, cell: Cell) -> float:
        config = self._experiment.config
        if cell.kind in ("autoencoder", "segmentation"):
            return self._seconds[cell.kind]
        if cell.kind == "method":
            return self._training(cell.method)
        num_cases = cell.ratio * cell.num_subjects
        if self._experiment.lesions_per_type is not None and self._lesions_a_case:
            num_cases = self._experiment.lesions_per_type * self._types / self._lesions_a_case
        if cell.kind == "fidelity":
            return _SECONDS_A_FEATURE * (num_cases * self._lesions_a_case + self._num_test_lesions)
        one = self._seconds["synthesis"]
        if cell.method == "med-ddpm":
            one = config.synthesis.num_steps * self._voxel_step / (3 * config.med_ddpm.batch_size)
        elif cell.method in ("copy-paste", "intensity"):
            one = _SECONDS_A_PASTE
        return num_cases * (3 * self._reading + self._lesions_a_case * one)

    def _training(self, method: str) -> float:
        config = self._experiment.config
        if method == "med-ddpm":
            return config.med_ddpm.num_steps * self._voxel_step
        if method == "difftumor":
            size = config.difftumor.batch_size * config.difftumor.patch_voxels**3
            own = config.diffusion.batch_size * config.diffusion.patch_voxels**3
            return self._types * config.difftumor.num_steps * self._denoising * size / own
        return self._seconds["diffusion"] if method.startswith("promptlesion") else 0.0
