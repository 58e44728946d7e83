"""Labels of one SAE carried to another: what would be written for each match, and the writing of it.

A label is carried to the feature that `matching` takes for the same. What the other SAE's features are called already, or
were once called, stays: only features that never had a label get one, which the database itself looks at when it writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from interp.labels.book import LabelBook
from interp.labels.label import LONGEST, Label, checked, now
from interp.labels.matching import Match

Outcome = Literal["carried", "doubtful", "no match", "conflict", "there already"]


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What becomes of one label."""

    label: Label
    """As the old SAE has it."""
    match: Match
    outcome: Outcome
    """`carried`, as soon as it is written; `doubtful` ones are left unless asked for."""
    why: str


def plan(
    labels: Mapping[int, Label], matches: Sequence[Match], there: Mapping[int, Label], *, doubtful: bool = False
) -> list[Carried]:
    """What becomes of the label of each match, in their order.

    `there` are the newest labels of the other SAE's features, withdrawn ones included; with `doubtful`, doubtful matches are
    carried too, where no better one goes to the same feature.
    """
    strength = {match.feature: (match.verdict == "match", min(match.cosine, match.correlation)) for match in matches}
    best: dict[int, int] = {}
    for match in sorted(matches, key=lambda m: strength[m.feature], reverse=True):
        if match.verdict == "match" or (doubtful and match.verdict == "doubtful"):
            best.setdefault(match.match, match.feature)
    return [_planned(labels[m.feature], m, there.get(m.match), best.get(m.match)) for m in matches]


def _planned(label: Label, match: Match, there: Label | None, taker: int | None) -> Carried:
    """`taker` is the old feature whose label goes to this match's feature, if any does."""
    if match.verdict == "no match":
        return Carried(label=label, match=match, outcome="no match", why=match.why)
    if there is not None and there.text == label.text:
        return Carried(label=label, match=match, outcome="there already", why=f"feature {match.match} is called so")
    if there is not None:
        named = f"is called {there.text!r}" if there.text else "had a label that was withdrawn"
        by = f" by {there.author}" if there.author else ""
        return Carried(label=label, match=match, outcome="conflict", why=f"feature {match.match} {named}{by}; it stays")
    if taker is not None and taker != match.feature:
        why = f"the label of feature {taker}, which is more like it, goes to {match.match}"
        return Carried(
            label=label, match=match, outcome="conflict" if match.verdict == "match" else "doubtful", why=why
        )
    outcome: Outcome = "carried" if taker == match.feature else "doubtful"
    return Carried(label=label, match=match, outcome=outcome, why=match.why)


def carry(planned: Sequence[Carried], old_sha256: str, book: LabelBook) -> list[Carried]:
    """Write what is to be carried into the other SAE's book, all of it or nothing; what became of it comes back.

    A feature that somebody has named since the plan was made keeps that name. Raises InterpError when the book cannot be
    written.
    """
    fresh = [checked(carried_label(each, old_sha256), book.d_sae) for each in planned if each.outcome == "carried"]
    added = set(book.add_where_none(fresh))
    late = "it was named while this was being looked at; that name stays"
    return [
        replace(each, outcome="conflict", why=late)
        if each.outcome == "carried" and each.match.match not in added
        else each
        for each in planned
    ]


def carried_label(each: Carried, old_sha256: str) -> Label:
    """The label as the other SAE's feature gets it: what was confirmed of the old one is proposed of the new one, and the
    note says where it came from and how alike the two are."""
    label, match = each.label, each.match
    came = (
        f"Carried over from feature {match.feature} of the SAE {old_sha256}: decoder cosine {match.cosine:.3f} (chance "
        f"{match.cosine_chance:.3f}), firing correlation {match.correlation:.3f} (chance {match.correlation_chance:.3f}); "
        f"{_percent(match.of_old)} of its activation lies where this one fires, and {_percent(match.of_new)} the other way "
        f"round."
    )
    if match.verdict != "match":
        came += f" The match was doubtful: {match.why}."
    came += f" There it was {label.status}" + (f", given {label.created[:10]}." if label.created else ".")
    room = LONGEST - len(came) - 1
    before = label.note if len(label.note) <= room else label.note[: room - 1] + "…"
    note = f"{before}\n{came}" if before else came
    status = "proposed" if label.status == "confirmed" else label.status
    return replace(label, feature=match.match, note=note, status=status, created=now())


def _percent(share: float) -> str:
    return "none" if share != share else f"{share:.0%}"
