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
from promptlesion.segmentation.mixing import check_subjects_apart, mixed_batches, synthetic_share


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
        brighter[0, 0, 0] = -1000
        write_case(tmp_path / "data", f"synthetic_{index}", image.with_array(brighter), labels)
    write_dataset_json(tmp_path / "data", labels=label_values_by_name, num_training=2, extra={})
    write_spec(spec, tmp_path / "data" / "lesions.toml")
    return build_cache(open_dataset(tmp_path / "data"), tmp_path / "cache")


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 0.0), (0.5, 1 / 3), (1.0, 0.5), (3.0, 0.75)])
def test_ratio_of_synthetic_to_real_becomes_a_share(ratio: float, share: float) -> None:
    assert synthetic_share(ratio) == pytest.approx(share)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 3.0])
def test_patches_are_synthetic_with_the_share_asked_for(
    ratio: float, spec: DatasetSpec, cases: list[CachedCase], brighter_cases: list[CachedCase]
) -> None:
    num_patches = 400
    config = SegmentationConfig(patch_voxels=16, batch_size=num_patches, synthetic_ratio=ratio)
    batches = mixed_batches(real_cases=cases, synthetic_cases=brighter_cases, spec=spec, config=config, seed=1)
    is_synthetic = (batches.draw(0).image > 0.5).flatten(1).float().mean(dim=1).numpy() > 0.1
    share = synthetic_share(ratio)
    tolerance = 3 * np.sqrt(share * (1 - share) / num_patches)
    assert abs(is_synthetic.mean() - share) <= tolerance


def test_without_synthetic_cases_every_patch_is_real(spec: DatasetSpec, cases: list[CachedCase]) -> None:
    config = SegmentationConfig(patch_voxels=16, batch_size=50, synthetic_ratio=1.0)
    batches = mixed_batches(real_cases=cases, synthetic_cases=[], spec=spec, config=config, seed=1)
    assert batches.draw(0).image.max() < 1.0


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("kind", ["real", "synthetic"])
def test_training_case_of_a_held_out_subject_is_refused(kind: str, part: str, tmp_path: Path) -> None:
    held_out = CachedCase("case_3", "anna", tmp_path)
    training = [CachedCase("case_0", "bert", tmp_path), CachedCase("case_1", "anna", tmp_path)]
    parts = {"real_cases": [], "synthetic_cases": [], "validation_cases": [], "test_cases": []}
    with pytest.raises(ValueError, match=rf"case_1: expected {kind} training .* the {part} cases'; .*'anna'"):
        check_subjects_apart(**{**parts, f"{kind}_cases": training, f"{part}_cases": [held_out]})
    check_subjects_apart(**{**parts, f"{kind}_cases": training[:1], f"{part}_cases": [held_out]})


def test_validation_case_of_a_test_subject_is_refused(tmp_path: Path) -> None:
    """It would select the weights by the subject they are judged on."""
    with pytest.raises(ValueError, match=r"case_4: expected validation cases of other .* the test cases'; .*'anna'"):
        check_subjects_apart(
            real_cases=[],
            synthetic_cases=[],
            validation_cases=[CachedCase("case_4", "anna", tmp_path)],
            test_cases=[CachedCase("case_3", "anna", tmp_path)],
        )
