"""What nnU-Net gets from us: a raw dataset of real and synthetic scans, and a split that keeps their proportion."""

from fractions import Fraction
from pathlib import Path

import torch

from promptlesion.data.dataset import Dataset, image_path, label_path, read_case, write_dataset_json
from promptlesion.data.dataset_json import IGNORE_LABEL
from promptlesion.data.prepared import PreparedDataset
from promptlesion.data.splits import Split, write_splits
from promptlesion.data.volume import write_volume
from promptlesion.segmentation.label_classes import IGNORED_CLASS, LabelClasses
from promptlesion.training.progress import progress_bar

DATASET = "Dataset001_PromptLesion"
"""What nnU-Net knows the dataset as."""
_FEWER_REPETITIONS = 100
"""Bound on how often the kind that is named less often is."""


def hand_over(prepared: PreparedDataset, synthetic: Dataset | None, ratio: float, folder: Path) -> None:
    """Write nnU-Net's raw dataset, the scans as links, and its split: validation is fold 0's, test cases stay out.

    Raises:
        ValueError: two cases of one name, or label values that the real scans' dataset does not name.
    """
    real, validation = prepared.part("train"), prepared.part("validation")
    parts = [real, validation, *([synthetic] if synthetic else [])]
    names = [case.name for part in parts for case in part.cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]}: expected real and synthetic cases of different names; found two of this one")
    classes = LabelClasses.of_labels(prepared.dataset.labels)
    raw = folder / "raw" / DATASET
    for path in (image_path(raw, "any"), label_path(raw, "any")):
        path.parent.mkdir(parents=True)
    with progress_bar("handing over to nnU-Net", len(names)) as bar:
        for part in parts:
            for case in part.cases:
                image, truth = read_case(part, case)
                values = torch.from_numpy(truth.array)[None, None]
                numbered = classes.to_classes(values)[0, 0].numpy()
                numbered[numbered == IGNORED_CLASS] = classes.num_classes  # nnU-Net wants it to be the highest
                write_volume(truth.with_array(numbered), label_path(raw, case.name))
                if image.notes:  # nnU-Net would read the file as it stands, or not at all
                    write_volume(image, image_path(raw, case.name))
                else:
                    image_path(raw, case.name).symlink_to(case.image_path.resolve())
                bar.update(len(list(image_path(raw, "any").parent.iterdir())))
    by_value = sorted(prepared.dataset.labels, key=lambda name: (name == IGNORE_LABEL, prepared.dataset.labels[name]))
    write_dataset_json(
        raw,
        labels={name: index for index, name in enumerate(by_value)},
        num_training=len(names),
        extra={"overwrite_image_reader_writer": "NibabelIOWithReorient"},  # RAS+, as everywhere else
    )
    num_synthetic = len(synthetic.cases) if synthetic else 0
    real_times, synthetic_times = repetitions(len(real.cases), num_synthetic, ratio)
    train = [case.name for case in real.cases] * real_times
    if synthetic:
        train += [case.name for case in synthetic.cases] * synthetic_times
    held_out = tuple(case.name for case in validation.cases)
    write_splits(folder / "preprocessed" / DATASET, Split(tuple(train), held_out, ()))


def repetitions(num_real: int, num_synthetic: int, synthetic_ratio: float) -> tuple[int, int]:
    """Return how often nnU-Net is to be named each real and each synthetic case, of which it draws evenly.

    The names of synthetic cases are then `synthetic_ratio` times as many as those of real ones, to within a percent.
    """
    if num_synthetic == 0:
        return 1, 0
    wanted = Fraction(synthetic_ratio) * num_real / num_synthetic  # synthetic repetitions per real one
    if wanted >= 1:
        found = wanted.limit_denominator(_FEWER_REPETITIONS)
        return found.denominator, found.numerator
    found = (1 / wanted).limit_denominator(_FEWER_REPETITIONS)
    return found.numerator, found.denominator
