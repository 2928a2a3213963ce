"""The command line on a pretended CUDA device, with every network tiny, and what `demo` made there."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cuda.pretended_cuda import PretendedCuda, pretended_cuda, why_not

from promptlesion.cli import app
from promptlesion.data.dataset import Dataset

if TYPE_CHECKING:
    from promptlesion.config import Config

Waits = dict[str, Counter[str]]
"""How often each function waits for the device in a training's second step, by the name of its folder."""
Verb = Callable[..., Waits]


@pytest.fixture(scope="session")
def config_file(tiny_config: "Config", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage tiny, in the precision and with the threads that a GPU has; torch.compile cannot be pretended."""
    from promptlesion.baselines.config import DiffTumorConfig, MedDDPMConfig
    from promptlesion.config import DemoConfig, as_toml
    from promptlesion.training.hardware import HardwareConfig

    small = {"channels": (8, 8), "attention_levels": (1,), "attention_head_channels": 8, "blocks_per_level": 1}
    short = {"num_levels": 20, "num_steps": 2, "batch_size": 2}
    # codebook and discriminators come in at the second of two steps
    epochs = {"steps_per_epoch": 1, "quantizer_start_epoch": 1, "adversarial_start_epoch": 1, "num_epochs": 2}
    first = {**epochs, "precision": "auto", "perceptual_weight": 0.0}
    changed = {
        "autoencoder": tiny_config.autoencoder.model_copy(update=first),
        "diffusion": tiny_config.diffusion.model_copy(
            update={"num_steps": 2, "patches_per_lesion": 1, "precision": "auto"}
        ),
        "difftumor": DiffTumorConfig(patch_voxels=16, patches_per_lesion=1, **small, **short),
        "med_ddpm": MedDDPMConfig(patch_voxels=16, **small, **short),
        "segmentation": tiny_config.segmentation.model_copy(update={"steps_per_epoch": 3, "precision": "auto"}),
        "demo": DemoConfig(synthetic_cases=2, prompt_switch_lesions=2),
        "hardware": HardwareConfig(compile="off"),
    }
    path = tmp_path_factory.mktemp("cuda") / "tiny.toml"
    path.write_text(as_toml(tiny_config.model_copy(update=changed)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def promptlesion() -> Verb:
    """Call a verb on the pretended device; settings by name, as `synthesis__sampler`. Returns what waited."""
    reason = why_not()
    if reason:
        pytest.skip(f"CUDA cannot be pretended: {reason}")

    def call(*arguments: object, number: float = 0.0, **settings: object) -> Waits:
        chosen = [f"--set={name.replace('__', '.')}={value}" for name, value in settings.items()]
        with pretended_cuda(number=number) as cuda, _watched_steps(cuda) as waits:
            app([*map(str, arguments), "--device", "cuda", *chosen], standalone_mode=False)
        return waits

    return call


@contextmanager
def _watched_steps(cuda: PretendedCuda) -> Iterator[Waits]:
    """Give what will be waited for in the second step of every training, the first for which nothing is prepared."""
    from promptlesion.training.run import Report, Run
    from promptlesion.training.state import TrainState

    waits: Waits = {}
    train = Run.train

    def watch(run: Run, state: TrainState, reports: Iterable[Report], **options: int) -> None:
        def watched() -> Iterator[Report]:
            before = Counter(cuda.waits)
            for report in reports:
                if state.step == 2:
                    waits[run.folder.name] = cuda.waits - before
                yield report
                before = Counter(cuda.waits)

        train(run, state, watched(), **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "train", watch)
        yield waits


@pytest.fixture(scope="session")
def on_tiny_data(tiny_data: Dataset, any_hu: Path, config_file: Path) -> list[object]:
    """The options of most verbs."""
    return ["--data", tiny_data.root, "--lesions", any_hu, "--config", config_file]


@dataclass(frozen=True)
class Demo:
    """The whole loop, done."""

    out: Path
    waits: Waits


@pytest.fixture(scope="session")
def demo(promptlesion: Verb, on_tiny_data: list[object], tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run it."""
    out = tmp_path_factory.mktemp("cuda-demo")
    return Demo(out, promptlesion("demo", *on_tiny_data, "--out", out))
