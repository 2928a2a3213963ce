"""Does the prompt decide? The same masks in the same surroundings with the same noise, only the prompt switched."""

import numpy as np
from jaxtyping import Float

from promptlesion.data.dataset import Dataset, read_case
from promptlesion.masks.placement import PlacementError, place_lesion
from promptlesion.masks.sizes_and_shapes import LesionDrawing
from promptlesion.synthesis.quality import mean_hu_inside
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.synthesis.trial_painting import MaskedScan, blend_masks, paint_masks, under_every_prompt
from promptlesion.training.progress import progress_bar
from promptlesion.training.seeding import derive_seed, numpy_generator


def measure_prompt_switch(
    dataset: Dataset, synthesizer: Synthesizer, *, num_lesions: int, drawing: LesionDrawing, seed: int
) -> Float[np.ndarray, "lesion type"]:
    """Paint every mask once under each prompt; return the mean HU inside each on the blended scan, unfiltered.

    Masks are drawn for all types in turn, one scan after the other; a scan without room is passed over.

    Raises:
        PlacementError: too few masks found a place.
    """
    types = range(len(dataset.spec.lesions))
    rows: list[list[float]] = []
    with progress_bar("prompt switch", num_lesions) as bar:
        for index in range(4 * num_lesions):
            if len(rows) == num_lesions:
                break
            case = dataset.cases[index // len(types) % len(dataset.cases)]
            image, labels = read_case(dataset, case)
            try:
                lesion = place_lesion(
                    labels,
                    dataset,
                    index % len(types),
                    drawing=drawing,
                    generator=numpy_generator(seed, "switch", index),
                    image=image,
                )
            except PlacementError:
                continue
            scan = MaskedScan(case.name, case.subject, image, (lesion,), (derive_seed(seed, "switch noise", index),))
            repeated, asked = under_every_prompt(scan, num_types=len(types))
            painted = paint_masks(repeated, synthesizer, types=asked)
            blended = blend_masks(repeated, painted, edge_mm=synthesizer.card.edge_mm)
            rows.append([mean_hu_inside(box_hu, lesion.mask) for box_hu in blended])
            bar.update(len(rows))
    if len(rows) < num_lesions:
        raise PlacementError(
            f"expected room for {num_lesions} masks in {len(dataset.cases)} scans; found it for {len(rows)}"
        )
    return np.array(rows)
