"""A volume under the brush: attenuation values and labels that organs are laid on, one over the other."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, UInt8

from promptlesion.data.phantom.geometry import Grid, Lattice, Points, coverage, paint, smooth_noise


@dataclass
class Canvas:
    """Values and labels of a grid, the lattice that shapes are worked out on, the fat between them."""

    grid: Grid
    lattice: Lattice
    points: Points
    generator: np.random.Generator
    hu: Float32[np.ndarray, "x y z"]
    fat: Float32[np.ndarray, "x y z"]
    labels: UInt8[np.ndarray, "x y z"] = field(init=False)

    def __post_init__(self) -> None:
        """Starts without any label."""
        self.labels = np.zeros(self.grid.shape, np.uint8)

    def noise(self, scale_mm: float) -> Float32[np.ndarray, "x y z"]:
        """Texture of unit variance at every voxel."""
        return smooth_noise(self.generator, self.grid, scale_mm)

    def texture(self, mean_hu: float, slow_hu: float, fine_hu: float) -> Float32[np.ndarray, "x y z"]:
        """A parenchyma: a mean with slow (25 mm) and fine (5 mm) variation."""
        return np.float32(mean_hu) + slow_hu * self.noise(25.0) + fine_hu * self.noise(5.0)

    def place(self, x_mm: float, y_mm: float, z_mm: float, jitter_mm: float = 5.0) -> tuple[float, float, float]:
        """A position near the given one."""
        x, y, z = (float(v) for v in self.generator.uniform(-jitter_mm, jitter_mm, 3))
        return x_mm + x, y_mm + y, z_mm + z

    def vary(self, *lengths_mm: float) -> tuple[float, ...]:
        """The same lengths, each up to a tenth shorter or longer."""
        return tuple(float(length * self.generator.uniform(0.9, 1.1)) for length in lengths_mm)

    def lay(
        self,
        distance_mm: Float32[np.ndarray, "_ _ _"],
        value: float | Float32[np.ndarray, "x y z"],
        *,
        label: int = 0,
        edge_mm: float | None = None,
        halo_mm: float = 0.0,
    ) -> Float32[np.ndarray, "x y z"]:
        """Lays a tissue where the distance is negative, and returns the distance at every voxel.

        The distance may be given on the lattice or on the grid. `edge_mm` is how wide the margin is (a voxel,
        unless said), `halo_mm` how thick a layer of fat keeps the organ apart from what was laid before.
        """
        is_on_grid = distance_mm.shape == self.grid.shape
        distance = distance_mm if is_on_grid else self.lattice.to_grid(distance_mm)
        voxel_mm = float(np.mean(self.grid.spacing_mm))
        if halo_mm > 0:
            paint(self.hu, self.fat, coverage(distance - np.float32(halo_mm), voxel_mm))
            self.labels[distance < halo_mm] = 0
        paint(self.hu, value, coverage(distance, max(edge_mm or 0.0, voxel_mm)))
        self.labels[distance < 0] = label
        return distance
