"""What a run was made on, for results and reports: dataset and machine."""

import os
import platform

from promptlesion.data.prepared import PreparedDataset
from promptlesion.evaluation.results import DatasetSummary
from promptlesion.training.device import resolve_device
from promptlesion.training.memory import main_memory_bytes


def dataset_summary(
    prepared: PreparedDataset, *, name: str, num_synthetic_cases: int, is_phantom: bool
) -> DatasetSummary:
    """Count the cases and subjects of each part."""
    dataset = prepared.dataset
    parts = {"train": prepared.train, "validation": prepared.validation, "test": prepared.test}
    return DatasetSummary(
        name=name,
        path=str(dataset.root),
        is_phantom=is_phantom,
        lesion_types=tuple(lesion.name for lesion in dataset.spec.lesions),
        spacing_mm=dataset.spec.spacing_mm,
        window_hu=dataset.spec.window_hu,
        num_synthetic_cases=num_synthetic_cases,
        **{f"num_{part}_cases": len(cases) for part, cases in parts.items()},
        **{f"num_{part}_subjects": len({case.subject for case in cases}) for part, cases in parts.items()},
    )


def machine_text(device: str) -> str:
    """Say what computed: processor, cores, memory, device."""
    memory_gib = main_memory_bytes() / 2**30
    return f"{platform.machine()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, device {resolve_device(device)}"
