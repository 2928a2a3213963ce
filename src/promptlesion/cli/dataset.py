"""Verbs about a dataset folder: prepare one, check it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Exit, Option, Typer

from promptlesion.cli.console import say, show
from promptlesion.cli.options import Device, Lesions, Out, configured, file, folder, number

if TYPE_CHECKING:
    from promptlesion.config import Config

app = Typer()
Layout = Literal["dicom", "decathlon", "kits", "abdomen-atlas", "nnunet", "folders"]
Kind = Literal["ccta", "abdomen", "five"]
_SOURCE = "Folder of scans, or the word phantom for made-up subjects."
_LABELS = "Folder of the label maps of the CTs in SOURCE."
_LABEL = "Name of a value in the label maps of --labels, NAME=VALUE; repeatable."
_SUBJECTS = "Whose scans: a pattern whose group is the subject, or a CSV of file,subject."
_KEY = "CSV file, outside --out, that says which case is whose scan."
_SKIP = "Leave out scans that cannot be converted, and say which."
_KIND = "phantom only: coronary CTA (the default), abdomen, or five: both in turn, the abdomen small."
_NOISE = "phantom only: the scanner's noise, there by default."


@app.command(no_args_is_help=True)
def prepare(
    source: Annotated[str, Argument(metavar="SOURCE", help=_SOURCE)],
    out: Out,
    layout: Annotated[Layout | None, Option(help="What SOURCE is, where it is not to be found out.")] = None,
    labels: Annotated[Path | None, folder(_LABELS)] = None,
    label: Annotated[list[str] | None, Option(help=_LABEL)] = None,
    subjects: Annotated[str | None, Option(help=_SUBJECTS)] = None,
    key: Annotated[Path | None, file(_KEY)] = None,
    skip_refused: Annotated[bool, Option("--skip-refused", help=_SKIP)] = False,
    workers: Annotated[int, number("Processes that convert or draw cases.")] = 1,
    kind: Annotated[Kind | None, Option(help=_KIND)] = None,
    cases: Annotated[int | None, number("phantom only: made-up subjects, 36 by default.")] = None,
    seed: Annotated[int | None, number("phantom only: seed of the subjects, 0 by default.", least=0)] = None,
    noise: Annotated[bool | None, Option("--noise/--no-noise", help=_NOISE)] = None,
) -> None:
    """Turn scans into a dataset folder: DICOM, Decathlon, KiTS, AbdomenAtlas, nnU-Net, folders of images, or a phantom.

    Patient identity stays behind. Run again, it goes on where it stopped.

    [bold]Examples[/bold]

    promptlesion prepare /archive/ct-export --out data/mine --key mine-key.csv

    promptlesion prepare Task03_Liver --out data/liver --workers 4

    promptlesion prepare scans/ct --labels scans/masks --label liver=1 --label liver_tumor=2 --out data/mine

    promptlesion prepare phantom --kind abdomen --cases 20 --seed 1 --out data/abdomen
    """
    of_phantoms: dict[str, object] = {"--kind": kind, "--cases": cases, "--seed": seed, "--noise": noise}
    of_folders: dict[str, object] = {"--layout": layout, "--labels": labels, "--label": label, "--key": key}
    of_folders |= {"--subjects": subjects, "--skip-refused": skip_refused or None}
    is_phantom = source == "phantom"
    if is_phantom:
        _refuse(of_folders, "a folder of scans", f"{source}; a folder of that name is ./phantom")
    else:
        _refuse(of_phantoms, "the source phantom", source)
    from promptlesion.data.sources import parse_label_names
    from promptlesion.front import preparation

    if is_phantom:
        kind, cases = kind or "ccta", cases or 36
        preparation.prepare_phantom(
            out, kind=kind, cases=cases, seed=seed or 0, noise=noise is not False, workers=workers
        )
        say(f"{cases} {kind} cases in {out}")
        return
    conversion = preparation.prepare(
        source,
        out,
        layout=layout,
        labels=labels,
        names=parse_label_names(label or []),
        subjects=subjects,
        key=key,
        skip_refused=skip_refused,
        workers=workers,
    )
    show(*conversion.notes, *(f"left out: {reason}" for reason in conversion.refused))
    num_cases = conversion.num_written + conversion.num_kept
    if not conversion.num_written:
        say(f"{out} holds all {num_cases} cases; there is nothing to do.")
        return
    say(f"{num_cases} cases in {out}, labels: {', '.join(conversion.labels)}")
    say(f"What was kept, joined, assumed and left out, a line each: {conversion.report}")
    say(f"Next: promptlesion check {out}")


def _refuse(options: dict[str, object], expected: str, source: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise ValueError(f"{option}: expected with {expected} alone; found it with the source {source}")


@app.command()
@configured()
def check(
    config: "Config",
    dataset: Annotated[Path, Argument(help="Dataset folder: nnU-Net v2 raw; lesions.toml may be missing.")],
    out: Annotated[Path | None, folder("Folder of the report; by default DATASET/check.")] = None,
    lesions: Lesions = None,
    workers: Annotated[int, number("Processes that read cases.")] = 1,
    device: Device = "auto",
) -> None:
    """Say what is wrong with a dataset, and what training on it will cost; exit code 1 if it would spoil a run.

    Writes check.html, check.json, and a lesions.toml to start from where there is none.

    [bold]Examples[/bold]

    promptlesion check data/liver --workers 4

    promptlesion check data/liver --preset demo --out runs/liver/check
    """
    from promptlesion.check.terminal import check_parts
    from promptlesion.front import verbs

    checked = verbs.check_dataset(dataset, out=out, lesions=lesions, config=config, device=device, workers=workers)
    show(*check_parts(checked))
    if checked.would_spoil_a_run:
        raise Exit(1)
