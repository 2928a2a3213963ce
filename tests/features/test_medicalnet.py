"""MedicalNet from a file: the right network, strictly, with gradients through every path."""

from pathlib import Path

import pytest
import torch
from monai.networks.nets.resnet import ResNetFeatures, resnet10
from torch import Tensor

from promptlesion.features.medicalnet import MedicalNet, load_medicalnet


def published(network: torch.nn.Module) -> dict[str, Tensor]:
    """The weights under the names MedicalNet's files have: trained on several GPUs."""
    return {f"module.{name}": tensor for name, tensor in network.state_dict().items()}


def volume() -> Tensor:
    return torch.randn(1, 1, 24, 16, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("depth", [10, 18, 34, 50])
def test_every_depth_is_read_from_its_weights(tmp_path: Path, depth: int) -> None:
    torch.manual_seed(0)
    reference = ResNetFeatures(f"resnet{depth}", pretrained=False, spatial_dims=3, in_channels=1).eval()
    torch.save({"state_dict": published(reference)}, tmp_path / "mine.pth")
    network = load_medicalnet(tmp_path / "mine.pth")
    with torch.no_grad():
        expected, found = reference(volume()), network(volume())
    assert [maps.shape[1] for maps in found] == [64] + [
        width * (4 if depth == 50 else 1) for width in (64, 128, 256, 512)
    ]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("depth", [18, 50])
def test_gradients_pass_the_shortcuts(depth: int) -> None:
    """MONAI cuts them off at the shortcuts without weights; with the convolutions silenced nothing else is left."""
    network = MedicalNet(depth)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("layer2.0.bn"):
                parameter.zero_()
    source = volume().requires_grad_()
    (gradient,) = torch.autograd.grad(network(source)[2].sum(), source)
    assert gradient.abs().sum() > 0


def test_it_stays_in_evaluation_mode() -> None:
    outer = torch.nn.Sequential(MedicalNet(10)).train()
    assert not any(module.training for module in outer[0].modules())


def test_a_head_does_not_matter_and_plain_names_are_read_too(tmp_path: Path) -> None:
    network = resnet10(spatial_dims=3, n_input_channels=1, num_classes=3, bias_downsample=False)
    weights = {name: tensor for name, tensor in network.state_dict().items() if "num_batches_tracked" not in name}
    torch.save(weights, tmp_path / "mine.pth")
    loaded = load_medicalnet(tmp_path / "mine.pth")
    assert torch.equal(loaded.conv1.weight, network.conv1.weight)


def test_what_is_no_medicalnet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    with pytest.raises(
        ValueError, match=r"mine\.pth: expected a weights file of MedicalNet, as resnet_50\.pth; found none"
    ):
        load_medicalnet(path)
    path.write_bytes(b"no weights")
    with pytest.raises(
        ValueError, match=r"mine\.pth: expected a file of weights alone, written by torch\.save; found "
    ):
        load_medicalnet(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match=r"mine\.pth: expected a dictionary of tensors"):
        load_medicalnet(path)
    torch.save({"state_dict": {"layer1.0.conv1.weight": torch.zeros(1)}}, path)
    with pytest.raises(ValueError, match=r"mine\.pth: expected a MedicalNet ResNet-10, .*found 1 0 0 0"):
        load_medicalnet(path)
    weights = published(MedicalNet(10))
    del weights["module.bn1.bias"]
    weights["module.conv1.weight"] = torch.zeros(64, 3, 7, 7, 7)
    torch.save({"state_dict": weights}, path)
    with pytest.raises(ValueError, match=r'mine\.pth: .*Missing .*"bn1\.bias".*conv1\.weight: .*\[64, 3, 7, 7, 7\]'):
        load_medicalnet(path)
