"""The configuration that a call of the front door names."""

from promptlesion.config import Config, resolve_config


def as_config(config: Config | str) -> Config:
    """Return a configuration as it is, or the preset of a name.

    Raises:
        ConfigError: there is no preset of that name.
    """
    return resolve_config(preset=config) if isinstance(config, str) else config
