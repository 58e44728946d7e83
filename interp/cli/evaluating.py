"""Reports of SAEs on the command line."""

from typing import TYPE_CHECKING

from interp.cli.app import Asked, register
from interp.render.terminal import table, tell

if TYPE_CHECKING:
    from interp.commands.evaluating import Evaluated


def _evaluated(made: "Evaluated", asked: Asked) -> None:
    for sentence in made.not_shown():
        tell(sentence)
    head, rows = made.table()
    table(head, rows)
    tell(f"report in {made.where}" + ("; `interp verify --write` seals it there" if asked["beside"] else ""))
    if asked["into"]:
        tell(f"page in {asked['into']}")


register(
    "evaluate",
    _evaluated,
    "interp evaluate saes/mine --corpus wiki-en --tokens 50000 --only fidelity",
    face=("as_json", "background"),
)
