"""The three stages trained, each under torchrun or not: the verbs `train autoencoder|diffusion|segmentation`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptlesion.autoencoder.train import train_autoencoder as train_stage_1
from promptlesion.baselines.difftumor import DIFFTUMOR
from promptlesion.check.fitting import fitted_config
from promptlesion.config import Config
from promptlesion.data.dataset import open_dataset
from promptlesion.data.prepared import PreparedDataset, prepare_dataset
from promptlesion.front.settings import as_config
from promptlesion.methods import PROMPTLESION, check_autoencoder, train_method
from promptlesion.segmentation.stage import train_stage
from promptlesion.training.launch import processes
from promptlesion.training.run import Run


def train(
    stage: str,
    data: str | Path,
    out: str | Path,
    *,
    config: Config | str = "default",
    seed: int = 0,
    device: str = "auto",
    lesions: str | Path | None = None,
    cache: str | Path | None = None,
    method: str | None = None,
    autoencoder: str | Path | None = None,
    types: Sequence[str] = (),
    synthetic: str | Path | None = None,
) -> Run:
    """Train one of the three stages, or go on with an interrupted run.

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
    of_stages = {"diffusion": ("method", "autoencoder", "types"), "segmentation": ("synthetic",)}
    given = {"method": method, "autoencoder": autoencoder, "types": types, "synthetic": synthetic}
    for name, value in given.items():
        if value and name not in of_stages.get(stage, ()):
            owner = next(owner for owner, names in of_stages.items() if name in names)
            raise ValueError(f"{name}: expected with the stage {owner} alone; found with {stage}")
    begun = Training(Path(data), Path(out), as_config(config), seed, device, _path(lesions), _path(cache))
    if stage == "autoencoder":
        return train_autoencoder(begun)
    if stage == "diffusion":
        return train_diffusion(begun, method=method or PROMPTLESION, autoencoder=_path(autoencoder), types=types)
    if stage == "segmentation":
        return train_segmentation(begun, synthetic=_path(synthetic))
    raise ValueError(f"stage: expected autoencoder, diffusion or segmentation; found {stage!r}")


@dataclass(frozen=True)
class Training:
    """What every stage's training takes."""

    data: Path
    out: Path
    config: Config
    seed: int = 0
    device: str = "auto"
    lesions: Path | None = None
    cache: Path | None = None

    @property
    def cache_folder(self) -> Path:
        """Folder of prepared scans: `cache` beside the run's, unless said."""
        return self.cache or self.out.parent / "cache"

    def prepared(self) -> PreparedDataset:
        """Open the dataset, prepare its scans, and split them."""
        split = self.config.data.split_options()
        return prepare_dataset(self.data, cache=self.cache_folder, lesions=self.lesions, **split)


def train_autoencoder(training: Training) -> Run:
    """Train stage 1, the VQGAN."""
    with processes(training.device) as device:
        prepared = training.prepared()
        config = fitted_config(training.config, "autoencoder", prepared.dataset, out=training.out, device=device)
        return train_stage_1(
            train_cases=prepared.train,
            validation_cases=prepared.validation,
            spec=prepared.dataset.spec,
            config=config.autoencoder,
            out=training.out,
            seed=training.seed,
            device=device,
            hardware=config.hardware,
        )


def train_diffusion(
    training: Training, *, method: str = PROMPTLESION, autoencoder: Path | None = None, types: Sequence[str] = ()
) -> Run:
    """Train stage 2 of a method; not finished where DiffTumor's models of other lesion types are missing.

    Raises:
        ValueError: types for another method than DiffTumor, or an autoencoder that is missing or of no use.
    """
    if types and method != DIFFTUMOR:
        raise ValueError(f"--type: expected with --method {DIFFTUMOR} alone; found {method}")
    check_autoencoder(method, autoencoder)
    with processes(training.device) as device:
        prepared = training.prepared()
        return train_method(
            method,
            prepared,
            autoencoder_run=autoencoder,
            config=fitted_config(training.config, method, prepared.dataset, out=training.out, device=device),
            out=training.out,
            seed=training.seed,
            device=device,
            types=types,
        )


def train_segmentation(training: Training, *, synthetic: Path | None = None) -> Run:
    """Train stage 3 on real scans, or on real and synthetic ones."""
    with processes(training.device) as device:
        prepared = training.prepared()
        config = fitted_config(training.config, "segmentation", prepared.dataset, out=training.out, device=device)
        return train_stage(
            prepared,
            synthetic=open_dataset(synthetic) if synthetic else None,
            cache=training.cache_folder,
            config=config.segmentation,
            out=training.out,
            seed=training.seed,
            device=device,
            hardware=config.hardware,
        )


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
