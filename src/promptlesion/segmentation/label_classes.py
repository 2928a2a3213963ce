"""Label values of the files, which may have gaps, and the networks' class indices, which have none."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor


class LabelClasses:
    """Class index i is the i-th smallest label value; the background, value 0, is class 0."""

    def __init__(self, label_values: Iterable[int]) -> None:
        """Number the classes.

        Raises:
            ValueError: no background, nothing besides it, or values that do not fit a label map.
        """
        self.values = tuple(sorted(set(label_values)))
        if len(self.values) < 2 or self.values[0] != 0 or self.values[-1] > 255:
            raise ValueError(f"labels: expected 0 (background) and others up to 255; found {self.values}")
        class_of_value = torch.full((256,), -1, dtype=torch.int64)
        class_of_value[list(self.values)] = torch.arange(len(self.values))
        self._class_of_value = class_of_value

    @classmethod
    def of_labels(cls, labels: Mapping[str, int]) -> "LabelClasses":
        """Number the labels of a `dataset.json`."""
        return cls(labels.values())

    @property
    def num_classes(self) -> int:
        """Labels, background included."""
        return len(self.values)

    def to_classes(self, labels: Int[Tensor, "batch 1 x y z"]) -> Int[Tensor, "batch 1 x y z"]:
        """Replace label values by class indices, for training.

        Raises:
            ValueError: a value that is none of the dataset's labels.
        """
        classes = self._class_of_value[labels]
        if int(classes.min()) < 0:
            unknown = torch.unique(labels[classes < 0]).tolist()
            raise ValueError(f"labels: expected the values {self.values}; found {unknown}")
        return classes

    def to_values(self, classes: Int[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x y z"]:
        """Replace class indices by label values, for writing."""
        values: np.ndarray = np.array(self.values, dtype=np.uint8)[classes]
        return values
