"""Stage 1 on two processes with half of the batch each follows the one with the whole batch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.trained import trained
from torch import Tensor

from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.quantizer import VectorQuantizer, perplexity
from promptlesion.autoencoder.train import train_autoencoder
from promptlesion.data.cache import CachedCase
from promptlesion.data.spec import DatasetSpec
from promptlesion.training.launch import process_rank, share_of_batch
from promptlesion.training.run import read_metrics
from promptlesion.training.seeding import torch_generator

WEIGHTS = "checkpoint/weights.safetensors"


def quantize(out: Path, *, codebook_size: int) -> None:
    """Move a codebook by tokens that leave half of its codes, so that some die and are drawn anew."""
    quantizer = VectorQuantizer(codebook_size=codebook_size, dimension=3, decay=0.5, dead_code_usage=0.5).train()
    for step in range(6):
        latent = torch.randn(4, 3, 3, 2, 4, generator=torch_generator("latent", step))
        latent[:, 0] += step * latent[:, 0].sign()
        latent[2:, 1] += 3  # the processes' tokens are not alike
        quantized = quantizer(latent[share_of_batch(4)], torch_generator("codes", step))
    state = {**quantizer.state_dict(), "perplexity": torch.tensor(perplexity(quantized.codes, codebook_size))}
    torch.save({**state, "codes": quantized.codes}, out / f"{process_rank()}.pt")


@pytest.mark.parametrize("codebook_size", [24, 300])
def test_the_codebook_is_in_step_and_that_of_all_tokens(
    codebook_size: int, in_processes: Callable[..., None], tmp_path: Path
) -> None:
    """With 24 codes some are restarted; for 300 codes the 96 tokens are drawn more than once, and jittered."""
    in_processes(partial(quantize, tmp_path, codebook_size=codebook_size))
    halves: list[dict[str, Tensor]] = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    quantize(tmp_path, codebook_size=codebook_size)
    whole: dict[str, Tensor] = torch.load(tmp_path / "0.pt", weights_only=True)
    assert torch.equal(torch.cat([half.pop("codes") for half in halves]), whole.pop("codes"))
    for name, tensor in whole.items():
        assert torch.equal(halves[0][name], halves[1][name]), name
        torch.testing.assert_close(halves[0][name], tensor, rtol=1e-5, atol=1e-6)


def test_two_processes_follow_one_and_go_on_where_they_were_killed(
    tiny_cases: list[CachedCase],
    tiny_spec: DatasetSpec,
    tiny_labels: dict[str, int],
    tiny_autoencoder_config: AutoencoderConfig,
    one_and_two_processes: Callable[..., tuple[Path, Path]],
) -> None:
    """Eight steps: the codebook comes in at the third, the discriminators at the fifth."""
    train = partial(
        trained,
        train_autoencoder,
        train_cases=tiny_cases[:3],
        validation_cases=tiny_cases[3:],
        spec=tiny_spec,
        labels=tiny_labels,
        config=tiny_autoencoder_config.model_copy(
            update={"steps_per_epoch": 2, "num_epochs": 4, "adversarial_weighting": "adaptive"}
        ),
        seed=7,
        device="cpu",
    )
    one, two = one_and_two_processes(train, killed_after_steps=5)

    for line, expected_line in zip(read_metrics(two), read_metrics(one), strict=True):
        # a token between two codes may go to the other one where a sum is rounded otherwise
        for name, tolerance in (("codebook_perplexity", 0.5), ("adaptive_weight", 0.05)):
            assert line.pop(name, 0) == pytest.approx(expected_line.pop(name, 0), abs=tolerance)
        assert line == pytest.approx(expected_line, abs=2e-4)
    weights, expected = load_file(two / WEIGHTS), load_file(one / WEIGHTS)
    start_rate = tiny_autoencoder_config.learning_rate
    for name, tensor in expected.items():
        if "quantizer" not in name:
            # Adam divides a gradient by its own size: where it is nearly zero, its rounding is worth up to a step
            torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=start_rate, msg=name)
