"""The ImageNet network: published shapes, and photographs classified to show the weights sit right."""

import pytest
import torch
import torch.nn.functional as F
from skimage import data

from promptlesion.features.imagenet import (
    STAGE_CHANNELS,
    STAGE_STRIDES,
    EfficientNetLite0,
    load_efficientnet_lite0,
    read_weights,
)


def test_feature_maps_have_the_published_channels_and_strides() -> None:
    stages = (1, 2, 3, 4, 5, 6)
    maps = load_efficientnet_lite0(stages)(torch.zeros(2, 1, 64, 96))
    for stage, features in zip(stages, maps, strict=True):
        stride = STAGE_STRIDES[stage]
        assert features.shape == (2, STAGE_CHANNELS[stage], 64 // stride, 96 // stride)


def test_number_of_parameters_is_the_published_one() -> None:
    parameters = sum(tensor.numel() for tensor in EfficientNetLite0().parameters())
    assert parameters + 1280 * 1000 + 1000 == 4_652_008  # 4.7 M as published


@pytest.mark.parametrize(("name", "classes"), [("chelsea", {281, 282, 285}), ("coffee", {967, 504, 968, 550})])
def test_a_cat_is_a_cat(name: str, classes: set[int]) -> None:
    photograph = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 127.5 - 1
    side = min(photograph.shape[2:])
    top, left = (photograph.shape[2] - side) // 2, (photograph.shape[3] - side) // 2
    square = photograph[:, :, top : top + side, left : left + side]
    image = F.interpolate(square, (224, 224), mode="bilinear", antialias=True)
    (features,) = load_efficientnet_lite0((6,))(image)
    weights = read_weights()
    scores = features.mean((2, 3)) @ weights["fc.weight"].T + weights["fc.bias"]
    assert int(scores.argmax()) in classes
    assert float(scores.softmax(1).amax()) > 0.3


def test_one_channel_is_replicated() -> None:
    network = load_efficientnet_lite0((2,))
    image = torch.rand(1, 1, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(network(image)[0], network(image.expand(1, 3, 32, 48))[0])


def test_it_never_trains_yet_lets_gradients_through() -> None:
    network = torch.nn.Sequential(load_efficientnet_lite0((1,))).train()
    assert not network[0].training and not network[0].bn0.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    image = torch.zeros(1, 1, 32, 32, requires_grad=True)
    network(image)[0].sum().backward()
    assert image.grad is not None and float(image.grad.abs().max()) > 0


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="stages: expected some of"):
        EfficientNetLite0((7,))
    with pytest.raises(ValueError, match="expected 1 or 3 channels, got 2"):
        EfficientNetLite0((1,))(torch.zeros(1, 2, 32, 32))
