"""Fewer real training subjects, for the question where synthetic lesions help: nested, and with all types if can be."""

import numpy as np

from promptlesion.data.prepared import PreparedDataset


def subject_counts(fractions: tuple[float, ...], num_subjects: int) -> tuple[int, ...]:
    """Return how many training subjects each fraction is, the fewest first, equal ones once; at least one.

    Raises:
        ValueError: a fraction that is none.
    """
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"--real-fractions: expected shares above 0 and up to 1; found {fraction:g}")
    return tuple(sorted({max(1, round(fraction * num_subjects)) for fraction in fractions}))


def fewer_subjects(prepared: PreparedDataset, num_subjects: int, *, seed: int) -> PreparedDataset:
    """Keep so many training subjects; fewer are always among more.

    Their order is drawn, and each next one is the first that has a lesion of the type that fewest before it have, so
    that a rare type is in a small part too.

    Args:
        prepared: with all training subjects.
        num_subjects: to keep.
        seed: of the order, the same as that of the split.
    """
    types_of: dict[str, set[int]] = {case.subject: set() for case in prepared.train}
    for case in prepared.train:
        types_of[case.subject] |= {lesion.type_index for lesion in case.lesions}
    names = sorted(types_of)
    left = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    num_with = dict.fromkeys(range(len(prepared.dataset.spec.lesions)), 0)
    chosen: list[str] = []
    while len(chosen) < num_subjects:
        there = sorted({kind for name in left for kind in types_of[name]}, key=lambda kind: (num_with[kind], kind))
        name = next((name for name in left if there and there[0] in types_of[name]), left[0])
        left.remove(name)
        chosen.append(name)
        for kind in types_of[name]:
            num_with[kind] += 1
    return prepared.with_training_subjects(chosen)
