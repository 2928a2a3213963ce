"""Label values of the files, which may have gaps, and the networks' class indices, which have none."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Integer, UInt8
from torch import Tensor

from promptlesion.data.dataset_json import IGNORE_LABEL

IGNORED_CLASS = 255
"""Stands for voxels that are left out of the loss; no network has that class."""


class LabelClasses:
    """Class index i is the i-th smallest label value; the background, value 0, is class 0."""

    def __init__(self, label_values: Iterable[int], *, ignored: int | None = None) -> None:
        """Number the classes; the value `ignored` is none of them, and stands for voxels that nobody labelled.

        Raises:
            ValueError: no background, nothing besides it, or values that do not fit a label map.
        """
        self.values = tuple(sorted(set(label_values) - {ignored}))
        if len(self.values) < 2 or self.values[0] != 0 or self.values[-1] > 255:
            raise ValueError(f"labels: expected 0 (background) and others up to 255; found {self.values}")
        self._is_known = np.isin(np.arange(256), self.values)
        self._class_of_value = np.where(self._is_known, np.cumsum(self._is_known) - 1, 0).astype(np.uint8)
        self.ignored = ignored
        if ignored is not None:
            self._is_known[ignored], self._class_of_value[ignored] = True, IGNORED_CLASS

    @classmethod
    def of_labels(cls, labels: Mapping[str, int]) -> "LabelClasses":
        """Number the labels of a `dataset.json`."""
        return cls(labels.values(), ignored=labels.get(IGNORE_LABEL))

    @property
    def num_classes(self) -> int:
        """Labels, background included."""
        return len(self.values)

    def to_classes(self, labels: UInt8[Tensor, "batch 1 x y z"]) -> UInt8[Tensor, "batch 1 x y z"]:
        """Replace label values by class indices, for training; a byte each, to be widened where the loss is computed.

        Raises:
            ValueError: a value that is none of the dataset's labels.
        """
        values = labels.numpy()
        is_known = self._is_known[values]
        if not is_known.all():
            raise ValueError(
                f"labels: expected the values {self.values}; found {np.unique(values[~is_known]).tolist()}"
            )
        return torch.from_numpy(self._class_of_value[values])

    def to_values(self, classes: Integer[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x y z"]:
        """Replace class indices by label values, for writing."""
        values: np.ndarray = np.array(self.values, dtype=np.uint8)[classes]
        return values
