"""Enhanced CT: many frames a file, and what tells them apart in functional groups."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.sources.enhanced_ct import write_enhanced
from tests.data.sources.test_dicom_grouping import volumes

from promptlesion.data.spec import DatasetError

Write = Callable[..., list[Any]]
Groups = Callable[[Any, Any, int], None]


def in_sequence(sequence: str, tag: str, values: tuple[Any, Any]) -> Groups:
    def groups(item: Any, content: Any, frame: int) -> None:
        from pydicom.dataset import Dataset
        from pydicom.sequence import Sequence

        held = Dataset()
        setattr(held, tag, values[frame >= 7])
        setattr(item, sequence, Sequence([held]))

    return groups


def in_content(tag: str, values: Callable[[int], Any]) -> Groups:
    def groups(item: Any, content: Any, frame: int) -> None:
        setattr(content, tag, values(frame))

    return groups


@pytest.mark.parametrize(
    "groups",
    [
        in_sequence("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase", (40.0, 75.0)),
        in_sequence("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", (400.0, 750.0)),
        in_sequence("RespiratorySynchronizationSequence", "NominalPercentageOfRespiratoryPhase", (0.0, 50.0)),
        in_sequence("TemporalPositionSequence", "TemporalPositionTimeOffset", (0.0, 2.0)),
        in_sequence("CTReconstructionSequence", "ConvolutionKernel", ("B30f", "B60f")),
        in_sequence("CTXRayDetailsSequence", "KVP", (80, 140)),
        in_content("TemporalPositionIndex", lambda frame: 1 + (frame >= 7)),
        in_content("FrameAcquisitionNumber", lambda frame: 1 + (frame >= 7)),
        in_content("StackID", lambda frame: str(frame >= 7)),
        in_content("DimensionIndexValues", lambda frame: [1, 1 + frame % 7, 1 + (frame >= 7)]),
        in_content("FrameAcquisitionDateTime", lambda frame: f"2020010110101{int(frame >= 7)}"),
    ],
)
def test_phases_and_kernels_are_volumes_each(
    tmp_path: Path, hu: np.ndarray, write_series: Write, groups: Groups
) -> None:
    frames = [*write_series(tmp_path / "a", hu), *write_series(tmp_path / "b", hu + np.int16(1))]
    write_enhanced(tmp_path / "in", frames, groups=groups)
    found = list(volumes(tmp_path / "in", tmp_path / "out").values())
    assert [np.array_equal(one, hu + number) for number, one in enumerate(found)] == [True, True]


def test_phases_that_nothing_tells_apart_are_refused(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    frames = [*write_series(tmp_path / "a", hu), *write_series(tmp_path / "b", hu + np.int16(1))]
    write_enhanced(tmp_path / "in", frames)
    with pytest.raises(DatasetError, match=r"two that differ, .*enhanced.dcm and .*enhanced.dcm \(frame 8\)"):
        volumes(tmp_path / "in", tmp_path / "out")


def test_a_file_a_phase_is_a_volume_each_and_a_copy_is_none(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    for number in (0, 1):
        frames = write_series(tmp_path / str(number), hu + np.int16(number))
        write_enhanced(tmp_path / "in", frames, name=f"{'phase' * (1 + number)}.dcm")
    (tmp_path / "in" / "copy.dcm").write_bytes((tmp_path / "in" / "phase.dcm").read_bytes())
    found = list(volumes(tmp_path / "in", tmp_path / "out").values())
    assert sorted(int((one - hu).max()) for one in found) == [0, 1]


def lose(what: str) -> Callable[[Any], None]:
    def change(dataset: Any) -> None:
        last = dataset.PerFrameFunctionalGroupsSequence[-1]
        if what == "position":
            del last.PlanePositionSequence
        elif what == "rescale":
            del last.PixelValueTransformationSequence
        elif what == "group":
            dataset.PerFrameFunctionalGroupsSequence.pop()
        elif what == "groups":
            del dataset.PerFrameFunctionalGroupsSequence
        elif what == "frames":
            dataset.NumberOfFrames = 5

    return change


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("position", r"enhanced.dcm: .* in frame 7 of 7"),
        ("rescale", r"expected slope and intercept in every slice, as 6 have them"),
        ("group", r"enhanced.dcm: .* 7 frames and functional groups of 6"),
        ("groups", r"enhanced.dcm: .* multi-frame CT with 7 frames and functional groups of 0"),
        ("frames", r"enhanced.dcm: .* 5 frames and functional groups of 7"),
    ],
)
def test_a_frame_that_lacks_something_is_not_left_out(
    tmp_path: Path, hu: np.ndarray, write_series: Write, what: str, message: str
) -> None:
    write_enhanced(tmp_path / "in", write_series(tmp_path / "a", hu), change=lose(what))
    with pytest.raises(DatasetError, match=message):
        volumes(tmp_path / "in", tmp_path / "out")
    write_series(tmp_path / "in" / "b", hu, series=2)
    (found,) = volumes(tmp_path / "in", tmp_path / "out", skips_refused=True).values()
    assert np.array_equal(found, hu)


def test_without_a_number_of_frames_the_groups_count(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    def change(dataset: Any) -> None:
        del dataset.NumberOfFrames

    write_enhanced(tmp_path / "in", write_series(tmp_path / "a", hu), change=change)
    with pytest.raises(DatasetError, match=r"enhanced.dcm"):
        volumes(tmp_path / "in", tmp_path / "out")
