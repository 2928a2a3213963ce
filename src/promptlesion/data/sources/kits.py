"""KiTS19, 21 and 23: a folder a case, with `imaging.nii.gz` and `segmentation.nii.gz`."""

from pathlib import Path

from promptlesion.data.sources.image_files import pair_case
from promptlesion.data.sources.source import Source
from promptlesion.data.spec import DatasetError

IMAGE_FILE = "imaging.nii.gz"
_LABEL_FILES = ("segmentation.nii.gz", "aggregated_MAJ_seg.nii.gz")
_LABELS = {"background": 0, "kidney": 1, "tumor": 2, "cyst": 3}


def open_kits(folder: Path) -> Source:
    """List the cases, which keep their names, as `case_00012`; those without a segmentation are left out.

    KiTS19 labels no cysts; its label maps then lack the third value.
    """
    cases = {path.parent.name: path.parent for path in folder.glob(f"*/{IMAGE_FILE}")}
    if not cases:
        raise DatasetError(f"{folder}: expected folders of cases with {IMAGE_FILE}, as KiTS has, found none")
    pairs, unlabelled = [], []
    for name in sorted(cases):
        labels = [cases[name] / file for file in _LABEL_FILES if (cases[name] / file).is_file()]
        if labels:
            pairs.append(pair_case(name, cases[name] / IMAGE_FILE, labels[0]))
        else:
            unlabelled.append(name)
    if not pairs:
        raise DatasetError(
            f"{folder}: expected {_LABEL_FILES[0]} beside {IMAGE_FILE}, found none in {len(cases)} cases"
        )
    notes = (f"{len(unlabelled)} case(s) without a segmentation left out, {unlabelled[0]}, …",) if unlabelled else ()
    return Source(layout="kits", labels=dict(_LABELS), cases=tuple(pairs), notes=notes)
