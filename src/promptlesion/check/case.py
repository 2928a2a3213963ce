"""One case, looked at on its own and in a process of its own: what can be measured, and what is wrong with it."""

import time
from dataclasses import replace

import numpy as np
from jaxtyping import Num, UInt8

from promptlesion.check.facts import CaseFacts, CaseFiles
from promptlesion.check.finding import Finding
from promptlesion.check.intensity import hu_facts, hu_histograms, intensity_findings
from promptlesion.check.mirror import mirrored_axes, named_axes
from promptlesion.check.reading import is_hounsfield, measured_geometry, read_file, usable_labels
from promptlesion.check.scan_fingerprint import body_box, coarse_body, content_hashes
from promptlesion.check.structures import label_facts, lesion_facts, lesion_neighbours, shown_voxel
from promptlesion.check.thumbnail import thumbnails
from promptlesion.data.lesion_instances import find_lesions


def examine_case(files: CaseFiles) -> CaseFacts:
    """Read a case and say all there is to say about it alone; never raises for what the files hold."""
    findings: list[Finding] = []
    started = time.perf_counter()
    image = read_file(files, files.image_path, "CT", findings)
    seconds_read = time.perf_counter() - started
    labels = read_file(files, files.label_path, "label map", findings)
    if image is None:
        return CaseFacts(files.name, tuple(findings))
    facts = replace(measured_geometry(files, image, findings), seconds_read=seconds_read)
    is_hu = is_hounsfield(files.name, image.array, findings)
    label_map = usable_labels(files, image, labels, findings)
    everywhere = label_map if label_map is not None else np.zeros(image.shape, dtype=np.uint8)
    values, counts = hu_histograms(image.array, everywhere)
    low, high = _ends(image.array)
    if is_hu:
        spread = hu_facts(counts.sum(axis=0), lowest=low, highest=high)
        findings += intensity_findings(files.name, spread)
        facts = replace(facts, hu=spread)
    box = body_box(image.array)
    voxel_hash, content_hash = content_hashes(image.array)
    coarse = coarse_body(image.array, box) if is_hu else None
    facts = replace(facts, voxel_hash=voxel_hash, content_hash=content_hash, coarse=coarse)
    center, marked = tuple(length // 2 for length in image.shape), None
    if label_map is not None:
        if is_hu:
            _check_mirrored(files.name, image.array, label_map, findings)
        facts = replace(facts, labels=label_facts(values, counts, label_map, image, box))
        instances = find_lesions(label_map, files.lesion_labels, image.spacing_mm)
        found = [(files.lesion_labels[one.type_index], one) for one in instances]
        lesions = tuple(lesion_facts(image, label_map, label, lesion) for label, lesion in found)
        facts = replace(facts, lesions=lesions, neighbours=lesion_neighbours(label_map, found))
        center = shown_voxel(label_map, [lesion for _, lesion in found])
        marked = max(lesions, key=lambda one: one.num_voxels).label if lesions else None
    shown = files.window_hu if is_hu else (low, max(high, low + 1e-6))
    return replace(
        facts,
        findings=tuple(findings),
        thumbnails=thumbnails(
            image.array,
            label_map,
            spacing_mm=image.spacing_mm,
            center_voxel=(center[0], center[1], center[2]),
            window_hu=shown,
            colors=files.colors,
            marked_label=marked,
        ),
    )


def _check_mirrored(
    case: str, image: Num[np.ndarray, "x y z"], labels: UInt8[np.ndarray, "x y z"], findings: list[Finding]
) -> None:
    axes = mirrored_axes(image, labels)
    if axes:
        name = named_axes(axes)
        message = (
            f"{case}: expected the label map's outlines on edges of the CT, found them there only once the map is "
            f"flipped {name}: the label map is flipped"
        )
        remedy = f"flip the label map {name}, or export it anew"
        findings.append(Finding("error", "flipped-labels", case, message, remedy))


def _ends(image: Num[np.ndarray, "x y z"]) -> tuple[float, float]:
    """Return the lowest and the highest voxel that is a number."""
    if image.dtype.kind == "f":
        image = image[np.isfinite(image)]
    return (float(image.min()), float(image.max())) if image.size else (0.0, 0.0)
