"""The three stages trained: a dataset folder goes in, a finished run comes out."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from promptlesion.autoencoder.train import train_autoencoder
from promptlesion.config import Config
from promptlesion.cost.fitting import fitted_config
from promptlesion.data.dataset import open_dataset
from promptlesion.data.prepared import prepare_dataset
from promptlesion.front.settings import Folder, as_config, as_path
from promptlesion.methods import PROMPTLESION, check_asked, train_method
from promptlesion.segmentation.train import train_stage
from promptlesion.training.launch import is_main_process, processes
from promptlesion.training.locks import alone_in
from promptlesion.training.run import Run, RunOptions

_OPTIONS_OF = {"autoencoder": (), "diffusion": ("method", "autoencoder", "types"), "segmentation": ("synthetic",)}


def train(
    stage: str,
    data: Folder,
    out: Folder,
    *,
    config: Config | str = "default",
    seed: int = 0,
    device: str = "auto",
    lesions: Folder | None = None,
    cache: Folder | None = None,
    method: str | None = None,
    autoencoder: Folder | None = None,
    types: Sequence[str] = (),
    synthetic: Folder | None = None,
) -> Run:
    """Train one of the three stages, or go on with an interrupted run; with the other processes under torchrun.

    Of two commands on one run the second waits for the first.

    Args:
        stage: `autoencoder`, `diffusion` or `segmentation`.
        data: dataset folder.
        out: the run's folder.
        config: a preset's name, or what `resolve_config` gave.
        seed: of everything random but the split.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        lesions: a `lesions.toml` elsewhere.
        cache: folder of prepared scans; by default `cache` beside `out`.
        method: diffusion only: the method that paints, by default the paper's.
        autoencoder: diffusion only: a finished run of stage 1, for the methods that have one.
        types: diffusion of DiffTumor only: the lesion types whose model is trained, by default all.
        synthetic: segmentation only: a dataset folder that `synthesize` wrote, mixed in.

    Raises:
        ValueError: an option of another stage, or data or settings that are not as they should be.
    """
    given = {"method": method, "autoencoder": autoencoder, "types": types, "synthetic": synthetic}
    if stage not in _OPTIONS_OF:
        raise ValueError(f"stage: expected {', '.join(_OPTIONS_OF)}; found {stage!r}")
    for name in (name for name, value in given.items() if value and name not in _OPTIONS_OF[stage]):
        owner = next(owner for owner, names in _OPTIONS_OF.items() if name in names)
        raise ValueError(f"{name}: expected with the stage {owner} alone; found with {stage}")
    resolved, folder, chosen = as_config(config), Path(out), method or PROMPTLESION
    cache_folder = as_path(cache) or folder.parent / "cache"
    if stage == "diffusion":
        check_asked(chosen, as_path(autoencoder), types)
    with processes(device) as own_device, alone_in(folder) if is_main_process() else nullcontext():
        if not is_main_process():
            logging.disable(logging.WARNING)
        split = resolved.data.split_options()
        prepared = prepare_dataset(Path(data), cache=cache_folder, lesions=as_path(lesions), **split)
        kind = chosen if stage == "diffusion" else stage
        fitted = fitted_config(resolved, kind, prepared.dataset, out=folder, device=own_device)
        options = RunOptions(folder, seed, own_device, fitted.hardware)
        if stage == "autoencoder":
            return train_autoencoder(
                prepared.training,
                validation_cases=prepared.validation,
                config=fitted.autoencoder,
                options=options,
            )
        if stage == "diffusion":
            return train_method(
                chosen,
                prepared,
                autoencoder_run=as_path(autoencoder),
                config=fitted,
                options=options,
                types=types,
            )
        return train_stage(
            prepared,
            synthetic=None if synthetic is None else open_dataset(Path(synthetic)),
            cache=cache_folder,
            config=fitted.segmentation,
            options=options,
        )
