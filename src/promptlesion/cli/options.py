"""The options that several verbs have, each once."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

Part = Literal["test", "all"]
"""Which cases of a dataset are meant."""


def folder(text: str, *names: str) -> Any:
    """Return an option that takes a folder."""
    return Option(*names, help=text, file_okay=False)


def file(text: str, *names: str) -> Any:
    """Return an option that takes a file."""
    return Option(*names, help=text, dir_okay=False)


def number(text: str, *, least: int = 1) -> Any:
    """Return an option that takes a whole number."""
    return Option(help=text, min=least)


Out = Annotated[Path, folder("Folder to write; run again to go on where it stopped.")]
Json = Annotated[Path | None, file("JSON file for every figure.", "--out")]
Seed = Annotated[int, number("Seed of everything random but the split.", least=0)]
Device = Annotated[str, Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Data = Annotated[Path, folder("Dataset folder: nnU-Net v2 raw, with a lesions.toml.")]
Lesions = Annotated[Path | None, file("A lesions.toml elsewhere, for a folder one may not write to.")]
Cache = Annotated[Path | None, folder("Folder of prepared scans; by default `cache` beside --out.")]
Cluster = Annotated[
    Literal["slurm"] | None,
    Option(help="Submit jobs there, and end; what they ask for is [cluster]'s, see config show."),
]
_Preset = Annotated[str, Option(help="default, paper or demo.")]
_File = Annotated[Path | None, file("TOML file over the preset.", "--config")]
_Settings = Annotated[
    list[str] | None, Option("--set", help="One setting over both, as in --set diffusion.num_steps=400; repeatable.")
]


def configured(preset: str = "default", **settings_of: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb --preset, --config and --set in place of its first argument, the configuration they resolve to.

    `settings_of` says which of its own options, where given, are settings over all others.
    """
    options = {"preset": (preset, _Preset), "file": (None, _File), "settings": (None, _Settings)}

    def with_options(verb: Callable[..., None]) -> Callable[..., None]:
        @wraps(verb)
        def resolved(*, preset: str, file: Path | None, settings: list[str] | None, **arguments: Any) -> None:
            from promptlesion.config import resolve_config

            given = {key: arguments[name] for name, key in settings_of.items() if arguments[name]}
            own = [f"{key}={str(value).lower()}" for key, value in given.items()]
            verb(resolve_config(preset=preset, file=file, settings=[*(settings or ()), *own]), **arguments)

        kind = inspect.Parameter.KEYWORD_ONLY
        _, *rest = inspect.signature(verb).parameters.values()
        parameters = [parameter.replace(kind=kind) for parameter in rest]
        for name, (default, annotation) in options.items():
            parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
        resolved.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        resolved.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del resolved.__wrapped__
        return resolved

    return with_options
