"""Graphs as JSON that other programs read: circuit-tracer's and Neuronpedia's form of an attribution graph, both ways.

    metadata   slug, scan (the model), prompt, prompt_tokens; what only this project knows stands in `interp`
    qParams    pinnedIds, supernodes (a name, then ids), clickedId, linkType, sg_pos
    nodes      node_id, feature, layer, ctx_idx, feature_type, jsNodeId, clerp (a name); influence, activation, token_prob
    links      source, target, weight

`influence` of a node is there the share of all influence that it and all stronger nodes hold together. A file is bounded, checked
before anything is made of it, and everything in it is text or a number.

Axes    N node.
Source  circuit-tracer's frontend/graph_models.py and Neuronpedia's graph-schema.json, read on 2026-11-27.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, NoReturn

import numpy as np
import torch

from interp import places
from interp.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN, Check, Graph, Group, Nodes, Trial
from interp.circuits.prune import influence
from interp.circuits.schema_check import (
    MOST_LAYERS,
    MOST_NODES,
    TYPES,
    Object,
    check_graph,
    check_numbers,
    check_object,
    refuse,
)
from interp.types import InterpError

MOST_BYTES = 48 * 2**20
FORMAT = 1
WRITTEN = {FEATURE: "cross layer transcoder", ERROR: "mlp reconstruction error", TOKEN: "embedding", LOGIT: "logit"}
NODE_ID = re.compile(r"(\d{1,6})_(\d{1,15})_(\d{1,6})")
OUTPUT = re.compile(r'Output "(.*)" \(p=[\d.]+\)', re.DOTALL)
SLUG = re.compile(r"[^a-z0-9]+")


# ---- written ----


def to_json(graph: Graph, *, slug: str = "") -> str:
    """The graph in that form, for Neuronpedia's and circuit-tracer's pages, and for `from_json`, which gives this graph back.

    Raises InterpError for a graph of more than MOST_NODES nodes: prune it first.
    """
    if len(graph.nodes) > MOST_NODES:
        raise InterpError(
            f"the graph has {len(graph.nodes):,} nodes, and a file holds {MOST_NODES:,} at most; prune it first."
        )
    ids, about = graph.ids, graph.about
    prompt = str(about.get("prompt", "")) or "".join(graph.spelt())
    targets, sources = torch.nonzero(graph.edges_NN, as_tuple=True)
    weights = graph.edges_NN[targets, sources].tolist()
    links = zip(sources.tolist(), targets.tolist(), weights, strict=True)
    value = {
        "metadata": {
            "slug": slug or SLUG.sub("-", prompt.lower()).strip("-")[:60] or "graph",
            "scan": str(about.get("model", "")),
            "transcoder_list": list(map(str, about.get("transcoders", ()))),
            "prompt_tokens": list(graph.spelt()),
            "prompt": prompt,
            "node_threshold": float(about.get("keep", 1.0)),
            "info": {"generator": {"name": "interp"}},
            "generation_settings": {"max_feature_nodes": int((graph.nodes.kind_N == FEATURE).sum())},
            "pruning_settings": {name: about[key] for name, key in _SETTINGS if key in about},
            "interp": _own(graph),
            **graph.others.get("metadata", {}),
        },
        "qParams": {
            "pinnedIds": list(graph.pinned),
            "supernodes": [[group.name, *group.members] for group in graph.groups],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
            **graph.others.get("qParams", {}),
        },
        "nodes": _node_objects(graph, ids),
        "links": [{"source": ids[s], "target": ids[t], "weight": shortest(weight)} for s, t, weight in links],
    }
    return places.strict_json(value, separators=(",", ":"))


def shortest(weight: float) -> float:
    """The number of fewest digits that is the same float32."""
    return float(str(np.float32(weight)))


OURS = {
    "metadata": {
        "slug", "scan", "transcoder_list", "prompt_tokens", "prompt", "node_threshold", "info", "generation_settings",
        "pruning_settings", "interp",
    },
    "qParams": {"pinnedIds", "supernodes"},
}  # fmt: skip
"""What is written from the graph; all else that a file has there stays as it is."""
_SETTINGS = (("node_threshold", "keep"), ("edge_threshold", "edges"))


def _own(graph: Graph) -> dict[str, Any]:
    """What the others' form has no place for."""
    return {
        "format": FORMAT,
        "tokens": list(graph.tokens),
        "words": list(graph.words),
        "says": list(graph.nodes.says_K),
        "layers": graph.nodes.layer_N.tolist(),
        "values": [shortest(v) for v in graph.nodes.value_N.tolist()],
        "left_out": graph.left_out,
        "bias": None if graph.bias_S is None else [shortest(v) for v in graph.bias_S.tolist()],
        "influence": None if graph.influence_N is None else [shortest(v) for v in graph.influence_N.tolist()],
        "names": dict(graph.names),
        "checks": [asdict(c) | {"source": graph.ids[c.source], "target": graph.ids[c.target]} for c in graph.checks],
        "trials": [
            asdict(t) | {"sources": [graph.ids[s] for s in t.sources], "target": graph.ids[t.target]}
            for t in graph.trials
        ],
        "about": dict(graph.about),
    }


def _node_objects(graph: Graph, ids: Sequence[str]) -> list[dict[str, Any]]:
    n, made = graph.nodes, []
    reached = cumulative(graph)
    logit = iter(graph.nodes.says_K)
    words = graph.spelt()
    best = max((float(v) for v, kind in zip(n.value_N, n.kind_N, strict=True) if kind == LOGIT), default=0.0)
    for at, name in enumerate(ids):
        kind, position, index = (int(a[at]) for a in (n.kind_N, n.position_N, n.index_N))
        value = float(n.value_N[at])
        feature = {ERROR: -1, TOKEN: position}.get(kind, index)
        known = graph.names.get(name, "")
        if kind == LOGIT:
            known = f'Output "{next(logit)}" (p={value:.3f})'
        elif kind == TOKEN and not known:
            known = f'Emb: "{words[position]}"'
        elif kind == FEATURE and not known and graph.unit == "neuron":
            known = f"neuron L{n.layer_N[at]} n{index}"
        made.append(
            {
                "node_id": name,
                "feature": feature,
                "layer": name.split("_")[0],
                "ctx_idx": position,
                "feature_type": WRITTEN[kind],
                "token_prob": value if kind == LOGIT else 0.0,
                "is_target_logit": kind == LOGIT and value == best,
                "run_idx": 0,
                "reverse_ctx_idx": 0,
                "jsNodeId": f"{name.rsplit('_', 1)[0]}-{position}",
                "clerp": known,
                "influence": None if kind == LOGIT else shortest(reached[at]),
                "activation": shortest(value) if kind == FEATURE else None,
            }
        )
    return made


def cumulative(graph: Graph) -> list[float]:
    """Of each node, the share of all influence that it and all stronger ones hold together."""
    own_N = graph.influence_N if graph.influence_N is not None else influence(graph.edges_NN, graph.weights())
    own = own_N.double().numpy()
    total = max(float(graph.about.get("influence_total", 0.0)), float(own.sum()), 1e-30)
    order = np.argsort(-own, kind="stable")
    reached = np.empty(len(own))
    reached[order] = np.minimum(own[order].cumsum() / total, 1.0)
    return [float(each) for each in reached]


# ---- read ----


def from_json(text: str | bytes) -> Graph:
    """The graph that a file of this form holds, ours or another program's.

    Of another's, layers, positions, features and edges are as they stand there, and influence is computed from the edges. Raises
    InterpError that names the first place which is not as it must be, and when the file is larger than MOST_BYTES or has more nodes or links than `schema_check` allows.
    """
    value = _parsed(text)
    check_graph(value)
    nodes = value["nodes"]
    number = {each["node_id"]: at for at, each in enumerate(nodes)}
    own = value["metadata"].get("interp")
    graph = _foreign(value, number) if own is None else _ours(value, own)
    ids = graph.ids
    said = {each["node_id"]: ids[at] for at, each in enumerate(nodes)}
    edges = _edges(value["links"], number, graph.nodes)
    asked = value["qParams"]
    groups = tuple(Group(str(g[0]), _known(g[1:], said)) for g in asked.get("supernodes", ()))
    others = {part: {key: each for key, each in value[part].items() if key not in ours} for part, ours in OURS.items()}
    pinned = _known(asked.get("pinnedIds", ()), said)
    found = replace(graph, edges_NN=edges, groups=groups, pinned=pinned, others=others)
    if found.influence_N is not None or own is not None:
        return found
    return replace(found, influence_N=influence(edges, found.weights()))


def _known(given: Sequence[str], said: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(said[each] for each in given if each in said)


def _parsed(text: str | bytes) -> Any:
    if len(text) > MOST_BYTES:
        raise InterpError(f"the file has {len(text):,} bytes, and a graph has {MOST_BYTES:,} at most; prune it first.")
    try:
        written = text.decode() if isinstance(text, bytes) else text
        value = json.loads(written, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InterpError(f"the file is no JSON, so it is no attribution graph: {str(error)[:200]}.") from None
    return _whole(value)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")


def _whole(value: Any) -> Any:
    """The value with half characters, which no encoding writes, replaced."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    return value


def _edges(links: Sequence[Object], number: Mapping[str, int], nodes: Nodes) -> torch.Tensor:
    edges = torch.zeros(len(nodes), len(nodes))
    order = np.where(nodes.kind_N == LOGIT, 10**6, nodes.layer_N)
    for at, link in enumerate(links):
        source, target = number[link["source"]], number[link["target"]]
        if order[source] >= order[target] or nodes.kind_N[target] in (ERROR, TOKEN):
            refuse(
                f"links[{at}]", f"{link['source']} → {link['target']}", "an edge leads to a feature or logit further up"
            )
        edges[target, source] = link["weight"]
    return edges


def _foreign(value: Object, number: Mapping[str, int]) -> Graph:
    """The nodes of another program's file, without edges."""
    nodes, metadata = value["nodes"], value["metadata"]
    kind = np.array([TYPES[each["feature_type"]] for each in nodes], np.int8)
    layer = np.array([-1 if k == TOKEN else int(each["layer"]) for k, each in zip(kind, nodes, strict=True)], np.int64)
    inner = (kind == FEATURE) | (kind == ERROR)
    top = int(layer[inner].max()) + 1 if inner.any() else 0
    layer[kind == LOGIT] = max(top, int(layer[kind == LOGIT].max()) - 1) if (kind == LOGIT).any() else 0
    tokens = [-1] * len(metadata["prompt_tokens"])
    index = np.full(len(nodes), -1, np.int64)
    for at, each in enumerate(nodes):
        index[at] = _index(each, int(kind[at]))
        if kind[at] == TOKEN:
            tokens[each["ctx_idx"]] = int(index[at])
    values = [
        float(each.get("token_prob" if k == LOGIT else "activation") or 0.0)
        for k, each in zip(kind, nodes, strict=True)
    ]
    made = Nodes(
        kind,
        layer,
        np.array([each["ctx_idx"] for each in nodes], np.int64),
        index,
        np.array(values, np.float32),
        _says(nodes),
    )
    about = {"model": metadata["scan"], "prompt": metadata["prompt"], "read_from": "another program's file"}
    graph = Graph(made, torch.zeros(0, 0), tuple(tokens), about=about, words=tuple(metadata["prompt_tokens"]))
    if len(set(graph.ids)) < len(nodes):
        raise InterpError(
            "this is no attribution graph: two of its nodes are the same feature of one layer and position."
        )
    clerps = [(name, each["clerp"] or "") for name, each, k in zip(graph.ids, nodes, kind, strict=True) if k == FEATURE]
    return replace(graph, names={name: clerp for name, clerp in clerps if clerp.strip()})


def _index(node: Object, kind: int) -> int:
    """The feature's or token's number: in the node's id, for `feature` may hold the layer too, or for tokens the position."""
    parts = node["node_id"].split("_")
    if kind == ERROR:
        return -1
    if kind == TOKEN:
        return int(parts[1]) if len(parts) == 3 and parts[1].isdecimal() and len(parts[1]) < 10 else -1
    found = NODE_ID.fullmatch(node["node_id"])
    return int(found[2]) if found and int(found[3]) == node["ctx_idx"] else int(node["feature"] or 0)


def _says(nodes: Sequence[Object]) -> tuple[str, ...]:
    logits = [each for each in nodes if TYPES[each["feature_type"]] == LOGIT]
    return tuple(found[1] if (found := OUTPUT.search(each["clerp"] or "")) else each["clerp"] or "?" for each in logits)


def _ours(value: Object, own: Any) -> Graph:
    """The nodes of a file that this project wrote, without edges."""
    nodes = value["nodes"]
    lists = {"tokens": list, "words": list, "says": list, "layers": list, "values": list, "checks": list}
    check_object(
        own, "metadata.interp", {"format": int, "names": dict, "about": dict, "left_out": (int, float), **lists}
    )
    if own["format"] > FORMAT:
        raise InterpError("the graph was written by a later version of interp; update this one.")
    kind = np.array([TYPES[each["feature_type"]] for each in nodes], np.int8)
    check_numbers(own, "layers", len(nodes), int, MOST_LAYERS)
    check_numbers(own, "values", len(nodes), float)
    check_numbers(own, "tokens", len(value["metadata"]["prompt_tokens"]), int)
    for name, count in (("bias", int((kind == FEATURE).sum())), ("influence", len(nodes))):
        if own.get(name) is not None:
            check_numbers(own, name, count, float)
    if len(own["says"]) != int((kind == LOGIT).sum()) or not all(isinstance(each, str) for each in own["says"]):
        refuse("metadata.interp.says", own["says"], "it has a text for each logit")
    number = {each["node_id"]: at for at, each in enumerate(nodes)}
    checks = [_check(each, f"metadata.interp.checks[{at}]", number) for at, each in enumerate(own["checks"])]
    tried = check_object(own, "metadata.interp", {"trials": list})["trials"] if "trials" in own else []
    trials = [_trial(each, f"metadata.interp.trials[{at}]", number) for at, each in enumerate(tried)]
    made = Nodes(
        kind_N=kind,
        layer_N=np.array(own["layers"], np.int64),
        position_N=np.array([each["ctx_idx"] for each in nodes], np.int64),
        index_N=np.array([_index(each, int(k)) for each, k in zip(nodes, kind, strict=True)], np.int64),
        value_N=np.array(own["values"], np.float32),
        says_K=tuple(own["says"]),
    )
    graph = Graph(
        made,
        torch.zeros(0, 0),
        tuple(own["tokens"]),
        float(own["left_out"]),
        bias_S=None if own.get("bias") is None else torch.tensor(own["bias"]),
        influence_N=None if own.get("influence") is None else torch.tensor(own["influence"]),
        about=dict(own["about"]),
        words=tuple(map(str, own["words"])),
        names={str(key): str(name) for key, name in own["names"].items()},
        checks=tuple(checks),
        trials=tuple(trials),
    )
    wrong = next((at for at, (a, b) in enumerate(zip(graph.ids, nodes, strict=True)) if a != b["node_id"]), None)
    if wrong is not None:
        refuse(f"nodes[{wrong}].node_id", nodes[wrong]["node_id"], f"the node itself is {graph.ids[wrong]}")
    return graph


def _check(value: Any, where: str, number: Mapping[str, int]) -> Check:
    """An edge that was tried, its ends by their numbers."""
    given = check_object(value, where, _kinds(Check, source=str, target=str))
    ends = {end: _number(given[end], f"{where}.{end}", number) for end in ("source", "target")}
    return Check(**{each.name: given[each.name] for each in fields(Check)} | ends)


def _trial(value: Any, where: str, number: Mapping[str, int]) -> Trial:
    """A node, group or swap that was tried, its nodes by their numbers."""
    given = check_object(value, where, _kinds(Trial, name=str, sources=list, target=str, put_in=int))
    sources = tuple(_number(each, f"{where}.sources[{at}]", number) for at, each in enumerate(given["sources"]))
    if not sources:
        refuse(f"{where}.sources", given["sources"], "at least one node was moved")
    ends = {"sources": sources, "target": _number(given["target"], f"{where}.target", number)}
    return Trial(**{each.name: given[each.name] for each in fields(Trial)} | ends)


def _kinds(of: type[Check] | type[Trial], **others: type) -> dict[str, Any]:
    """What each field must be: a number, unless it is said."""
    texts = {"verdict": str, "live_verdict": str}
    return {each.name: (int, float) for each in fields(of)} | texts | others


def _number(value: Any, where: str, number: Mapping[str, int]) -> int:
    if not isinstance(value, str) or value not in number:
        refuse(where, value, "no node of that id is among the nodes")
    return number[value]
