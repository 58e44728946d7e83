"""Edges of a finished graph, tried in the model that it is of."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from interp.circuits.graph import TOKEN, Check, Graph
from interp.circuits.intervene import check_edges
from interp.circuits.page import called
from interp.circuits.prune import strong_edges
from interp.statistics import wilson
from interp.workbench.circuits import read_circuit, write_circuit
from interp.workbench.retracing import named_edge, retrace


@dataclass(frozen=True, eq=False)
class CheckedCircuit:
    """What came of trying edges."""

    graph: Graph
    rows: Sequence[dict[str, Any]]
    """An edge each: its ends by name, and the fields of `Check`."""
    file: str

    def sentence(self) -> str:
        """How many are confirmed, with a 95 % interval."""
        count, said = len(self.rows), []
        for key, what in (("verdict", "as direct effects"), ("live_verdict", "over all paths of the live model")):
            verdicts = [row[key] for row in self.rows]
            good = verdicts.count("confirmed")
            _, low, high = wilson(good, count)
            said.append(
                f"{good} are confirmed {what} ({good / count:.0%}, {low:.0%} to {high:.0%}), {verdicts.count('refuted')} refuted"
            )
        return f"of {count} edges {'; '.join(said)}."

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"file": self.file, "checks": list(self.rows), "said": self.sentence()}


def check_graph(file: str, *, edges: Sequence[str] = (), count: int = 20, device: str = "auto") -> CheckedCircuit:
    """Try edges of a graph's file in the model, and write what came of it into the file.

    `edges` are SOURCE->TARGET by ids; without, the `count` that most influence passes through. Raises InterpError for a graph that does not
    say how it was made, and for an edge that it does not have.
    """
    drawn = read_circuit(file).graph
    wanted = [named_edge(drawn, each) for each in edges] or _strongest(drawn, count)
    made = retrace(drawn, file, device)
    there = [(made.in_whole(target), made.in_whole(source)) for target, source in wanted]
    found = check_edges(made.opened.replacement, made.read, made.whole, there)
    checks = [replace(check, target=t, source=s) for check, (t, s) in zip(found, wanted, strict=True)]
    graph = replace(drawn, checks=_joined(drawn.checks, checks))
    written = write_circuit(replace(read_circuit(file), graph=graph), file)
    names = called(graph)
    rows = [asdict(c) | {"source": names[c.source], "target": names[c.target]} for c in checks]
    return CheckedCircuit(graph, rows, written.file)


def _strongest(graph: Graph, count: int) -> list[tuple[int, int]]:
    """Edges through which most influence passes, of features and errors: that a token's own vector makes the features of its position
    is no finding."""
    found = [(t, s) for t, s, _ in strong_edges(graph, len(graph.nodes) ** 2) if graph.nodes.kind_N[s] != TOKEN]
    return found[:count]


def _joined(before: Sequence[Check], now: Sequence[Check]) -> tuple[Check, ...]:
    """The newest check of each edge."""
    by_edge = {(check.target, check.source): check for check in (*before, *now)}
    return tuple(by_edge.values())
