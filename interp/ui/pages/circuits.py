"""Circuits: which features of a prompt made its next token likely, drawn; nodes are opened, pinned, named, grouped; graphs are exported."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from interp import jobs
from interp.commands.allowed import allowed_sae, inside, read_only
from interp.commands.circuits import (
    TRANSCODERS,
    Edits,
    ShownCircuit,
    allowed_graph,
    check_circuit,
    circuit_edge,
    export_graph,
    finished_graphs,
    graph_place,
    show_graph,
)
from interp.render.words import counted, duration
from interp.types import InterpError
from interp.ui.circuit_figure import card, figure, first_share, said, seen_nodes, width_of
from interp.ui.circuit_nodes import over
from interp.ui.shared import bound, empty, page, plain, remember, url
from interp.ui.sheet import sheet

EXAMPLE = "The capital of the country whose largest city is Sydney is"
LARGEST = 48 * 2**20
LONGEST = 200  # letters of a name or a group
MOST = 200  # pins, groups and names that a URL carries
SCORES = {
    "replacement": ("Replacement", "Influence that reaches tokens through features or neurons, and not errors."),
    "completeness": ("Completeness", "Share of the nodes' inputs that errors do not bring."),
    "left_out": ("Left out", "Influence of active features or neurons that were not attributed."),
    "errors": ("Errors", "Share of errors among the nodes that were kept."),
}


@st.cache_data(show_spinner="Opening the graph …", max_entries=8)
def opened_graph(file: str, changed: float, edits: str) -> ShownCircuit:
    """The graph in a file; `changed` is when it was written, and `edits` what was done to it."""
    return show_graph(file, _edits(edits))


def _edits(text: str) -> Edits:
    """What the URL says was done to a graph. Raises InterpError where it is not as the page writes it."""
    if not text:
        return Edits()
    wrong = InterpError("what the URL says of pins, groups and names cannot be read; open the graph anew.")
    try:
        given = json.loads(text)
        pinned, groups, names = given.get("pins", []), given.get("groups", {}), given.get("names", {})
        flat = [*pinned, *names, *names.values(), *groups, *(each for members in groups.values() for each in members)]
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise wrong from None
    if len(flat) > 10 * MOST or not all(isinstance(each, str) and len(each) <= LONGEST for each in flat):
        raise wrong
    return Edits(pinned, groups, names)


def change(what: Callable[[dict[str, Any]], None]) -> None:
    """Change what the URL says was done to the graph."""
    given = {"pins": [], "groups": {}, "names": {}} | json.loads(st.query_params.get("edits", "") or "{}")
    what(given)
    remember(
        edits=json.dumps({key: value for key, value in given.items() if value}, separators=(",", ":")).replace("{}", "")
    )


def ask(model: str) -> str:
    """The graph to show: a finished one, an uploaded one, or one that is asked for now; empty while there is none. `model` is
    that of the SAE that is open."""
    finished = dict(finished_graphs())
    with st.expander("Another prompt or graph", expanded=not st.query_params.get("graph")):
        prompt = bound(st.text_area, "Prompt whose next token is explained", "prompt", EXAMPLE, height=70)
        left, middle, right = st.columns([3, 3, 2], vertical_alignment="bottom")
        with left:
            target = bound(
                st.text_input, "Target token", "target", "", placeholder="the likeliest; such as “ Canberra”"
            )
        with middle:
            distractor = bound(st.text_input, "rather than", "distractor", "", placeholder="such as “ Melbourne”")
        asked = {"prompt": prompt, "target": target, "distractor": distractor}
        asked |= over(model)
        right.button(
            "Trace the circuit", type="primary", on_click=begin, args=(asked,), disabled=read_only() or not prompt.strip(),
            help="A job: it goes on when this page is closed.",
        )  # fmt: skip
        if finished:
            here = st.query_params.get("graph", "")
            st.selectbox(
                "or a finished graph", ["", *finished], ["", *finished].index(here) if here in finished else 0, key="finished",
                format_func=lambda each: plain(finished.get(each, "choose one")), on_change=choose,
            )  # fmt: skip
        st.file_uploader("or a graph of circuit-tracer, Neuronpedia or interp (.json)", type="json", key="upload")
    return str(st.query_params.get("graph", ""))


def choose() -> None:
    """Open the finished graph that was chosen."""
    remember(graph=st.session_state.finished, edits=None, node=None, share=None)


def begin(asked: Mapping[str, Any]) -> None:
    """Submit the job, or open the graph where it is there already; a mistake is said on the page."""
    try:
        place = graph_place(asked)
        if not Path(place).exists():
            for folder in (*asked.get("saes", ()), *([asked["transcoders"]] if "transcoders" in asked else ())):
                allowed_transcoders(folder)
            jobs.submit("circuit", {**asked, "into": place})
        remember(graph=place, edits=None, node=None, share=None)
    except InterpError as error:
        st.session_state.refused = str(error)


def allowed_transcoders(folder: str) -> None:
    """Raises InterpError for a folder that these pages were not given."""
    if folder != TRANSCODERS:
        inside(folder)


@st.fragment(run_every=2.0)
def progress(id: str) -> None:
    """How far the job is, until it is over."""
    found = jobs.job(id)
    if found.over:
        if found.error:
            st.session_state.refused = found.error
            remember(graph=None)
        st.rerun()
    at = found.progress
    share = 0.0 if at is None or not at.total else min(at.done / at.total, 1.0)
    told = found.state if at is None else f"{at.what}: {at.done:,} of {at.total:,} {at.unit}"
    if at is not None and at.left is not None:
        told += f", {duration(at.left)} left"
    st.progress(share, text=plain(f"Tracing the circuit (job {id}): {told}"))


def node_address(shown: ShownCircuit, at: int, model: str) -> str:
    """The address of the feature's own page, where its transcoder is among those that can be opened, or of the neuron's, where the SAE that
    is open is of its `model`."""
    node, folders = shown.nodes[at], shown.about.get("transcoders")
    if node.kind == "feature" and shown.unit == "neuron":
        asked = shown.about.get("asked")
        same = isinstance(asked, dict) and asked.get("model") == model
        return url("neuron", neuron=f"{node.layer}.{node.feature}") if same else ""
    if node.kind != "feature" or not isinstance(folders, list) or not 0 <= node.layer < len(folders):
        return ""
    if shown.about.get("cross_layer"):  # no page opens one
        return ""
    try:
        return url("feature", sae=allowed_sae(str(folders[node.layer])), feature=node.feature)
    except InterpError:
        return ""


def draw(shown: ShownCircuit) -> int | None:
    """The drawing with its slider; the number of the node that is chosen comes back."""
    numbers = {node.id: at for at, node in enumerate(shown.nodes)}
    if st.query_params.get("node", "") not in numbers:
        remember(node=None)
    left, right = st.columns([2, 3])
    with left:
        share = bound(
            st.slider,
            "Share of the kept influence that is drawn",
            "share",
            first_share(shown),
            min_value=0.05,
            max_value=1.0,
            step=0.05,
        )
    with right:
        names = {"": "click a mark, or choose"} | {node.id: node.name for node in shown.nodes}
        node = bound(st.selectbox, "Node", "node", "", options=list(names), format_func=lambda each: names[each])
    chosen = numbers.get(node)
    together = any(node.group for node in shown.nodes) and bound(st.toggle, "Groups as one mark", "together", False)
    seen = seen_nodes(shown, share, chosen)
    with st.container(key="circuit"):
        event: Any = st.plotly_chart(
            figure(shown, seen, chosen, together), key="drawing", on_select="rerun", selection_mode="points", width=width_of(shown, seen),
            alt=said(shown, seen), config={"displayModeBar": False, "scrollZoom": False},
        )  # fmt: skip
    st.caption(
        f"Blue lines raise what they lead to, dotted orange ones lower it. Circles are {shown.unit}s, open diamonds what {shown.circuit.graph.rest}, "
        "squares tokens, triangles logits; larger is more influence. A click opens a node, and shows its own edges."
    )
    clicked = next((point.get("customdata") for point in event.selection.points if "customdata" in point), None)
    clicked = clicked[0] if isinstance(clicked, list) else clicked
    if clicked is not None and clicked != st.session_state.get("clicked") and 0 <= int(clicked) < len(shown.nodes):
        st.session_state.clicked = clicked
        remember(node=shown.nodes[int(clicked)].id)
        st.rerun()
    return chosen


def edit(shown: ShownCircuit, at: int) -> None:
    """Pin, name and group the chosen node."""
    node = shown.nodes[at]
    if node.kind == "token":
        return
    pins = _edits(st.query_params.get("edits", "")).pinned

    def pin(given: dict[str, Any]) -> None:
        given["pins"] = [each for each in given["pins"] if each != node.id] + [node.id] * (node.id not in pins)

    def name(given: dict[str, Any]) -> None:
        given["names"][node.id] = st.session_state[f"name-{node.id}"][:LONGEST]

    def group(given: dict[str, Any]) -> None:
        called = st.session_state[f"group-{node.id}"].strip()[:LONGEST]
        left = {each: [m for m in members if m != node.id] for each, members in given["groups"].items()}
        if called:
            left[called] = [*left.get(called, []), node.id]
        given["groups"] = {each: members for each, members in left.items() if members}

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button(
            "Unpin" if node.id in pins else "Pin", on_click=change, args=(pin,), help="A pinned node stays in sight."
        )
        st.text_input(
            "Name", node.called, key=f"name-{node.id}", on_change=change, args=(name,), max_chars=LONGEST, width=260
        )
        st.text_input(
            "Group", node.group, key=f"group-{node.id}", on_change=change, args=(group,), max_chars=LONGEST, width=260
        )


def tried(row: Mapping[str, Any]) -> str:
    """What came of trying an edge, in a sentence or two."""
    return (
        f"Directly {row['verdict']}: {row['edge']:+.3g} was predicted, and its source does {row['measured']:+.3g} ({row['low']:+.3g} to "
        f"{row['high']:+.3g} ablated, halved and doubled); 95 of 100 other features moved as much do less than {row['control']:.2g}, the worst "
        f"direction of that size {row['adversarial']:.2g}. Over all ways in the live model {row['live_verdict']}: {row['whole']:+.3g} was "
        f"predicted, and {row['live']:+.3g} measured."
    )


def carried_by(found: Any) -> list[dict[str, Any]]:
    """The heads that carried an edge, as rows of a table."""
    return [
        {
            "head": each.head,
            "brought": each.brought,
            "all ways": each.through,
            "attention": each.attention,
            "looked because of": ", ".join(f"{name} {value:+.2g}" for name, value in each.query),
            "at": ", ".join(f"{name} {value:+.2g}" for name, value in each.key),
        }
        for each in found.heads
    ]


def check(shown: ShownCircuit, at: int, file: str) -> None:
    """Try an edge of the node in the model, and tell which heads carried it, where that can be asked."""
    if not file:
        return
    own = [edge for edge in shown.edges if at in edge[:2]][:50]
    named = {
        f"{shown.nodes[s].id}->{shown.nodes[t].id}": f"{shown.nodes[s].name} → {shown.nodes[t].name} ({w:+.3g})"
        for s, t, w in own
    }
    if not named:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        edge = st.selectbox("Edge", list(named), format_func=lambda each: named[each])
        asked = not read_only() and st.button(
            "Check this edge", help="Changes the source in the model, and measures what its target does."
        )
        heads = st.button(
            "Which heads carried it", help="What each attention head brought of it, and what made the head look there."
        )
    if asked:
        with st.spinner("Running the model …"):
            st.markdown(plain(tried(check_circuit(file, edges=[edge], count=1).rows[0])))
    if heads:
        with st.spinner("Running the model …"):
            found = circuit_edge(file, edge)
        st.markdown(plain(found.sentence()))
        st.dataframe(carried_by(found), hide_index=True)


def show(shown: ShownCircuit, file: str, model: str) -> None:
    """A graph: its question, scores, drawing, the card of a node, files; `model` is that of the SAE that is open."""
    about = shown.about
    of = " · ".join(str(about[key]) for key in ("model", "question") if about.get(key))
    kinds = [node.kind for node in shown.nodes]
    st.markdown(f"**{plain(str(about.get('prompt', '')).strip() or 'A graph')}**")
    kept = f"{counted(kinds.count('feature'), shown.unit)}, {counted(kinds.count('error'), 'error')}, {counted(len(shown.edges), 'edge')}"
    st.caption(plain(f"{of} · {len(shown.words)} tokens · {kept}"))
    scores = shown.circuit.scores
    if scores:
        with st.container(horizontal=True, gap="large"):
            for name, value in scores.items():
                label, means = SCORES.get(name, (name, ""))
                st.metric(plain(label), f"{value:.0%}", help=plain(means), width="content")
    chosen = draw(shown)
    if chosen is not None:
        sheet(
            card(shown, chosen, node_address(shown, chosen, model)),
            key="card",
            about=shown.nodes[chosen].id,
            state={"node": shown.nodes[chosen].id},
        )
        if st.query_params.get("node") != shown.nodes[chosen].id:  # an edge's other end was clicked
            st.rerun()
        edit(shown, chosen)
        check(shown, chosen, file)
    else:
        logits = ", ".join(f"{token} {weight:.3f}" for token, weight in shown.circuit.logits())
        st.caption(plain(f"Logits: {logits}"))
    with st.container(horizontal=True):
        st.download_button(
            "JSON",
            lambda: export_graph(shown, "json"),
            "graph.json",
            "application/json",
            help="As circuit-tracer and Neuronpedia have it.",
        )
        st.download_button(
            "Page",
            lambda: export_graph(shown, "html"),
            "graph.html",
            "text/html",
            help="One HTML file that needs nothing else.",
        )
    if command := shown.circuit.command():
        with st.expander("The command that makes it again"):
            st.code(command, language="bash", wrap_lines=True)


with page("Circuits") as opened:
    graph = ask(opened.model)
    if refused := st.session_state.pop("refused", ""):
        st.error(plain(refused), icon=":material/block:")
    upload = st.session_state.get("upload")
    if upload is not None:
        if upload.size > LARGEST:
            raise InterpError(f"{upload.name} has {upload.size:,} bytes, and a graph has {LARGEST:,} at most.")
        show(show_graph(upload.getvalue(), _edits(st.query_params.get("edits", ""))), "", opened.model)
    elif graph:
        going = next((job for job in jobs.jobs() if not job.over and job.arguments.get("into") == graph), None)
        if going is not None:
            progress(going.id)
        else:
            file = allowed_graph(graph)
            show(opened_graph(file, Path(file).stat().st_mtime, st.query_params.get("edits", "")), file, opened.model)
    else:
        empty(
            "No graph yet",
            "Trace the circuit of a prompt, or open a finished graph: which features made the next token likely, and which made those fire.",
        )
