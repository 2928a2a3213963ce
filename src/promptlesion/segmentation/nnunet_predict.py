"""Label maps from a network that nnU-Net trained: nnU-Net preprocesses and predicts, the scan's own grid is ours."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch

from promptlesion.data.volume import Volume, write_volume
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.label_classes import LabelClasses
from promptlesion.segmentation.nnunet_process import NNUNetMissingError, find_nnunet, nnunet_process, scratch_folder
from promptlesion.training.checkpoint import Checkpoint


@contextmanager
def nnunet_predictor(
    checkpoint: Checkpoint, *, device: torch.device, is_mirrored: bool
) -> Iterator[Callable[[Path, Volume], Volume]]:
    """Give a function from a scan, its file and its volume, to its label map; nnU-Net starts when it is first called.

    Raises:
        NNUNetMissingError: neither where the run was trained nor here is an nnU-Net.
    """
    config = SegmentationConfig.model_validate(checkpoint.card["config"])
    labels = checkpoint.card["labels"]
    assert isinstance(labels, dict)
    classes = LabelClasses.of_labels(labels)
    with ExitStack() as stack:
        started: list[Callable[[Path], Path]] = []

        def start() -> Callable[[Path], Path]:
            folder = stack.enter_context(scratch_folder())
            torch.save(checkpoint.part("segmentation"), folder / "weights.pt")
            task = {
                "task": "predict",
                "model": checkpoint.card["nnunet"],
                "weights": str(folder / "weights.pt"),
                "device": device.type,
                "is_mirrored": is_mirrored,
            }
            try:
                python = find_nnunet(config.nnunet_environment)
            except NNUNetMissingError:  # the environment that trained the run is gone
                python = find_nnunet(None)
            process = stack.enter_context(nnunet_process(python, task, folder=folder, log=folder / "nnunet.log"))
            answers = process.answers()

            def ask(image: Path) -> Path:
                process.ask({"image": str(image.resolve()), "out": str(folder / "classes.npy")})
                return Path(next(answers)["out"])

            return ask

        def predict(image: Path, scan: Volume) -> Volume:
            if not started:
                started.append(start())
            if scan.notes:  # nnU-Net would read the file as it stands, or not at all
                image = stack.enter_context(scratch_folder()) / "scan.nii.gz"
                write_volume(scan, image)
            return scan.with_array(classes.to_values(np.load(started[0](image), allow_pickle=False)))

        yield predict
