"""Procedural CT phantoms: made-up subjects with the paper's five lesion types.

Attenuation values are painted shape by shape on a voxel grid (`geometry`), then blurred and made noisy as
a scanner would (`scanner`). Nothing here is learnt or read from a file: a seed and an index give a subject.
"""

from promptlesion.data.phantom.cases import Kind, PhantomCase, phantom_case, phantom_labels, phantom_spec
from promptlesion.data.phantom.writer import is_phantom, write_phantom_dataset

__all__ = [
    "Kind",
    "PhantomCase",
    "is_phantom",
    "phantom_case",
    "phantom_labels",
    "phantom_spec",
    "write_phantom_dataset",
]
