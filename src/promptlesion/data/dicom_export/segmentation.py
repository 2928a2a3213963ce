"""The DICOM-SEG of a synthetic case: a segment for every label that is present."""

from collections.abc import Collection, Iterable
from importlib.metadata import version
from itertools import chain, count
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from promptlesion.data.dicom_export.series import DATE, TIME, Uids, say_what_it_is

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom.dataset import Dataset as DicomDataset

_LONGEST_LABEL = 64
# pydicom's names of SNOMED CT codes (CID 7151 and what it includes), by the words a label's name may hold
_LESION_CODES = {
    "non_calcified": "Plaque",
    "calcified_plaque": "CalcifiedAtheromatousPlaque",
    "plaque": "Plaque",
    "sarcoma": "Sarcoma",
    "nodule": "Nodule",
    "cyst": "Cyst",
    "tumor": "Neoplasm",
    "tumour": "Neoplasm",
}
_STRUCTURE_CODES = {
    "aorta": "Aorta",
    "colon": "Colon",
    "heart": "Heart",
    "kidney": "Kidney",
    "liver": "Liver",
    "lumen": "LumenOfBloodVessel",
    "lung": "Lung",
    "pancreas": "Pancreas",
    "soft_tissue": "SoftTissue",
    "spleen": "Spleen",
    "stomach": "Stomach",
}


def build_segmentation(
    pixels: UInt8[np.ndarray, "slice row column"],
    headers: "list[DicomDataset]",
    present: dict[str, int],
    lesion_types: Collection[str],
    uids: Uids,
    description: str,
) -> "DicomDataset":
    """Return the segmentation of a series; `present` holds the labels to describe and their values in `pixels`."""
    from highdicom.seg import Segmentation, SegmentationTypeValues
    from pydicom.valuerep import DA, DT, TM

    number_of = np.zeros(256, np.uint8)
    number_of[list(present.values())] = np.arange(1, len(present) + 1)
    segmentation = Segmentation(
        source_images=headers,
        pixel_array=number_of[pixels],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(number, label, short, uids, is_lesion=label in lesion_types)
            for number, (label, short) in enumerate(_short(present).items(), start=1)
        ],
        series_instance_uid=uids("segmentation series"),
        series_number=2,
        sop_instance_uid=uids("segmentation"),
        instance_number=1,
        manufacturer="promptlesion",
        manufacturer_model_name="promptlesion",
        software_versions=version("promptlesion"),
        device_serial_number="none",
        content_label="LESIONS",
        content_description="Labels of a synthetic CT",
        content_date=DATE,
        content_time=TIME,
        series_description="Segmentation of a synthetic CT, promptlesion",
    )
    say_what_it_is(segmentation, description)
    segmentation.PatientIdentityRemoved = headers[0].PatientIdentityRemoved
    segmentation.DeidentificationMethod = headers[0].DeidentificationMethod
    # what highdicom takes from the clock and from chance
    segmentation.InstanceCreationDate, segmentation.InstanceCreationTime = DA(DATE), TM(TIME)
    for equipment in segmentation.ContributingEquipmentSequence:
        equipment.ContributionDateTime = DT(DATE + TIME)
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = uids("dimensions")
    return segmentation


def _short(labels: Iterable[str]) -> dict[str, str]:
    """Return each label as DICOM takes it; those that begin alike for too long are told apart by a number."""
    short: dict[str, str] = {}
    for label in labels:
        endings = chain([""], (f"_{number}" for number in count(2)))
        candidates = (label[: _LONGEST_LABEL - len(ending)] + ending for ending in endings)
        short[label] = next(candidate for candidate in candidates if candidate not in short.values())
    return short


def _segment(number: int, label: str, short: str, uids: Uids, *, is_lesion: bool) -> "SegmentDescription":
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    known = _LESION_CODES if is_lesion else _STRUCTURE_CODES
    code = next((code for word, code in known.items() if word in label.lower()), None)
    category = "MorphologicallyAbnormalStructure" if is_lesion else "AnatomicalStructure" if code else "Tissue"
    return SegmentDescription(
        segment_number=number,
        segment_label=short,
        segmented_property_category=getattr(codes.SCT, category),
        segmented_property_type=getattr(codes.SCT, code or ("Lesion" if is_lesion else "Tissue")),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name="promptlesion", family=codes.cid7162.ArtificialIntelligence, version=version("promptlesion")
        ),
        tracking_uid=uids("segment", label),
        tracking_id=short,
    )
