"""An edge of a finished graph in words: which heads carried it, and what made them look there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from interp.circuits.carriers import Carried, Looked, carried, looked
from interp.circuits.page import called
from interp.types import InterpError
from interp.workbench.circuits import read_circuit
from interp.workbench.retracing import named_edge, retrace

HEADS, PARTS = 5, 4


@dataclass(frozen=True)
class Head:
    """A head that carried a part of an edge."""

    head: str
    """layer.number"""
    brought: float
    """What came by it as the last head, in the target's unit."""
    through: float
    """Over all ways on which it lies."""
    attention: float
    """What it gives to the source's position at the target's."""
    query: Sequence[tuple[str, float]] = ()
    """What made its score there by way of the query, the largest first: node, part. Empty where source and target are at one position, or
    the family shows no scores."""
    key: Sequence[tuple[str, float]] = ()
    score: float | None = None


@dataclass(frozen=True)
class ExplainedEdge:
    """An edge by what carried it."""

    source: str
    target: str
    edge: float
    straight: float
    heads: Sequence[Head]
    others: float
    """What all other heads brought together."""

    def sentence(self) -> str:
        """How much came straight, and by which heads."""
        named = ", ".join(f"{each.head} ({each.brought:+.3g})" for each in self.heads)
        way = f"{self.straight:+.3g} of it straight, " if self.straight else ""
        return f"{self.source} → {self.target}: {self.edge:+.3g}; {way}by heads {named or 'none'}, all others {self.others:+.3g}."


def explain_edge(file: str, edge: str, *, heads: int = HEADS, device: str = "auto") -> ExplainedEdge:
    """Which heads carried an edge (SOURCE->TARGET, ids of the file) of a graph, and what made each look there.

    Raises InterpError for a graph that does not say how it was made, an edge that it does not have, and families without heads' outputs.
    """
    drawn = read_circuit(file).graph
    target, source = named_edge(drawn, edge)
    made = retrace(drawn, file, device)
    replacement, read, whole = made.opened.replacement, made.read, made.whole
    ends = made.in_whole(target), made.in_whole(source)
    found = carried(replacement, read, whole, *ends)
    names, own = called(replace(whole, words=drawn.words, names=drawn.names)), called(drawn)
    at, from_ = (int(drawn.nodes.position_N[node]) for node in (target, source))
    told = []
    for head in found.heads(heads):
        try:
            why = looked(replacement, read, whole, head, at, from_) if at != from_ else None
        except InterpError:  # a family that shows no scores
            why = None
        told.append(_told(head, found, why, names))
    others = float(found.brought_LH.sum()) - sum(each.brought for each in told)
    return ExplainedEdge(own[source], own[target], found.edge, found.straight, told, others)


def _told(head: tuple[int, int], found: Carried, why: Looked | None, names: Sequence[str]) -> Head:
    def parts(some: Sequence[tuple[int, float]]) -> list[tuple[str, float]]:
        return [(names[node], value) for node, value in some[:PARTS]]

    return Head(
        head=f"{head[0]}.{head[1]}",
        brought=float(found.brought_LH[head]),
        through=float(found.through_LH[head]),
        attention=float(found.attention_LH[head]),
        query=() if why is None else parts(why.query),
        key=() if why is None else parts(why.key),
        score=None if why is None else why.score,
    )
