"""What a model learns from, and what its run and its card say of that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel

from promptlesion.data.cache import CachedCase, data_fingerprint
from promptlesion.data.lesion_statistics import CARD_KEY, LesionStatistics, measure_lesions
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.trained_on import trained_on
from promptlesion.training.run import Run, RunOptions


@dataclass(frozen=True)
class TrainingData:
    """Prepared cases, and what their voxels and labels mean."""

    cases: Sequence[CachedCase]
    spec: DatasetSpec
    """Window, spacing and lesion types."""
    labels: Mapping[str, int]
    """Of the dataset, background included; they tell a lesion's host."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what the networks see of the cases."""
        return data_fingerprint(self.cases)

    def open_run(self, options: RunOptions, *, stage: str, config: BaseModel, inputs: Mapping[str, str]) -> Run:
        """Open the run of a training on these cases, or take it up; what else it depends on is in `inputs`."""
        known = {"training cases": ", ".join(case.name for case in self.cases), "data": self.fingerprint}
        return Run(options, stage=stage, config=config.model_dump(mode="json"), inputs={**known, **inputs})

    @cached_property
    def statistics(self) -> LesionStatistics:
        """What the lesions are like, by type."""
        return measure_lesions(self.cases, self.spec, self.labels)

    def facts(self, statistics: LesionStatistics | None = None) -> dict[str, object]:
        """Return what the card of a model says of the data; of the lesions where it is to paint others like them."""
        return {
            **self.spec.facts(),
            "dataset": self.spec.model_dump(mode="json"),
            "data_fingerprint": self.fingerprint,
            "training_cases": [case.name for case in self.cases],
            **trained_on(self.cases).as_card(),
            **({} if statistics is None else {CARD_KEY: statistics.model_dump(mode="json")}),
        }
