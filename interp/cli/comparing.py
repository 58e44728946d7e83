"""SAEs side by side on the command line."""

from typing import TYPE_CHECKING

from interp.cli.app import Asked, register
from interp.render.terminal import table, tell

if TYPE_CHECKING:
    from interp.commands.comparing import Comparison


def _compared(found: "Comparison", asked: Asked) -> None:
    for one in found.saes:
        tell(f"{one.letter}: {one.given} ({one.d_sae:,} features, {one.rule}, {', '.join(one.reads)})")
        for sentence in one.assumed:
            tell(f"   {sentence}")
    of = found.of
    tell(
        f"{of['counted']:,} positions of {of['documents']:,} documents of {of['text']} count for all of them; the loss of "
        f"{of['model']} is {of['ce']:.4g} nats a token.\n"
    )
    table(*found.table(), wide=asked["wide"])
    tell("")
    table(*found.verdicts(), wide=asked["wide"])
    tell("")
    tell(found.counts())
    for note in found.notes:
        tell(note)
    if asked["html"]:
        tell(f"with plots in {asked['html']}")


register(
    "compare",
    _compared,
    "interp compare saes/mine theirs/layers.15 --corpus wiki-en --tokens 50000 --html compared.html",
    face=("as_json", "background", "wide"),
)
