"""Scans of other layouts as dataset folders: one converter per public layout, one writer for all.

A converter lists what a folder holds as a `Source`, that is label names with their values and cases that can be
read one by one; `write_source` turns it into a dataset folder. `open_source` picks the converter.
"""

from promptlesion.data.sources.label_map import parse_label_names
from promptlesion.data.sources.layouts import Layout, open_source
from promptlesion.data.sources.source import Scan, Source, SourceCase
from promptlesion.data.sources.writer import Conversion, check_apart, write_source

__all__ = [
    "Conversion",
    "Layout",
    "Scan",
    "Source",
    "SourceCase",
    "check_apart",
    "open_source",
    "parse_label_names",
    "write_source",
]
