"""Verbs that train one of the three stages."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option, Typer

from promptlesion.cli.console import say_finished
from promptlesion.cli.options import Cache, Data, Device, Lesions, Out, Seed, configured, folder
from promptlesion.methods import METHODS, PROMPTLESION, method_named, trainable_names

if TYPE_CHECKING:
    from promptlesion.config import Config

app = Typer(
    name="train",
    no_args_is_help=True,
    help="Train one of the three stages, or go on with an interrupted run; on several GPUs under torchrun.",
)
_ON_VOXELS = ", ".join(name for name in trainable_names() if not method_named(name).needs_autoencoder)
_ONE_A_TYPE = ", ".join(method.name for method in METHODS if method.is_one_model_a_type)
_AUTOENCODER = f"Finished run of stage 1; there is none for {_ON_VOXELS}."
_TYPE = f"{_ONE_A_TYPE} only: train the model of this lesion type; repeatable, all by default."
_NETWORK = "MONAI's 3-D U-Net, nnU-Net's architecture, or nnU-Net v2 itself; as --set segmentation.network does."


@app.command("autoencoder")
@configured()
def train_autoencoder_verb(
    config: "Config",
    data: Data,
    out: Out,
    lesions: Lesions = None,
    seed: Seed = 0,
    device: Device = "auto",
    cache: Cache = None,
) -> None:
    """Stage 1: the VQGAN, on patches of the training subjects.

    [bold]Example[/bold]

    promptlesion train autoencoder --data data/ccta --preset demo --out runs/mine/autoencoder

    torchrun --nproc-per-node 4 -m promptlesion train autoencoder --data data/abdomen --out runs/paper/autoencoder
    """
    from promptlesion.front.training import train

    say_finished(train("autoencoder", data, out, config=config, lesions=lesions, cache=cache, seed=seed, device=device))


@app.command("diffusion")
@configured()
def train_diffusion_verb(
    config: "Config",
    data: Data,
    out: Out,
    method: Annotated[
        str, Option(help="The paper's, or one it is compared with.", metavar="|".join(trainable_names()))
    ] = PROMPTLESION,
    autoencoder: Annotated[Path | None, folder(_AUTOENCODER)] = None,
    types: Annotated[list[str] | None, Option("--type", help=_TYPE)] = None,
    lesions: Lesions = None,
    seed: Seed = 0,
    device: Device = "auto",
    cache: Cache = None,
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
    from promptlesion.front.training import train

    run = train(
        "diffusion",
        data,
        out,
        method=method,
        autoencoder=autoencoder,
        types=types or (),
        config=config,
        lesions=lesions,
        cache=cache,
        seed=seed,
        device=device,
    )
    say_finished(run, f"{', '.join(types or ())} trained; the models of other lesion types are not there yet.")


@app.command("segmentation")
@configured(network="segmentation.network")
def train_segmentation_verb(
    config: "Config",
    data: Data,
    out: Out,
    synthetic: Annotated[Path | None, folder("Dataset folder that `synthesize` wrote; mixed in.")] = None,
    network: Annotated[Literal["unet", "dynunet", "nnunetv2"] | None, Option(help=_NETWORK)] = None,
    lesions: Lesions = None,
    seed: Seed = 0,
    device: Device = "auto",
    cache: Cache = None,
) -> None:
    """Stage 3: the segmentation network, on real scans or on real and synthetic ones.

    [bold]Example[/bold]

    promptlesion train segmentation --data data/ccta --synthetic data/ccta-synthetic --preset demo --out runs/mine/mixed

    promptlesion train segmentation --data data/ccta --network dynunet --out runs/mine/real-dynunet

    torchrun --nproc-per-node 4 -m promptlesion train segmentation --data data/ccta --out runs/paper/real
    """
    from promptlesion.front.training import train

    say_finished(
        train(
            "segmentation",
            data,
            out,
            synthetic=synthetic,
            config=config,
            lesions=lesions,
            cache=cache,
            seed=seed,
            device=device,
        )
    )
