"""Whom a model has learned from: kept in its card, and refused where the same people validate or test now."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptlesion.data.cache import CachedCase
from promptlesion.data.content import voxels_hash
from promptlesion.data.dataset import Case, Dataset
from promptlesion.data.spec import DatasetError
from promptlesion.data.splits import Split
from promptlesion.data.volume import read_volume
from promptlesion.training.atomic import read_json

logger = logging.getLogger(__name__)
GENERATOR_FILE = "generator.json"
"""Of a synthetic dataset: what painted it, and whom that has learned from."""
_MOST_NAMED = 5


@dataclass(frozen=True)
class TrainedOn:
    """Subjects by name, and their scans by content, since another dataset may number its subjects alike."""

    subjects: frozenset[str] = frozenset()
    scan_hashes: frozenset[str] = field(default=frozenset(), repr=False)
    """Of their voxels; empty where an older version wrote the card."""

    @classmethod
    def of_cards(cls, *cards: Mapping[str, Any]) -> "TrainedOn":
        """Return what the cards of a model and of those it was built on say together."""
        return cls(
            frozenset(name for card in cards for name in card.get("training_subjects", ())),
            frozenset(scan for card in cards for scan in card.get("training_scans", ())),
        )

    def as_card(self) -> dict[str, object]:
        """Return the entries of a card."""
        return {"training_subjects": sorted(self.subjects), "training_scans": sorted(self.scan_hashes)}


def trained_on(cases: Sequence[CachedCase]) -> TrainedOn:
    """Return whom a training on these cases learns from."""
    return TrainedOn(frozenset(case.subject for case in cases), frozenset(case.scan_hash for case in cases))


def generator_of(synthetic: Dataset) -> TrainedOn:
    """Return whom the generator of a synthetic dataset has learned from; nobody where the folder does not say."""
    path = synthetic.root / GENERATOR_FILE
    return TrainedOn.of_cards(read_json(path)) if path.is_file() else TrainedOn()


def check_unseen(learned_from: TrainedOn, dataset: Dataset, split: Split, *, source: object) -> None:
    """Refuse what has learned from a subject that validates or tests now: results would look better than they are.

    Names alone may agree by chance, as `S0001` of two hospitals does. Where no scan of these subjects is one of those
    it has learned from, they are taken for other people, and that is said.

    `dataset` is that of the real scans, and `source` names the model or cohort in the message.

    Raises:
        DatasetError: names the subjects.
    """
    held_out = {"validation": split.validation, "test": split.test}
    found = {
        part: sorted({case.subject for case in dataset.select(names).cases} & learned_from.subjects)
        for part, names in held_out.items()
    }
    named = [f"{_listed(subjects)} ({part} part)" for part, subjects in found.items() if subjects]
    if not named:
        return
    alike = [case for case in dataset.cases if case.subject in learned_from.subjects]
    if _are_other_people(alike, learned_from):
        logger.warning(
            "%s learned from subjects named like some of %s that are held out, %s; no scan of theirs is one it was "
            "trained on, so they are taken for other people",
            *(source, dataset.root, " and ".join(named)),
        )
        return
    raise DatasetError(
        f"{source}: expected a model trained on other subjects than those that validate or test now in {dataset.root}; "
        f"found {' and '.join(named)}. Train it again on the training part, or divide the subjects as they were: "
        "the same splits_final.json, or the same data.validation_fraction, data.test_fraction and data.split_seed"
    )


def _are_other_people(alike: Sequence[Case], learned_from: TrainedOn) -> bool:
    """Whether none of the scans is one of those learned from, which must be known to be told."""
    return bool(learned_from.scan_hashes) and not any(
        voxels_hash(read_volume(case.image_path).array) in learned_from.scan_hashes for case in alike
    )


def _listed(subjects: Sequence[str]) -> str:
    more = len(subjects) - _MOST_NAMED
    return ", ".join(map(repr, subjects[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
