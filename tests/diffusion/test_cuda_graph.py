"""What records a step on a GPU leaves it as it is elsewhere, and says so where it was asked for."""

import pytest
import torch

from promptlesion.diffusion.bound_network import bind_network
from promptlesion.diffusion.cuda_graph import StepRecorder
from promptlesion.diffusion.network import PromptUNet

CPU = torch.device("cpu")


@pytest.fixture
def network() -> PromptUNet:
    torch.manual_seed(0)
    return PromptUNet(
        in_channels=5,
        out_channels=2,
        channels=(32, 32),
        blocks_per_level=1,
        attention_levels=(),
        attention_head_channels=32,
        embedding_dimension=None,
        prompt_block="upsample",
        num_components=4,
    ).eval()


@torch.no_grad()
@pytest.mark.parametrize(("choice", "is_said"), [("auto", False), ("off", False), ("on", True)])
def test_without_a_gpu_the_step_runs_as_it_is(
    network: PromptUNet, caplog: pytest.LogCaptureFixture, choice: str, is_said: bool
) -> None:
    recorder = StepRecorder(choice=choice, device=CPU)
    noisy = torch.randn(1, 2, 4, 6, 4)
    bound = bind_network(network, torch.randn(1, 3, 4, 6, 4), [7, 3], None)
    for _ in range(2):
        assert torch.equal(recorder(bound, noisy)(noisy, 3), bound(noisy, 3))
    assert caplog.text.count("no CUDA graph of the denoiser's step can be recorded (found the device cpu)") == is_said


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="records on a GPU that is not the current one")
@torch.no_grad()
def test_a_step_is_recorded_on_any_gpu(network: PromptUNet) -> None:
    device = torch.device("cuda", 1 - torch.cuda.current_device())
    network = network.to(device)
    recorder = StepRecorder(choice="auto", device=device)
    bound = bind_network(network, torch.randn(1, 3, 4, 6, 4, device=device), [7, 3], None)
    recorder(bound, torch.randn(1, 2, 4, 6, 4, device=device))
    for _ in range(2):
        noisy = torch.randn(1, 2, 4, 6, 4, device=device)
        torch.testing.assert_close(recorder(bound, noisy)(noisy, 3), bound(noisy, 3), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records CUDA graphs")
@torch.no_grad()
def test_a_recorded_step_is_the_plain_one_for_every_batch_and_level(network: PromptUNet) -> None:
    device = torch.device("cuda")
    network = network.to(device)
    recorder = StepRecorder(choice="auto", device=device)
    for batch, is_recorded in ((1, False), (2, False), (1, True), (1, True), (2, True)):
        known, noisy = torch.randn(batch, 3, 4, 6, 4, device=device), torch.randn(batch, 2, 4, 6, 4, device=device)
        bound = bind_network(network, known, [7, 3], None)
        recorded = recorder(bound, noisy)
        assert (recorded is not bound) == is_recorded
        for level in (7, 3):
            torch.testing.assert_close(recorded(noisy, level), bound(noisy, level), atol=1e-5, rtol=1e-5)
