"""What autoencoders keep of datasets, every autoencoder on every dataset."""

from collections.abc import Sequence
from pathlib import Path

from promptlesion.autoencoder.autoencoder import check_dataset, load_autoencoder
from promptlesion.autoencoder.reconstruct import reconstruct_cases, unseen_cases
from promptlesion.data.config import SplitOptions
from promptlesion.data.dataset import open_dataset
from promptlesion.data.prepared import cached_cases
from promptlesion.evaluation.reconstruction import ReconstructionRow, reconstruction_row
from promptlesion.training.device import resolve_device
from promptlesion.training.progress import progress_bar


def measure_reconstruction(
    data: Sequence[Path],
    models: Sequence[Path],
    *,
    lesions: Sequence[Path] = (),
    split: SplitOptions | None,
    cache: Path,
    tile_voxels: int,
    device: str,
) -> list[ReconstructionRow]:
    """Measure the reconstructions of scans, a row for each dataset and model.

    Args:
        data: dataset folders.
        models: finished runs of stage 1.
        lesions: a `lesions.toml` for each dataset, or none.
        split: where given, subjects that no model was trained on alone, and how to find them in a new dataset.
        cache: folder of prepared scans.
        tile_voxels: edge of what is decoded at once.
        device: `auto` or a device's name.

    Raises:
        ValueError: another number of `lesions` than of datasets, or a model for scans unlike the dataset's.
    """
    if lesions and len(lesions) != len(data):
        raise ValueError(f"--lesions: expected one for each of the {len(data)} --data, or none; found {len(lesions)}")
    torch_device = resolve_device(device)
    trained = [load_autoencoder(run, torch_device) for run in models]
    rows = []
    for index, root in enumerate(data):
        dataset = open_dataset(root, lesions[index] if lesions else None)
        for run, autoencoder in zip(models, trained, strict=True):
            check_dataset(autoencoder, dataset.spec, run_folder=run)
        if split is not None:
            dataset = dataset.select(unseen_cases(trained, dataset, **split))
        cases = cached_cases(dataset, cache)
        for run, autoencoder in zip(models, trained, strict=True):
            with progress_bar(f"reconstructing {root.name}", len(cases)) as bar:
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
    return rows
