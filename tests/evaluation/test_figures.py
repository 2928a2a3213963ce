"""The charts: they draw what they were given, and their files are reproducible."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from promptlesion.evaluation.figures import hu_histogram_figure, save_figure, training_curves_figure


def _titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.axison]


def test_training_curves_draw_each_logged_figure_where_it_was_logged() -> None:
    lines = [{"step": float(step), "loss": 1 / step} for step in range(1, 121)]
    lines[99]["validation_dice"] = 0.5
    figure = training_curves_figure({"diffusion": lines, "not_run": [], "segmentation": lines[:3]})
    assert _titles(figure) == ["diffusion\nloss", "diffusion\nvalidation dice", "segmentation\nloss"]
    (curve,) = figure.axes[1].get_lines()
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([100], [0.5])
    with pytest.raises(ValueError, match="at least one stage with metrics"):
        training_curves_figure({"diffusion": []})


def test_histograms_hold_every_voxel() -> None:
    generator = np.random.default_rng(0)
    real = {"hard": generator.normal(600, 80, 500), "soft": generator.normal(50, 20, 300)}
    synthetic = {"hard": generator.normal(500, 80, 400)}
    figure = hu_histogram_figure(real, synthetic, window_hu=(-200.0, 1300.0))
    assert _titles(figure) == ["hard", "soft"]
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels[0] == f"real, mean {real['hard'].mean():.0f} HU"
    assert len(labels) == 2 and len(figure.axes[1].get_legend().get_texts()) == 1


def test_saved_figure_is_reproducible(tmp_path: Path) -> None:
    contents = []
    for name in ("first.png", "second.png"):
        figure = training_curves_figure({"diffusion": [{"step": 1.0, "loss": 0.5}, {"step": 2.0, "loss": 0.4}]})
        contents.append(save_figure(figure, tmp_path / name, dots_per_inch=50).read_bytes())
    assert contents[0] == contents[1] and contents[0].startswith(b"\x89PNG")
