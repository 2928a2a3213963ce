"""Real lesions painted anew in their own places, asked to be as they were: the generator without the placement.

    python benchmarks/in_place.py --data DATA --model RUN --preset demo --config recipe.toml --part val --out OUT

New places have other surroundings than real lesions' (a liver tumour near the rim, plaque in a thinner vessel), which
an edge's slope and a halo show. Here every lesion is compared with itself. Writes OUT/in_place.md, the criteria of
benchmarks/fidelity.py. Give --part val while anything is still being chosen.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from measure.criteria import criteria_rows
from measure.criteria_tables import criteria_table, summary_table
from measure.painted_crop import painted_crop

from promptlesion.config import resolve_config
from promptlesion.data.config import DataConfig
from promptlesion.data.dataset import Dataset, open_dataset, read_case
from promptlesion.data.lesion_attributes import as_mapping, measure_attributes
from promptlesion.data.lesion_statistics import SURROUNDINGS_MM, measure_lesion
from promptlesion.data.volume import Volume
from promptlesion.evaluation.appearance import measure_lesions
from promptlesion.evaluation.asked_attributes import AskedLesion, asked_rows
from promptlesion.evaluation.fidelity import part_cases
from promptlesion.evaluation.lesions import LesionCrop, by_type
from promptlesion.masks.placement import PlacedLesion
from promptlesion.synthesis.synthesizer import load_synthesizer
from promptlesion.synthesis.trial_painting import blend_masks, paint_masks, scans_with_own_masks


def main(
    data: Annotated[Path, typer.Option("--data", help="Dataset folder.")],
    model: Annotated[Path, typer.Option("--model", help="Finished diffusion run.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the table.")],
    preset: Annotated[str, typer.Option("--preset", help="Of how lesions are sampled.")] = "demo",
    config: Annotated[Path | None, typer.Option("--config", help="TOML file over the preset.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="SECTION.FIELD=VALUE, over both.")] = None,
    part: Annotated[Literal["train", "val", "test", "all"], typer.Option("--part", help="Subjects.")] = "val",
    seed: Annotated[int, typer.Option("--seed", help="Of the noise and the intervals.")] = 0,
) -> None:
    """Paint, measure and write."""
    dataset = open_dataset(data)
    _, cases = part_cases(dataset, part, **DataConfig().split_options())
    synthesis = resolve_config(preset=preset, file=config, settings=setting or ()).synthesis
    synthesizer = load_synthesizer(model, synthesis, device="cpu")
    card, names = synthesizer.card, [lesion.name for lesion in dataset.spec.lesions]
    real: list[LesionCrop] = []
    painted: list[LesionCrop] = []
    asked: list[AskedLesion] = []
    for own in scans_with_own_masks(
        dataset.select(cases), edge_mm=card.edge_mm, max_extent_mm=card.max_extent_mm, seed=seed
    ):
        _, labels = read_case(dataset, dataset.case(own.case))
        attributes = [_attributes(lesion, own.image, labels, dataset) for lesion in own.lesions]
        wanted = [as_asked if card.knows_attributes else {} for as_asked in attributes]
        scan = replace(
            own, lesions=tuple(replace(each, asked=to) for each, to in zip(own.lesions, wanted, strict=True))
        )
        blended = blend_masks(scan, paint_masks(scan, synthesizer), edge_mm=card.edge_mm)
        for lesion, hu in zip(scan.lesions, blended, strict=True):
            name = names[lesion.type_index]
            for side, shown in ((real, scan.image.array[lesion.box]), (painted, hu)):
                crop = painted_crop(
                    scan.image,
                    shown,
                    lesion.mask,
                    lesion.box,
                    case=scan.case,
                    subject=scan.subject,
                    lesion_type=name,
                )
                side.append(crop)
            if lesion.asked:
                mean_hu = float(hu[lesion.mask].mean())
                asked.append(AskedLesion(scan.case, name, "mean_hu", lesion.asked["mean_hu"], mean_hu))
    options = {"seed": seed, "num_resamples": 2000}
    rows = criteria_rows(
        measure_lesions(by_type(real, names), groups="subject"),
        measure_lesions(by_type(painted, names), groups="case"),
        asked_rows(asked, names, **options),
        **options,
    )
    summary, command = summary_table({model.name: rows}), " ".join(["python", *sys.argv])
    out.mkdir(parents=True, exist_ok=True)
    text = f"`{command}`, part: {part}\n\n{summary.markdown()}\n{criteria_table({model.name: rows}).markdown()}"
    (out / "in_place.md").write_text(text, encoding="utf-8")
    print(summary.plain(), end="")  # noqa: T201


def _attributes(lesion: PlacedLesion, image: Volume, labels: Volume, dataset: Dataset) -> Mapping[str, float]:
    """Measure a real lesion where it is."""
    near = lesion.widened(image, margin_mm=SURROUNDINGS_MM)
    hu = image.array[near.box]
    contrast_hu = measure_lesion(
        hu,
        near.mask,
        labels.array[near.box],
        host_labels=dataset.host_labels(dataset.spec.lesions[lesion.type_index]),
        lesion_labels=dataset.lesion_labels,
        spacing_mm=image.spacing_mm,
    ).contrast_hu
    return as_mapping(measure_attributes(hu, near.mask, image.spacing_mm, contrast_hu=contrast_hu))


if __name__ == "__main__":
    typer.run(main)
