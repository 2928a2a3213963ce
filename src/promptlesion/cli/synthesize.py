"""The verb that paints."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option, Typer

from promptlesion.cli.console import say, say_finished
from promptlesion.cli.options import Cluster, Data, Device, Lesions, Out, Seed, configured, folder, number
from promptlesion.methods import trainable_names

if TYPE_CHECKING:
    from promptlesion.config import Config

app = Typer()
_METHOD = "Refuse a run of another method; the run knows its own."
_SHAPES = "Masks to draw a type's shapes from, TYPE=PATH or TYPE=PATH:LABEL, NIfTI folder or .npz."
_ATTRIBUTE = "What a type's lesions shall be like, TYPE.ATTRIBUTE=VALUE or =LOW..HIGH; repeatable. docs/synthesis.md."
_WORKERS = "Processes on this machine; by default one a core, or one on a GPU."
_ACCEPT_ALL = "No quality filter; what it measures is recorded all the same."
_DICOM = "Also a DICOM series and segmentation of every case, in OUT/dicom."


@app.command()
@configured(accept_all="synthesis.accept_all")
def synthesize(
    config: "Config",
    data: Data,
    model: Annotated[Path, folder("Finished diffusion run; it names its autoencoder.")],
    out: Out,
    count: Annotated[list[str], Option(help="Lesions to paint, TYPE=N; repeatable.")],
    method: Annotated[str | None, Option(help=_METHOD, metavar="|".join(trainable_names()))] = None,
    shapes: Annotated[list[str] | None, Option(help=_SHAPES)] = None,
    attribute: Annotated[list[str] | None, Option(help=_ATTRIBUTE)] = None,
    workers: Annotated[int | None, number(_WORKERS)] = None,
    accept_all: Annotated[bool, Option("--accept-all", help=_ACCEPT_ALL)] = False,
    dicom: Annotated[bool, Option("--dicom", help=_DICOM)] = False,
    cluster: Cluster = None,
    lesions: Lesions = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Paint lesions into the scans of the training subjects and write them as a dataset folder.

    The folder is the same however many processes share the work; under torchrun, in a Slurm array or under srun each
    takes its share of the cases. Stopped at any time, the same command goes on.

    [bold]Examples[/bold]

    promptlesion synthesize --data data/ccta --model runs/mine/diffusion --preset demo
    --count calcified_plaque=20 --count non_calcified_plaque=20 --out data/ccta-synthetic

    promptlesion synthesize --data data/liver --model runs/liver/diffusion --count liver_tumor=500 --workers 8
    --shapes liver_tumor=Task03_Liver/labelsTr:2 --dicom --out data/liver-synthetic

    promptlesion synthesize --data data/ccta --model runs/mine/diffusion --preset demo --count calcified_plaque=20
    --attribute calcified_plaque.mean_hu=400..900 --attribute calcified_plaque.diameter_mm=3 --out data/dense

    promptlesion synthesize --data data/liver --model runs/liver/diffusion --count liver_tumor=5000
    --out data/liver-synthetic --cluster slurm --set cluster.jobs=16

    torchrun --nproc-per-node 4 -m promptlesion synthesize --data data/liver --model runs/liver/diffusion
    --count liver_tumor=5000 --out data/liver-synthetic
    """
    from promptlesion.front import cohort
    from promptlesion.synthesis.plan import parse_attributes, parse_counts

    work = partial(
        cohort.synthesize,
        data,
        model,
        out,
        parse_counts(count),
        method=method,
        shapes=shapes or (),
        attributes=parse_attributes(attribute or ()),
        workers=workers,
        dicom=dicom,
        lesions=lesions,
        seed=seed,
        device=device,
        config=config,
    )
    if cluster:
        say(f"Job {cohort.submit_synthesis(work, out, config)}; what it says is in {out}-jobs.")
        return
    run = work()
    say_finished(run)
    if run.is_finished:
        say(f"Look at {out / cohort.CONTACT_SHEET} before training on it.")
