"""Autoencoders measured: the verb `evaluate reconstruction`."""

from collections.abc import Sequence
from pathlib import Path

from promptlesion.autoencoder.autoencoder import check_dataset, load_autoencoder
from promptlesion.autoencoder.reconstruct import reconstruct_cases, unseen_cases
from promptlesion.config import Config
from promptlesion.data.prepared import cached_cases
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.reconstruction import ReconstructionRow, reconstruction_row
from promptlesion.evaluation.reconstruction_figure import reconstruction_figure
from promptlesion.front.settings import as_config
from promptlesion.front.verbs import open_dataset
from promptlesion.training.atomic import write_json
from promptlesion.training.device import resolve_device
from promptlesion.training.progress import progress_bar


def evaluate_reconstruction(
    data: Sequence[str | Path],
    models: Sequence[str | Path],
    *,
    lesions: Sequence[str | Path] = (),
    part: str = "test",
    out: str | Path | None = None,
    figure: str | Path | None = None,
    tile_voxels: int = 96,
    device: str = "auto",
    config: Config | str = "default",
    cache: str | Path | None = None,
) -> list[ReconstructionRow]:
    """Measure what autoencoders keep of scans, against trilinear sampling by their factor.

    Args:
        data: dataset folders, a row each.
        models: finished runs of stage 1, side by side.
        lesions: a `lesions.toml` elsewhere for every dataset, or none.
        part: `test`: subjects no stage trained on, all where the dataset is new; or `all`.
        out: JSON file for every figure.
        figure: PNG of three cases of every dataset.
        tile_voxels: edge of what is decoded at once.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        config: a preset's name, or what `resolve_config` gave.
        cache: folder of prepared scans; by default `cache` beside the first model.
    """
    if lesions and len(lesions) != len(data):
        raise ValueError(f"--lesions: expected one for each of the {len(data)} --data, or none; found {len(lesions)}")
    if part not in ("all", "test"):
        raise ValueError(f"part: expected all or test; found {part!r}")
    torch_device, runs = resolve_device(device), [Path(model) for model in models]
    trained = [load_autoencoder(run, torch_device) for run in runs]
    folder = runs[0].parent / "cache" if cache is None else Path(cache)
    rows = []
    for index, root in enumerate(data):
        dataset = open_dataset(root, lesions=lesions[index] if lesions else None)
        for run, autoencoder in zip(runs, trained, strict=True):
            check_dataset(autoencoder, dataset.spec, run_folder=run)
        if part == "test":
            dataset = dataset.select(unseen_cases(trained, dataset, **as_config(config).data.split_options()))
        cases = cached_cases(dataset, folder)
        for run, autoencoder in zip(runs, trained, strict=True):
            with progress_bar(f"reconstructing {Path(root).name}", len(cases)) as bar:
                pairs = reconstruct_cases(
                    autoencoder,
                    cases,
                    tile_voxels=tile_voxels,
                    device=torch_device,
                    on_progress=lambda done, _, bar=bar: bar.update(done),  # type: ignore[misc]
                )
                row = reconstruction_row(
                    pairs,
                    dataset=str(root),
                    model=str(run),
                    downsampling=autoencoder.config.downsampling,
                    window_hu=dataset.spec.window_hu,
                    spacing_mm=dataset.spec.spacing_mm,
                )
            rows.append(row)
    if out is not None:
        write_json(Path(out), {"part": part, "reconstruction": [row.as_json() for row in rows]})
    if figure is not None:
        save_figure(reconstruction_figure(rows), Path(figure))
    return rows
