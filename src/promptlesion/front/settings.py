"""What a call of the front door names: a configuration, a folder, a part of a dataset."""

from pathlib import Path

from promptlesion.config import Config, resolve_config

Folder = str | Path


def as_config(config: Config | str) -> Config:
    """Return a configuration as it is, or the preset of a name.

    Raises:
        ConfigError: there is no preset of that name.
    """
    return resolve_config(preset=config) if isinstance(config, str) else config


def as_path(path: Folder | None) -> Path | None:
    """Return a path of what may be a string or nothing."""
    return None if path is None else Path(path)


def is_test(part: str) -> bool:
    """Return whether `test` is meant and not `all`; anything else is a `ValueError`."""
    if part not in ("all", "test"):
        raise ValueError(f"part: expected all or test; found {part!r}")
    return part == "test"
