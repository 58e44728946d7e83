"""Edges, nodes, groups and swaps of a finished graph, tried in the model that it is of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from interp.circuits.graph import LOGIT, TOKEN, Check, Graph, Trial
from interp.circuits.intervene import check_edges
from interp.circuits.page import called, moved_words
from interp.circuits.prune import strong_edges
from interp.circuits.trials import Move, moved_nodes, swap, try_move
from interp.progress import bar
from interp.statistics import wilson
from interp.types import InterpError, unknown
from interp.workbench.circuits import read_circuit, write_circuit
from interp.workbench.retracing import Retraced, named_edge, named_node, retrace


@dataclass(frozen=True, eq=False)
class CheckedCircuit:
    """What came of trying edges, nodes, groups and swaps."""

    graph: Graph
    rows: Sequence[dict[str, Any]]
    """An edge each: its ends by name, and the fields of `Check`."""
    file: str
    tried: Sequence[dict[str, Any]] = ()
    """A node, group or swap and a target each: in words, and the fields of `Trial`."""

    def sentence(self) -> str:
        """How many are confirmed, with a 95 % interval."""
        parts = [
            f"of {len(rows)} {what} {_counted(rows)}."
            for rows, what in ((self.rows, "edges"), (self.tried, "effects of what was moved"))
            if rows
        ]
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"file": self.file, "checks": list(self.rows), "trials": list(self.tried), "said": self.sentence()}


def _counted(rows: Sequence[Mapping[str, Any]]) -> str:
    count, said = len(rows), []
    for key, what in (("verdict", "as direct effects"), ("live_verdict", "over all paths of the live model")):
        verdicts = [row[key] for row in rows]
        good = verdicts.count("confirmed")
        _, low, high = wilson(good, count)
        said.append(
            f"{good} are confirmed {what} ({good / count:.0%}, {low:.0%} to {high:.0%}), {verdicts.count('refuted')} refuted"
        )
    return "; ".join(said)


@dataclass(frozen=True)
class Wanted:
    """What is to be tried beside edges, as it was asked for: ids, a group's name, ID=FEATURE."""

    nodes: Sequence[str] = ()
    groups: Sequence[str] = ()
    swaps: Sequence[str] = ()
    targets: Sequence[str] = ()
    """Ids of what is measured; without, the logits."""

    def __bool__(self) -> bool:
        return bool(self.nodes or self.groups or self.swaps)


def check_graph(
    file: str, *, edges: Sequence[str] = (), wanted: Wanted = Wanted(), count: int = 20, device: str = "auto"
) -> CheckedCircuit:
    """Try parts of a graph's file in the model, and write what came of it into the file.

    `edges` are SOURCE->TARGET by ids; where nothing is asked for, the `count` that most influence passes through. Raises InterpError for a
    graph that does not say how it was made, and for an edge, node, group or feature that it does not have.
    """
    drawn = read_circuit(file).graph
    if wanted.targets and not wanted:
        raise InterpError("targets are measured when a node, a group or a swap is tried; name one, or give edges.")
    ends = [named_edge(drawn, each) for each in edges] or ([] if wanted else _strongest(drawn, count))
    moved, targets = _named(drawn, wanted), [named_node(drawn, each) for each in wanted.targets]
    made = retrace(drawn, file, device)
    there = [(made.in_whole(target), made.in_whole(source)) for target, source in ends]
    found = check_edges(made.opened.replacement, made.read, made.whole, there)
    checks = [replace(check, target=t, source=s) for check, (t, s) in zip(found, ends, strict=True)]
    trials = _try(made, moved, targets)
    graph = replace(drawn, checks=_joined(drawn.checks, checks), trials=_newest(drawn.trials, trials))
    written = write_circuit(replace(read_circuit(file), graph=graph), file)
    names = called(graph)
    rows = [asdict(c) | {"source": names[c.source], "target": names[c.target]} for c in checks]
    tried = [
        asdict(t)
        | {"moved": moved_words(graph, t), "sources": [names[s] for s in t.sources], "target": names[t.target]}
        for t in trials
    ]
    return CheckedCircuit(graph, rows, written.file, tried)


@dataclass(frozen=True)
class _Named:
    """Nodes of the drawn graph that are moved together, or the one that is swapped."""

    name: str
    nodes: tuple[int, ...]
    put_in: int = -1


def _named(graph: Graph, wanted: Wanted) -> list[_Named]:
    found = [_Named(each, (named_node(graph, each),)) for each in wanted.nodes]
    groups = {group.name: group for group in graph.groups}
    number = {each: at for at, each in enumerate(graph.ids)}
    for name in wanted.groups:
        if name not in groups:
            raise unknown("group of this graph", name, groups, try_="Groups are made on the page of circuits.")
        nodes = tuple(number[each] for each in groups[name].members)
        found.append(_Named(name, tuple(n for n in nodes if graph.nodes.kind_N[n] != LOGIT)))
    for each in wanted.swaps:
        node, equals, feature = each.partition("=")
        if not equals or not feature.strip().isdecimal():
            raise InterpError(f"a swap is ID=FEATURE, such as 12_345_7=901, and not {each!r}.")
        found.append(_Named(each, (named_node(graph, node),), int(feature)))
    return found


def _try(made: Retraced, named: Sequence[_Named], targets: Sequence[int]) -> list[Trial]:
    """What each did to each target, in numbers of the drawn graph; without targets, to its logits."""
    ends = list(targets) or np.flatnonzero(made.drawn.nodes.kind_N == LOGIT).tolist()
    there = [made.in_whole(end) for end in ends]
    found: list[Trial] = []
    with bar("moving nodes", len(named), "moves") as advance:
        for each in named:
            some = try_move(made.opened.replacement, made.read, made.whole, _move(made, each), there)
            found += [replace(t, sources=each.nodes, target=end) for t, end in zip(some, ends, strict=True)]
            advance(1, f"{sum(t.verdict == 'confirmed' for t in found)} confirmed")
    return found


def _move(made: Retraced, named: _Named) -> Move:
    nodes = [made.in_whole(node) for node in named.nodes]
    if named.put_in >= 0:
        return swap(made.read, made.whole, nodes[0], named.put_in, named.name)
    return moved_nodes(made.read, made.whole, nodes, named.name)


def _strongest(graph: Graph, count: int) -> list[tuple[int, int]]:
    """Edges through which most influence passes, of features and errors: that a token's own vector makes the features of its position
    is no finding."""
    found = [(t, s) for t, s, _ in strong_edges(graph, len(graph.nodes) ** 2) if graph.nodes.kind_N[s] != TOKEN]
    return found[:count]


def _joined(before: Sequence[Check], now: Sequence[Check]) -> tuple[Check, ...]:
    """The newest check of each edge."""
    by_edge = {(check.target, check.source): check for check in (*before, *now)}
    return tuple(by_edge.values())


def _newest(before: Sequence[Trial], now: Sequence[Trial]) -> tuple[Trial, ...]:
    """The newest trial of each move and target."""
    by_move = {(t.name, t.sources, t.put_in, t.target): t for t in (*before, *now)}
    return tuple(by_move.values())
