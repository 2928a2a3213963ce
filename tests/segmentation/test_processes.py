"""Stage 3 on two processes with half of the batch each follows the one with the whole batch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.trained import trained

from promptlesion.data.cache import CachedCase
from promptlesion.data.dataset import Dataset
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.label_classes import LabelClasses
from promptlesion.segmentation.loss import SegmentationLoss
from promptlesion.segmentation.train import train_segmentation
from promptlesion.training.launch import process_rank, share_of_batch
from promptlesion.training.run import read_metrics

WEIGHTS = "checkpoint/weights.safetensors"


def descend(out: Path, is_deep: bool) -> None:
    """Save the loss and the gradient on this process's share; a label stands in one half of the batch alone."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 3, 5, 6, 7, generator=generator)
    truth = torch.randint(0, 2, (4, 1, 5, 6, 7), generator=generator)
    truth[3, :, 2] = 2
    share = share_of_batch(4)
    loss_of = SegmentationLoss(LabelClasses((0, 2, 5)), lesion_labels=(5,), lesion_weight=8.0)
    own = scores[share].requires_grad_()
    loss = loss_of([own, own[:, :, ::2, ::2, ::2]] if is_deep else own, truth[share])
    loss.backward()
    torch.save({"loss": loss.detach(), "gradient": own.grad}, out / f"{process_rank()}.pt")


@pytest.mark.parametrize("is_deep", [False, True])
def test_dice_and_cross_entropy_are_those_of_the_whole_batch(
    is_deep: bool, in_processes: Callable[..., None], tmp_path: Path
) -> None:
    in_processes(partial(descend, tmp_path, is_deep))
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    descend(tmp_path, is_deep)
    whole = torch.load(tmp_path / "0.pt", weights_only=True)
    assert [half["loss"].item() for half in halves] == pytest.approx([whole["loss"].item()] * 2, rel=1e-6)
    # the mean over the processes, which the optimiser takes, halves the gradient of each one's own items
    torch.testing.assert_close(torch.cat([half["gradient"] for half in halves]) / 2, whole["gradient"])


def test_two_processes_follow_one_and_go_on_where_they_were_killed(
    tiny_data: Dataset,
    tiny_cases: list[CachedCase],
    one_and_two_processes: Callable[..., tuple[Path, Path]],
) -> None:
    config = SegmentationConfig(
        patch_voxels=16,
        channels=(4, 8),
        residual_units=0,
        num_epochs=3,
        steps_per_epoch=4,
        batch_size=4,
        lesion_weight=10.0,
        precision="float32",
    )
    train = partial(
        trained,
        train_segmentation,
        real_cases=tiny_cases[:1],
        synthetic_cases=tiny_cases[1:2],
        validation_cases=tiny_cases[2:],
        test_cases=[],
        spec=tiny_data.spec,
        labels=tiny_data.labels,
        config=config,
        seed=0,
        device="cpu",
    )
    one, two = one_and_two_processes(train, killed_after_steps=6)

    lines, expected_lines = read_metrics(two), read_metrics(one)
    assert sum("validation_dice" in line for line in lines) == 3
    for line, expected_line in zip(lines, expected_lines, strict=True):
        assert line == pytest.approx(expected_line, abs=1e-3)
    weights, expected = load_file(two / WEIGHTS), load_file(one / WEIGHTS)
    # what is added to a whole channel before its normalisation has no effect: its gradient is rounding alone, of which
    # Adam, dividing by its size, makes whole steps either way
    without_effect = {name for name in expected if name.replace("conv.bias", "adn.N.bias") in expected.keys() - {name}}
    assert len(without_effect) == 2
    for name in expected.keys() - without_effect:
        tensor = expected[name]
        # likewise where a gradient is nearly zero, for a step
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=config.learning_rate, msg=name)
