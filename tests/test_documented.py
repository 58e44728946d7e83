"""Every `interp` command that README.md and docs/ show is one that the command line takes."""

import re
import shlex

import pytest
import typer

from interp.cli import app
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            for part in line.split("; "):
                if part.startswith("interp "):
                    yield pytest.param(part, id=f"{page.stem}: {part[:60]}")


@pytest.mark.parametrize("line", list(shown()))
def test_a_command_that_is_shown_is_taken(line):
    command = typer.main.get_command(app)
    words = shlex.split(line.split(" > ")[0], comments=True)[1:]
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, words)  # raises for what it does not know


def test_commands_were_found():
    assert len(list(shown())) > 30
