"""The command line: verbs in pipeline order. Parses, resolves the configuration, calls one function.

Nothing that imports torch is imported before a verb needs it: `promptlesion --help` answers at once.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich._emoji_codes import EMOJI
from rich.console import Console
from rich.logging import RichHandler

from promptlesion import __version__
from promptlesion.console import (
    console,
    print_check,
    print_distributions,
    print_experiment,
    print_fidelity,
    print_memorisation,
    print_methods,
    print_parameters,
    print_reconstruction,
    print_results,
    print_scores,
    say,
)

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="promptlesion",
    help="Paint lesions of an asked-for type into healthy CT scans, and train segmentation on the lot.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
train_app = typer.Typer(
    no_args_is_help=True,
    help="Train one of the three stages, or go on with an interrupted run; on several GPUs under torchrun.",
)
evaluate_app = typer.Typer(no_args_is_help=True, help="Measure autoencoders, synthetic lesions or segmentations.")
config_app = typer.Typer(no_args_is_help=True, help="Show or check a configuration.")
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(config_app, name="config")

BAD_INPUT = 2
UNFINISHED = 1
_INTERRUPTED = 130  # typer's answer to Ctrl+C


class ChosenPart(StrEnum):
    """Which cases of a dataset are meant."""

    TEST = "test"
    ALL = "all"


class PhantomKind(StrEnum):
    """Anatomies of the built-in phantom."""

    CCTA = "ccta"
    ABDOMEN = "abdomen"
    FIVE = "five"


class SourceLayout(StrEnum):
    """Layouts of scans that `prepare` reads."""

    DICOM = "dicom"
    DECATHLON = "decathlon"
    KITS = "kits"
    ABDOMEN_ATLAS = "abdomen-atlas"
    NNUNET = "nnunet"
    FOLDERS = "folders"


class Method(StrEnum):
    """Systems that paint lesions: the paper's, the two it compares itself with, and two that need no training."""

    PROMPTLESION = "promptlesion"
    DIFFTUMOR = "difftumor"
    MED_DDPM = "med-ddpm"
    COPY_PASTE = "copy-paste"
    INTENSITY = "intensity"


class Network(StrEnum):
    """Segmentation networks."""

    UNET = "unet"
    DYNUNET = "dynunet"
    NNUNETV2 = "nnunetv2"


OutOption = Annotated[
    Path, typer.Option("--out", help="Folder to write; run again to go on where it stopped.", file_okay=False)
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random but the split.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
DataOption = Annotated[
    Path, typer.Option("--data", help="Dataset folder: nnU-Net v2 raw, with a lesions.toml.", file_okay=False)
]
LesionsOption = Annotated[
    Path | None,
    typer.Option("--lesions", help="A lesions.toml elsewhere, for a folder one may not write to.", dir_okay=False),
]
PresetOption = Annotated[str, typer.Option("--preset", help="default, paper or demo.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file over the preset.", dir_okay=False)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting over both, as in --set diffusion.num_steps=400; repeatable."),
]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder of prepared scans; by default `cache` beside --out.", file_okay=False),
]


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        console.print(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: OutOption = Path("runs/demo"),
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A real dataset folder; without one, the built-in phantom.", file_okay=False),
    ] = None,
    lesions: LesionsOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    preset: PresetOption = "demo",
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Run the whole loop, small: three stages, synthesis, with and without synthetic data, report.

    [bold]Examples[/bold]

    promptlesion demo

    promptlesion demo --data Dataset101_Sarcoma --lesions examples/sarcoma.toml --out runs/sarcoma

    promptlesion demo --set diffusion.prompt_encoder=one-hot --out runs/demo-one-hot
    """
    from promptlesion.config import resolve_config
    from promptlesion.demo import run_demo

    resolved = resolve_config(preset=preset, file=config, settings=settings or ())
    results, was_work = run_demo(
        out=out, config=resolved, seed=seed, device=device, command=_command(), data=data, lesions=lesions
    )
    if not was_work:
        say(f"{out} is finished; there is nothing to do.")
    print_results(results)
    say(f"Report: {out / 'report.html'}")


@app.command(no_args_is_help=True)
def prepare(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder of scans, or the word phantom for made-up subjects.")
    ],
    out: OutOption,
    layout: Annotated[
        SourceLayout | None, typer.Option("--layout", help="What SOURCE is, where it is not to be found out.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Folder of the label maps of the CTs in SOURCE.", file_okay=False)
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Name of a value in the label maps of --labels, NAME=VALUE; repeatable."),
    ] = None,
    subjects: Annotated[
        str | None,
        typer.Option("--subjects", help="Whose scans: a pattern whose group is the subject, or a CSV of file,subject."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="CSV file, outside --out, that says which case is whose scan.", dir_okay=False),
    ] = None,
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="Leave out scans that cannot be converted, and say which.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that convert or draw cases.")] = 1,
    kind: Annotated[
        PhantomKind | None,
        typer.Option(
            "--kind",
            help="phantom only: coronary CTA (the default), abdomen, or five: both in turn, the abdomen small.",
        ),
    ] = None,
    cases: Annotated[
        int | None, typer.Option("--cases", min=1, help="phantom only: made-up subjects, 36 by default.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="phantom only: seed of the subjects, 0 by default.")
    ] = None,
    noise: Annotated[
        bool | None, typer.Option("--noise/--no-noise", help="phantom only: the scanner's noise, there by default.")
    ] = None,
) -> None:
    """Turn scans into a dataset folder: DICOM, Decathlon, KiTS, AbdomenAtlas, nnU-Net, folders of images, or a phantom.

    Patient identity stays behind. Run again, it goes on where it stopped.

    [bold]Examples[/bold]

    promptlesion prepare /archive/ct-export --out data/mine --key mine-key.csv

    promptlesion prepare Task03_Liver --out data/liver --workers 4

    promptlesion prepare scans/ct --labels scans/masks --label liver=1 --label liver_tumor=2 --out data/mine

    promptlesion prepare phantom --kind abdomen --cases 20 --seed 1 --out data/abdomen
    """
    is_phantom = source == "phantom"
    of_phantoms: dict[str, object] = {"--kind": kind, "--cases": cases, "--seed": seed, "--noise": noise}
    of_folders: dict[str, object] = {"--layout": layout, "--labels": labels, "--label": label, "--key": key}
    of_folders["--subjects"] = subjects
    of_folders["--skip-refused"] = skip_refused or None
    for option, value in (of_folders if is_phantom else of_phantoms).items():
        if value is not None:
            expected = "a folder of scans" if is_phantom else "the source phantom"
            hint = "; a folder of that name is ./phantom" if is_phantom else ""
            raise ValueError(f"{option}: expected with {expected} alone; found it with the source {source}{hint}")
    if is_phantom:
        _prepare_phantom(
            out=out,
            kind=kind or PhantomKind.CCTA,
            num_cases=36 if cases is None else cases,
            seed=seed or 0,
            workers=workers,
            is_noisy=noise is not False,
        )
    else:
        _prepare_folder(
            Path(source),
            out=out,
            layout=layout,
            label_folder=labels,
            names=label or [],
            subjects=subjects,
            key=key,
            skips_refused=skip_refused,
            workers=workers,
        )


def _prepare_phantom(*, out: Path, kind: PhantomKind, num_cases: int, seed: int, workers: int, is_noisy: bool) -> None:
    from promptlesion.data.phantom import write_phantom_dataset
    from promptlesion.training.progress import progress_bar

    with progress_bar("phantom", num_cases) as bar:
        write_phantom_dataset(
            kind.value,
            num_cases=num_cases,
            seed=seed,
            out=out,
            num_workers=workers,
            is_noisy=is_noisy,
            on_progress=lambda done, _: bar.update(done),
        )
    say(f"{num_cases} {kind.value} cases in {out}")


def _prepare_folder(
    folder: Path,
    *,
    out: Path,
    layout: SourceLayout | None,
    label_folder: Path | None,
    names: list[str],
    subjects: str | None,
    key: Path | None,
    skips_refused: bool,
    workers: int,
) -> None:
    from promptlesion.data.sources import Layout, open_source, parse_label_names, report_path, write_source
    from promptlesion.training.progress import progress_reports

    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"--out {out}: expected a folder outside {folder}, found one inside it")
    if folder.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"--out {out}: expected a folder of its own, to be given away, found {folder} inside it")
    with progress_reports("looking at files") as report:
        source = open_source(
            folder,
            layout=Layout(layout.value) if layout else None,
            label_folder=label_folder,
            names=parse_label_names(names),
            subjects=subjects,
            on_progress=report,
        )
    for note in (f"{folder}: {len(source.cases)} cases, layout {source.layout}", *source.notes):
        say(note)
    with progress_reports("converting") as report:
        conversion = write_source(
            source, out, key=key, num_workers=workers, skips_refused=skips_refused, on_progress=report
        )
    for note in (*conversion.notes, *(f"left out: {reason}" for reason in conversion.refused)):
        say(note)
    num_cases = conversion.num_written + conversion.num_kept
    if not conversion.num_written:
        say(f"{out} holds all {num_cases} cases; there is nothing to do.")
        return
    say(f"{num_cases} cases in {out}, labels: {', '.join(source.labels)}")
    say(f"What was kept, joined, assumed and left out, a line each: {report_path(out)}")
    say(f"Next: promptlesion check {out}")


@app.command()
def check(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder: nnU-Net v2 raw; lesions.toml may be missing.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the report; by default DATASET/check.", file_okay=False),
    ] = None,
    lesions: LesionsOption = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that read cases.")] = 1,
    device: DeviceOption = "auto",
    preset: PresetOption = "default",
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Say what is wrong with a dataset, and what training on it will cost; exit code 1 if it would spoil a run.

    Writes check.html, check.json, and a lesions.toml to start from where there is none.

    [bold]Examples[/bold]

    promptlesion check data/liver --workers 4

    promptlesion check data/liver --preset demo --out runs/liver/check
    """
    from promptlesion.check.dataset_check import check_dataset
    from promptlesion.check.report import write_check
    from promptlesion.config import resolve_config
    from promptlesion.training.progress import progress_reports

    resolved = resolve_config(preset=preset, file=config, settings=settings or ())
    with progress_reports("checking") as on_progress:
        checked = check_dataset(
            dataset,
            out=out,
            lesions=lesions,
            config=resolved,
            device=device,
            num_workers=workers,
            on_progress=on_progress,
        )
    print_check(checked, write_check(checked))
    if checked.would_spoil_a_run:
        raise typer.Exit(UNFINISHED)


@train_app.command("autoencoder")
def train_autoencoder_verb(
    data: DataOption,
    out: OutOption,
    lesions: LesionsOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    preset: PresetOption = "default",
    config: ConfigOption = None,
    settings: SetOption = None,
    cache: CacheOption = None,
) -> None:
    """Stage 1: the VQGAN, on patches of the training subjects.

    [bold]Example[/bold]

    promptlesion train autoencoder --data data/ccta --preset demo --out runs/mine/autoencoder

    torchrun --nproc-per-node 4 -m promptlesion train autoencoder --data data/abdomen --out runs/paper/autoencoder
    """
    from promptlesion.autoencoder.train import train_autoencoder
    from promptlesion.check.fitting import fitted_config
    from promptlesion.config import resolve_config
    from promptlesion.data.prepared import prepare_dataset

    resolved = resolve_config(preset=preset, file=config, settings=settings or ())
    with _processes(device) as own_device:
        prepared = prepare_dataset(data, cache=_cache(cache, out), lesions=lesions, **resolved.data.split_options())
        resolved = fitted_config(resolved, "autoencoder", prepared.dataset, out=out, device=own_device)
        run = train_autoencoder(
            train_cases=prepared.train,
            validation_cases=prepared.validation,
            spec=prepared.dataset.spec,
            config=resolved.autoencoder,
            out=out,
            seed=seed,
            device=own_device,
            hardware=resolved.hardware,
        )
        _say_finished(out, run.seconds)


@train_app.command("diffusion")
def train_diffusion_verb(
    data: DataOption,
    out: OutOption,
    method: Annotated[
        Method, typer.Option("--method", help="The paper's, or one it is compared with.")
    ] = Method.PROMPTLESION,
    autoencoder: Annotated[
        Path | None,
        typer.Option(
            "--autoencoder",
            help="Finished run of stage 1; med-ddpm, copy-paste and intensity have none.",
            file_okay=False,
        ),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="difftumor only: train the model of this lesion type; repeatable, all by default."),
    ] = None,
    lesions: LesionsOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    preset: PresetOption = "default",
    config: ConfigOption = None,
    settings: SetOption = None,
    cache: CacheOption = None,
) -> None:
    """Stage 2: the denoiser, on the lesions of the training subjects; the paper's, or that of another method.

    [bold]Examples[/bold]

    promptlesion train diffusion --data data/ccta --preset demo
    --autoencoder runs/mine/autoencoder --out runs/mine/diffusion

    promptlesion train diffusion --method difftumor --data data/ccta --preset demo
    --autoencoder runs/mine/autoencoder --out runs/mine/difftumor

    promptlesion train diffusion --method med-ddpm --data data/ccta --preset demo --out runs/mine/med-ddpm

    promptlesion train diffusion --method copy-paste --data data/ccta --preset demo --out runs/mine/copy-paste
    """
    from promptlesion.check.fitting import fitted_config
    from promptlesion.config import resolve_config
    from promptlesion.data.prepared import prepare_dataset
    from promptlesion.methods import check_autoencoder, train_method

    resolved = resolve_config(preset=preset, file=config, settings=settings or ())
    if types and method is not Method.DIFFTUMOR:
        raise ValueError(f"--type: expected with --method difftumor alone; found {method.value}")
    check_autoencoder(method.value, autoencoder)
    with _processes(device) as own_device:
        prepared = prepare_dataset(data, cache=_cache(cache, out), lesions=lesions, **resolved.data.split_options())
        run = train_method(
            method.value,
            prepared,
            autoencoder_run=autoencoder,
            config=fitted_config(resolved, method.value, prepared.dataset, out=out, device=own_device),
            out=out,
            seed=seed,
            device=own_device,
            types=types or (),
        )
        if run.is_finished:
            _say_finished(out, run.seconds)
        else:
            say(f"{out}: {', '.join(types or ())} trained; the models of other lesion types are not there yet.")


@train_app.command("segmentation")
def train_segmentation_verb(
    data: DataOption,
    out: OutOption,
    synthetic: Annotated[
        Path | None,
        typer.Option("--synthetic", help="Dataset folder that `synthesize` wrote; mixed in.", file_okay=False),
    ] = None,
    network: Annotated[
        Network | None,
        typer.Option(
            "--network",
            help="MONAI's 3-D U-Net, nnU-Net's architecture, or nnU-Net v2 itself; as --set segmentation.network does.",
        ),
    ] = None,
    lesions: LesionsOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    preset: PresetOption = "default",
    config: ConfigOption = None,
    settings: SetOption = None,
    cache: CacheOption = None,
) -> None:
    """Stage 3: the segmentation network, on real scans or on real and synthetic ones.

    [bold]Example[/bold]

    promptlesion train segmentation --data data/ccta --synthetic data/ccta-synthetic --preset demo --out runs/mine/mixed

    promptlesion train segmentation --data data/ccta --network dynunet --out runs/mine/real-dynunet

    torchrun --nproc-per-node 4 -m promptlesion train segmentation --data data/ccta --out runs/paper/real
    """
    from promptlesion.check.fitting import fitted_config
    from promptlesion.config import resolve_config
    from promptlesion.data.dataset import open_dataset
    from promptlesion.data.prepared import prepare_dataset
    from promptlesion.segmentation.stage import train_stage

    chosen = [f"segmentation.network={network.value}"] if network else []
    resolved = resolve_config(preset=preset, file=config, settings=[*(settings or ()), *chosen])
    cache = _cache(cache, out)
    with _processes(device) as own_device:
        prepared = prepare_dataset(data, cache=cache, lesions=lesions, **resolved.data.split_options())
        resolved = fitted_config(resolved, "segmentation", prepared.dataset, out=out, device=own_device)
        run = train_stage(
            prepared,
            synthetic=open_dataset(synthetic) if synthetic else None,
            cache=cache,
            config=resolved.segmentation,
            out=out,
            seed=seed,
            device=own_device,
            hardware=resolved.hardware,
        )
        _say_finished(out, run.seconds)


@app.command()
def synthesize(
    data: DataOption,
    model: Annotated[
        Path,
        typer.Option("--model", help="Finished diffusion run; it names its autoencoder.", file_okay=False),
    ],
    out: OutOption,
    count: Annotated[list[str], typer.Option("--count", help="Lesions to paint, TYPE=N; repeatable.")],
    method: Annotated[
        Method | None, typer.Option("--method", help="Refuse a run of another method; the run knows its own.")
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shapes", help="Masks to draw a type's shapes from, TYPE=PATH or TYPE=PATH:LABEL, NIfTI folder or .npz."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes on this machine; by default one a core, or one on a GPU."),
    ] = None,
    accept_all: Annotated[
        bool, typer.Option("--accept-all", help="No quality filter; what it measures is recorded all the same.")
    ] = False,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Also a DICOM series and segmentation of every case, in OUT/dicom.")
    ] = False,
    lesions: LesionsOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    preset: PresetOption = "default",
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Paint lesions into the scans of the training subjects and write them as a dataset folder.

    The folder is the same however many processes share the work; under torchrun, in a Slurm array or under srun each
    takes its share of the cases. Stopped at any time, the same command goes on.

    [bold]Examples[/bold]

    promptlesion synthesize --data data/ccta --model runs/mine/diffusion --preset demo
    --count calcified_plaque=20 --count non_calcified_plaque=20 --out data/ccta-synthetic

    promptlesion synthesize --data data/liver --model runs/liver/diffusion --count liver_tumor=500 --workers 8
    --shapes liver_tumor=Task03_Liver/labelsTr:2 --dicom --out data/liver-synthetic

    sbatch --array=0-15 --wrap "promptlesion synthesize --data data/liver --model runs/liver/diffusion
    --count liver_tumor=5000 --out data/liver-synthetic"

    torchrun --nproc-per-node 4 -m promptlesion synthesize --data data/liver --model runs/liver/diffusion
    --count liver_tumor=5000 --out data/liver-synthetic
    """
    from functools import partial

    from promptlesion.data.processes import start_importing

    if workers is not None and workers > 1:
        start_importing()
    from promptlesion.config import resolve_config
    from promptlesion.data.dataset import open_dataset
    from promptlesion.evaluation.contact_sheet import contact_sheet
    from promptlesion.methods import load_method
    from promptlesion.synthesis.cohort import synthesize_cohort
    from promptlesion.synthesis.dicom_export import check_dicom_extra
    from promptlesion.synthesis.plan import parse_counts, source_scans
    from promptlesion.synthesis.shape_bank import parse_shapes
    from promptlesion.synthesis.share import own_share
    from promptlesion.synthesis.workers import process_device

    resolved = resolve_config(preset=preset, file=config, settings=settings or ())
    synthesis = resolved.synthesis.model_copy(update={"accept_all": resolved.synthesis.accept_all or accept_all})
    counts, sources, share = parse_counts(count), parse_shapes(shapes or ()), own_share()
    if dicom:
        check_dicom_extra()
    load = partial(load_method, model, synthesis, asked=method.value if method else None, hardware=resolved.hardware)
    synthesizer = load(process_device(device))
    dataset = open_dataset(data, lesions)
    sheet = out / "contact_sheet.png"
    run = synthesize_cohort(
        source_scans(dataset, synthesizer, **resolved.data.split_options()),
        synthesizer,
        counts=counts,
        config=synthesis,
        out=out,
        seed=seed,
        shapes=sources,
        is_dicom=dicom,
        share=share,
        load=load,
        num_workers=workers,
        on_complete=lambda: contact_sheet(dataset, open_dataset(out), sheet),
    )
    if run.is_finished:
        _say_finished(out, run.seconds)
        say(f"Look at {sheet} before training on it.")


@app.command()
def segment(
    model: Annotated[Path, typer.Option("--model", help="Finished segmentation run.", file_okay=False)],
    data: DataOption,
    out: OutOption,
    part: Annotated[
        ChosenPart,
        typer.Option("--part", help="test: only subjects that the network was neither trained nor selected on."),
    ] = ChosenPart.ALL,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Mean over the mirror images of every window: eight times the work.")
    ] = False,
    lesions: LesionsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Write a label map for every scan of a dataset folder, on the scan's own grid.

    [bold]Examples[/bold]

    promptlesion segment --model runs/mine/mixed --data data/new --out runs/mine/new

    promptlesion segment --model runs/mine/mixed --data data/ccta --part test --out runs/mine/predictions
    """
    from promptlesion.data.dataset import open_dataset
    from promptlesion.segmentation.predict import seen_cases, segment_dataset
    from promptlesion.training.progress import progress_bar

    dataset = open_dataset(data, lesions)
    seen = seen_cases(model, dataset)
    if part is ChosenPart.TEST:
        unseen = [case.name for case in dataset.cases if case.name not in seen]
        if not unseen:
            raise ValueError(f"{data}: expected subjects that {model} was not trained or selected on; found none")
        dataset = dataset.select(unseen)
    elif seen:
        logger.warning(
            "%s: the network was trained or selected on the subjects of %d of the %d cases; measured on them it looks "
            "better than it is. --part test leaves them out",
            data,
            len(seen),
            len(dataset.cases),
        )
    with progress_bar("segmenting", len(dataset.cases)) as bar:
        segment_dataset(
            model,
            dataset,
            out,
            device=device,
            is_mirrored=mirror,
            on_progress=lambda done, _: bar.update(done),
        )
    say(f"{len(dataset.cases)} label maps in {out}")


@evaluate_app.command("reconstruction")
def evaluate_reconstruction(
    data: Annotated[
        list[Path], typer.Option("--data", help="Dataset folder; repeatable, a row each.", file_okay=False)
    ],
    model: Annotated[
        list[Path], typer.Option("--model", help="Finished run of stage 1; repeatable, side by side.", file_okay=False)
    ],
    lesions: Annotated[
        list[Path] | None,
        typer.Option("--lesions", help="A lesions.toml elsewhere; once for every --data, in order.", dir_okay=False),
    ] = None,
    part: Annotated[
        ChosenPart,
        typer.Option("--part", help="test: subjects no stage trained on, all where the dataset is new."),
    ] = ChosenPart.TEST,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file for every figure.", dir_okay=False)] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="PNG of three cases of every dataset.", dir_okay=False)
    ] = None,
    tile_voxels: Annotated[
        int, typer.Option("--tile-voxels", min=1, help="Edge of what is decoded at once; less takes less memory.")
    ] = 96,
    device: DeviceOption = "auto",
    preset: PresetOption = "default",
    config: ConfigOption = None,
    settings: SetOption = None,
    cache: CacheOption = None,
) -> None:
    """Error in HU, PSNR, SSIM, edges and finest detail of an autoencoder, against trilinear sampling by its factor.

    [bold]Examples[/bold]

    promptlesion evaluate reconstruction --data data/ccta --model runs/mine/autoencoder --out reconstruction.json

    promptlesion evaluate reconstruction --data data/ccta --model runs/mine/autoencoder --model runs/plain/autoencoder
    --figure side-by-side.png
    """
    from promptlesion.autoencoder.autoencoder import check_dataset, load_autoencoder
    from promptlesion.autoencoder.reconstruct import reconstruct_cases, unseen_cases
    from promptlesion.config import resolve_config
    from promptlesion.data.dataset import open_dataset
    from promptlesion.data.prepared import cached_cases
    from promptlesion.evaluation.reconstruction import reconstruction_row
    from promptlesion.training.atomic import write_json
    from promptlesion.training.device import resolve_device
    from promptlesion.training.progress import progress_bar

    resolved = resolve_config(preset=preset, file=config, settings=settings or ())
    if lesions and len(lesions) != len(data):
        raise ValueError(f"--lesions: expected one for each of the {len(data)} --data, or none; found {len(lesions)}")
    torch_device = resolve_device(device)
    trained = [load_autoencoder(run, torch_device) for run in model]
    rows = []
    for index, root in enumerate(data):
        dataset = open_dataset(root, lesions[index] if lesions else None)
        for run, autoencoder in zip(model, trained, strict=True):
            check_dataset(autoencoder, dataset.spec, run_folder=run)
        if part is ChosenPart.TEST:
            dataset = dataset.select(unseen_cases(trained, dataset, **resolved.data.split_options()))
        cases = cached_cases(dataset, _cache(cache, model[0]))
        for run, autoencoder in zip(model, trained, strict=True):
            with progress_bar(f"reconstructing {root.name}", len(cases)) as bar:
                row = reconstruction_row(
                    reconstruct_cases(
                        autoencoder,
                        cases,
                        tile_voxels=tile_voxels,
                        device=torch_device,
                        on_progress=lambda done, _: bar.update(done),
                    ),
                    dataset=str(root),
                    model=str(run),
                    downsampling=autoencoder.config.downsampling,
                    window_hu=dataset.spec.window_hu,
                    spacing_mm=dataset.spec.spacing_mm,
                )
            rows.append(row)
    if out:
        write_json(out, {"part": part.value, "reconstruction": [row.as_json() for row in rows]})
    if figure:
        from promptlesion.evaluation.figures import save_figure
        from promptlesion.evaluation.reconstruction_figure import reconstruction_figure

        save_figure(reconstruction_figure(rows), figure)
    print_reconstruction(rows)


@evaluate_app.command("segmentation")
def evaluate_segmentation(
    data: DataOption,
    predictions: Annotated[
        list[str],
        typer.Option(
            "--predictions",
            help="FOLDER that `segment` wrote, or NAME=FOLDER to compare; repeatable, one NAME again for another seed.",
            metavar="[NAME=]FOLDER",
        ),
    ],
    reference: Annotated[
        str | None, typer.Option("--reference", help="NAME the others are compared with; the first unless said.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file for every figure.", dir_okay=False)] = None,
    part: Annotated[
        ChosenPart, typer.Option("--part", help="Cases to score; test: those of the split's held-out subjects alone.")
    ] = ChosenPart.ALL,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing", help="Exit with 0 though cases have no label map; they are named all the same."
        ),
    ] = False,
    lesions: LesionsOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the intervals and tests.")] = 0,
    preset: PresetOption = "default",
    config: ConfigOption = None,
    settings: SetOption = None,
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
    from dataclasses import asdict

    from promptlesion.config import resolve_config
    from promptlesion.data.dataset import open_dataset
    from promptlesion.data.splits import dataset_split
    from promptlesion.evaluation.method_comparison import method_rows
    from promptlesion.evaluation.prediction_folders import cases_without, parse_predictions, score_folders
    from promptlesion.training.atomic import write_json

    resolved = resolve_config(preset=preset, file=config, settings=settings or ())
    folders = parse_predictions(predictions)
    reference = reference or next(iter(folders))
    if reference not in folders:
        raise ValueError(f"--reference {reference}: expected a name of --predictions, {', '.join(folders)}")
    tolerance_mm = resolved.evaluation.surface_tolerance_mm
    dataset = open_dataset(data, lesions)
    if part is ChosenPart.TEST:
        dataset = dataset.select(dataset_split(dataset, **resolved.data.split_options()).test)
    scores = score_folders(dataset, folders, tolerance_mm=tolerance_mm)
    missing = cases_without(dataset, folders)
    rows = method_rows(scores, reference=reference, seed=seed, num_resamples=resolved.evaluation.num_resamples)
    if out:
        raw = [
            {"method": name, "folder": str(folder), **asdict(score)}
            for name, runs in scores.items()
            for folder, run in zip(folders[name], runs, strict=True)
            for score in run
        ]
        table = [row.model_dump(mode="json") for row in rows]
        settings_used = {
            "surface_tolerance_mm": tolerance_mm,
            "reference": reference,
            "cases_without_label_map": missing,
        }
        write_json(out, {**settings_used, "rows": table, "scores": raw})
    if len(folders) == 1 and len(scores[reference]) == 1:
        print_scores(scores[reference][0], tolerance_mm)
    print_methods(rows, tolerance_mm)
    if missing:
        shown = ", ".join(missing[:10]) + (", …" if len(missing) > 10 else "")
        logger.warning(
            "%d of the %d cases have no label map and are not in these figures: %s. Where they were not meant to be "
            "segmented: --part test, or --allow-missing",
            len(missing),
            len(dataset.cases),
            shown,
        )
        if not allow_missing:
            raise typer.Exit(UNFINISHED)


@evaluate_app.command("fidelity")
def evaluate_fidelity(
    real: Annotated[Path, typer.Option("--real", help="Dataset folder with real lesions.", file_okay=False)],
    synthetic: Annotated[
        Path, typer.Option("--synthetic", help="Dataset folder that `synthesize` wrote.", file_okay=False)
    ],
    out: Annotated[Path | None, typer.Option("--out", help="JSON file for every figure.", dir_okay=False)] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="PNG of how HU, texture and size are spread.", dir_okay=False)
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(
            "--training",
            help="Dataset folder the generator was trained on, all of it; by default the training part of --real.",
            file_okay=False,
        ),
    ] = None,
    lesions: LesionsOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the intervals.")] = 0,
    device: DeviceOption = "auto",
    preset: PresetOption = "default",
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Painted lesions against real ones, per type: FID, KID, how HU, texture and size are spread, and copies.

    A copy is a painted lesion whose texture is a training lesion's; each is named.

    [bold]Examples[/bold]

    promptlesion evaluate fidelity --real data/ccta --synthetic data/ccta-synthetic --out runs/mine/fidelity.json

    promptlesion evaluate fidelity --real data/ccta --synthetic data/ccta-synthetic --figure distributions.png
    --set 'evaluation.extractors=["imagenet", "medicalnet"]' --set evaluation.medicalnet_weights=resnet_50.pth
    """
    from promptlesion.config import resolve_config
    from promptlesion.data.dataset import open_dataset
    from promptlesion.evaluation.extractors import build_extractors
    from promptlesion.evaluation.fidelity import measure_fidelity, training_cases
    from promptlesion.evaluation.lesions import by_type, collect_lesions
    from promptlesion.training.atomic import write_json
    from promptlesion.training.device import resolve_device
    from promptlesion.training.progress import progress_reports

    resolved = resolve_config(preset=preset, file=config, settings=settings or ())
    dataset = open_dataset(real, lesions)
    painted = open_dataset(synthetic)
    extractors = build_extractors(
        resolved.evaluation.extractors,
        window=dataset.window,
        weights=resolved.evaluation.weights,
        device=resolve_device(device),
    )
    margin = resolved.evaluation.feature_margin_voxels
    with progress_reports("cutting lesions out") as report:
        real_lesions = collect_lesions(dataset, margin_voxels=margin, on_progress=report)
    painted_lesions = collect_lesions(painted, source=dataset, margin_voxels=margin)
    seen = training_cases(dataset, painted, **resolved.data.split_options())
    if training is None:
        training_lesions = [lesion for lesion in real_lesions if lesion.case in seen]
    else:
        training_lesions = collect_lesions(open_dataset(training, lesions))
    with progress_reports("searching for copies") as report:
        measured = measure_fidelity(
            real_lesions,
            painted_lesions,
            training_lesions,
            lesion_types=dataset.spec.lesions,
            extractors=extractors,
            seed=seed,
            on_progress=report,
        )
    if not measured.fidelity:
        raise ValueError(f"{synthetic}: expected painted lesions of a type that {real} has; found none")
    if out:
        write_json(out, measured.model_dump(mode="json"))
    if figure:
        from promptlesion.evaluation.distributions import distribution_figure
        from promptlesion.evaluation.fidelity import plaque_types
        from promptlesion.evaluation.figures import save_figure

        names = [lesion.name for lesion in dataset.spec.lesions]
        sides = by_type(real_lesions, names), {"synthetic": by_type(painted_lesions, names)}
        save_figure(distribution_figure(*sides, plaque_types=plaque_types(dataset.spec.lesions)), figure)
    print_fidelity(measured.fidelity)
    print_distributions(measured.distributions)
    if measured.memorisation is not None:
        print_memorisation(measured.memorisation)


@app.command()
def experiment(
    data: DataOption,
    out: OutOption = Path("runs/experiment"),
    methods: Annotated[
        str, typer.Option("--methods", help="What to compare, with commas; real is training on real scans alone.")
    ] = "real,copy-paste,intensity,difftumor,med-ddpm,promptlesion-onehot,promptlesion-transformer",
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Trainings of each segmentation network, each with its own cohort.")
    ] = 3,
    ratios: Annotated[
        str, typer.Option("--ratios", help="Synthetic scans per real one, with commas: 0,0.5,1,2,4.")
    ] = "1",
    real_fractions: Annotated[
        str, typer.Option("--real-fractions", help="Shares of the real training subjects, with commas: 0.1,0.25,0.5,1.")
    ] = "1",
    lesions_per_type: Annotated[
        int | None,
        typer.Option(
            "--lesions-per-type",
            min=1,
            help="Lesions of each type to paint into a cohort. By default as many as the real scans have; with few of "
            "these ask for more: patches are drawn at --ratios however many there are.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option("--workers", min=1, help="Pieces of work at a time; on a CPU several small ones are faster."),
    ] = 1,
    report_only: Annotated[
        bool,
        typer.Option("--report-only", help="Do no work: report on what is done so far, also while others work on OUT."),
    ] = False,
    lesions: LesionsOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    preset: PresetOption = "demo",
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Does it help? Real scans alone against every method, on held-out subjects: tables, figures, report.html.

    Trains what is missing, paints, trains a segmentation network for each method, ratio and seed, and tests all of them
    on the same held-out subjects. What fails is named, and the rest goes on; what is done is never redone. The same
    command on several machines that share OUT divides the work.

    [bold]Examples[/bold]

    promptlesion experiment --data data/liver --out runs/liver-experiment --workers 2

    promptlesion experiment --data data/liver --out runs/liver-experiment
    --methods real,copy-paste,promptlesion-transformer --ratios 0,0.5,1,2,4 --real-fractions 0.1,0.25,0.5,1

    sbatch --array=0-7 --gres=gpu:1 --wrap "promptlesion experiment --data data/liver --out runs/liver-experiment
    --preset paper"
    """
    from promptlesion.config import resolve_config
    from promptlesion.experiment.asked import ask
    from promptlesion.experiment.run import run_experiment
    from promptlesion.experiment.work import Experiment

    resolved = resolve_config(preset=preset, file=config, settings=settings or ())
    planned = Experiment(data, lesions, out, resolved, seed, device, lesions_per_type)
    asked = ask(planned, methods=methods, num_seeds=seeds, ratios=ratios, real_fractions=real_fractions)
    results, failures = run_experiment(
        planned, asked, command=_command(), num_workers=workers, is_report_only=report_only
    )
    print_experiment(results)
    if report_only and results.unfinished:
        say(f"{len(results.unfinished)} pieces of work are not done yet.")
    say(f"Report: {out / 'report.html'}")
    if failures:
        for name, reason in failures.items():
            sys.stderr.write(f"{name}: {reason}\n")
        raise typer.Exit(UNFINISHED)


@config_app.command("show")
def config_show(
    preset: PresetOption = "default",
    config: ConfigOption = None,
    settings: SetOption = None,
    parameters: Annotated[
        bool,
        typer.Option("--parameters", help="Instead: the parameters of every network, as for the paper's five types."),
    ] = False,
) -> None:
    """Print every setting with its value and meaning, as a TOML file that --config reads.

    [bold]Examples[/bold]

    promptlesion config show --preset demo --set diffusion.num_steps=2000 > mine.toml

    promptlesion config show --preset paper --parameters
    """
    from promptlesion.config import as_toml, resolve_config

    resolved = resolve_config(preset=preset, file=config, settings=settings or ())
    if parameters:
        from promptlesion.parameters import count_parameters

        print_parameters(count_parameters(resolved))
    else:
        sys.stdout.write(as_toml(resolved))


@config_app.command("check")
def config_check(preset: PresetOption = "default", config: ConfigOption = None, settings: SetOption = None) -> None:
    """Say whether a configuration is valid, and if not, why.

    [bold]Example[/bold]

    promptlesion config check --config mine.toml
    """
    from promptlesion.config import resolve_config

    resolve_config(preset=preset, file=config, settings=settings or ())
    say("The configuration is valid.")


def main() -> None:
    """Run the command line: exit 0 when it ended well, 2 for bad input, 1 for work that could not be finished."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False, show_time=False)],
    )
    logging.getLogger("promptlesion").setLevel(logging.INFO)
    EMOJI.clear()  # else rich draws pictures for `:label:` and the like in help texts, names and paths
    try:
        app()
    except ValueError as error:
        _fail(str(error), BAD_INPUT)
    except (OSError, RuntimeError) as error:
        _fail(f"{type(error).__name__}: {error}", UNFINISHED)
    except MemoryError as error:
        _fail(f"Out of memory. {error}\nWhat is finished stays; the same command goes on from there.", UNFINISHED)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            _fail("Interrupted. The same command goes on where it stopped.", UNFINISHED)
        raise


def _fail(message: str, code: int) -> None:
    rank = os.environ.get("RANK", "0")  # of several processes, any may be the one that fails
    sys.stderr.write(("" if rank == "0" else f"process {rank}: ") + message.rstrip() + "\n")
    sys.exit(code)


def _say_finished(out: Path, seconds: float) -> None:
    say(f"{out} is finished ({seconds:.0f} s of work); run again, there is nothing to do.")


@contextmanager
def _processes(device: str) -> Iterator[str]:
    """Join the processes torchrun started, if it did; only the main one speaks."""
    from promptlesion.training.launch import is_main_process, processes

    with processes(device) as own_device:
        if not is_main_process():
            console.quiet = True
            logging.disable(logging.WARNING)
        yield own_device


def _cache(chosen: Path | None, out: Path) -> Path:
    return chosen or out.parent / "cache"


def _command() -> str:
    return " ".join(["promptlesion", *sys.argv[1:]])
