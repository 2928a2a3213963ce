"""What every synthetic case must keep of its source, whatever painted it: to be held against any cohort."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from promptlesion.data.dataset import Dataset, image_path, label_path
from promptlesion.data.provenance import read_provenance

GEOMETRY = ("dim", "pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x")


def raw(path: Path) -> tuple[Any, np.ndarray]:
    """A file and its voxels, in the order of the file."""
    image = nib.load(path)
    return image, np.asarray(image.dataobj)


def contents(root: Path) -> dict[str, bytes]:
    """Every file but the run's record, which holds times."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def pairs(cohort: Dataset) -> list[tuple[str, str, dict[str, Any]]]:
    """Every case, its source, and its line of provenance."""
    lines = read_provenance(cohort.root)
    return [(case.name, str(lines[case.name]["source"]), lines[case.name]) for case in cohort.cases]


def check_contract(cohort: Dataset, sources: Dataset) -> None:
    """Assert that nothing but the lesions and their edges differs from the sources, down to the last bit."""
    assert cohort.cases
    for name, source, line in pairs(cohort):
        for path_of in (image_path, label_path):
            check_geometry(path_of(cohort.root, name), path_of(sources.root, source))
        made, hu = raw(image_path(cohort.root, name))
        before = raw(image_path(sources.root, source))[1]
        labels, labels_before = (raw(label_path(d.root, n))[1] for d, n in ((cohort, name), (sources, source)))
        is_new = labels != labels_before
        assert is_new.any()
        distance_mm = ndimage.distance_transform_edt(~is_new, sampling=made.header.get_zooms())
        far = distance_mm >= line["edge_mm"]
        assert hu[far].tobytes() == before[far].tobytes()
        hosts = {sources.labels[host] for lesion in sources.spec.lesions for host in lesion.host}
        assert set(np.unique(labels[is_new])) <= set(sources.lesion_labels)
        assert set(np.unique(labels_before[is_new])) <= hosts
        existing = np.isin(labels_before, sources.lesion_labels)
        assert hu[existing].tobytes() == before[existing].tobytes()


def check_geometry(made: Path, origin: Path) -> None:
    """Assert that a file has another's grid bit for bit, in nibabel's eyes and in SimpleITK's."""
    (image, array), (image_before, before) = raw(made), raw(origin)
    assert image.affine.tobytes() == image_before.affine.tobytes()
    assert array.dtype == before.dtype
    for key in GEOMETRY:
        own, other = (np.atleast_1d(found.header[key])[:4] for found in (image, image_before))  # of three axes
        assert own.tobytes() == other.tobytes(), key
    assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
    read, read_before = sitk.ReadImage(made), sitk.ReadImage(origin)
    assert read.GetSize() == read_before.GetSize()
    assert read.GetSpacing() == read_before.GetSpacing()
    assert read.GetOrigin() == read_before.GetOrigin()
    assert read.GetDirection() == read_before.GetDirection()
    assert read.GetPixelID() == read_before.GetPixelID()
    assert np.array_equal(sitk.GetArrayFromImage(read).transpose(), array)
