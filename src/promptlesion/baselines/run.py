"""How the methods without an autoencoder open their runs."""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel

from promptlesion.data.cache import CachedCase, data_fingerprint
from promptlesion.data.spec import DatasetSpec
from promptlesion.training.run import Run


def open_run(
    out: Path,
    *,
    stage: str,
    train_cases: Sequence[CachedCase],
    spec: DatasetSpec,
    config: BaseModel,
    seed: int,
    device: torch.device,
) -> Run:
    """Open a new run or an interrupted one; its identity is the method, its settings and what it learns from."""
    return Run(
        out,
        stage=stage,
        config=config.model_dump(mode="json"),
        seed=seed,
        inputs={
            "training cases": ", ".join(case.name for case in train_cases),
            "data": data_fingerprint(train_cases),
            "lesions": spec.model_dump_json(),
        },
        device=device,
    )
