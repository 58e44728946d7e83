"""docs/commands.md, made from the command line itself: every command with its example, arguments and options.

python recipes/commands_page.py           # writes it
python recipes/commands_page.py --check   # says whether it is what the command line takes
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from interp import places
from interp.cli import app
from interp.render.terminal import say

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
HEAD = """# Commands

Made from the command line by `python recipes/commands_page.py`. Each command says the same with `--help`; `--json` prints one JSON document
and nothing else, and what takes long runs as a job with `--background` (`interp jobs`).
"""
EVERYWHERE = {"--help", "--json", "--background", "--wide", "--csv"}
"""Options that say how an answer is shown, and where it is made; told once, in HEAD."""


def commands(group: Any, before: str = "interp") -> Iterator[tuple[str, Any]]:
    """Every command and the words that call it, groups taken apart."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before} {name}")
        elif not command.hidden:
            yield f"{before} {name}", command


def section(name: str, command: Any) -> str:
    """What is said of one command."""
    lines = [f"## {name}", "", *paragraphs(command.help or "")]
    example = (command.epilog or "").removeprefix("Example:").strip()
    if example:
        lines += ["```bash", example, "```", ""]
    rows = [row(parameter) for parameter in command.params if shown(parameter)]
    if rows:
        lines += ["| | |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a command's help, an empty line after each."""
    for part in text.split("\n\n"):
        if words := " ".join(part.split()):
            yield from (words, "")


def shown(parameter: Any) -> bool:
    """Whether a parameter is one of the command's own."""
    return not parameter.hidden and not EVERYWHERE & set(parameter.opts)


def row(parameter: Any) -> str:
    """A line of the table: how it is given, what it means, its default."""
    name = parameter.name.upper() if parameter.param_type_name == "argument" else ", ".join(parameter.opts)
    default = None if parameter.required or callable(parameter.default) else parameter.default
    beside = f" Without: {default}." if default not in (None, "", False, True, (), []) else ""
    return f"| `{cell(name)}` | {cell(parameter.help or '')}{cell(beside)} |"


def cell(text: object) -> str:
    """Text in which a table's cell does not end."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;").removesuffix("  ")


def page() -> str:
    """The whole page."""
    every = commands(typer.main.get_command(app))
    return HEAD + "\n" + "\n".join(section(name, command) for name, command in every).rstrip() + "\n"


if __name__ == "__main__":
    made = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != made:
            say(
                "docs/commands.md is not what the command line takes; `python recipes/commands_page.py` writes it anew."
            )
            raise SystemExit(1)
    else:
        with places.whole_file(PAGE) as partial:
            partial.write_text(made, encoding="utf-8")
