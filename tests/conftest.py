"""What every test run shares: no network, and a tiny dataset to train on."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from promptlesion.autoencoder.config import AutoencoderConfig
    from promptlesion.config import Config
    from promptlesion.data.cache import CachedCase
    from promptlesion.data.dataset import Dataset
    from promptlesion.data.spec import DatasetSpec
    from promptlesion.diffusion.config import DiffusionConfig

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# processes that a test starts find its functions by `tests.folder.test_file`
sys.path.append(str(Path(__file__).parents[1]))


@pytest.fixture(scope="session")
def tiny_spec() -> "DatasetSpec":
    """A bright and a dark lesion type in one organ."""
    from promptlesion.data.spec import DatasetSpec, LesionType

    return DatasetSpec(
        window_hu=(-200.0, 800.0),
        spacing_mm=(1.0, 1.0, 1.5),
        lesions=(
            LesionType(name="bright", label=2, host=("organ",), diameter_mm=(3.0, 8.0), hu=(400.0, 700.0)),
            LesionType(name="dark", label=3, host=("organ",), diameter_mm=(3.0, 8.0), hu=(-100.0, 50.0)),
        ),
    )


@pytest.fixture(scope="session")
def tiny_labels() -> dict[str, int]:
    """The labels of the tiny dataset."""
    return {"background": 0, "organ": 1, "bright": 2, "dark": 3}


@pytest.fixture(scope="session")
def tiny_data(
    tmp_path_factory: pytest.TempPathFactory, tiny_spec: "DatasetSpec", tiny_labels: dict[str, int]
) -> "Dataset":
    """Four cases with a ball of either lesion type in a noisy organ; sides 30, 26, 34."""
    import numpy as np

    from promptlesion.data.dataset import open_dataset, write_case, write_dataset_json, write_spec
    from promptlesion.data.volume import Volume

    root = tmp_path_factory.mktemp("tiny")
    affine = np.diag([*tiny_spec.spacing_mm, 1.0])
    for index in range(4):
        generator = np.random.default_rng(index)
        labels = np.zeros((30, 26, 34), dtype=np.uint8)
        labels[3:27, 3:23, 3:31] = 1
        for label, z in ((2, 10), (3, 23)):
            center = generator.integers((9, 9, z - 2), (21, 17, z + 3))
            distance = np.linalg.norm(np.indices(labels.shape).T - center, axis=-1).T
            labels[distance <= generator.uniform(1.5, 3.5)] = label
        image = np.array([-100, 150, 550, 0])[labels] + generator.normal(0, 20, labels.shape)
        write_case(root / "data", f"tiny_{index}", Volume(image.astype(np.int16), affine), Volume(labels, affine))
    write_dataset_json(root / "data", labels=tiny_labels, num_training=4, extra={})
    write_spec(tiny_spec, root / "data" / "lesions.toml")
    return open_dataset(root / "data")


@pytest.fixture(scope="session")
def tiny_cases(tiny_data: "Dataset") -> "list[CachedCase]":
    """The four cases of the tiny dataset, prepared for training."""
    from promptlesion.data.cache import build_cache

    return build_cache(tiny_data, tiny_data.root.parent / "cache")


@pytest.fixture(scope="session")
def tiny_autoencoder_config() -> "AutoencoderConfig":
    """Twenty steps; the codebook comes in at the fifth, the discriminators at the ninth."""
    from promptlesion.autoencoder.config import AutoencoderConfig

    return AutoencoderConfig(
        patch_voxels=24,
        widths=(4, 8, 8),
        latent_channels=4,
        codebook_size=64,
        slices_per_axis=1,
        quantizer_start_epoch=1,
        adversarial_start_epoch=2,
        discriminator_channels=4,
        discriminator_layers=1,
        num_epochs=5,
        steps_per_epoch=4,
        batch_size=2,
        learning_rate_decay="cosine",
        precision="float32",
        checkpoint_every_steps=3,
    )


@pytest.fixture(scope="session")
def tiny_autoencoder_run(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_cases: "list[CachedCase]",
    tiny_spec: "DatasetSpec",
    tiny_labels: dict[str, int],
    tiny_autoencoder_config: "AutoencoderConfig",
) -> Path:
    """A finished run of stage 1, trained without a break."""
    from promptlesion.autoencoder.train import train_autoencoder
    from promptlesion.data.training_data import TrainingData
    from promptlesion.training.run import RunOptions

    out = tmp_path_factory.mktemp("runs") / "autoencoder"
    train_autoencoder(
        TrainingData(tiny_cases[:3], tiny_spec, tiny_labels),
        validation_cases=tiny_cases[3:],
        config=tiny_autoencoder_config,
        options=RunOptions(out, 7, "cpu"),
    )
    return out


@pytest.fixture(scope="session")
def tiny_diffusion_config() -> "DiffusionConfig":
    """Forty steps of a network of two resolutions."""
    from promptlesion.diffusion.config import DiffusionConfig

    return DiffusionConfig(
        patch_voxels=24,
        num_levels=20,
        rescale_betas=True,
        prediction="v",
        channels=(8, 8),
        blocks_per_level=1,
        attention_levels=(1,),
        attention_head_channels=8,
        prompt_block="components",
        prompt_components=2,
        patches_per_lesion=3,
        num_steps=40,
        batch_size=2,
        learning_rate_decay="cosine",
        precision="float32",
        checkpoint_every_steps=3,
    )


@pytest.fixture(scope="session")
def tiny_diffusion_run(
    tiny_cases: "list[CachedCase]",
    tiny_spec: "DatasetSpec",
    tiny_labels: dict[str, int],
    tiny_autoencoder_run: Path,
    tiny_diffusion_config: "DiffusionConfig",
) -> Path:
    """A finished run of stage 2 beside its autoencoder, trained without a break."""
    from promptlesion.data.training_data import TrainingData
    from promptlesion.diffusion.train import train_diffusion
    from promptlesion.training.run import RunOptions

    out = tiny_autoencoder_run.parent / "diffusion"
    train_diffusion(
        TrainingData(tiny_cases[:3], tiny_spec, tiny_labels),
        autoencoder_run=tiny_autoencoder_run,
        config=tiny_diffusion_config,
        options=RunOptions(out, 7, "cpu"),
    )
    return out


@pytest.fixture(scope="session")
def tiny_config(tiny_autoencoder_config: "AutoencoderConfig", tiny_diffusion_config: "DiffusionConfig") -> "Config":
    """Every stage, tiny; of the four subjects two train, one validates and one is held out."""
    from promptlesion.config import Config, DataConfig, EvaluationConfig
    from promptlesion.segmentation.config import SegmentationConfig
    from promptlesion.synthesis.config import SynthesisConfig

    return Config(
        data=DataConfig(validation_fraction=0.25, test_fraction=0.25),
        autoencoder=tiny_autoencoder_config,
        diffusion=tiny_diffusion_config,
        synthesis=SynthesisConfig(sampler="ddim", num_steps=2, lesions_per_case=1, accept_all=True),
        segmentation=SegmentationConfig(
            patch_voxels=16,
            channels=(4, 8),
            residual_units=0,
            num_epochs=1,
            steps_per_epoch=2,
            batch_size=2,
            precision="float32",
        ),
        evaluation=EvaluationConfig(num_resamples=100, feature_margin_voxels=4),
    )


@pytest.fixture(scope="session")
def any_hu(tiny_data: "Dataset", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `lesions.toml` elsewhere, to which any brightness is plausible: the models are hardly trained."""
    from promptlesion.data.dataset import write_spec

    spec = tiny_data.spec
    relaxed = [lesion.model_copy(update={"hu": (-1000.0, 3000.0)}) for lesion in spec.lesions]
    path = tmp_path_factory.mktemp("spec") / "lesions.toml"
    write_spec(spec.model_copy(update={"lesions": tuple(relaxed)}), path)
    return path


@pytest.fixture(scope="session")
def start_processes() -> Callable[..., list[ForkServerProcess]]:
    """Start a function in processes of its own; several know of each other as those that torchrun starts do."""
    context = get_context("forkserver")
    context.set_forkserver_preload(
        [
            "promptlesion.autoencoder.train",
            "promptlesion.diffusion.train",
            "promptlesion.segmentation.train",
            "promptlesion.synthesis.cohort",
            "torch._dynamo",
        ]
    )

    def start(function: Callable[[], object], *, num_processes: int) -> list[ForkServerProcess]:
        with socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        ranks = range(num_processes)
        joined = [partial(_join, function, rank, num_processes, port) for rank in ranks]
        started = [context.Process(target=target) for target in (joined if num_processes > 1 else [function])]
        for process in started:
            process.start()
        return started

    return start


def _join(function: Callable[[], object], rank: int, num_processes: int, port: int) -> None:
    from promptlesion.training.launch import processes

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    with processes("cpu"):
        function()


@pytest.fixture(scope="session")
def in_processes(start_processes: Callable[..., list[ForkServerProcess]]) -> Callable[..., None]:
    """Run a function of a test module, or a `partial` of one, to its end in several processes."""

    def run(function: Callable[[], object], *, num_processes: int = 2) -> None:
        started = start_processes(function, num_processes=num_processes)
        for process in started:
            process.join(timeout=120)
        assert [process.exitcode for process in started] == [0] * num_processes

    return run


@pytest.fixture(scope="session")
def kill_in_the_middle(start_processes: Callable[..., list[ForkServerProcess]]) -> Callable[..., None]:
    """Start a training in processes of its own and end them with SIGKILL once it has logged some steps."""

    def run(train: partial[object], *, out: Path, after_steps: int, num_processes: int = 1) -> None:
        started = start_processes(train, num_processes=num_processes)
        metrics, deadline = out / "metrics.jsonl", time.monotonic() + 120
        while not (metrics.is_file() and metrics.read_bytes().count(b"\n") >= after_steps):
            assert all(process.is_alive() for process in started), "the training ended by itself"
            assert time.monotonic() < deadline, "the training did not get going"
            time.sleep(0.001)
        for process in started:
            process.kill()
        for process in started:
            process.join()
        assert [process.exitcode for process in started] == [-9] * num_processes

    return run


NNUNET = ["nnunetv2==2.6.0", "dynamic-network-architectures==0.3.1"]
"""The last that need no torchvision; see CONTRIBUTING.md."""


@pytest.fixture(scope="session")
def nnunet() -> Path:
    """nnU-Net's own virtual environment; made once, then kept in the user's cache. torch is this environment's own."""
    import torch

    cache = Path(os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir())
    folder = cache / f"promptlesion-nnunet-2.6.0-py{sys.version_info.major}.{sys.version_info.minor}"
    made_for, packages = folder / "made-for", str(Path(torch.__file__).parents[1])
    if not made_for.is_file() or made_for.read_text() != packages:
        python = str(folder / "bin" / "python")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        command = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        purelib = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        (Path(purelib.strip()) / "of_the_tests.pth").write_text(packages + "\n")
        constraints = str(Path(__file__).parents[1] / "constraints.txt")
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, *NNUNET], check=True)
        made_for.write_text(packages)
    return folder


@pytest.fixture
def one_and_two_processes(
    in_processes: Callable[..., None], kill_in_the_middle: Callable[..., None], tmp_path: Path
) -> Callable[..., tuple[Path, Path]]:
    """Train in one process and in two; two that are killed and go on must end byte for byte as the unbroken two."""

    def run(train: partial[object], *, killed_after_steps: int) -> tuple[Path, Path]:
        one, two, killed = (tmp_path / name for name in ("one", "two", "killed"))
        train(out=one)
        in_processes(partial(train, out=two))
        kill_in_the_middle(partial(train, out=killed), out=killed, after_steps=killed_after_steps, num_processes=2)
        assert not (killed / "checkpoint").exists()
        in_processes(partial(train, out=killed))
        for name in ("checkpoint/weights.safetensors", "checkpoint/card.json", "metrics.jsonl"):
            assert (killed / name).read_bytes() == (two / name).read_bytes(), name
        return one, two

    return run
