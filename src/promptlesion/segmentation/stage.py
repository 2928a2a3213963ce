"""The one entry to stage 3: which network trains is the configuration's choice."""

from pathlib import Path

from promptlesion.data.dataset import Dataset
from promptlesion.data.prepared import PreparedDataset, cached_cases
from promptlesion.data.trained_on import GENERATOR_FILE, check_unseen, generator_of
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.mixing import SegmentationData
from promptlesion.segmentation.nnunet import train_nnunet
from promptlesion.segmentation.train import train_segmentation
from promptlesion.training.run import Run, RunOptions


def train_stage(
    prepared: PreparedDataset,
    *,
    synthetic: Dataset | None,
    cache: Path,
    config: SegmentationConfig,
    options: RunOptions,
) -> Run:
    """Train the network that `config.network` names on the training subjects, or go on with an interrupted run.

    Args:
        prepared: the real scans; the training part trains, the validation part selects the weights, and the test
            part is read by nobody: it is named only so that a synthetic scan of one of its subjects is noticed.
        synthetic: scans that `synthesize` wrote, mixed in as `synthetic_ratio` asks; none: real scans only.
        cache: folder that holds the caches of all datasets.
        config: network and training.
        options: of the run; nnU-Net does not know its `hardware`.

    Raises:
        ValueError: a training case, real or synthetic, of a validation or test subject, or synthetic cases whose
            generator has learned from one; no lesion in any validation case; or settings that the network does not
            know.
    """
    if synthetic is not None:
        check_unseen(generator_of(synthetic), prepared.dataset, prepared.split, source=synthetic.root / GENERATOR_FILE)
    synthetic_cases = [] if synthetic is None else cached_cases(synthetic, cache)
    data = SegmentationData.of(prepared, synthetic_cases)
    if config.network == "nnunetv2":
        return train_nnunet(prepared, data, synthetic=synthetic, config=config, options=options)
    return train_segmentation(data, config=config, options=options)
