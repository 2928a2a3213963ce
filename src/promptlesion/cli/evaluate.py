"""Verbs that measure."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Exit, Option, Typer

from promptlesion.cli.console import show
from promptlesion.cli.options import Cache, Data, Device, Json, Lesions, Part, configured, file, folder, number

if TYPE_CHECKING:
    from promptlesion.config import Config

app = Typer(name="evaluate", no_args_is_help=True, help="Measure autoencoders, synthetic lesions or segmentations.")
_LESIONS = "A lesions.toml elsewhere; once for every --data, in order."
_UNSEEN = "test: subjects no stage trained on, all where the dataset is new."
_TILE = "Edge of what is decoded at once; less takes less memory."
_PREDICTIONS = "FOLDER that `segment` wrote, or NAME=FOLDER to compare; repeatable, one NAME again for another seed."
_REFERENCE = "NAME the others are compared with; the first unless said."
_PART = "Cases to score; test: those of the split's held-out subjects alone."
_MISSING = "Exit with 0 though cases have no label map; they are named all the same."
_COMPARED = "Real subjects whose lesions are compared with; all where the split has no such part."
_TRAINING = "Dataset folder the generator was trained on, all of it; by default the training part of --real."


@app.command("reconstruction")
@configured()
def evaluate_reconstruction(
    config: "Config",
    data: Annotated[list[Path], folder("Dataset folder; repeatable, a row each.")],
    model: Annotated[list[Path], folder("Finished run of stage 1; repeatable, side by side.")],
    lesions: Annotated[list[Path] | None, file(_LESIONS)] = None,
    part: Annotated[Part, Option(help=_UNSEEN)] = "test",
    out: Json = None,
    figure: Annotated[Path | None, file("PNG of three cases of every dataset.")] = None,
    tile_voxels: Annotated[int, number(_TILE)] = 96,
    device: Device = "auto",
    cache: Cache = None,
) -> None:
    """Error in HU, PSNR, SSIM, edges and finest detail of an autoencoder, against trilinear sampling by its factor.

    [bold]Examples[/bold]

    promptlesion evaluate reconstruction --data data/ccta --model runs/mine/autoencoder --out reconstruction.json

    promptlesion evaluate reconstruction --data data/ccta --model runs/mine/autoencoder --model runs/plain/autoencoder
    --figure side-by-side.png
    """
    from promptlesion.evaluation.terminal import reconstruction_parts
    from promptlesion.front import reconstruction

    rows = reconstruction.evaluate_reconstruction(
        data,
        model,
        out=out,
        figure=figure,
        part=part,
        lesions=lesions or (),
        cache=cache,
        tile_voxels=tile_voxels,
        device=device,
        config=config,
    )
    show(*reconstruction_parts(rows))


@app.command("segmentation")
@configured()
def evaluate_segmentation(
    config: "Config",
    data: Data,
    predictions: Annotated[list[str], Option(help=_PREDICTIONS, metavar="[NAME=]FOLDER")],
    reference: Annotated[str | None, Option(help=_REFERENCE)] = None,
    out: Json = None,
    part: Annotated[Part, Option(help=_PART)] = "all",
    allow_missing: Annotated[bool, Option("--allow-missing", help=_MISSING)] = False,
    lesions: Lesions = None,
    seed: Annotated[int, number("Seed of the intervals and tests.", least=0)] = 0,
) -> None:
    """Dice, surface Dice, HD95, volume error, lesions found and false ones, per type and size; methods side by side.

    Every case of --data is expected to have a label map. Where some have none, the others are scored, these are named,
    and the exit code is 1.

    [bold]Examples[/bold]

    promptlesion evaluate segmentation --data data/ccta --part test --predictions runs/mine/predictions
    --out runs/mine/scores.json

    promptlesion evaluate segmentation --data data/ccta --part test --predictions real=runs/real/predictions
    --predictions mixed=runs/mixed/predictions --predictions mixed=runs/mixed-seed-1/predictions
    """
    from promptlesion.evaluation.prediction_folders import parse_predictions
    from promptlesion.evaluation.terminal import method_parts, score_parts
    from promptlesion.front import verbs

    folders = parse_predictions(predictions)
    compared = verbs.evaluate(
        data, folders, reference=reference, out=out, part=part, lesions=lesions, seed=seed, config=config
    )
    (first, *others), tolerance_mm = compared.scores[compared.reference], compared.tolerance_mm
    if len(folders) == 1 and not others:
        show(*score_parts(first, tolerance_mm))
    show(*method_parts(compared.rows, tolerance_mm))
    if compared.missing and not allow_missing:
        raise Exit(1)


@app.command("fidelity")
@configured()
def evaluate_fidelity(
    config: "Config",
    real: Annotated[Path, folder("Dataset folder with real lesions.")],
    synthetic: Annotated[Path, folder("Dataset folder that `synthesize` wrote.")],
    out: Json = None,
    figure: Annotated[
        Path | None, file("PNG of how HU, texture and size are spread; HU across the edge beside it.")
    ] = None,
    training: Annotated[Path | None, folder(_TRAINING)] = None,
    part: Annotated[Literal["train", "val", "test", "all"], Option(help=_COMPARED)] = "test",
    lesions: Lesions = None,
    seed: Annotated[int, number("Seed of the intervals.", least=0)] = 0,
    device: Device = "auto",
) -> None:
    """Painted lesions against real ones, per type: FID, KID, spread, looks, attributes and copies.

    Looks are brightness, edge, mottling and noise; attributes are as painted against as asked for.

    A copy is a painted lesion whose texture is a training lesion's; each is named.

    [bold]Examples[/bold]

    promptlesion evaluate fidelity --real data/ccta --synthetic data/ccta-synthetic --out runs/mine/fidelity.json

    promptlesion evaluate fidelity --real data/ccta --synthetic data/ccta-synthetic --figure distributions.png
    --set 'evaluation.extractors=["imagenet", "medicalnet"]' --set evaluation.medicalnet_weights=resnet_50.pth
    """
    from promptlesion.evaluation.terminal import (
        appearance_parts,
        asked_parts,
        distribution_parts,
        fidelity_parts,
        memorisation_parts,
    )
    from promptlesion.front import verbs

    measured = verbs.evaluate_fidelity(
        real,
        synthetic,
        out=out,
        figure=figure,
        training=training,
        part=part,
        lesions=lesions,
        seed=seed,
        device=device,
        config=config,
    )
    show(f"Real lesions of the part: {measured.part}")
    show(*fidelity_parts(measured.fidelity), *distribution_parts(measured.distributions))
    show(*appearance_parts(measured.appearance), *asked_parts(measured.asked))
    if measured.memorisation is not None:
        show(*memorisation_parts(measured.memorisation))
