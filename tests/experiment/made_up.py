"""Made-up results of an experiment with two methods and two lesion types."""

import numpy as np

from promptlesion.evaluation.appearance import AppearanceRow, TypeAppearance
from promptlesion.evaluation.asked_attributes import AskedRow
from promptlesion.evaluation.fidelity import Fidelity
from promptlesion.evaluation.lesion_intensity import intensity_rows, prompt_switch
from promptlesion.evaluation.method_comparison import MethodRow
from promptlesion.evaluation.results import Estimate, FidelityRow
from promptlesion.experiment.results import (
    CaseScore,
    CellTime,
    Comparison,
    DatasetSummary,
    ExperimentResults,
    MethodFidelity,
)

TYPES = ("calcified_plaque", "liver_tumor")


def row(
    method: str,
    lesion_type: str,
    value: float,
    difference: tuple[float, float, float] | None = None,
    spread: float = 0.0,
) -> MethodRow:
    estimate = None if difference is None else Estimate(value=difference[0], low=difference[1], high=difference[2])
    return MethodRow(
        method=method,
        lesion_type=lesion_type,
        size="all sizes",
        metric="dice",
        num_subjects=12,
        value=Estimate(value=value, low=value - 0.1, high=value + 0.1),
        difference=estimate,
        p_value=None if difference is None else 0.04,
        trainings=(value - spread, value, value + spread),
    )


HELPS = (
    row("real", "calcified_plaque", 0.5),
    row("copy-paste", "calcified_plaque", 0.6, (0.1, 0.02, 0.18)),
    row("real", "liver_tumor", 0.7),
    row("copy-paste", "liver_tumor", 0.6, (-0.1, -0.15, -0.05)),
    row("real", "all types", 0.6),
    row("copy-paste", "all types", 0.6, (0.0, -0.05, 0.05)),
)


def results(rows: tuple[MethodRow, ...] = HELPS, **changes: object) -> ExperimentResults:
    """Two methods at one ratio; the second number of subjects is there for the sweep."""
    comparisons = tuple(
        Comparison(
            num_subjects=number,
            num_cases=number,
            num_lesions=dict.fromkeys(TYPES, 3),
            ratio=1.0,
            num_synthetic={"copy-paste": 6.0},
            rows=rows,
        )
        for number in (4, 8)
    )
    made_up = ExperimentResults(
        title="PromptLesion experiment",
        command="promptlesion experiment",
        created="2026-11-22T00:00:00+00:00",
        seed=0,
        seeds=(0, 1, 2),
        methods=("real", "copy-paste"),
        machine="a machine",
        versions={},
        dataset=DatasetSummary(
            name="data",
            path="data",
            is_phantom=False,
            lesion_types=TYPES,
            spacing_mm=(1.0, 1.0, 1.0),
            window_hu=(-100.0, 200.0),
            num_cases={"train": 8, "validation": 2, "test": 12},
            num_subjects={"train": 8, "validation": 2, "test": 12},
        ),
        main_num_subjects=8,
        main_ratio=1.0,
        comparisons=comparisons,
        fidelity=(),
        real_against_real=(),
        case_scores=(),
        times=(
            CellTime(name="8-subjects/copy-paste", kind="method", num_subjects=8, method="copy-paste", seconds=2.0),
        ),
        failures={},
        unfinished=(),
        configuration={},
        limits=(),
        num_resamples=100,
    )
    return made_up.model_copy(update=changes)


def case_scores() -> tuple[CaseScore, ...]:
    """Of three held-out cases, the last without a lesion; copy-paste finds more and draws one where there is none."""
    return tuple(
        CaseScore(
            method=method,
            seed=0,
            case=f"case_{index}",
            subject=f"subject_{index}",
            lesion_type=TYPES[0],
            dice=dice,
            surface_dice=dice,
            hd95_mm=3.2 if truth else None,
            num_truth_voxels=truth,
            num_predicted_voxels=100 if dice is not None else 0,
        )
        for method, found in (("real", (0.3, 0.5, None)), ("copy-paste", (0.45, 0.55, 0.0)))
        for index, (dice, truth) in enumerate(zip(found, (120, 90, 0), strict=True))
    )


def fidelity() -> MethodFidelity:
    """Of PromptLesion: bright lesions too dark, and a prompt that decides."""
    distances = FidelityRow(
        lesion_type=TYPES[0],
        compared="real against synthetic",
        network="EfficientNet-lite0, ImageNet",
        layer="stage 4",
        dimension=112,
        num_real=20,
        num_synthetic=28,
        fid=Estimate(value=1.25, low=0.9, high=1.6),
        kid=Estimate(value=0.42, low=-0.1, high=0.9),
    )
    looks = TypeAppearance(
        lesion_type=TYPES[0],
        num_real=20,
        num_synthetic=28,
        energy_distance=1.5,
        energy_distance_of_halves=Estimate(value=0.02, low=-0.1, high=0.2),
        measures=tuple(
            AppearanceRow(
                measure=measure,
                unit=unit,
                num_real=20,
                num_synthetic=28,
                real=Estimate(value=70.0, low=60.0, high=80.0),
                synthetic=Estimate(value=90.0, low=85.0, high=95.0),
                difference=Estimate(value=20.0, low=10.0, high=30.0),
                ratio=Estimate(value=1.3, low=1.1, high=1.5),
            )
            for measure, unit in (("edge_hu_per_mm", "HU/mm"), ("grain", ""))
        ),
    )
    asked = AskedRow(
        lesion_type=TYPES[0],
        attribute="mean_hu",
        num_lesions=28,
        asked=Estimate(value=640.0),
        painted=Estimate(value=600.0),
        absolute_difference=Estimate(value=41.0),
        share_close=Estimate(value=0.25),
        slope=Estimate(value=0.8, low=0.7, high=0.9),
        correlation=Estimate(value=None),
    )
    real = {TYPES[0]: np.array([640.0, 620.0]), TYPES[1]: np.array([55.0])}
    return MethodFidelity(
        num_subjects=8,
        method="promptlesion",
        measured=Fidelity(
            extractors=(),
            fidelity=(distances,),
            distributions=(),
            appearance=(looks,),
            asked=(asked,),
            memorisation=None,
        ),
        intensity=intensity_rows("autoencoded", real, {TYPES[0]: np.array([630.0])})
        + intensity_rows("synthetic", real, {TYPES[0]: np.array([600.0]), TYPES[1]: np.array([95.0])}),
        prompt_switch=prompt_switch(
            "one-hot",
            {TYPES[0]: np.array([560.0, 640.0, 610.0]), TYPES[1]: np.array([70.0, 95.0, 60.0])},
            {TYPES[0]: 630.0, TYPES[1]: 55.0},
        ),
        volumes_per_minute=12.0,
        sampling="ddim, 5 steps",
        patch_voxels=48,
        seconds=20.0,
    )
