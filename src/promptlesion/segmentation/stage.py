"""The one entry to stage 3: which network trains is the configuration's choice."""

from pathlib import Path

from promptlesion.data.dataset import Dataset
from promptlesion.data.prepared import PreparedDataset, cached_cases
from promptlesion.data.trained_on import GENERATOR_FILE, check_unseen, generator_of
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.nnunet import train_nnunet
from promptlesion.segmentation.train import train_segmentation
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig
from promptlesion.training.run import Run


def train_stage(
    prepared: PreparedDataset,
    *,
    synthetic: Dataset | None,
    cache: Path,
    config: SegmentationConfig,
    out: Path,
    seed: int,
    device: str = "auto",
    hardware: HardwareConfig = DEFAULT_HARDWARE,
) -> Run:
    """Train the network that `config.network` names on the training subjects, or go on with an interrupted run.

    Args:
        prepared: the real scans; the training part trains, the validation part selects the weights, and the test
            part is read by nobody: it is named only so that a synthetic scan of one of its subjects is noticed.
        synthetic: scans that `synthesize` wrote, mixed in as `synthetic_ratio` asks; none: real scans only.
        cache: folder that holds the caches of all datasets.
        config: network and training.
        out: the run's folder.
        seed: of the weights and of every draw.
        device: `auto` or a device's name.
        hardware: how the machine is used; it changes results by rounding at most, and nnU-Net does not know it.

    Raises:
        ValueError: a training case, real or synthetic, of a validation or test subject, or synthetic cases whose
            generator has learned from one; no lesion in any validation case; or settings that the network does not
            know.
    """
    if synthetic is not None:
        check_unseen(generator_of(synthetic), prepared.dataset, prepared.split, source=synthetic.root / GENERATOR_FILE)
    synthetic_cases = [] if synthetic is None else cached_cases(synthetic, cache)
    if config.network == "nnunetv2":
        return train_nnunet(
            prepared,
            synthetic=synthetic,
            synthetic_cases=synthetic_cases,
            config=config,
            out=out,
            seed=seed,
            device=device,
        )
    return train_segmentation(
        real_cases=prepared.train,
        synthetic_cases=synthetic_cases,
        validation_cases=prepared.validation,
        test_cases=prepared.test,
        spec=prepared.dataset.spec,
        labels=prepared.dataset.labels,
        config=config,
        out=out,
        seed=seed,
        device=device,
        hardware=hardware,
    )
