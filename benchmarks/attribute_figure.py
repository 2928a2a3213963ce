"""One place painted with an attribute asked for at several values, side by side.

    python benchmarks/attribute_figure.py --data DATA --model RUN --config recipe.toml --out docs/images/attributes.png

One row a type and attribute: the scan as it is, and painted at each value; above each what was asked and what came out.
Places are in scans of subjects held out from every training.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.figure import Figure

import promptlesion as pl
from promptlesion.config import resolve_config
from promptlesion.data.config import DataConfig
from promptlesion.data.dataset import open_dataset, read_case
from promptlesion.data.splits import dataset_split
from promptlesion.front.painted import Lesion
from promptlesion.masks.placement import PlacementError

ROWS = (
    ("calcified_plaque", "mean_hu", (300.0, 600.0, 1000.0), 3.5, (-200.0, 1100.0)),
    ("liver_tumor", "contrast_hu", (-10.0, -30.0, -60.0), 9.0, (-50.0, 200.0)),
)
"""Type, attribute, values, diameter in mm, and window in HU."""
_HALF_MM = 11.0


def main(
    data: Annotated[Path, typer.Option("--data", help="Dataset folder.")],
    model: Annotated[Path, typer.Option("--model", help="Finished diffusion run that knows attributes.")],
    out: Annotated[Path, typer.Option("--out", help="PNG file to write.")],
    preset: Annotated[str, typer.Option("--preset", help="Of how lesions are sampled.")] = "demo",
    config: Annotated[Path | None, typer.Option("--config", help="TOML file over the preset.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of places, shapes and noise.")] = 0,
) -> None:
    """Paint and draw."""
    settings = ["synthesis.accept_all=true"]
    loaded = pl.load_model(model, config=resolve_config(preset=preset, file=config, settings=settings), device="cpu")
    dataset = open_dataset(data)
    held_out = dataset_split(dataset, **DataConfig().split_options()).validation
    figure = Figure(figsize=(8.4, 2.5 * len(ROWS)), layout="constrained")
    grid = figure.subplots(len(ROWS), 1 + len(ROWS[0][2]))
    shapes = {lesion.name: (lesion.label, lesion.shape == "real") for lesion in dataset.spec.lesions}
    for axes, (kind, attribute, values, diameter_mm, window) in zip(grid, ROWS, strict=True):
        label, is_real = shapes[kind]
        for name in held_out:
            image, labels = read_case(dataset, dataset.case(name))
            try:
                painted = [
                    pl.paint(
                        loaded,
                        image,
                        labels,
                        kind,
                        label_names=dataset.labels,
                        shapes=[f"{kind}={data / 'labelsTr'}:{label}"] if is_real else [],
                        attributes={kind: {attribute: value, "diameter_mm": diameter_mm}},
                        seed=seed,
                    )
                    for value in values
                ]
                break
            except PlacementError:
                continue
        else:
            raise SystemExit(f"{kind}: expected room in one of {len(held_out)} scans; found none")
        x, y, z = np.rint(np.linalg.solve(image.affine, [*painted[0].lesions[0].center_mm, 1.0])[:3]).astype(int)
        half = round(_HALF_MM / image.spacing_mm[0])
        box = (slice(max(0, x - half), x + half), slice(max(0, y - half), y + half), z)
        shown = [("as it is", image.array), *((_told(p.lesions[0], attribute), p.image.array) for p in painted)]
        for one, (title, array) in zip(axes, shown, strict=True):
            one.imshow(array[box].T, cmap="gray", vmin=window[0], vmax=window[1], origin="lower")
            one.set_title(title, fontsize=8)
            one.set_axis_off()
        axes[0].set_title(f"{kind.replace('_', ' ')}\nas it is", fontsize=8)
    figure.savefig(out, dpi=110)


def _told(lesion: Lesion, attribute: str) -> str:
    return f"{attribute} {lesion.asked[attribute]:.0f}\npainted {lesion.painted[attribute]:.0f}"


if __name__ == "__main__":
    typer.run(main)
