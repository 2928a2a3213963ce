"""Stage 3 killed with SIGKILL, as the other two stages are in their own tests."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.trained import trained

from promptlesion.data.cache import CachedCase
from promptlesion.data.dataset import Dataset
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.train import train_segmentation


def test_killed_it_ends_with_the_weights_of_an_unbroken_run(
    tiny_data: Dataset, tiny_cases: list[CachedCase], kill_in_the_middle: Callable[..., None], tmp_path: Path
) -> None:
    config = SegmentationConfig(
        patch_voxels=16,
        channels=(4, 8),
        residual_units=0,
        num_epochs=8,
        steps_per_epoch=3,
        batch_size=2,
        precision="float32",
    )
    train = partial(
        trained,
        train_segmentation,
        real_cases=tiny_cases[:2],
        synthetic_cases=tiny_cases[2:3],
        validation_cases=tiny_cases[3:],
        test_cases=[],
        spec=tiny_data.spec,
        labels=tiny_data.labels,
        config=config,
        seed=0,
        device="cpu",
    )
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    kill_in_the_middle(partial(train, out=killed), out=killed, after_steps=8)
    assert not (killed / "checkpoint").exists()
    train(out=killed)
    train(out=unbroken)
    for name in ("checkpoint/weights.safetensors", "checkpoint/card.json", "metrics.jsonl"):
        assert (killed / name).read_bytes() == (unbroken / name).read_bytes(), name
