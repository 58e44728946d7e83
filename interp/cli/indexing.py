"""Indexes, meaning and lenses on the command line."""

from typing import TYPE_CHECKING, Any

from interp.cli.app import Asked, register
from interp.commands.indexing import Indexed
from interp.render.terminal import table, tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from interp.commands.indexing import Lenses, Meaning
    from interp.commands.mapping import Mapped


def _indexed(index: Indexed, _: Asked) -> None:
    tell(f"index in {index.where}")


def _meant(meaning: "Meaning", _: Asked) -> None:
    def interval(share: tuple[float, float, float]) -> str:
        return f"{share[0]:.1%} ({share[1]:.1%} to {share[2]:.1%})"

    rows = [[name, interval(share), f"{meaning.weighted[name]:.1%}"] for name, share in meaning.shares.items()]
    rows.append(["class, context or next-token", interval(meaning.by_meaning), ""])
    rows.append(["with a clean level that holds", interval(meaning.clean), ""])
    table(["class", "share of features (95 %)", "share of firings"], rows)
    steady = ", ".join(f"{share:.0%}" for share in meaning.steady) or "none has one"
    tell(
        f"{meaning.features:,} features, measured on {meaning.heldout_positions:,} tokens of {meaning.documents:,} held-out "
        f"documents; {meaning.rare:,} fire too seldom to be told. Predicates explain {meaning.explained:.0%} of the "
        f"activation of a feature in the mean, and hold, from the strongest fifth of firings to the weakest, at: {steady}."
    )


def _lenses(made: "Lenses", _: Asked) -> None:
    rows = [
        [
            fit.lens,
            f"{fit.positions:,}",
            f"{fit.halves:.3f}",
            f"{fit.whole:.3f}",
            f"{fit.top:.0%}",
            "yes" if fit.enough else "no",
        ]
        for fit in made.fits
    ]
    table(["lens", "positions", "halves agree", "two whole fits would", "first ten in common", "enough"], rows)
    tell(f"Fitted at {made.hook_name} on {made.text}.")
    figures, names = made.judged["figures"], list(made.judged["figures"])
    measures = list(figures[names[0]])
    head = ["measure", *names, "half by half", "chance"]
    table(head, [[m, *(_figure(figures[n][m]) for n in names), *_beside(made.judged, m)] for m in measures])
    tell(
        f"Judged on {made.judged['features']} features drawn at random, with 95 % intervals over features (docs/lenses.md)."
    )
    for span, sentence in made.sentences.items():
        tell(f"{span}: {sentence}.")
    tell(f"what features say is in {made.where}")


def _beside(judged: "Mapping[str, Any]", measure: str) -> list[str]:
    """What one half of the contexts says of the other, and what chance gives."""
    halves, chance = judged["halves"].get(measure), judged["chance"].get(measure)
    return ["" if halves is None else _figure(halves), "" if chance is None else f"{chance:.3g}"]


def _figure(figure: "Sequence[float]") -> str:
    mean, low, high = figure
    return "cannot be told" if mean is None else f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _mapped(made: "Mapped", _: Asked) -> None:
    tell(f"map of {made.features:,} features in {made.where}")


register("map", _mapped, "interp map SAE --beside", command="map", face=("as_json", "background"))
register("index", _indexed, "interp index saes/mine --corpus wiki-en --tokens 200000", face=("background",))
register("meaning", _meant, "interp meaning saes/mine --table meaning.csv", face=("as_json", "background"))
register("lenses", _lenses, "interp lenses SAE --rounds 16 --beside", face=("as_json", "background"))
