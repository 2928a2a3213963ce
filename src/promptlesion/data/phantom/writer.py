"""Cohorts of phantom subjects as a dataset folder, made by several processes and resumable."""

import json
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from promptlesion.data.dataset import IMAGE_ENDING, image_path, label_path, write_case, write_dataset_json, write_spec
from promptlesion.data.phantom.cases import Kind, phantom_case, phantom_labels, phantom_spec
from promptlesion.data.spec import DatasetError
from promptlesion.training.atomic import read_json, write_text
from promptlesion.training.locks import alone_in
from promptlesion.training.pool import run_in_processes

_MARKER = "phantom.json"
_VERSION = 1
"""Raised whenever the same seed would give other voxels, so that a cohort is never half old and half new."""


def write_phantom_dataset(
    kind: Kind,
    *,
    num_cases: int,
    seed: int,
    out: Path,
    num_workers: int = 1,
    is_noisy: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes `num_cases` subjects named `KIND_0000`, ... and then `lesions.toml` and `dataset.json`.

    Without noise, the phantom shows what a network loses of the anatomy itself. Cases that are there already are
    kept, so a stopped run goes on and a larger number extends the cohort. Of two calls at once one waits.
    `on_progress` is told (cases done, cases wanted). Raises `DatasetError` where `out` holds another cohort.
    """
    if num_cases < 1 or num_workers < 1:
        raise ValueError(f"expected at least one case and one worker, found {num_cases} and {num_workers}")
    names = [_case_name(kind, index) for index in range(num_cases)]
    with alone_in(out):
        _claim_folder(out, kind, seed, names, is_noisy=is_noisy)
        missing = [index for index, name in enumerate(names) if not _is_written(out, name)]
        if on_progress:
            on_progress(num_cases - len(missing), num_cases)
        write = partial(_write_one, kind, seed, is_noisy, out)
        with closing(run_in_processes(write, missing, num_workers=num_workers, name_of=names.__getitem__)) as written:
            for num_done, _ in enumerate(written, num_cases - len(missing) + 1):
                if on_progress:
                    on_progress(num_done, num_cases)
        write_spec(phantom_spec(kind), out / "lesions.toml")
        write_dataset_json(
            out,
            labels=phantom_labels(kind),
            num_training=num_cases,
            extra={"name": f"phantom_{kind}", "description": f"PromptLesion's {kind} phantom, seed {seed}"},
        )


def _write_one(kind: Kind, seed: int, is_noisy: bool, out: Path, index: int) -> None:
    case = phantom_case(kind, seed=seed, index=index, is_noisy=is_noisy)
    write_case(out, _case_name(kind, index), case.image, case.labels)


def is_phantom(dataset: Path) -> bool:
    """Return whether a dataset folder is one that `write_phantom_dataset` wrote."""
    return (dataset / _MARKER).is_file()


def _case_name(kind: Kind, index: int) -> str:
    return f"{kind}_{index:04d}"


def _is_written(out: Path, name: str) -> bool:
    return image_path(out, name).is_file() and label_path(out, name).is_file()


def _claim_folder(out: Path, kind: Kind, seed: int, names: list[str], *, is_noisy: bool) -> None:
    """Marks the folder as this cohort's, or refuses one that holds anything else."""
    marker = out / _MARKER
    wanted = {"kind": kind, "seed": seed, "version": _VERSION} | ({} if is_noisy else {"is_noisy": False})
    present = {path.name.removesuffix(IMAGE_ENDING) for path in (out / "imagesTr").glob(f"*{IMAGE_ENDING}")}
    if marker.is_file():
        found = read_json(marker)
        if found != wanted:
            raise DatasetError(f"{marker}: expected the phantom cohort {wanted}, found {found}; choose another folder")
    elif present:
        raise DatasetError(f"{out}: expected an empty folder or a phantom cohort, found {len(present)} other cases")
    surplus = sorted(present - set(names))
    if surplus:
        raise DatasetError(f"{out}: expected at most {len(names)} cases, found {len(surplus)} more ({surplus[0]}, ...)")
    write_text(marker, json.dumps(wanted) + "\n")
