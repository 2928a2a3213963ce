"""What a lesion that is to be painted shall be like: as asked for, and else like a training lesion of its type."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from promptlesion.data.dataset import Dataset
from promptlesion.data.lesion_attributes import HU_LEVELS, NAMES, as_mapping, scale_of
from promptlesion.data.lesion_statistics import SURROUNDINGS_MM, measure_lesion
from promptlesion.data.noise import robust_sigma
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion
from promptlesion.synthesis.synthesizer import SynthesizerCard

logger = logging.getLogger(__name__)

_SIZE_DEVIATION = 0.25
"""Of the logarithm of the diameter: so like a training lesion's size is that of one that is to be like it."""
_HOST_DEVIATIONS = 2.0
"""So like is its host's brightness, in standard deviations of the hosts of its type."""
_HOST_SHARE = 0.1
"""Of the contrast, by which a host may be brighter or darker all the same: calcium blooms into its host by more."""
_JITTER = 0.15
"""Of all that is drawn, in standard deviations of the type."""
_LEAST_WITHIN_HU = 1.0
"""Of the type's plausible range: HU are whole numbers, and what lies on its end might be refused."""
_FAR_DEVIATIONS = 4.0
_FEWEST_SHARING, _MOST_WIDENED = 5, 12
_SPREADS = ("std_hu", "low_frequency_hu")
_MOST_STRETCHED = 3.0


def ask(
    lesion: PlacedLesion,
    image: Volume,
    labels: Volume,
    dataset: Dataset,
    *,
    card: SynthesizerCard,
    generator: np.random.Generator,
) -> PlacedLesion:
    """Return a placed lesion with what it shall be like, all attributes of it.

    They are those of one training lesion of its type, drawn from those of about its size in hosts about as bright, a
    little changed: so attributes go together as they do in training lesions. What is asked for is drawn evenly from
    its range and put in its stead; what depends on it goes along, percentiles with the mean, spread with the contrast.
    A type without training lesions is left open but for what is asked, and a method that knows no attributes gets none.
    """
    if not card.knows_attributes:
        return lesion
    lesion_type = dataset.spec.lesions[lesion.type_index]
    known = card.statistics.types.get(lesion_type.name)
    own = _host_mean_hu(lesion, image, labels, dataset)
    drawn = {name: float(generator.uniform(*bounds)) for name, bounds in lesion_type.attributes.items()}
    if "contrast_hu" in drawn:
        drawn["mean_hu"] = own + drawn["contrast_hu"]
    values: dict[str, float] = {}
    if known is not None and known.mean_hu:
        values = _like_training(known.rows, lesion.diameter_mm, own, drawn, generator)
        low, high = lesion_type.hu
        plausible_hu = min(max(values["mean_hu"], low + _LEAST_WITHIN_HU), high - _LEAST_WITHIN_HU)
        values |= {name: values[name] + plausible_hu - values["mean_hu"] for name in HU_LEVELS if name in values}
    values = _with_asked(values, drawn)
    values["diameter_mm"] = lesion.diameter_mm
    if "mean_hu" in values:
        values["contrast_hu"] = values["mean_hu"] - own
    return replace(lesion, asked=values)


def asking(dataset: Dataset, attributes: Mapping[str, Mapping[str, Any]], card: SynthesizerCard) -> Dataset:
    """Return a dataset whose lesion types ask for attributes, over those of its `lesions.toml`.

    Args:
        attributes: by type and name, a number or lowest and highest.
        card: of the method that is to paint them.

    Raises:
        ValueError: an unknown type or attribute, or a method that knows none; sizes any method knows.
    """
    further = {name for asked in attributes.values() for name in asked if name != "diameter_mm"}
    if further and not card.knows_attributes:
        raise ValueError(
            f"attributes: expected a model that was trained with diffusion.attributes = true to ask for "
            f"{', '.join(sorted(further))}; found one of {card.method} that knows none"
        )
    asked = replace(dataset, spec=dataset.spec.asking(attributes))
    if not card.knows_attributes and any(lesion.attributes for lesion in asked.spec.lesions):
        logger.warning("lesions.toml asks for attributes, and the %s model knows none: they are left open", card.method)
    return asked


def _like_training(
    rows: np.ndarray,
    diameter_mm: float,
    host_hu: float,
    drawn: Mapping[str, float],
    generator: np.random.Generator,
) -> dict[str, float]:
    """Return the attributes of a training lesion, one of those most like what is known of the one to be painted."""
    rows = _usual(rows)
    columns = dict(zip(NAMES, rows.T, strict=True))
    _, std = scale_of(rows)
    distance = (np.log(columns["diameter_mm"] / diameter_mm) / _SIZE_DEVIATION) ** 2
    hosts = columns["mean_hu"] - columns["contrast_hu"]
    alike_hu = max(float(hosts.std()), _HOST_SHARE * float(np.abs(columns["contrast_hu"]).mean()), 1.0)
    distance += ((hosts - host_hu) / (_HOST_DEVIATIONS * alike_hu)) ** 2
    for name, value in drawn.items():
        distance += np.nan_to_num((columns[name] - value) / std[NAMES.index(name)]) ** 2
    chosen = int(generator.choice(len(rows), p=_shares(distance - distance.min())))
    # one jitter for all levels of HU: each with its own, the median might lie above the 90th percentile
    shift, others = generator.normal(0, _JITTER), generator.normal(0, _JITTER, len(NAMES))
    jitter = np.where(np.isin(NAMES, HU_LEVELS), shift * std[NAMES.index("mean_hu")], others * std)
    row = rows[chosen] + np.where(np.isin(NAMES, HU_LEVELS), jitter, np.clip(jitter, -0.3 * np.abs(rows[chosen]), None))
    return as_mapping(row)


def _usual(rows: Float64[np.ndarray, "lesion attribute"]) -> Float64[np.ndarray, "usual attribute"]:
    """Return the lesions without those whose mean or spread lies far out: their labels hold bone, air or metal too.

    Far is more than 4 standard deviations, as the median tells them, from the median. Of few none is left out.
    """
    is_usual = np.ones(len(rows), dtype=bool)
    for name in ("mean_hu", "std_hu"):
        values = rows[:, NAMES.index(name)]
        is_usual &= np.abs(values - np.median(values)) <= _FAR_DEVIATIONS * max(robust_sigma(values), 1.0)
    return rows[is_usual] if is_usual.sum() >= _FEWEST_SHARING else rows


def _shares(distance: Float64[np.ndarray, " lesion"]) -> Float64[np.ndarray, " lesion"]:
    """Return how often each training lesion is drawn: the nearer the more, but of few none all the time.

    The distances' scale grows until a quarter of them, five at least, share in it (by Kish's effective number).
    """
    wanted = min(len(distance), max(_FEWEST_SHARING, len(distance) // 4))
    scale, share = 1.0, np.zeros(len(distance))
    for _ in range(_MOST_WIDENED):
        weight = np.exp(-0.5 * distance / scale)
        share = weight / weight.sum()
        if 1 / float((share**2).sum()) >= wanted:
            break
        scale *= 2
    return share


def _with_asked(values: Mapping[str, float], drawn: Mapping[str, float]) -> dict[str, float]:
    """Put what is asked for in the stead of what was drawn, and let go along what depends on it."""
    changed = {**values, **drawn}
    if "mean_hu" not in values:
        return changed
    mean_hu, before_hu = changed["mean_hu"], values["mean_hu"]
    stretch = 1.0
    if "std_hu" in drawn:
        stretch = drawn["std_hu"] / max(values["std_hu"], 1.0)
    elif "mean_hu" in drawn and "contrast_hu" in values:
        contrast_hu = values["contrast_hu"]
        stretch = abs(contrast_hu + mean_hu - before_hu) / max(abs(contrast_hu), 1.0)
    stretch = min(max(stretch, 1 / _MOST_STRETCHED), _MOST_STRETCHED)
    for name in HU_LEVELS[1:]:
        if name in values and name not in drawn:
            changed[name] = mean_hu + (values[name] - before_hu) * stretch
    for name in _SPREADS:
        if name in values and name not in drawn:
            changed[name] = values[name] * stretch
    if "edge_hu_per_mm" in values and "edge_hu_per_mm" not in drawn and "contrast_hu" in values:
        share = (values["contrast_hu"] + mean_hu - before_hu) / (values["contrast_hu"] or 1.0)
        changed["edge_hu_per_mm"] = values["edge_hu_per_mm"] * min(max(share, -_MOST_STRETCHED), _MOST_STRETCHED)
    return changed


def _host_mean_hu(lesion: PlacedLesion, image: Volume, labels: Volume, dataset: Dataset) -> float:
    """Return the mean HU of the host around a place, as a lesion's contrast counts it."""
    near = lesion.widened(image, margin_mm=SURROUNDINGS_MM)
    before = measure_lesion(
        image.array[near.box],
        near.mask,
        labels.array[near.box],
        host_labels=dataset.host_labels(dataset.spec.lesions[lesion.type_index]),
        lesion_labels=dataset.lesion_labels,
        spacing_mm=image.spacing_mm,
    )
    return before.mean_hu - before.contrast_hu
