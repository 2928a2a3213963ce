"""Every chart draws what it was given, without a warning."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from measure.figures import bias_figure, confusion_figure, sampler_figure, surroundings_figure
from measure.type_bias import TypeBias

from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.results import Estimate

INTERVAL = Estimate(value=1.0, low=0.5, high=1.5)


def bias(lesion_type: str, value: float) -> TypeBias:
    return TypeBias(lesion_type, "placed", 5, 6, 60.0, 60.0 + value, Estimate(value=value, low=-9.0, high=9.0), 15.0)


def figures() -> dict[str, Figure]:
    counts = {f"method {index}": np.array([[3, 1], [0, 4]]) for index in range(5)}
    return {
        "bias": bias_figure({name: [bias("hard", 3.0), bias("non_soft", -20.0)] for name in ("one", "two")}),
        "samplers": sampler_figure({"ddim": [(10, 0.2, INTERVAL), (50, 1.0, Estimate(value=None))]}, INTERVAL),
        "confusion": confusion_figure(counts, ["hard", "non_soft"]),
        "surroundings": surroundings_figure(
            {"init noise": {"blending on": [4.0, 2.0, None], "blending off": [8.0, 7.0, 6.0]}},
            voxel_mm=0.6,
            edge_mm=1.2,
        ),
    }


@pytest.mark.parametrize("name", ["bias", "samplers", "confusion", "surroundings"])
def test_it_is_written(name: str, tmp_path: Path) -> None:
    path = save_figure(figures()[name], tmp_path / "figure.png", dots_per_inch=50)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_confusion_shows_shares_of_each_row() -> None:
    axes = figures()["confusion"].axes[0]
    assert [text.get_text() for text in axes.texts] == ["75", "25", "0", "100"]


def test_values_that_were_not_measured_are_left_out() -> None:
    line = figures()["surroundings"].axes[0].lines[0]
    assert len(line.get_xdata()) == 2
    assert [text.get_text() for text in figures()["samplers"].axes[0].texts] == ["10"]
