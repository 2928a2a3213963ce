"""Scans of any layout, or made-up ones, as a dataset folder."""

import logging
from collections.abc import Mapping
from pathlib import Path

from promptlesion.data.phantom import Kind, write_phantom_dataset
from promptlesion.data.sources import Conversion, Layout, check_apart, open_source, write_source
from promptlesion.front.settings import Folder, as_path
from promptlesion.training.progress import progress_reports

logger = logging.getLogger(__name__)


def prepare(
    source: Folder,
    out: Folder,
    *,
    layout: str | None = None,
    labels: Folder | None = None,
    names: Mapping[str, int] | None = None,
    subjects: str | None = None,
    key: Folder | None = None,
    skip_refused: bool = False,
    workers: int = 1,
) -> Conversion:
    """Turn a folder of scans into a dataset folder; patient identity stays behind.

    Args:
        source: folder in any layout that `promptlesion prepare` knows.
        out: the dataset folder to write, outside `source`; one that was begun goes on.
        layout: what `source` is, where it is not to be found out.
        labels: folder of the label maps of the CTs in `source`.
        names: values in these label maps, by name.
        subjects: whose scans: a pattern whose group is the subject, or a CSV file of file and subject.
        key: CSV file, outside `out`, that says which case is whose scan.
        skip_refused: leave out scans that cannot be converted.
        workers: processes that convert cases.

    Raises:
        DatasetError: a scan that cannot be converted, a layout that is not known, or another dataset in `out`.
    """
    folder = Path(source)
    check_apart(folder, Path(out))
    with progress_reports("looking at files") as report:
        found = open_source(
            folder,
            layout=Layout(layout) if layout else None,
            label_folder=as_path(labels),
            names=names,
            subjects=subjects,
            on_progress=report,
        )
    for line in (f"{folder}: {len(found.cases)} cases, layout {found.layout}", *found.notes):
        logger.info("%s", line)
    with progress_reports("converting") as report:
        return write_source(
            found,
            Path(out),
            key=as_path(key),
            num_workers=workers,
            skips_refused=skip_refused,
            on_progress=report,
        )


def prepare_phantom(
    out: Folder, *, kind: Kind = "ccta", cases: int = 36, seed: int = 0, noise: bool = True, workers: int = 1
) -> None:
    """Write made-up subjects as a dataset folder; more cases later extend it.

    Args:
        out: the dataset folder to write.
        kind: `ccta`, `abdomen`, or `five`: both in turn.
        cases: how many subjects.
        seed: of the subjects.
        noise: the scanner's.
        workers: processes that draw cases.

    Raises:
        DatasetError: another dataset in `out`.
    """
    with progress_reports("phantom") as report:
        write_phantom_dataset(
            kind,
            num_cases=cases,
            seed=seed,
            out=Path(out),
            num_workers=workers,
            is_noisy=noise,
            on_progress=report,
        )
