"""Curves through a scan: points at even distances, and a frame that turns as little as possible."""

import numpy as np
from jaxtyping import Float


def evenly_along(
    track: Float[np.ndarray, "n columns"], step_mm: float
) -> tuple[Float[np.ndarray, "m columns"], Float[np.ndarray, " m"]]:
    """Return a track, whose first three columns are places in mm, at every step along it, and the lengths to there."""
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(track[:, :3], axis=0), axis=1))])
    at = np.arange(0.0, arc[-1], step_mm)
    return np.stack([np.interp(at, arc, column) for column in track.T], axis=1), at


def transported_normals(tangents: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Carry a normal along the tangents of a curve without turning it about them."""
    normal = np.eye(3)[int(np.abs(tangents[0]).argmin())]
    normals = np.empty_like(tangents)
    for index, tangent in enumerate(tangents):
        normal = normal - (normal @ tangent) * tangent
        normal = normal / np.linalg.norm(normal)
        normals[index] = normal
    return normals
