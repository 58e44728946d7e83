"""A search taken apart and put together again, for pages whose buttons stand for its conditions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.commands.opening import open_sae
from interp.commands.options import Sae
from interp.types import InterpError

if TYPE_CHECKING:
    import numpy as np

    from interp.workbench import Workbench


@dataclass(frozen=True)
class Condition:
    """One of the conditions that all must hold."""

    key: str
    """Empty for one that is joined of several."""
    text: str
    """As it is written."""
    without: str
    """The search without it."""


def conditions(query: str) -> list[Condition]:
    """The conditions of a search, those that all must hold apart, and its order last.

    Raises InterpError for a search that cannot be read.
    """
    from interp.search.query import And, Query, Term, parse

    if not query.strip():
        return []
    asked = parse(query)
    items = asked.root.items if isinstance(asked.root, And) else (asked.root,)
    found = []
    for place, item in enumerate(items):
        rest = Query(And(items[:place] + items[place + 1 :]), asked.sort)
        text = str(And((item,)))  # an `or` in parentheses, so that others may stand beside it
        found.append(Condition(item.key if isinstance(item, Term) else "", text, str(rest).strip()))
    if asked.sort != "score":
        found.append(Condition("sort", f"sort:{asked.sort}", str(Query(asked.root)).strip()))
    return found


def narrowed(query: str, condition: str) -> str:
    """The search with one condition more, in the place of one of the same key if it has it.

    Raises InterpError for a search or condition that cannot be read.
    """
    new = conditions(condition)
    keys = {each.key for each in new} - {""}
    kept = [each.text for each in conditions(query) if each.key not in keys]
    return " ".join([*kept, *(each.text for each in new)])


@dataclass(frozen=True, kw_only=True)
class Row:
    """A feature in a table, beside what the search says of it."""

    status: str
    """What became of its label; empty where it has none."""
    histogram: list[float]
    """Firings in twenty equal bins from 0 to its largest activation, as the logarithm of 1 + count."""
    effect: float | None
    """KL in nats when it is ablated; None where that was not measured."""
    example: str
    """A few words of its strongest example that may be shown, the token itself between brackets; of a picture or clip its title and place."""


BINS = 20


def rows(sae: Sae, features: list[int]) -> list[Row]:
    """What a table shows of features. Raises InterpError when the SAE has no index."""
    import numpy as np

    from interp.index.glimpse import glimpse
    from interp.render import visible
    from interp.workbench.mapping import effects, standing

    bench = open_sae(sae)
    status, effect_F, counts_F = standing(bench), effects(bench), bench.index.features["histogram"].to_numpy()
    found: dict[int, Row] = {}
    for f in sorted(
        features
    ):  # their firings lie so in the index, and whoever asks for one stretch mostly asks for the next
        bins = [float(np.log1p(part.sum())) for part in np.array_split(np.asarray(counts_F[f], dtype=float), BINS)]
        seen = glimpse(bench.index, f)
        words = [] if seen is None else [_own(w) if at == seen.peak else w for at, w in enumerate(seen.tokens)]
        kl = None if effect_F is None or np.isnan(effect_F[f]) else float(effect_F[f])
        if seen is not None and bench.index.kind != "text":  # names of patches side by side say nothing
            title = str(bench.index.documents["title"].iat[int(bench.index.document_at[seen.position])])
            words = [f"{title}, {seen.tokens[seen.peak]}"]
        example = "".join(words).replace("\n", "↵").replace("\t", "⇥")
        found[f] = Row(status=status[f], histogram=bins, effect=kl, example=visible(example).replace("·", " "))
    return [found[f] for f in features]


def _own(token: str) -> str:
    """The example's own token between brackets, the space before it outside."""
    text = token.lstrip(" ")
    return f"{token[: len(token) - len(text)]}[{text}]"


@dataclass(frozen=True, kw_only=True)
class Facet:
    """A condition that would narrow a search, and how many of its features meet it."""

    what: str
    name: str
    condition: str
    count: int


def facets(sae: Sae, query: str = "") -> list[Facet]:
    """How a search's features divide: by what became of their labels, what they cause, whether others found them, how often they fire.

    Of what was not tried there is nothing. Raises InterpError for a query that cannot be read, or without an index.
    """

    bench = open_sae(sae)
    feature_H = bench.matching(query)
    found = _tested(bench, feature_H)
    density_H = bench.index.features["density"].to_numpy()[feature_H]
    for low, high in ((1e-2, 1.0), (1e-3, 1e-2), (1e-4, 1e-3), (1e-5, 1e-4), (0.0, 1e-5)):
        count = int(((density_H >= low) & (density_H <= high)).sum())
        name = f"{_edge(low)} to {_edge(high)}" if low else f"below {_edge(high)}"
        found.append(Facet(what="density", name=name, condition=f"density:{low:g}..{high:g}", count=count))
    return [facet for facet in found if facet.count]


def _edge(share: float) -> str:
    """`1e-4`, and `1` for the whole."""
    return f"{share:.0e}".replace("e-0", "e-") if share < 1 else "1"


def _tested(bench: "Workbench", feature_H: "np.ndarray") -> list[Facet]:
    """The facets of what was tested; none where a part of the evidence was not made."""
    import numpy as np

    try:
        columns = ("label_verdict", "effect_exceeds", "again_found")
        verdicts, exceeds, again = (bench.evidence.column(name) for name in columns)
    except InterpError:
        return []
    found = []
    for name, count in zip(*np.unique(verdicts[feature_H].astype(str), return_counts=True), strict=True):
        found.append(Facet(what="name", name=str(name), condition=f'verdict:"{name}"', count=int(count)))
    cause = sum(value is True or value is np.True_ for value in exceeds[feature_H])
    found.append(Facet(what="causes", name="more than its controls", condition="exceeds:yes", count=cause))
    times_F = again.astype(float)
    for times in sorted({int(x) for x in times_F[np.isfinite(times_F)]}, reverse=True):
        count = int((times_F[feature_H] == times).sum())
        found.append(
            Facet(what="found again", name=f"by {times}", condition=f"replicates:{times}..{times}", count=count)
        )
    return found
