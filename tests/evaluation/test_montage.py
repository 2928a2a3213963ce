"""The pictures of scans: the right slices, the right way up, and no lesion invented or left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.montage import montage_figure, overview_figure
from promptlesion.evaluation.slice_changes import display_window_hu, largest_change, montage_columns


def test_columns_show_new_lesions_of_every_type_from_different_cases(
    datasets: tuple[Dataset, Dataset],
) -> None:
    real, synthetic = datasets
    columns = montage_columns(synthetic, real, per_type=2, field_voxels=20)
    assert [column.lesion_type for column in columns] == ["hard_plaque"] * 2 + ["soft_plaque"] * 2
    assert len({column.case for column in columns[:2]}) == 2
    for column in columns:
        assert column.source.shape == column.synthetic.shape == (20, 20)
        changed = np.abs(column.synthetic - column.source) > 20
        np.testing.assert_array_equal(changed & column.lesion_mask, column.lesion_mask)
        assert not set(np.unique(column.labels[column.lesion_mask])) - {2}


def test_overview_is_the_whole_slice(datasets: tuple[Dataset, Dataset]) -> None:
    change = largest_change(datasets[1], datasets[0])
    assert change.source.shape == (50, 44)
    assert change.pixel_mm == pytest.approx((0.8, 1.0))


def test_display_window_stays_inside_the_networks(datasets: tuple[Dataset, Dataset]) -> None:
    low, high = display_window_hu(montage_columns(datasets[1], datasets[0]), (-200.0, 650.0))
    assert -200 <= low < -50 and high == 650


def test_montage_has_four_rows_a_column(datasets: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    columns = montage_columns(datasets[1], datasets[0], per_type=2, field_voxels=20)
    figure = montage_figure(columns, datasets[1])
    assert len(figure.axes) == 4 * len(columns)
    assert figure.axes[0].get_title() == f"mean {columns[0].mean_hu:.0f} HU"
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= {
        "wall",
        "hard plaque",
        "soft plaque",
    }
    assert save_figure(figure, tmp_path / "montage.png", dots_per_inch=50).stat().st_size > 1000
    with pytest.raises(ValueError, match="at least one synthetic lesion"):
        montage_figure([], datasets[1])


def test_anterior_is_up_and_the_patients_right_on_the_left(datasets: tuple[Dataset, Dataset]) -> None:
    column = montage_columns(datasets[1], datasets[0], per_type=1, field_voxels=20)[0]
    source = np.full((20, 20), -200, dtype=np.float32)
    source[15:, 15:] = 1300  # right (large x) and anterior (large y)
    figure = montage_figure([replace(column, source=source)], datasets[1])
    pixels = np.asarray(figure.axes[0].get_images()[0].get_array())
    assert pixels[:5, :5].min() == 1 and pixels[6:, 6:].max() == 0


def test_overview_figure_marks_the_change(datasets: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    change = largest_change(datasets[1], datasets[0])
    figure = overview_figure(change, datasets[1])
    boxes = [axes.patches[0] for axes in figure.axes[:3]]
    assert len({box.get_xy() for box in boxes}) == 1
    rows, columns = np.nonzero(change.lesion_mask.T[::-1, ::-1])
    left, bottom = boxes[0].get_xy()
    assert left < columns.min() and columns.max() < left + boxes[0].get_width()
    assert bottom < rows.min() and rows.max() < bottom + boxes[0].get_height()
    shown = np.asarray(figure.axes[2].get_images()[0].get_array())
    np.testing.assert_array_equal(shown != 0, (change.synthetic != change.source).T[::-1, ::-1])
    save_figure(figure, tmp_path / "overview.png", dots_per_inch=50)
