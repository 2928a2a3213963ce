"""Every command in the README, and in the page on many machines, is one that the command line takes."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from promptlesion.cli import app

ROOT = Path(__file__).parents[1]
COMMAND = re.compile(r"^    (?:torchrun .* -m |sbatch .* \"exec )?promptlesion ([^>\"\n]+)", flags=re.MULTILINE)
OF_POD = re.compile(r"command: \[promptlesion, (.+)\]")
COMMANDS = COMMAND.findall((ROOT / "README.md").read_text(encoding="utf-8"))
SCALE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
ON_MANY = [*COMMAND.findall(SCALE), *(each.replace(", ", " ") for each in OF_POD.findall(SCALE))]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 5
    assert len(ON_MANY) == SCALE.count("promptlesion ") - SCALE.count("`promptlesion ") + SCALE.count("[promptlesion,")


@pytest.mark.parametrize("command", [*COMMANDS, *ON_MANY])
def test_command_parses(command: str) -> None:
    node, arguments = typer.main.get_command(app), shlex.split(command)
    while hasattr(node, "commands"):
        node = node.commands[arguments.pop(0)]
    node.make_context(node.name, arguments)
