"""A dataset folder made ready for training: opened, cached at the networks' spacing, and split by subject."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from promptlesion.data.cache import CachedCase, build_cache
from promptlesion.data.dataset import Dataset, open_dataset
from promptlesion.data.spec import DatasetError
from promptlesion.data.splits import SPLITS_FILE, Split, dataset_split
from promptlesion.data.training_data import TrainingData
from promptlesion.training.launch import main_process_first
from promptlesion.training.progress import progress_bar


@dataclass(frozen=True)
class PreparedDataset:
    """The folder, its prepared cases, and which of them train, validate and test."""

    dataset: Dataset
    split: Split
    train: tuple[CachedCase, ...]
    validation: tuple[CachedCase, ...]
    test: tuple[CachedCase, ...]

    def part(self, name: str) -> Dataset:
        """Return the dataset with the cases of one part alone: `train`, `validation` or `test`."""
        names: tuple[str, ...] = getattr(self.split, name)
        return self.dataset.select(names)

    @property
    def training(self) -> TrainingData:
        """What models learn from."""
        return TrainingData(self.train, self.dataset.spec, self.dataset.labels)

    def check_held_out(self) -> None:
        """Refuse a dataset of which nothing is held out, where results are to be measured.

        Raises:
            DatasetError: the test part is empty.
        """
        if not self.test:
            raise DatasetError(
                f"{self.dataset.root}: expected held-out subjects to measure results on; found none. "
                f"data.test_fraction, or {SPLITS_FILE} in that folder, leaves them out"
            )

    def with_training_subjects(self, subjects: Collection[str]) -> "PreparedDataset":
        """Return the same with fewer training subjects; what validates and tests stays."""
        train = tuple(case for case in self.train if case.subject in subjects)
        return replace(self, train=train, split=replace(self.split, train=tuple(case.name for case in train)))


def prepare_dataset(
    root: Path,
    *,
    cache: Path,
    lesions: Path | None = None,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> PreparedDataset:
    """Open a dataset folder, cache its cases and split them by subject.

    `cache` holds the caches of all datasets, `lesions` is another `lesions.toml` than the folder's own. Fractions and
    seed are those of the split where the folder has none.

    Raises:
        DatasetError: the folder or one of its cases is not as it should be.
    """
    dataset = open_dataset(root, lesions)
    split = dataset_split(dataset, seed=seed, validation_fraction=validation_fraction, test_fraction=test_fraction)
    by_name = {case.name: case for case in cached_cases(dataset, cache)}
    train, validation, test = (
        tuple(by_name[name] for name in names) for names in (split.train, split.validation, split.test)
    )
    return PreparedDataset(dataset, split, train, validation, test)


def cached_cases(dataset: Dataset, cache: Path) -> list[CachedCase]:
    """Cache every case of a dataset, each dataset in a folder of its own."""
    identity = hashlib.sha256(str(dataset.root.resolve()).encode()).hexdigest()[:8]
    folder = cache / f"{dataset.root.resolve().name}-{identity}"
    with main_process_first(), progress_bar(f"preparing {dataset.root.name}", len(dataset.cases)) as bar:
        return build_cache(dataset, folder, on_progress=lambda done, _: bar.update(done))
