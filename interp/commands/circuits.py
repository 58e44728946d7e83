"""Attribution graphs: a prompt's circuit through what stands for a model, and finished graphs."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from interp import places
from interp.commands.allowed import given_folders
from interp.commands.options import Device, Option
from interp.types import InterpError, unknown

if TYPE_CHECKING:
    from interp.circuits.agreement import Agreement
    from interp.render.circuit import Dot
    from interp.workbench.carrying import ExplainedEdge
    from interp.workbench.checking import CheckedCircuit
    from interp.workbench.circuits import Circuit
    from interp.workbench.faithful import Faithfulness

TRANSCODERS = "saes/smollm2-135m-instruct/transcoders"
"""Those that come with the project."""
KEEP, EDGES, NODES = 0.7, 0.9, 7_500
"""Less than `prune` keeps of its own accord (.8, .98), which of 13 tokens makes a file of 36 MB that no page shows well."""
FORMS = (".json", ".html")
OVER = ("transcoders", "neurons", "residual")
PER_POSITION = 64
"""Neurons of a layer that are nodes at a position."""
STEPS = 0
Over = Annotated[
    str,
    Option(
        "What nodes are: features of `transcoders`, an MLP's own `neurons`, for which nobody has trained anything, or features of SAEs of the "
        "`residual` stream. Without: residual where --saes names some, or --transcoders holds nothing else; else transcoders."
    ),
]
Transcoders = Annotated[
    str,
    Option(
        "Folder that holds a transcoder for every layer of a model, each a checkpoint, or a cross-layer transcoder (ours or circuit-tracer's)."
    ),
]
SAEs = Annotated[
    Sequence[str],
    Option(
        "An SAE of the residual stream, or a folder that holds some; repeatable. Edges are then gradients of the model itself."
    ),
]
Steps = Annotated[
    int,
    Option(
        "Over residual SAEs: 0 takes gradients at the prompt; more integrates them over so many places between no features and the prompt."
        " Integrated ones add up; at the prompt they tell better what a single feature does.",
        low=0,
        high=256,
    ),
]
PerPosition = Annotated[
    int, Option("Over neurons: so many of each layer, those that write most, are nodes at a position.", low=1)
]
Gate = Annotated[
    str, Option("Over neurons of gated MLPs: the gate is `held`, or either side of the product takes `half` (RelP).")
]
Target = Annotated[
    str, Option("Explain this token, as it follows (mostly with a space before it), and not the likeliest ones.")
]
Whose = Annotated[
    str,
    Option(
        "The model, where the transcoders or SAEs have no cards that name it; over neurons, smollm2 unless another is named."
    ),
]


def circuit(
    prompt: Annotated[str, Option("Text whose next token is explained, or a .json file with a finished graph.")],
    *,
    over: Over = "",
    transcoders: Transcoders = TRANSCODERS,
    saes: SAEs = (),
    steps: Steps = STEPS,
    per_position: PerPosition = PER_POSITION,
    gate: Gate = "held",
    target: Target = "",
    distractor: Annotated[str, Option("Explain the target rather than this token.")] = "",
    nodes: Annotated[
        int, Option("Features that are attributed at most, those of most influence first.", low=1)
    ] = NODES,
    keep: Annotated[
        float, Option("Share of the influence on the logits that the nodes kept hold.", low=0.01, high=1)
    ] = KEEP,
    edges: Annotated[
        float, Option("Share of the influence that the edges kept hold, of those between kept nodes.", low=0.01, high=1)
    ] = EDGES,
    model: Whose = "",
    into: Annotated[
        str,
        Option("Write the graph to this file: .json, as circuit-tracer and Neuronpedia have it, or .html, a page."),
    ] = "",
    device: Device = "auto",
) -> "Circuit":
    """Trace which features (or neurons) of a prompt made its next token likely, and made each other fire: its attribution graph, pruned.

    Attention patterns and the scales of norms are held as they were; over residual SAEs nothing is, and edges are gradients. What is left over
    stands in the graph as errors, and how much of it is theirs is told by the scores. A finished graph, of this or another program, is shown and
    written anew.

    Raises InterpError for a target of several tokens, a prompt that memory does not hold, transcoders or SAEs that are missing or of another model,
    SAEs of other hook points than the residual stream's, and over neurons for MLPs that are neither plain nor gated.
    """
    if into and not into.endswith(FORMS):
        raise InterpError(f"--into {into} is no name of a graph; give one that ends in .json or .html.")
    if into:
        places.check_writable(Path(into).parent)
    from interp.workbench import circuits
    from interp.workbench.replacing import open_asked

    if prompt.endswith(".json") and (Path(prompt).is_file() or len(prompt.split()) == 1):
        if target or distractor:
            raise InterpError(
                "a finished graph answers the question it was made for; leave --target and --distractor out."
            )
        made = circuits.read_circuit(prompt)
    else:
        asked = {"prompt": prompt, **_read_as(over, transcoders, saes, steps, per_position, gate, model)}
        opened = open_asked(asked, device)
        made = circuits.trace_circuit(
            opened, prompt, target=target, distractor=distractor, nodes=nodes, keep=keep, edges=edges
        )
        asked |= {"target": target, "distractor": distractor}
        made.graph.about["asked"] = asked | {"nodes": nodes, "keep": keep, "edges": edges}
    return circuits.write_circuit(made, into) if into else made


def _read_as(
    over: str, transcoders: str, saes: Sequence[str], steps: int, per_position: int, gate: str, model: str
) -> dict[str, str | int | list[str]]:
    """What nodes are of, as a graph's file tells it; InterpError for what cannot be."""
    from interp.workbench.replacing import holds_stream

    if over and over not in OVER:
        raise unknown("thing that a graph can be over", over, OVER)
    named = transcoders != TRANSCODERS
    if saes and (named or over not in ("", "residual")):
        raise InterpError("--saes makes a graph over residual SAEs; leave it out, or --transcoders and --over.")
    if not saes and named and over in ("", "residual") and holds_stream(transcoders):
        saes, named = [transcoders], False
    if saes or over == "residual":
        if named or not saes:
            raise InterpError("a graph over the residual stream needs at least one SAE; name its folder with --saes.")
        return {"over": "residual", "saes": list(saes), "steps": steps, "model": model}
    if over != "neurons":
        return {"transcoders": transcoders, "model": model}
    if named:
        raise InterpError("a graph over neurons has no transcoders; leave --transcoders or --over out.")
    return {"over": over, "per_position": per_position, "gate": gate, "model": model or "smollm2"}


def check_circuit(
    graph: Annotated[str, Option("A .json file that `interp circuit` wrote.")],
    *,
    edges: Annotated[
        Sequence[str], Option("An edge, SOURCE->TARGET by their ids in the file; repeatable. Without: the strongest.")
    ] = (),
    nodes: Annotated[Sequence[str], Option("A node by its id, moved with all that it adds; repeatable.")] = (),
    groups: Annotated[
        Sequence[str], Option("A group of the file by its name, whose nodes are moved together; repeatable.")
    ] = (),
    swaps: Annotated[
        Sequence[str],
        Option("A feature by its node's id and another of its layer that takes its place, ID=FEATURE; repeatable."),
    ] = (),
    targets: Annotated[
        Sequence[str],
        Option(
            "A node, by its id, that is measured when nodes, groups and swaps are tried; repeatable. Without: the logits."
        ),
    ] = (),
    count: Annotated[int, Option("So many of the edges that most influence passes through.", low=1, high=1000)] = 20,
    device: Device = "auto",
) -> "CheckedCircuit":
    """Check edges, nodes, groups and swaps of a graph by intervention: move them in the model itself, and measure their targets.

    The graph is attributed anew, so that what is predicted has all paths. What is moved is ablated, halved and doubled (a swap made, and
    half made), beside 19 controls: as many other features of the same layers, moved by as much. The checks are written into the file.

    Raises InterpError for a graph of another program or model, and for an edge, node, group or feature that it does not have.
    """
    from interp.workbench.checking import Wanted, check_graph

    wanted = Wanted(nodes, groups, swaps, targets)
    return check_graph(graph, edges=edges, wanted=wanted, count=count, device=device)


def circuit_edge(
    graph: Annotated[str, Option("A .json file that `interp circuit` wrote.")],
    edge: Annotated[str, Option("SOURCE->TARGET, by their ids in the file.")],
    *,
    heads: Annotated[int, Option("So many of the heads that brought most.", low=1, high=100)] = 5,
    device: Device = "auto",
) -> "ExplainedEdge":
    """Tell which attention heads carried an edge of a graph, and what made each look where it looked.

    With patterns and norms held, what comes straight and what each head brings as the last one add up to the edge. A head's score, before
    the softmax, is a sum over what was written before, once by way of the query and once by way of the key.

    Raises InterpError for a graph of another program or model, and for an edge that it does not have.
    """
    from interp.workbench.carrying import explain_edge

    return explain_edge(graph, edge, heads=heads, device=device)


def compare_circuits(
    one: Annotated[str, Option("A .json file with a finished graph, of this or another program.")],
    other: Annotated[str, Option("Another: of the same prompt made otherwise, or of its paraphrase.")],
) -> "Agreement":
    """Compare two graphs: how far they agree on where the influence on the logits comes from, and their scores side by side.

    By kinds of nodes, layers and words of the prompt; by positions where the prompts have the same tokens, by features where the graphs were made with the
    same transcoders. An overlap is 1 where the shares of the influence are the same, and 0 where they have nothing in common.

    Raises InterpError for a file that is no graph.
    """
    from interp.circuits.agreement import compare_graphs
    from interp.workbench.circuits import read_circuit

    return compare_graphs(read_circuit(one).graph, read_circuit(other).graph)


def circuit_faithfulness(
    behaviour: Annotated[
        str,
        Option(
            "A behaviour, such as subject_verb or capital: prompts from templates, each with a counterfactual twin."
        ),
    ],
    *,
    transcoders: Transcoders = TRANSCODERS,
    pairs: Annotated[
        int, Option("Pairs of prompts on whose graphs features are chosen; each gives two graphs.", low=1, high=100)
    ] = 4,
    prompts: Annotated[
        int, Option("Held-out prompts of each wording on which the features are measured.", low=2, high=1000)
    ] = 20,
    nodes: Annotated[int, Option("Features that each graph attributes at most.", low=1)] = 2_000,
    seed: Annotated[int, Option("Seed of the prompts, and of the random features.")] = 0,
    model: Annotated[str, Option("The model, where the transcoders have no cards that name it.")] = "",
    device: Device = "auto",
) -> "Faithfulness":
    """Measure how much of a behaviour the features of a few graphs carry, on prompts that they were not chosen on.

    With every MLP as for the counterfactual twin, the k features of most influence are put as they are for the prompt: the share of the
    difference of two logits that comes back, k growing, with intervals over prompts, beside as many random features of the same layers; on
    held-out prompts of the template, and of its paraphrase.

    Raises InterpError for a behaviour that there is not, and where the model's tokenizer leaves too few of its prompts.
    """
    from interp.workbench.faithful import measure_behaviour
    from interp.workbench.replacing import open_circuits

    opened = open_circuits(transcoders, model=model, device=device)
    return measure_behaviour(opened, behaviour, pairs=pairs, prompts=prompts, nodes=nodes, seed=seed)


# ---- what pages ask ----


@dataclass(frozen=True)
class Edits:
    """What somebody did to a graph that is shown: nodes by their ids."""

    pinned: Sequence[str] = ()
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ShownNode:
    """A node as a page shows it."""

    id: str
    kind: str
    layer: int
    position: int
    feature: int
    """Or the neuron."""
    activation: float
    influence: float
    name: str
    called: str
    """What a person or a run named it; empty where nobody did."""
    pinned: bool
    group: str


@dataclass(frozen=True)
class ShownCircuit:
    """A graph as a page shows it."""

    circuit: "Circuit"
    nodes: "Sequence[ShownNode]"
    dots: "Sequence[Dot]"
    edges: "Sequence[tuple[int, int, float]]"
    """(source, target, effect) by numbers of nodes, the strongest first."""
    words: Sequence[str]
    layers: int
    about: "Mapping[str, object]"
    unit: str = "feature"
    """What nodes of the kind `feature` are: features or neurons."""


def finished_graphs() -> list[tuple[str, str]]:
    """(file, what it is called) of the graphs in `graphs/` folders of the given folders (or in a given folder of that name), and of those
    that were made here."""
    roots = [root for root in given_folders() if root.is_dir()]
    own = [each for root in roots if root.name == "graphs" for each in sorted(root.glob("*.json"))[:200]]
    found = own + [each for root in roots for each in sorted(root.glob("**/graphs/*.json"))[:200]]
    made = sorted(_made_folder().glob("*.json"), key=lambda each: -each.stat().st_mtime)[:100]
    return [(str(each.resolve()), _title(each)) for each in (*found, *made)]


def _made_folder() -> Path:
    return places.data() / "graphs"


def _title(path: Path) -> str:
    """The beginning of a graph's prompt, which stands near the file's beginning."""
    with path.open("rb") as file:
        head = file.read(200_000).decode("utf-8", "replace")
    at = re.search(r'"prompt":\s*', head)
    try:
        said, _ = json.JSONDecoder().raw_decode(head, at.end() if at else len(head))
    except ValueError:
        return path.stem
    return str(said)[:80] or path.stem


def allowed_graph(file: str) -> str:
    """The file of a finished graph that a page may open. Raises InterpError for any other."""
    known = {path for path, _ in finished_graphs()}
    if str(Path(file).absolute().resolve()) in known:
        return str(Path(file).absolute().resolve())
    raise InterpError(f"there is no finished graph {file[:200]!r} here; the page lists those that there are.")


def graph_place(asked: Mapping[str, object]) -> str:
    """Where the graph that a page asks for is kept: a file named by what was asked."""
    digest = hashlib.sha256(json.dumps(dict(asked), sort_keys=True).encode()).hexdigest()[:20]
    folder = _made_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return str((folder / f"{digest}.json").resolve())


def show_graph(source: str | bytes, edits: Edits | None = None) -> ShownCircuit:
    """A finished graph (a file, or a file's content) with the edits. Raises InterpError when it is none."""
    from interp.circuits.graph import KINDS
    from interp.circuits.page import called, dots_of, layer_count, shares
    from interp.circuits.prune import strong_edges
    from interp.workbench import circuits

    made = circuits.read_circuit(source)
    if edits is not None:
        made = circuits.revise_circuit(made, pinned=edits.pinned, groups=edits.groups, names=edits.names)
    graph = made.graph
    n, names, own, ids = graph.nodes, called(graph), shares(graph), graph.ids
    groups = {each: group.name for group in graph.groups for each in group.members}
    nodes = [
        ShownNode(
            ids[at],
            KINDS[int(n.kind_N[at])],
            int(n.layer_N[at]),
            int(n.position_N[at]),
            int(n.index_N[at]),
            float(n.value_N[at]),
            float(own[at]),
            names[at],
            graph.names.get(ids[at], ""),
            ids[at] in graph.pinned,
            groups.get(ids[at], ""),
        )
        for at in range(len(ids))
    ]
    strongest = [(source_, target, effect) for target, source_, effect in strong_edges(graph, 10**9)]
    return ShownCircuit(
        made, nodes, dots_of(graph, names), strongest, graph.spelt(), layer_count(graph), graph.about, graph.unit
    )


def export_graph(shown: ShownCircuit, form: str) -> str:
    """The graph that is shown, as a file's content: json or html. Raises InterpError for another form."""
    from interp.workbench.circuits import page_or_json

    return page_or_json(shown.circuit, form)
