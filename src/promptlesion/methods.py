"""The table of methods that paint lesions: one record each, from which all that is done with a method follows.

Imports no torch: what does is named in a record, `module:function`, and looked up when it is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig

if TYPE_CHECKING:
    from torch import nn

    from promptlesion.config import Config
    from promptlesion.data.prepared import PreparedDataset
    from promptlesion.synthesis.config import SynthesisConfig
    from promptlesion.synthesis.synthesizer import Synthesizer
    from promptlesion.training.run import Run, RunOptions

REAL, PROMPTLESION = "real", "promptlesion"
_WITHOUT_PROMPT: dict[str, Mapping[str, object]] = {"synthesis": {"guidance_scale": 1.0}}


@dataclass(frozen=True)
class Method:
    """A method that paints lesions."""

    name: str
    """On the command line, in folders, tables and the card of a run."""
    title: str
    """In a sentence."""
    color: str
    """In charts, as hex."""
    section: str
    """Of the configuration, its own; `patch_voxels` there is the edge of the patch it samples, if it samples any."""
    train: str
    """Trains it: `train_copy_paste` has the arguments. With an autoencoder `autoencoder_run` comes on top, with one
    model a type `types`."""
    load: str
    """Reads a finished run: (its folder, device=); with a training pass (its folder, SynthesisConfig, device=,
    hardware=)."""
    needs_autoencoder: bool = False
    training_pass: str | None = None
    """Builds a training step to be counted and timed, as `diffusion_step` does; none where no network is trained."""
    networks: str | None = None
    """Builds the networks it trains, by name: (its section, autoencoder=AutoencoderConfig, num_types=)."""
    is_one_model_a_type: bool = False
    is_shortened: bool = False
    """Whether sampling has no more steps than the method's schedule has levels; else more are refused."""
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """What makes the method, and what it cannot do switched off, by section of the configuration."""
    variant_of: str | None = None
    """The method it is with other settings; it is compared in its stead, while a run's card names the other."""

    @property
    def family(self) -> str:
        """What the card of its runs names."""
        return self.variant_of or self.name

    def configured(self, config: "Config") -> "Config":
        """Return the configuration of all stages with the method's own settings."""
        changed: dict[str, dict[str, object]] = {section: dict(values) for section, values in self.settings.items()}
        if self.is_shortened:
            steps = min(config.synthesis.num_steps, getattr(config, self.section).num_levels)
            changed.setdefault("synthesis", {})["num_steps"] = steps
        return config.model_copy(
            update={name: getattr(config, name).model_copy(update=values) for name, values in changed.items()}
        )

    def own_settings(self, config: "Config") -> Any:
        """Return its section of the configuration, with what makes the method."""
        return getattr(self.configured(config), self.section)

    def patch_voxels(self, config: "Config") -> int | None:
        """Return the edge of the patch it samples; none where it has no network."""
        return getattr(getattr(config, self.section), "patch_voxels", None)

    def build_networks(self, config: "Config", *, num_types: int) -> dict[str, "nn.Module"]:
        """Build the networks it trains, untrained, by name."""
        if self.networks is None:
            return {}
        built: dict[str, nn.Module] = resolve_name(self.networks)(
            self.own_settings(config), autoencoder=config.autoencoder, num_types=num_types
        )
        return built

    def pass_of(self, config: "Config", *, num_types: int) -> Callable[[int, Any], Callable[[], object]]:
        """Return what builds a training step for patches of an edge and a bench."""
        assert self.training_pass is not None
        build, configured = resolve_name(self.training_pass), self.configured(config)
        return lambda edge, bench: build(configured, patch_voxels=edge, num_types=num_types, bench=bench)


_OURS = Method(
    PROMPTLESION,
    title="PromptLesion",
    color="#12A57C",
    section="diffusion",
    train="promptlesion.diffusion.train:train_diffusion",
    load="promptlesion.synthesis.synthesizer:load_synthesizer",
    needs_autoencoder=True,
    training_pass="promptlesion.cost.passes:diffusion_step",
    networks="promptlesion.diffusion.denoiser:build_networks",
)

METHODS: tuple[Method, ...] = (
    _OURS,
    Method(
        "copy-paste",
        title="copy-paste",
        color="#E69F00",
        section="copy_paste",
        train="promptlesion.baselines.copy_paste:train_copy_paste",
        load="promptlesion.baselines.copy_paste:load_copy_paste",
        settings=_WITHOUT_PROMPT,
    ),
    Method(
        "intensity",
        title="hand-made lesions",
        color="#A6761D",
        section="intensity",
        train="promptlesion.baselines.intensity:train_intensity",
        load="promptlesion.baselines.intensity:load_intensity",
        settings=_WITHOUT_PROMPT,
    ),
    Method(
        "difftumor",
        title="DiffTumor",
        color="#3FA7E0",
        section="difftumor",
        train="promptlesion.baselines.difftumor:train_difftumor",
        load="promptlesion.baselines.difftumor:load_difftumor",
        needs_autoencoder=True,
        training_pass="promptlesion.cost.passes:difftumor_step",
        networks="promptlesion.baselines.difftumor:build_networks",
        is_one_model_a_type=True,
        settings=_WITHOUT_PROMPT,
    ),
    Method(
        "med-ddpm",
        title="Med-DDPM",
        color="#CC79A7",
        section="med_ddpm",
        train="promptlesion.baselines.med_ddpm:train_med_ddpm",
        load="promptlesion.baselines.med_ddpm:load_med_ddpm",
        training_pass="promptlesion.cost.passes:voxel_step",
        networks="promptlesion.baselines.voxel_denoiser:build_networks",
        is_shortened=True,
        # it sees neither the healthy latent nor the scan's noise
        settings={
            "synthesis": {"guidance_scale": 1.0, "init": "noise", "keep_noise": False, "reinject_background": False}
        },
    ),
    replace(
        _OURS,
        name="promptlesion-onehot",
        color="#7BC8A4",
        settings={"diffusion": {"prompt_encoder": "one-hot"}},
        variant_of=PROMPTLESION,
    ),
    replace(
        _OURS,
        name="promptlesion-transformer",
        color="#0B7A53",
        settings={"diffusion": {"prompt_encoder": "mask-transformer"}},
        variant_of=PROMPTLESION,
    ),
)


def method_named(name: str) -> Method:
    """Return the record of a method.

    Raises:
        ValueError: there is none of this name.
    """
    found = {method.name: method for method in METHODS}
    if name not in found:
        raise ValueError(f"method: expected one of {', '.join(found)}; found {name!r}")
    return found[name]


def trainable_names() -> list[str]:
    """Return the methods that `train diffusion` trains: with the settings of the configuration."""
    return [method.name for method in METHODS if method.variant_of is None]


def compared_names() -> tuple[str, ...]:
    """Return what an experiment can compare: real scans alone, then every method, in its variants if it has any."""
    bases = {method.variant_of for method in METHODS}
    return (REAL, *(method.name for method in METHODS if method.name not in bases))


def parse_methods(text: str) -> tuple[str, ...]:
    """Read `real,copy-paste` and the like; real comes first, as what all others are compared with.

    Raises:
        ValueError: an unknown method, one named twice, or no `real` among them.
    """
    names, known = [name.strip() for name in text.split(",")], compared_names()
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names) or REAL not in names:
        found = f"{unknown[0]!r}" if unknown else text
        raise ValueError(
            f"--methods: expected {REAL} and others of {', '.join(known)}, each once, with commas; found {found}"
        )
    return tuple(sorted(names, key=known.index))


def check_asked(method: str, run_folder: Path | None, types: Sequence[str] = ()) -> None:
    """Make sure that a method can be trained, has the autoencoder it needs, and types only where it has one model each.

    Raises:
        ValueError: an unknown method, or an autoencoder or types that are missing or of no use to it.
    """
    if method not in trainable_names():
        raise ValueError(f"--method: expected one of {', '.join(trainable_names())}; found {method!r}")
    if types and not method_named(method).is_one_model_a_type:
        takers = ", ".join(each.name for each in METHODS if each.is_one_model_a_type)
        raise ValueError(f"--type: expected with --method {takers} alone; found {method}")
    _check_autoencoder(method, run_folder)


def _check_autoencoder(method: str, run_folder: Path | None) -> None:
    is_latent = method_named(method).needs_autoencoder
    if is_latent and run_folder is None:
        raise ValueError(f"--autoencoder: expected a finished run of stage 1 for the method {method}; found none")
    if not is_latent and run_folder is not None:
        raise ValueError(f"--autoencoder {run_folder}: expected none, as {method} works on voxels; found one")


def train_method(
    name: str,
    prepared: "PreparedDataset",
    *,
    autoencoder_run: Path | None,
    config: "Config",
    options: "RunOptions",
    types: Sequence[str] = (),
) -> "Run":
    """Train a method on the training subjects, or go on with an interrupted run.

    Args:
        name: of the method.
        prepared: the dataset.
        autoencoder_run: finished stage 1 of the same training subjects; the latent methods alone have one.
        config: of all stages.
        options: of the run.
        types: of a method with one model a lesion type, those to train now; by default all.

    Raises:
        ValueError: an autoencoder is missing, or there is one for a method that works on voxels, or it was trained on
            subjects that validate or test now.
    """
    method = method_named(name)
    _check_autoencoder(name, autoencoder_run)
    further: dict[str, Any] = {}
    if autoencoder_run is not None:
        _check_unseen(autoencoder_run, prepared)
        further["autoencoder_run"] = autoencoder_run
    if method.is_one_model_a_type:
        further["types"] = types
    trained: Run = resolve_name(method.train)(
        prepared.training, config=method.own_settings(config), options=options, **further
    )
    return trained


def _check_unseen(autoencoder_run: Path, prepared: "PreparedDataset") -> None:
    from promptlesion.data.trained_on import TrainedOn, check_unseen
    from promptlesion.training.checkpoint import read_card

    card = read_card(autoencoder_run / "checkpoint", stage="autoencoder")
    check_unseen(TrainedOn.of_cards(card), prepared.dataset, prepared.split, source=autoencoder_run)


def load_method(
    run_folder: Path,
    config: "SynthesisConfig",
    device: str = "auto",
    *,
    asked: str | None = None,
    hardware: HardwareConfig = DEFAULT_HARDWARE,
) -> "Synthesizer":
    """Read a finished run of any method.

    Args:
        run_folder: what `train diffusion` wrote.
        config: how lesions are sampled.
        device: `auto` or a device's name.
        asked: the method it should be; by default any.
        hardware: whether the denoiser's steps become CUDA graphs.

    Raises:
        CheckpointError: the run is not finished.
        ValueError: the run is of another method than asked for, or cannot be sampled as configured.
    """
    method = method_of(run_folder)
    if asked is not None and asked != method.name:
        raise ValueError(f"{run_folder}: expected a run of the method {asked!r}; found one of {method.name!r}")
    load = resolve_name(method.load)
    loaded: Synthesizer = (
        load(run_folder, device=device)
        if method.training_pass is None
        else load(run_folder, config, device=device, hardware=hardware)
    )
    return loaded


def method_of(run_folder: Path) -> Method:
    """Return the method that the card of a run names."""
    from promptlesion.training.atomic import read_json
    from promptlesion.training.checkpoint import CheckpointError

    path = run_folder / "checkpoint" / "card.json"
    if not path.is_file():
        raise CheckpointError(
            f"{run_folder}: expected a finished diffusion run ({path.relative_to(run_folder)}); found none"
        )
    card = read_json(path)
    named = [method for method in METHODS if method.name == card.get("method", card.get("stage"))]
    method = named[0] if named else _OURS
    if method.is_one_model_a_type and "models" not in card:
        raise CheckpointError(
            f"{run_folder}: expected a run of {method.title} with all its lesion types; found the model of one. "
            f"Give {run_folder.parent}"
        )
    return method
