"""A training called with all that tests vary, each by its name; it survives pickling."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from promptlesion.data.training_data import TrainingData
from promptlesion.segmentation.mixing import SegmentationData
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig
from promptlesion.training.run import Run, RunOptions


def trained(
    train: Callable[..., Run],
    *,
    out: Path,
    seed: int = 7,
    device: str = "cpu",
    hardware: HardwareConfig = DEFAULT_HARDWARE,
    spec: Any,
    labels: dict[str, int],
    train_cases: Any = None,
    synthetic_cases: Any = (),
    test_cases: Any = (),
    real_cases: Any = None,
    **others: Any,
) -> Run:
    """Train on `train_cases`, or on `real_cases` where it is a segmentation network."""
    if real_cases is None:
        data: Any = TrainingData(train_cases, spec, labels)
    else:
        data = SegmentationData(real_cases, synthetic_cases, others.pop("validation_cases"), test_cases, spec, labels)
    return train(data, options=RunOptions(out, seed, device, hardware), **others)
