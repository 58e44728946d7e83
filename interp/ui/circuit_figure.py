"""A graph's drawing in Plotly, and the card of one of its nodes."""

from collections.abc import Sequence

import plotly.graph_objects as go

from interp.commands.circuits import ShownCircuit, ShownNode
from interp.render import Html, chart_text, visible
from interp.render.circuit import LINES, place_dots, strongest_lines
from interp.render.parts import fold
from interp.render.parts import go as leads
from interp.render.tag import join, tag

SYMBOLS = {"feature": "circle", "error": "diamond-open", "token": "square", "logit": "triangle-up"}
COLOURS = {"feature": "#a06fcb", "error": "#a39a12", "token": "#858585", "logit": "#12a37d"}
LIFTS, LOWERS = "#2f93d6", "#dd7a2c"
"""Seen on light and on dark."""
PINNED = "#e69f00"
SLOT, ROW, LEAST, FOOT = 13, 21, 1180, 150
"""Pixels: of a dot, of a layer, of the whole, of the tokens below."""
WORD = 14
LISTED = 12
MOST_SEEN = 700
"""Nodes that a graph opens with at most; more are drawn when they are asked for."""


def seen_nodes(shown: ShownCircuit, share: float, chosen: int | None) -> list[int]:
    """Nodes that are drawn: those that hold this share of what is kept, ends, pinned ones and the chosen one."""
    inner = [at for at, node in enumerate(shown.nodes) if node.kind in ("feature", "error")]
    total, held, seen = sum(shown.nodes[at].influence for at in inner), 0.0, set()
    for at in sorted(inner, key=lambda each: -shown.nodes[each].influence):
        if share >= 1 or held < share * total:
            seen.add(at)
        held += shown.nodes[at].influence
    stays = {at for at, node in enumerate(shown.nodes) if node.kind in ("token", "logit") or node.pinned}
    return sorted(seen | stays | ({chosen} if chosen is not None else set()))


def first_share(shown: ShownCircuit) -> float:
    """The share at which a graph is opened: all, or as much as MOST_SEEN nodes hold."""
    steps = [step / 20 for step in range(20, 0, -1)]
    return next((share for share in steps if len(seen_nodes(shown, share, None)) <= MOST_SEEN), steps[-1])


def width_of(shown: ShownCircuit, seen: Sequence[int]) -> int:
    """Pixels that the drawing needs."""
    placed, columns = place_dots([shown.dots[at] for at in seen], len(shown.words))
    return max(LEAST, round(SLOT * (max([columns[-1], *(x for x, _ in placed)]) + 6)))


def joined(shown: ShownCircuit, seen: Sequence[int]) -> dict[int, int]:
    """The node that stands for each of those that are seen: itself, or the first of its group."""
    first: dict[str, int] = {}
    for at in seen:
        first.setdefault(shown.nodes[at].group, at)
    return {at: first[shown.nodes[at].group] if shown.nodes[at].group else at for at in seen}


def figure(shown: ShownCircuit, seen: Sequence[int], chosen: int | None, together: bool = False) -> go.Figure:
    """Layers over positions; of the edges, those of the chosen node, or the strongest of all. With `together`, a group is one mark
    in the middle of its members, and their edges are its own."""
    placed, columns = place_dots([shown.dots[at] for at in seen], len(shown.words))
    place = dict(zip(seen, placed, strict=True))
    among = [edge for edge in shown.edges if edge[0] in place and edge[1] in place]
    if together:
        stands = joined(shown, seen)
        chosen = stands.get(chosen, chosen) if chosen is not None else None
        place = _middles(place, stands)
        among = _summed(among, stands)
    own = [edge for edge in among if chosen in edge[:2]]
    made = go.Figure()
    if chosen is None:
        _lines(made, strongest_lines(among), place, 1.0)
    else:
        _lines(made, strongest_lines(among, LINES // 2), place, 0.45)
        _lines(made, strongest_lines(own), place, 1.0)
    for kind, symbol in SYMBOLS.items():
        _marks(made, shown, [at for at in place if shown.nodes[at].kind == kind], place, symbol, chosen, together)
    words = [visible(word) for word in shown.words]
    short = [chart_text(word if len(word) <= WORD else word[: WORD - 1] + "…") for word in words]
    made.update_layout(
        height=ROW * (shown.layers + 2) + FOOT,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        showlegend=False,
        hovermode="closest",
        dragmode=False,
        clickmode="event+select",
    )
    every = 1 if shown.layers <= 12 else 5
    layers = list(range(0, shown.layers, every))
    made.update_xaxes(
        tickvals=columns, ticktext=short, tickangle=-90, showgrid=False, zeroline=False, fixedrange=True,
        range=[-1.2, max([columns[-1], *(x for x, _ in placed)]) + 1.2], tickfont={"family": "monospace", "size": 11},
    )  # fmt: skip
    made.update_yaxes(
        tickvals=[-1, *layers, shown.layers], ticktext=["tokens", *(f"L{shown.circuit.graph.layer_name(layer)}" for layer in layers), "logits"],
        zeroline=False, fixedrange=True, range=[-1.8, shown.layers + 0.8],
    )  # fmt: skip
    return made


def _middles(place: dict[int, tuple[float, float]], stands: dict[int, int]) -> dict[int, tuple[float, float]]:
    """Where the node that stands for others is drawn: in the middle of all of them."""
    members: dict[int, list[tuple[float, float]]] = {}
    for at, other in stands.items():
        members.setdefault(other, []).append(place[at])
    return {
        at: (sum(x for x, _ in those) / len(those), sum(y for _, y in those) / len(those))
        for at, those in members.items()
    }


def _summed(edges: Sequence[tuple[int, int, float]], stands: dict[int, int]) -> list[tuple[int, int, float]]:
    """Edges between those that stand for others, added up, the strongest first; what is within a group is left out."""
    sums: dict[tuple[int, int], float] = {}
    for source, target, weight in edges:
        ends = stands[source], stands[target]
        if ends[0] != ends[1]:
            sums[ends] = sums.get(ends, 0.0) + weight
    return sorted(((source, target, weight) for (source, target), weight in sums.items()), key=lambda e: -abs(e[2]))


def _lines(
    made: go.Figure, lines: Sequence[tuple[int, int, float]], place: dict[int, tuple[float, float]], strong: float
) -> None:
    """Three strengths of each sign: a trace for each line would be slow."""
    most = max((abs(weight) for *_, weight in lines), default=1.0) or 1.0
    for sign, colour in ((-1, LOWERS), (1, LIFTS)):
        for step in range(3):
            part = [e for e in lines if e[2] * sign > 0 and min(int(3 * (abs(e[2]) / most) ** 0.5), 2) == step]
            xs = [x for source, target, _ in part for x in (place[source][0], place[target][0], None)]
            ys = [y for source, target, _ in part for y in (place[source][1], place[target][1], None)]
            look = {"color": colour, "width": (0.7, 1.4, 2.6)[step], "dash": "solid" if sign > 0 else "dot"}
            made.add_scatter(
                x=xs, y=ys, mode="lines", line=look, opacity=strong * (0.4, 0.65, 0.95)[step], hoverinfo="skip"
            )


def _marks(
    made: go.Figure,
    shown: ShownCircuit,
    nodes: Sequence[int],
    place: dict[int, tuple[float, float]],
    symbol: str,
    chosen: int | None,
    together: bool,
) -> None:
    grouped = {at: shown.nodes[at].group for at in nodes if together and shown.nodes[at].group}
    says = {at: f"group {name}" for at, name in grouped.items()}
    size = {
        at: sum(shown.dots[m].size for m, node in enumerate(shown.nodes) if node.group == g)
        for at, g in grouped.items()
    }
    ring = [
        "#d5342b" if at == chosen else PINNED if shown.nodes[at].pinned else COLOURS[shown.nodes[at].kind]
        for at in nodes
    ]
    made.add_scatter(
        x=[place[at][0] for at in nodes],
        y=[place[at][1] for at in nodes],
        mode="markers",
        marker={
            "symbol": symbol,
            "size": [6 + 10 * size.get(at, shown.dots[at].size) ** 0.5 for at in nodes],
            "color": [COLOURS[shown.nodes[at].kind] for at in nodes],
            "line": {
                "color": ring,
                "width": [3 if at == chosen or at in grouped or shown.nodes[at].pinned else 1 for at in nodes],
            },
        },
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 1}},
        customdata=list(nodes),
        text=[chart_text(says.get(at, shown.dots[at].says)) for at in nodes],
        hovertemplate="%{text}<extra></extra>",
    )


def said(shown: ShownCircuit, seen: Sequence[int]) -> str:
    """What the drawing shows, in words."""
    kinds = [shown.nodes[at].kind for at in seen]
    best = sorted((shown.nodes[at] for at in seen if shown.nodes[at].kind == "feature"), key=lambda n: -n.influence)[:3]
    named = f" Of most influence: {'; '.join(node.name for node in best)}." if best else ""
    return (
        f"Attribution graph of {len(shown.words)} tokens over {shown.layers} layers: {kinds.count('feature')} {shown.unit}s, "
        f"{kinds.count('error')} errors, {kinds.count('logit')} logits.{named} The card below lists a node's edges."
    )


# ---- the card ----


def card(shown: ShownCircuit, at: int, page: str) -> Html:
    """A node in words: what it is, its strongest inputs and outputs; `page` is the address of the feature's or neuron's own page, if it has one."""
    node = shown.nodes[at]
    inputs = [(source, weight) for source, target, weight in shown.edges if target == at]
    outputs = [(target, weight) for source, target, weight in shown.edges if source == at]
    facts = (
        [("influence on the logits", f"{node.influence:.3g}")]
        if node.kind != "logit"
        else [("weight", f"{node.activation:.3f}")]
    )
    if node.kind == "feature":
        facts.insert(0, ("activation", f"{node.activation:.3g}"))
    told = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts]
    link = tag("p", leads(f"The {shown.unit}'s own page", page)) if page else None
    marks = " · ".join(
        filter(None, ["pinned" if node.pinned else "", f"in the group {node.group}" if node.group else ""])
    )
    return join(
        tag("h2", node.name),
        tag("p", marks, class_="note") if marks else None,
        link,
        tag("dl", told, class_="facts"),
        tag(
            "div",
            fold("Strongest inputs", _edges(shown, inputs), name="inputs", side=f"{len(inputs)} edges"),
            fold("Strongest outputs", _edges(shown, outputs), name="outputs", side=f"{len(outputs)} edges"),
            class_="halves",
        ),
    )


def _edges(shown: ShownCircuit, ends: Sequence[tuple[int, float]]) -> Html:
    if not ends:
        return tag("p", "None of those that were kept.", class_="note")
    rows = [
        tag("tr", tag("td", _name(shown.nodes[at])), tag("td", f"{weight:+.3g}", class_="n"))
        for at, weight in ends[:LISTED]
    ]
    return tag("table", tag("tr", tag("th", "node"), tag("th", "effect", class_="n")), rows)


def _name(node: ShownNode) -> Html:
    return tag(
        "button", node.name, type="button", data_set=f"node={node.id}", style="white-space:normal;text-align:start"
    )
