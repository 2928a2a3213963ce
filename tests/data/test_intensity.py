import numpy as np
import pytest
import torch

from promptlesion.data.intensity import HUWindow


def test_the_ends_of_the_window_are_minus_one_and_one() -> None:
    window = HUWindow(-175.0, 250.0)
    hu = np.array([-1024, -175, 250, 3071], dtype=np.int16)
    np.testing.assert_allclose(window.normalize(hu), [-1, -1, 1, 1], atol=1e-6)
    assert window.normalize(37.5) == pytest.approx(0.0)
    assert window.width_hu == 425.0


def test_every_hu_of_the_window_comes_back() -> None:
    window = HUWindow(-200.0, 1300.0)
    hu = np.arange(-200, 1301, dtype=np.int16)
    np.testing.assert_array_equal(np.rint(window.to_hu(window.normalize(hu))), hu)


def test_tensors_and_arrays_agree_and_keep_their_kind() -> None:
    window = HUWindow(-200.0, 1300.0)
    hu = np.random.default_rng(0).integers(-1024, 3071, (3, 4, 5)).astype(np.int16)
    normalized, from_tensor = window.normalize(hu), window.normalize(torch.from_numpy(hu))
    assert normalized.dtype == np.float32
    assert from_tensor.dtype == torch.float32
    np.testing.assert_allclose(from_tensor.numpy(), normalized, atol=1e-6)
    np.testing.assert_allclose(window.to_hu(from_tensor).numpy(), window.to_hu(normalized), atol=1e-3)
    assert window.normalize(hu.astype(np.float64)).dtype == np.float64
    assert window.to_hu(torch.zeros(2, dtype=torch.float64)).dtype == torch.float64


def test_gradients_pass_through() -> None:
    normalized = torch.zeros(3, requires_grad=True)
    HUWindow(-200.0, 1300.0).to_hu(normalized).sum().backward()
    assert normalized.grad is not None
    assert normalized.grad.tolist() == [750.0] * 3


@pytest.mark.parametrize(("low", "high"), [(100.0, 100.0), (250.0, -175.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_window_that_is_none(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="window_hu: expected two finite HU with low < high"):
        HUWindow(low, high)
