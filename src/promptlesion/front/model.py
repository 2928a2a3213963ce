"""A trained model, ready to paint into whatever scan it is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from promptlesion.config import Config
from promptlesion.data.dataset import Dataset
from promptlesion.data.spec import DatasetError
from promptlesion.front.settings import as_config
from promptlesion.methods import load_method, method_of
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import Synthesizer


@dataclass(frozen=True)
class Model:
    """A finished run of any method that paints."""

    source: Path
    synthesizer: Synthesizer
    config: SynthesisConfig
    """How it samples."""

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.synthesizer.card.method

    @property
    def lesion_types(self) -> tuple[str, ...]:
        """What it can paint, in prompt order."""
        return tuple(lesion.name for lesion in self.synthesizer.card.spec.lesions)


def load_model(run: str | Path, *, config: Config | str = "default", device: str = "auto") -> Model:
    """Read a finished run of any method that paints: `train diffusion` or `demo` wrote it.

    Args:
        run: its folder.
        config: how lesions are sampled and judged: a preset's name, or what `resolve_config` gave.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    Raises:
        CheckpointError: the run is not finished or damaged.
        ValueError: it cannot be sampled as configured.
    """
    resolved = method_of(Path(run)).configured(as_config(config))
    synthesizer = load_method(Path(run), resolved.synthesis, device, hardware=resolved.hardware)
    return Model(Path(run), synthesizer, resolved.synthesis)


def dataset_of(model: Model, names: Mapping[str, int]) -> Dataset:
    """Return the model's lesion types and a label map's names as a dataset without cases.

    A type that the label map does not name has the value it had in training.
    """
    labels, spec = {"background": 0, **names}, model.synthesizer.card.spec
    if not names:
        hosts = ", ".join(dict.fromkeys(host for lesion in spec.lesions for host in lesion.host))
        raise DatasetError(f"label_names: expected the values of {hosts} by name; found none beside the label map")
    lesions = tuple(
        lesion.model_copy(update={"label": names.get(lesion.name, lesion.label)}) for lesion in spec.lesions
    )
    for lesion in lesions:
        taken = next((name for name, value in labels.items() if value == lesion.label and name != lesion.name), None)
        if taken is not None:
            raise DatasetError(
                f"label_names: expected a value for {lesion.name}, as {lesion.label}, which it had in training, is "
                f"{taken}; found {dict(names)}"
            )
        labels[lesion.name] = lesion.label
        missing = [name for name in (*lesion.host, *lesion.lumen) if name not in labels]
        if missing:
            raise DatasetError(f"label_names: expected {missing[0]}, where {lesion.name} lies; found {dict(names)}")
    return Dataset(model.source, spec.model_copy(update={"lesions": lesions}), labels, ())
