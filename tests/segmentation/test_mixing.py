from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data.cache import CachedCase, build_cache
from promptlesion.data.dataset import (
    DatasetSpec,
    open_dataset,
    write_case,
    write_dataset_json,
    write_spec,
)
from promptlesion.data.volume import Volume
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.mixing import SegmentationData, check_subjects_apart, mixed_batches, synthetic_share


def parts(spec: DatasetSpec, **cases: list[CachedCase]) -> SegmentationData:
    """Name the parts that have cases."""
    nothing: dict[str, list[CachedCase]] = {name: [] for name in ("real", "synthetic", "validation", "test")}
    return SegmentationData(**{**nothing, **cases}, spec=spec, labels={})


@pytest.fixture
def brighter_cases(
    tmp_path: Path,
    spec: DatasetSpec,
    label_values_by_name: dict[str, int],
    scan_maker: Callable[..., tuple[Volume, Volume]],
) -> list[CachedCase]:
    """Stand-ins for synthetic cases, told by intensities above the window."""
    for index in range(2):
        image, labels = scan_maker(index)
        brighter = image.array + np.int16(2000)
        brighter[0] = np.linspace(-1000, -500, brighter.shape[1])[:, None]
        write_case(tmp_path / "data", f"synthetic_{index}", image.with_array(brighter), labels)
    write_dataset_json(tmp_path / "data", labels=label_values_by_name, num_training=2, extra={})
    write_spec(spec, tmp_path / "data" / "lesions.toml")
    return build_cache(open_dataset(tmp_path / "data"), tmp_path / "cache")


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 0.0), (0.5, 1 / 3), (1.0, 0.5), (3.0, 0.75)])
def test_ratio_of_synthetic_to_real_becomes_a_share(ratio: float, share: float) -> None:
    assert float(synthetic_share(ratio)) == pytest.approx(share)


@pytest.mark.parametrize(
    ("batch_size", "ratio", "numbers"),
    [
        (12, 1.0, [6, 6, 6, 6]),
        (3, 1.0, [1, 2, 1, 2]),
        (12, 0.0, [0, 0, 0, 0]),
        (12, 3.0, [9, 9, 9, 9]),
        (12, 2.0, [8, 8, 8, 8]),
        (7, 0.1, [0, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1]),
    ],
)
def test_every_batch_holds_the_share_asked_for_and_the_odd_patch_comes_by_turns(
    batch_size: int,
    ratio: float,
    numbers: list[int],
    spec: DatasetSpec,
    cases: list[CachedCase],
    brighter_cases: list[CachedCase],
) -> None:
    config = SegmentationConfig(patch_voxels=16, batch_size=batch_size, synthetic_ratio=ratio)
    batches = mixed_batches(parts(spec, real=cases, synthetic=brighter_cases), config, seed=1)

    def synthetic_of(step: int, items: range) -> int:
        return int(((batches.draw(step, items).image > 0.5).flatten(1).float().mean(dim=1) > 0.1).sum())

    found = [synthetic_of(step, range(batch_size)) for step in range(len(numbers))]
    assert found == numbers
    share, total = ratio / (1 + ratio), batch_size * len(numbers)
    assert abs(sum(found) - share * total) < 1
    half = batch_size // 2  # two processes share a batch
    assert synthetic_of(0, range(half)) + synthetic_of(0, range(half, batch_size)) == numbers[0]


def test_without_synthetic_cases_every_patch_is_real(spec: DatasetSpec, cases: list[CachedCase]) -> None:
    config = SegmentationConfig(patch_voxels=16, batch_size=50, synthetic_ratio=1.0)
    batches = mixed_batches(parts(spec, real=cases), config, seed=1)
    assert batches.draw(0).image.max() < 1.0


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("kind", ["real", "synthetic"])
def test_training_case_of_a_held_out_subject_is_refused(
    kind: str, part: str, spec: DatasetSpec, tmp_path: Path
) -> None:
    held_out = CachedCase("case_3", "anna", tmp_path)
    training = [CachedCase("case_0", "bert", tmp_path), CachedCase("case_1", "anna", tmp_path)]
    with pytest.raises(ValueError, match=rf"case_1: expected {kind} training .* the {part} cases'; .*'anna'"):
        check_subjects_apart(parts(spec, **{kind: training, part: [held_out]}))
    check_subjects_apart(parts(spec, **{kind: training[:1], part: [held_out]}))


def test_validation_case_of_a_test_subject_is_refused(spec: DatasetSpec, tmp_path: Path) -> None:
    """It would select the weights by the subject they are judged on."""
    with pytest.raises(ValueError, match=r"case_4: expected validation cases of other .* the test cases'; .*'anna'"):
        check_subjects_apart(
            parts(
                spec,
                validation=[CachedCase("case_4", "anna", tmp_path)],
                test=[CachedCase("case_3", "anna", tmp_path)],
            )
        )
