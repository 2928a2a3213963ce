"""Every command in the README is one that the command line takes."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from promptlesion.cli import app

README = Path(__file__).parents[1] / "README.md"
COMMAND = re.compile(r"^    (?:torchrun .* -m )?promptlesion (.+)$", flags=re.MULTILINE)
COMMANDS = COMMAND.findall(README.read_text(encoding="utf-8"))


def test_readme_has_commands() -> None:
    assert len(COMMANDS) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_command_parses(command: str) -> None:
    node, arguments = typer.main.get_command(app), shlex.split(command)
    while hasattr(node, "commands"):
        node = node.commands[arguments.pop(0)]
    node.make_context(node.name, arguments)
