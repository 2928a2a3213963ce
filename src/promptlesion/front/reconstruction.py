"""What autoencoders keep of datasets, every autoencoder on every dataset."""

from collections.abc import Sequence
from pathlib import Path

from promptlesion.autoencoder.autoencoder import check_dataset, load_autoencoder
from promptlesion.autoencoder.reconstruct import reconstruct_cases, unseen_cases
from promptlesion.config import Config
from promptlesion.data.dataset import open_dataset
from promptlesion.data.prepared import cached_cases
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.reconstruction import ReconstructionRow, reconstruction_row
from promptlesion.evaluation.reconstruction_figure import reconstruction_figure
from promptlesion.front.settings import Folder, as_config, as_path, is_test
from promptlesion.training.atomic import write_json
from promptlesion.training.device import resolve_device
from promptlesion.training.progress import progress_bar


def evaluate_reconstruction(
    data: Sequence[Folder],
    models: Sequence[Folder],
    *,
    out: Folder | None = None,
    figure: Folder | None = None,
    part: str = "test",
    lesions: Sequence[Folder] = (),
    cache: Folder | None = None,
    tile_voxels: int = 96,
    device: str = "auto",
    config: Config | str = "default",
) -> list[ReconstructionRow]:
    """Measure what autoencoders keep of scans, a row for each dataset and model.

    Args:
        data: dataset folders.
        models: finished runs of stage 1.
        out: JSON file for every figure.
        figure: PNG of three cases of every dataset.
        part: `test`: subjects no model was trained on, or `all`.
        lesions: a `lesions.toml` for each dataset, or none.
        cache: folder of prepared scans; by default `cache` beside the first model.
        tile_voxels: edge of what is decoded at once.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        config: a preset's name, or what `resolve_config` gave; it splits a new dataset.

    Raises:
        ValueError: another number of `lesions` than of datasets, or a model for scans unlike the dataset's.
    """
    if lesions and len(lesions) != len(data):
        raise ValueError(f"--lesions: expected one for each of the {len(data)} --data, or none; found {len(lesions)}")
    torch_device, runs = resolve_device(device), [Path(each) for each in models]
    split = as_config(config).data.split_options() if is_test(part) else None
    trained = [load_autoencoder(run, torch_device) for run in runs]
    rows = []
    for index, root in enumerate(data):
        dataset = open_dataset(Path(root), Path(lesions[index]) if lesions else None)
        for run, autoencoder in zip(runs, trained, strict=True):
            check_dataset(autoencoder, dataset.spec, run_folder=run)
        if split is not None:
            dataset = dataset.select(unseen_cases(trained, dataset, **split))
        cases = cached_cases(dataset, as_path(cache) or runs[0].parent / "cache")
        for run, autoencoder in zip(runs, trained, strict=True):
            with progress_bar(f"reconstructing {dataset.root.name}", len(cases)) as bar:
                reconstructed = reconstruct_cases(
                    autoencoder,
                    cases,
                    tile_voxels=tile_voxels,
                    device=torch_device,
                    on_progress=lambda done, _: bar.update(done),
                )
                rows.append(
                    reconstruction_row(
                        reconstructed,
                        dataset=str(root),
                        model=str(run),
                        downsampling=autoencoder.config.downsampling,
                        window_hu=dataset.spec.window_hu,
                        spacing_mm=dataset.spec.spacing_mm,
                    )
                )
    if out is not None:
        write_json(Path(out), {"part": part, "reconstruction": [row.as_json() for row in rows]})
    if figure is not None:
        save_figure(reconstruction_figure(rows), Path(figure))
    return rows
