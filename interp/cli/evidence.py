"""Evidence on the command line."""

from typing import TYPE_CHECKING

from interp.cli.app import Asked, register
from interp.render.terminal import tell

if TYPE_CHECKING:
    from interp.commands.evidence import Built


def _built(made: "Built", _: Asked) -> None:
    for name, why in made.lacking.items():
        tell(f"{name} could not be made: {why}")
    for sentence in made.sentences:
        tell(sentence)
    tell(
        f"evidence in {made.file}"
        + (f" and {made.beside}; `interp verify --write` seals it there" if made.beside else "")
    )


register("evidence", _built, "interp evidence SAE --parts labels --background", face=("as_json", "background"))
