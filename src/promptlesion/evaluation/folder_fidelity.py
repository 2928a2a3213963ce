"""Lesion fidelity of a painted dataset folder, from the files to the figures."""

from pathlib import Path

from promptlesion.data.config import SplitOptions
from promptlesion.data.dataset import Dataset
from promptlesion.evaluation.config import EvaluationConfig
from promptlesion.evaluation.distributions import distribution_figure
from promptlesion.evaluation.extractors import build_extractors
from promptlesion.evaluation.fidelity import Fidelity, measure_fidelity, plaque_types, training_cases
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.lesions import by_type, collect_lesions
from promptlesion.training.device import resolve_device
from promptlesion.training.progress import progress_reports


def evaluate_folders(
    real: Dataset,
    synthetic: Dataset,
    *,
    training: Dataset | None,
    split: SplitOptions,
    config: EvaluationConfig,
    seed: int,
    device: str,
    figure: Path | None = None,
) -> Fidelity:
    """Compare painted lesions with real ones, and look for copies of training lesions.

    Args:
        real: dataset with real lesions.
        synthetic: what `synthesize` wrote.
        training: dataset the generator was trained on, all of it; by default the training part of `real`.
        split: of `real`, where its folder has none.
        config: networks and margins.
        seed: of the intervals.
        device: `auto` or a device's name.
        figure: file for a picture of how HU, texture and size are spread.

    Raises:
        ValueError: there is no painted lesion of a type that has real ones.
    """
    margin = config.feature_margin_voxels
    extractors = build_extractors(config, window=real.window, device=resolve_device(device))
    with progress_reports("cutting lesions out") as report:
        real_lesions = collect_lesions(real, margin_voxels=margin, on_progress=report)
    painted_lesions = collect_lesions(synthetic, source=real, margin_voxels=margin)
    seen = training_cases(real, synthetic, **split)
    if training is None:
        training_lesions = [lesion for lesion in real_lesions if lesion.case in seen]
    else:
        training_lesions = collect_lesions(training)
    with progress_reports("searching for copies") as report:
        measured = measure_fidelity(
            real_lesions,
            painted_lesions,
            training_lesions,
            lesion_types=real.spec.lesions,
            extractors=extractors,
            seed=seed,
            on_progress=report,
        )
    if not measured.fidelity:
        raise ValueError(f"{synthetic.root}: expected painted lesions of a type that {real.root} has; found none")
    if figure:
        names = [lesion.name for lesion in real.spec.lesions]
        sides = by_type(real_lesions, names), {"synthetic": by_type(painted_lesions, names)}
        save_figure(distribution_figure(*sides, plaque_types=plaque_types(real.spec.lesions)), figure)
    return measured
