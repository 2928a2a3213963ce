"""What every piece of an experiment has to know."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from promptlesion.config import Config
from promptlesion.data.cache import data_fingerprint
from promptlesion.data.prepared import PreparedDataset, prepare_dataset
from promptlesion.experiment.subjects import fewer_subjects
from promptlesion.methods import load_method, method_named
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import Synthesizer


@dataclass(frozen=True)
class Experiment:
    """What every piece of work has to know; it survives pickling."""

    data: Path
    lesions: Path | None
    out: Path
    config: Config
    seed: int
    device: str
    lesions_per_type: int | None = None
    """To paint into a cohort; none: as many as the real scans have, times the ratio."""
    num_synthetic_cases: int = 0
    """In a cohort; 0: as many as there are real training scans, times the ratio."""

    @property
    def cache(self) -> Path:
        """Folder of prepared scans."""
        return self.out / "cache"

    @cached_property
    def prepared(self) -> PreparedDataset:
        """The dataset with all its training subjects."""
        return prepare_dataset(self.data, cache=self.cache, lesions=self.lesions, **self.config.data.split_options())

    @property
    def num_subjects(self) -> int:
        """How many training subjects there are."""
        return len({case.subject for case in self.prepared.train})

    def inputs(self) -> dict[str, str]:
        """Return what every result depends on besides the configuration: the prepared scans, and the lesion types."""
        prepared = self.prepared
        return {
            "data": data_fingerprint([*prepared.train, *prepared.validation, *prepared.test]),
            "lesions": prepared.dataset.spec.model_dump_json(),
        }

    def with_subjects(self, num_subjects: int) -> PreparedDataset:
        """Return the dataset with so many training subjects."""
        return fewer_subjects(self.prepared, num_subjects, seed=self.config.data.split_seed)

    def load(self, run: str, method: str) -> Synthesizer:
        """Read a trained method from its folder below the experiment's."""
        return load_method(self.out / run, self.synthesis(method), self.device, hardware=self.config.hardware)

    def synthesis(self, method: str) -> SynthesisConfig:
        """Return how a method's lesions are drawn, sampled and judged."""
        return method_named(method).configured(self.config).synthesis
