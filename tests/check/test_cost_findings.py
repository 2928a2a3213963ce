"""How much there is to work on, and what does not fit."""

from dataclasses import replace

import pytest
import torch
from tests.check.conftest import body

from promptlesion.check.cost_findings import estimate_findings, extent_of
from promptlesion.check.facts import CaseFacts
from promptlesion.config import Config
from promptlesion.cost import measure
from promptlesion.cost.estimate import Extent, StageEstimate
from promptlesion.cost.machine import Machine
from promptlesion.cost.stages import NUM_STAGES, estimate_stages
from promptlesion.data.resampling import resample_to_spacing
from promptlesion.data.splits import Split

GIB = 2**30
MACHINE = Machine(torch.device("cpu"), "CPU", 8 * GIB, 8 * GIB, 50 * GIB, 0.1, GIB)


def extent(cases: list[CaseFacts], spacing_mm: tuple[float, float, float] = (2.0, 2.5, 3.0)) -> Extent:
    names = tuple(case.name for case in cases)
    return extent_of(
        cases,
        Split(names[:4], names[4:5], ()),
        spacing_mm=spacing_mm,
        num_types=1,
        num_labels=4,
        window_hu=(-160.0, 240.0),
    )


def stage(**changes: object) -> StageEstimate:
    plain = StageEstimate("autoencoder", "", 60.0, 0.1, 2 * GIB, 0, GIB, 32, 96)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_the_prepared_voxels_are_those_of_the_cache(examined: list[CaseFacts]) -> None:
    spacing_mm = (1.3, 1.3, 4.0)
    resampled = resample_to_spacing(body()[0], spacing_mm, order=1)
    found = extent(examined, spacing_mm)
    assert found.prepared_voxels == (resampled.array.size,) * 6
    assert (found.num_train, found.num_validation, found.num_lesions) == (4, 1, 4)


@pytest.mark.slow
def test_every_stage_has_its_cost(
    examined: list[CaseFacts], tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_MEASURED_S", 0.01)
    done = []
    stages = estimate_stages(tiny_config, extent(examined), MACHINE, on_progress=lambda: done.append(1))
    assert [one.stage for one in stages] == ["cache", "autoencoder", "diffusion", "synthesis", "segmentation"]
    assert len(done) == NUM_STAGES
    cache, autoencoder, diffusion, synthesis, segmentation = stages
    assert cache.disk_bytes == 3 * 6 * 48 * 40 * 32
    assert autoencoder.what.startswith("20 steps of 2 patches of 24³")
    assert "after encoding 12 of them" in diffusion.what  # four lesions, three patches each
    assert autoencoder.seconds == pytest.approx(20 * autoencoder.seconds_a_step)
    assert diffusion.seconds > 40 * diffusion.seconds_a_step
    assert all(one.seconds > 0 and one.memory_bytes >= MACHINE.resident_bytes for one in stages)
    assert all(one.measured_patch_voxels == one.patch_voxels for one in stages[1:])  # small enough to time whole
    assert not estimate_findings(stages, MACHINE, tiny_config)
    assert synthesis.seconds < segmentation.seconds + 60


@pytest.mark.parametrize(
    ("changes", "code", "remedy"),
    [
        ({"memory_bytes": 15 * GIB}, "memory", "--set autoencoder.batch_size=2"),
        ({"memory_bytes": 900 * GIB}, "memory", "a smaller --set autoencoder.patch_voxels, now 96"),
        ({"stage": "synthesis", "memory_bytes": 9 * GIB}, "memory", "a smaller --set diffusion.patch_voxels, now 96"),
        ({"stage": "cache", "memory_bytes": 9 * GIB}, "memory", "a coarser spacing_mm"),
        ({"stage": "diffusion", "host_bytes": 9 * GIB}, "memory", "fewer diffusion.patches_per_lesion"),
        ({"seconds": 40 * 86400.0}, "slow", "use a GPU"),
        ({"disk_bytes": 51 * GIB}, "disk", "another disk"),
    ],
)
def test_what_the_machine_does_not_have_is_named_with_the_setting_to_change(
    changes: dict[str, object], code: str, remedy: str
) -> None:
    (finding,) = estimate_findings([stage(**changes)], MACHINE, Config())
    assert (finding.code, finding.severity) == (code, "warning")
    assert remedy in finding.remedy
