"""Made-up Enhanced CT files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def write_enhanced(
    folder: Path,
    frames: Sequence[Any],
    *,
    groups: Callable[[Any, Any, int], None] = lambda item, content, frame: None,
    change: Callable[[Any], None] = lambda dataset: None,
    name: str = "enhanced.dcm",
) -> None:
    """Write slices, datasets as `write_series` returns them, as one file; `groups` adds to a frame's groups."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    first, items = frames[0], []
    enhanced = Dataset()
    enhanced.update(first)
    enhanced.file_meta = first.file_meta
    enhanced.SOPClassUID = enhanced.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    enhanced.SOPInstanceUID = enhanced.file_meta.MediaStorageSOPInstanceUID = f"{first.SOPInstanceUID}.{len(name)}"
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = first.ImageOrientationPatient, first.PixelSpacing
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Items([orientation]), Items([measures])
    for number, one in enumerate(frames):
        item, position, transform, content = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = one.ImagePositionPatient
        transform.RescaleSlope, transform.RescaleIntercept = one.RescaleSlope, one.RescaleIntercept
        item.PlanePositionSequence, item.PixelValueTransformationSequence = Items([position]), Items([transform])
        content.FrameAcquisitionNumber, content.InStackPositionNumber = 1, number + 1
        item.FrameContentSequence = Items([content])
        groups(item, content, number)
        items.append(item)
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(enhanced, tag)
    enhanced.NumberOfFrames, enhanced.PixelData = len(frames), b"".join(one.PixelData for one in frames)
    enhanced.SharedFunctionalGroupsSequence, enhanced.PerFrameFunctionalGroupsSequence = Items([shared]), Items(items)
    change(enhanced)
    folder.mkdir(parents=True, exist_ok=True)
    enhanced.save_as(folder / name, enforce_file_format=True)
