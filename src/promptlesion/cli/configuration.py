"""Verbs about the configuration."""

import sys
from typing import TYPE_CHECKING, Annotated

from typer import Option, Typer

from promptlesion.cli.console import say, show
from promptlesion.cli.options import configured

if TYPE_CHECKING:
    from promptlesion.config import Config

app = Typer(name="config", no_args_is_help=True, help="Show or check a configuration.")
_PARAMETERS = "Instead: the parameters of every network, as for the paper's five types."


@app.command("show")
@configured()
def config_show(
    config: "Config", parameters: Annotated[bool, Option("--parameters", help=_PARAMETERS)] = False
) -> None:
    """Print every setting with its value and meaning, as a TOML file that --config reads.

    [bold]Examples[/bold]

    promptlesion config show --preset demo --set diffusion.num_steps=2000 > mine.toml

    promptlesion config show --preset paper --parameters
    """
    from promptlesion.config import as_toml

    if not parameters:
        sys.stdout.write(as_toml(config))
        return
    from promptlesion.check.terminal import parameter_parts

    show(*parameter_parts(config))


@app.command("check")
@configured()
def config_check(config: "Config") -> None:
    """Say whether a configuration is valid, and if not, why.

    [bold]Example[/bold]

    promptlesion config check --config mine.toml
    """
    say("The configuration is valid.")
