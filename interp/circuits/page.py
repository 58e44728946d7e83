"""A graph as people see it: one page that needs nothing else, and what a notebook shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.circuits.graph import ERROR, FEATURE, KINDS, LOGIT, Graph, Trial, node_names
from interp.circuits.prune import influence, strong_edges
from interp.render.circuit import LINES, Dot, circuit_svg
from interp.render.html import Html, visible
from interp.render.sheet import element, join_html, rows_html, sheet_html
from interp.render.tag import tag

LISTED = 25
"""Features and edges in the tables."""


def called(graph: Graph) -> list[str]:
    """Each node in words: its name where it has one, and where it stands."""
    plain = node_names(graph, graph.spelt())
    return [
        f"{graph.names[each]} ({name})" if each in graph.names else name
        for each, name in zip(graph.ids, plain, strict=True)
    ]


def moved_words(graph: Graph, trial: Trial) -> str:
    """What was moved, in words: a node or a swap by its name, a group by its own."""
    names = called(graph)
    first = names[trial.sources[0]]
    if trial.put_in >= 0:
        return f"{first}, in its place {graph.sign}{trial.put_in}"
    return first if trial.name == graph.ids[trial.sources[0]] else f"{trial.name} ({len(trial.sources)} nodes)"


def shares(graph: Graph) -> np.ndarray:
    """Each node's influence on the logits, of the whole graph where that is known; (N,)."""
    own_N = graph.influence_N if graph.influence_N is not None else influence(graph.edges_NN, graph.weights())
    return np.asarray(own_N.double().numpy())


def layer_count(graph: Graph) -> int:
    """Layers of the model, as far as the nodes tell."""
    inner = graph.nodes.layer_N[graph.nodes.kind_N != LOGIT]
    logits = graph.nodes.layer_N[graph.nodes.kind_N == LOGIT]
    return max(int(inner.max(initial=-1)) + 1, int(logits.max(initial=0)))


def dots_of(graph: Graph, names: Sequence[str] | None = None) -> list[Dot]:
    """What is drawn of each node, in their order: sized by influence (logits by weight)."""
    n, own, ids = graph.nodes, shares(graph), graph.ids
    most = max(float(own[n.kind_N == FEATURE].max(initial=0.0)), 1e-12)
    made = []
    for at, name in enumerate(names or called(graph)):
        kind, value = int(n.kind_N[at]), float(n.value_N[at])
        size = min(abs(value), 1.0) if kind == LOGIT else min(float(own[at]) / most, 1.0)
        told = f", activation {value:.3g}" if kind == FEATURE else ""
        weight = f", weight {value:.3g}" if kind == LOGIT else f", influence {own[at]:.2%}"
        where, layer = int(n.position_N[at]), int(n.layer_N[at])
        made.append(Dot(where, layer, KINDS[kind], size, name + told + weight, ids[at] in graph.pinned))
    return made


def drawing(graph: Graph) -> Html:
    """Layers and positions, as inline SVG."""
    edges = [(source, target, effect) for target, source, effect in strong_edges(graph, LINES)]
    kinds = {kind: int((graph.nodes.kind_N == number).sum()) for number, kind in enumerate(KINDS)}
    says = (
        f"Attribution graph over {len(graph.tokens)} tokens and {layer_count(graph)} layers: {kinds['feature']:,} {graph.unit}s, "
        f"{kinds['error']:,} errors, {kinds['logit']:,} logits and {int((graph.edges_NN != 0).sum()):,} edges. The tables below list the strongest."
    )
    names = [f"L{graph.layer_name(layer)}" for layer in range(layer_count(graph))]
    return circuit_svg(graph.spelt(), dots_of(graph), edges, layers=names, says=says)


def graph_html(graph: Graph) -> str:
    """A piece of HTML for notebooks: what was asked, scores, drawing, strongest features and edges."""
    prompt = str(graph.about.get("prompt", "")) or "".join(graph.spelt())
    scroll = tag("div", drawing(graph), style="overflow-x:auto;max-width:100%")
    return str(
        join_html(
            [element("p", element("b", visible(prompt).replace("·", " "))), _scores(graph), scroll, _tables(graph)]
        )
    )


def graph_page(graph: Graph) -> str:
    """The whole page; it fetches and runs nothing."""
    prompt = str(graph.about.get("prompt", "")) or "".join(graph.spelt())
    edges = int((graph.edges_NN != 0).sum())
    of = [f"{name} {graph.about[name]}" for name in ("model", "question") if graph.about.get(name)]
    drawn = f"The {LINES:,} strongest of {edges:,} edges are drawn. " if edges > LINES else ""
    legend = (
        f"{drawn}Blue lines raise what they lead to, dashed orange ones lower it; circles are {graph.unit}s, open diamonds what {graph.rest}, "
        "squares tokens, triangles logits. Larger is more influence on the logits. A mark's words appear under the pointer."
    )
    body = join_html(
        [
            element("h1", prompt),
            element("p", " · ".join(of), kind="soft"),
            _scores(graph),
            element("div", drawing(graph), kind="scroll"),
            element("p", legend, kind="soft small"),
            _tables(graph),
        ]
    )
    return sheet_html(f"Circuit: {prompt[:80]}", body)


SAID = {
    "replacement": "replacement score",
    "completeness": "completeness",
    "left_out": "influence left out",
    "errors": "errors among the nodes kept",
}


def _scores(graph: Graph) -> Html:
    scores: Mapping[str, Any] = graph.about.get("scores", {})
    known = scores if isinstance(scores, dict) else {}
    cards = [
        element(
            "div", element("span", words, kind="soft small"), element("b", f"{float(known[name]):.1%}"), kind="card"
        )
        for name, words in SAID.items()
        if isinstance(known.get(name), int | float)
    ]
    return element("div", *cards, kind="cards") if cards else Html("")


def _tables(graph: Graph) -> Html:
    names, own, n = called(graph), shares(graph), graph.nodes
    inner = [at for at in np.argsort(-own, kind="stable").tolist() if n.kind_N[at] in (FEATURE, ERROR)][:LISTED]
    parts = [
        element("h2", "Logits"),
        rows_html(
            ["token", "weight"],
            [
                [name.removeprefix("logit "), f"{n.value_N[at]:.3f}"]
                for at, name in enumerate(names)
                if n.kind_N[at] == LOGIT
            ],
        ),
        element("h2", f"{graph.unit.capitalize()}s and errors of most influence"),
        rows_html(
            ["what", "activation", "influence"],
            [[names[at], f"{n.value_N[at]:.3g}" if n.kind_N[at] == FEATURE else "", f"{own[at]:.2%}"] for at in inner],
            ["", "num", "num"],
        ),
        element("h2", "Strongest edges"),
        rows_html(
            ["from", "to", "effect"],
            [
                [names[source], names[target], f"{effect:+.3g}"]
                for target, source, effect in strong_edges(graph, LISTED)
            ],
            ["", "", "num"],
        ),
    ]
    by_id = dict(zip(graph.ids, names, strict=True))
    if graph.groups:
        rows = [[group.name, ", ".join(by_id.get(each, each) for each in group.members)] for group in graph.groups]
        parts += [element("h2", "Groups"), rows_html(["group", "members"], rows)]
    if graph.checks:
        rows = [
            [names[c.source], names[c.target], f"{c.edge:+.3g}", f"{c.measured:+.3g}", c.verdict, c.live_verdict]
            for c in graph.checks
        ]
        parts += [
            element("h2", "Edges that were tried"),
            rows_html(["from", "to", "edge", "measured", "verdict", "live model"], rows),
        ]
    if graph.trials:
        rows = [
            [
                *(moved_words(graph, t), names[t.target], f"{t.predicted:+.3g}", f"{t.measured:+.3g}", t.verdict),
                *(f"{t.whole:+.3g}", f"{t.live:+.3g}", t.live_verdict),
            ]
            for t in graph.trials
        ]
        heads = ["moved", "to", "direct", "measured", "verdict", "all paths", "live", "live verdict"]
        parts += [element("h2", "Nodes, groups and swaps that were tried"), rows_html(heads, rows)]
    return join_html(parts)
