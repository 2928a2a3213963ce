"""What tells two scans alike or apart, however their files are written: hashes, and the body on a small grid."""

import hashlib

import numpy as np
from jaxtyping import Float32, Num
from scipy import ndimage

from promptlesion.data.boxes import Box

COARSE_VOXELS = 16
_BODY_HU = -300
_CLIPPED_HU = (-1000, 400)


def content_hashes(image: Num[np.ndarray, "x y z"]) -> tuple[str, str]:
    """Return the two hashes; both of whole HU, so that the file's type does not matter."""
    whole = np.rint(np.nan_to_num(image)) if image.dtype.kind == "f" else image
    whole = np.ascontiguousarray(whole.clip(-32768, 32767).astype(np.int16))
    exact = hashlib.sha256(str(whole.shape).encode())
    exact.update(whole.data)
    counts = np.zeros(2**16, dtype=np.int64)
    for slab in whole:
        counts += np.bincount(slab.ravel().astype(np.int32) + 2**15, minlength=2**16)
    content = hashlib.sha256(str(sorted(whole.shape)).encode() + counts.tobytes())
    return exact.hexdigest(), content.hexdigest()


def body_box(image: Num[np.ndarray, "x y z"]) -> Box:
    """Return the bounding box of the largest piece of tissue, found on every few voxels; all where there is none."""
    steps = [-(-length // 64) for length in image.shape]
    is_tissue = image[tuple(slice(None, None, step) for step in steps)] > _BODY_HU
    pieces, number = ndimage.label(is_tissue)
    if number == 0:
        x, y, z = (slice(0, length) for length in image.shape)
        return x, y, z
    largest = int(np.bincount(pieces.ravel())[1:].argmax())
    x, y, z = (
        slice(side.start * step, min(side.stop * step, length))
        for side, step, length in zip(ndimage.find_objects(pieces)[largest], steps, image.shape, strict=True)
    )
    return x, y, z


def coarse_body(image: Num[np.ndarray, "x y z"], box: Box) -> Float32[np.ndarray, "16 16 16"] | None:
    """Return the body on 16 x 16 x 16 voxels, mean 0 and variance 1; None where it has fewer."""
    body = image[box]
    if min(body.shape) < COARSE_VOXELS:
        return None
    steps = [length // COARSE_VOXELS for length in body.shape]
    body = body[tuple(slice(None, None, max(1, step // 3)) for step in steps)]
    hu: np.ndarray = np.clip(body.astype(np.float32), *_CLIPPED_HU)
    for axis in range(3):
        edges = np.linspace(0, hu.shape[axis], COARSE_VOXELS, endpoint=False).astype(int)
        hu = np.add.reduceat(hu, edges, axis=axis) / np.diff([*edges, hu.shape[axis]]).reshape(
            [-1 if other == axis else 1 for other in range(3)]
        )
    return np.asarray(((hu - hu.mean()) / max(float(hu.std()), 1e-6)).astype(np.float32))
