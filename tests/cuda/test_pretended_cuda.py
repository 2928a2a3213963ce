"""The pretended device finds the mistakes it is there for, and is gone afterwards."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import torch
from monai.networks.nets import UNet
from tests.cuda.backward_pass import gradients_of
from tests.cuda.conftest import Verb
from tests.cuda.pretended_cuda import pretended_cuda
from torch import Tensor, nn

from promptlesion.cost import measure
from promptlesion.diffusion.schedule import NoiseSchedule

MIXED = "on the same device"


@pytest.mark.usefixtures("promptlesion")
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda there: there + torch.ones(2), MIXED),
        (lambda there: torch.ones(2).mul_(there.sum()), MIXED),
        (lambda there: torch.cat([there, torch.ones(2)]), MIXED),
        (lambda there: torch.ones(2)[there.long()], MIXED),
        (lambda there: nn.Conv1d(1, 1, 1)(there[None, None]), MIXED),
        (lambda there: torch.randn(2, generator=torch.Generator(), device=there.device), "generator"),
        (lambda there: there.numpy(), "numpy"),
    ],
    ids=["sum", "in place", "list", "index", "convolution", "generator", "array"],
)
def test_what_mixes_both_devices_raises(mistake: Callable[[Tensor], object], message: str) -> None:
    with pretended_cuda():
        there = torch.ones(2, device="cuda")
        with pytest.raises(RuntimeError, match=message):
            mistake(there)


@pytest.mark.usefixtures("promptlesion")
def test_what_a_gpu_allows_runs_and_is_fetched_as_the_number() -> None:
    with pretended_cuda(number=3) as cuda:
        there = torch.tensor([1.0, 2.0], device="cuda") * torch.tensor(2.0)
        assert (there[torch.tensor([0])].shape, there[there > 0].dim()) == ((1,), 1)
        cuda.waits.clear()
        assert (there.sum().item(), there.tolist(), there.cpu().tolist()) == (3.0, [3.0, 3.0], [3.0, 3.0])
        assert cuda.waits.total() == 3
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(torch.ones(1).to("cuda").device.type))
        thread.start()
        thread.join()
        assert seen == ["cuda"]
        assert torch.cuda.is_available()
    assert not torch.cuda.is_available()
    assert type(torch.ones(1) + 1) is Tensor


def test_the_backward_pass_is_the_engines() -> None:
    torch.manual_seed(0)
    network = UNet(3, 1, 2, (4, 8), (2,), num_res_units=1)
    weights = list(network.parameters())
    loss = network(torch.randn(2, 1, 8, 6, 10)).square().mean() + weights[0].sum() ** 2
    expected = torch.autograd.grad(loss, weights, retain_graph=True)
    torch.testing.assert_close(gradients_of(loss, weights), list(expected))


def test_a_schedule_left_on_the_cpu_is_found(
    promptlesion: Verb, on_tiny_data: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = NoiseSchedule.signal_and_noise

    def left_behind(schedule: NoiseSchedule, level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        return moved(schedule, level.cpu(), like.cpu())

    monkeypatch.setattr(NoiseSchedule, "signal_and_noise", left_behind)
    with pytest.raises(RuntimeError, match=MIXED):
        promptlesion("train", "diffusion", "--method", "med-ddpm", *on_tiny_data, "--out", tmp_path / "run")


def test_a_network_counted_on_the_cpu_is_found(
    promptlesion: Verb, on_tiny_data: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BuiltOnTheCpu(measure._LiveBytes):
        def __enter__(self) -> Self:
            self._cpu = torch.device("cpu")
            self._cpu.__enter__()
            return super().__enter__()

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            super().__exit__(kind, error, trace)
            self._cpu.__exit__(kind, error, trace)

    monkeypatch.setattr(measure, "_LiveBytes", BuiltOnTheCpu)
    with pytest.raises(RuntimeError, match=MIXED):
        promptlesion("train", "segmentation", *on_tiny_data, "--out", tmp_path, segmentation__precision="float32")
