"""Circuits: a prompt's attribution graph through what stands for a model (`replacing`), in words and as files.

Axes    T token, L layer, E active feature at a position.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from interp import places
from interp.circuits.attribute import Target, attribute, difference, likeliest
from interp.circuits.graph import ERROR, FEATURE, FEATURES, LOGIT, NEURONS, RESIDUAL, TOKEN, Graph, Group, group_by_name
from interp.circuits.page import called, graph_html, graph_page, shares
from interp.circuits.prune import influence, prune, score, strong_edges
from interp.circuits.replacement import Read, Replacement
from interp.circuits.schema import from_json, to_json
from interp.labels.propose.lists import NAMELESS
from interp.models import Model
from interp.render.words import counted, size
from interp.types import InterpError
from interp.workbench.replacing import Opened

LISTED = 20
"""Features and edges that a record lists."""
SPARE = 0.8
"""Share of the free memory that a graph may take."""


@dataclass(frozen=True, eq=False)
class Circuit:
    """A pruned graph, in words."""

    graph: Graph
    file: str = ""
    """Where it was written; empty where it was not."""

    def _repr_html_(self) -> str:
        return graph_html(self.graph)

    @property
    def scores(self) -> Mapping[str, float]:
        """replacement, completeness, left_out and errors, shares from 0 to 1; empty for a graph that does not say them."""
        said = self.graph.about.get("scores", {})
        known = said if isinstance(said, Mapping) else {}
        return {str(name): float(value) for name, value in known.items() if isinstance(value, int | float)}

    def logits(self) -> list[tuple[str, float]]:
        """What each logit node stands for, and its weight."""
        n = self.graph.nodes
        return list(zip(n.says_K, (float(v) for v in n.value_N[n.kind_N == LOGIT]), strict=True))

    def features(self, count: int = LISTED) -> list[dict[str, Any]]:
        """The features and errors of most influence."""
        n, own, names, ids = self.graph.nodes, shares(self.graph), called(self.graph), self.graph.ids
        inner = [at for at in np.argsort(-own, kind="stable").tolist() if n.kind_N[at] in (FEATURE, ERROR)]
        return [
            {"node": ids[at], "name": names[at], "activation": float(n.value_N[at]), "influence": float(own[at])}
            for at in inner[:count]
        ]

    def edges(self, count: int = LISTED) -> list[dict[str, Any]]:
        """The edges that most influence passes through."""
        names = called(self.graph)
        return [
            {"source": names[source], "target": names[target], "effect": effect}
            for target, source, effect in strong_edges(self.graph, count)
        ]

    def command(self) -> str:
        """What makes it again on the command line; empty where the graph does not say of what it was made."""
        asked = self.graph.about.get("asked")
        if not isinstance(asked, Mapping) or not asked.get("prompt"):
            return ""
        words = ["interp", "circuit", str(asked["prompt"])]
        for name, value in asked.items():
            for each in value if isinstance(value, list) else [value]:
                if name != "prompt" and each not in ("", None):
                    words += [f"--{name}".replace("_", "-"), str(each)]
        return shlex.join(words)

    def over(self) -> str:
        """What its nodes are of and how edges were taken, in words; empty where the graph does not say."""
        about = self.graph.about
        if about.get("over") == RESIDUAL:
            at, steps = self.graph.about.get("blocks", ()), about.get("steps", 0)
            behind = ", ".join(map(str, at)) if isinstance(at, list) else ""
            how = f"integrated over {steps} places" if steps else "at the prompt"
            return f"features of SAEs of the residual stream behind blocks {behind}; edges are gradients, {how}"
        said = {FEATURES: "features of transcoders, one a layer", NEURONS: "the MLPs' own neurons"}
        return said.get(str(about.get("over")), "")

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        n, about = self.graph.nodes, self.graph.about
        kept = {
            "features": int((n.kind_N == FEATURE).sum()),
            "errors": int((n.kind_N == ERROR).sum()),
            "edges": int((self.graph.edges_NN != 0).sum()),
        }
        return {
            "prompt": about.get("prompt", ""),
            "tokens": list(self.graph.spelt()),
            "model": about.get("model", ""),
            "question": about.get("question", ""),
            "over": self.over(),
            "unit": self.graph.unit,
            "scores": dict(self.scores),
            "kept": kept,
            "logits": [{"token": token, "weight": weight} for token, weight in self.logits()],
            "features": self.features(),
            "edges": self.edges(),
            "file": self.file,
        }


def trace_circuit(
    opened: Opened,
    prompt: str,
    *,
    target: str = "",
    distractor: str = "",
    nodes: int,
    keep: float,
    edges: float,
) -> Circuit:
    """The pruned graph of a prompt's next token: of the likeliest ones, of `target`, or of `target` rather than `distractor`.

    `nodes` features are attributed at most; `keep` and `edges` are the shares of influence that kept nodes and edges hold. Raises InterpError for
    a target that is not one token, for a prompt of one token, and for one that the memory does not hold.
    """
    model = opened.model
    tokens = torch.tensor(model.prompt(prompt))
    read = opened.replacement.read(tokens)
    asked, question = ask(model, read, target, distractor)
    check_memory(opened.replacement, read, nodes)
    whole = attribute(opened.replacement, tokens, asked, max_nodes=nodes, read=read)
    scores, total = score(whole), float(influence(whole.edges_NN, whole.weights()).sum())
    kept = prune(whole, keep, edges)
    inner = np.isin(kept.nodes.kind_N, (FEATURE, ERROR))
    about = {
        "model": model.name,
        "model_sha256": model.fingerprint(),
        **opened.replacement.about,
        "transcoders": list(opened.folders),
        "prompt": prompt,
        "question": question,
        "keep": keep,
        "edges": edges,
        "influence_total": total,
        "scores": {
            "replacement": scores.replacement,
            "completeness": scores.completeness,
            "left_out": whole.left_out,
            "errors": float((kept.nodes.kind_N == ERROR).sum() / max(inner.sum(), 1)),
        },
    }
    words = tuple(model.decode([token]) for token in tokens.tolist())
    kept = replace(kept, about=about, words=words)
    return Circuit(named(opened, kept))


def named(opened: Opened, graph: Graph) -> Graph:
    """The graph with its features called what they are called now, and those that share a label that holds as groups (but for lists that no
    word is found for); what nothing is known of keeps its name."""
    n = graph.nodes
    features = {
        each: (int(layer), int(index))
        for each, kind, layer, index in zip(graph.ids, n.kind_N, n.layer_N, n.index_N, strict=True)
        if kind == FEATURE
    }
    told = opened.told(features.values())
    found = {each: told[feature] for each, feature in features.items() if feature in told}
    grouped = group_by_name(
        graph, {each: label for each, (_, label) in found.items() if label and not label.startswith(NAMELESS)}
    )
    return replace(grouped, names={**graph.names, **{each: one.text for each, one in found.items()}})


def one_token(model: Model, text: str, what: str) -> int:
    """The token that a text is. Raises InterpError, which names its tokens, when it is none or several."""
    ids = model.tokenize(text)
    if len(ids) == 1:
        return ids[0]
    parts = ", ".join(repr(model.decode([each])) for each in ids[:8]) + (" …" if len(ids) > 8 else "")
    spaced = "" if text.startswith(" ") or len(model.tokenize(f" {text}")) != 1 else f"; {' ' + text!r} is one"
    raise InterpError(
        f"the {what} {text!r} is {counted(len(ids), 'token')} ({parts}), and a graph is of one{spaced}. Give a single token, with the space before "
        "it where there is one."
    )


def ask(model: Model, read: Read, target: str = "", distractor: str = "") -> tuple[Target, str]:
    """What the graph is asked for, and the same in words.

    Raises InterpError for a target or distractor that is not one token, and for a distractor alone.
    """
    if distractor and not target:
        raise InterpError("a distractor is compared with a target; give --target too.")
    ends = [one_token(model, each, name) for each, name in ((target, "target"), (distractor, "distractor")) if each]
    logits = read.clean.logits_V
    said = [repr(model.decode([each])) for each in ends]
    if not ends:
        found = likeliest(logits)
        return replace(found, says_K=tuple(repr(model.decode([each])) for each in found.token_K)), "what comes next"
    if len(ends) == 2:
        words = f"{said[0]} rather than {said[1]}"
        return difference(logits, ends[0], ends[1], words), words
    towards = torch.full((1, len(logits)), -1 / len(logits))
    towards[0, ends[0]] += 1
    return Target(towards, torch.ones(1), (ends[0],), (said[0],)), said[0]


# ---- memory ----


def graph_bytes(tokens: int, layers: int, active: float, nodes: int) -> float:
    """Bytes that a graph takes while it is made: rows of every attributed feature over all sources, twice, and the matrix of nodes, thrice.

    `active` are the features that fire at a position, of all layers together.
    """
    entries = active * tokens
    rows, errors = min(nodes, entries), (layers + 1) * tokens
    return 4 * (2.2 * rows * (entries + errors) + 3 * (rows + errors) ** 2)


def check_memory(replacement: Replacement, read: Read, nodes: int, free: float | None = None) -> None:
    """Raises InterpError, which says how long a prompt fits, when the graph of this one does not (`free` bytes; what is free now)."""
    tokens, layers = len(read.clean.tokens_T), len(read.layers)
    active = read.entries / tokens
    room = SPARE * (psutil.virtual_memory().available if free is None else free)
    need = graph_bytes(tokens, layers, active, nodes)
    if need <= room:
        return
    fits = next((t for t in range(tokens - 1, 0, -1) if graph_bytes(t, layers, active, nodes) <= room), 0)
    fewer = next(
        (n for n in range(nodes, 0, -max(nodes // 100, 1)) if graph_bytes(tokens, layers, active, n) <= room), 0
    )
    tried = " and ".join(
        [f"about {counted(fits, 'token')} fit"] * (fits > 1) + [f"--nodes {fewer} fits this one"] * (fewer > 0)
    )
    what = "neurons" if replacement.over == NEURONS else "features"
    raise InterpError(
        f"a graph of {tokens} tokens, {layers} layers and {active:,.0f} active {what} a token takes about {size(need)}, and {size(room)} may be "
        f"used here; {tried or 'no graph fits'}."
    )


# ---- files, and what people do to a graph ----


def read_circuit(source: str | Path | bytes) -> Circuit:
    """A finished graph from a file, or from a file's content. Raises InterpError when it is none."""
    if isinstance(source, bytes):
        return Circuit(from_json(source))
    path = Path(source).expanduser()
    try:
        content = path.read_bytes() if path.stat().st_size <= 2**30 else b" " * 2**26
    except FileNotFoundError:
        raise InterpError(f"there is no file {path}.") from None
    except OSError as error:
        raise places.disk_error(path, error) from error
    try:
        return Circuit(from_json(content), str(path))
    except InterpError as error:
        raise InterpError(f"{path}: {error}") from None


def write_circuit(circuit: Circuit, into: str | Path) -> Circuit:
    """Write it as JSON or as a page, by the file's end. Raises InterpError for another end."""
    path = Path(into)
    text = page_or_json(circuit, path.suffix.removeprefix("."))
    with places.whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return replace(circuit, file=str(path))


def page_or_json(circuit: Circuit, form: str) -> str:
    """The graph as a file of that form, json or html. Raises InterpError for another."""
    if form == "json":
        return to_json(circuit.graph)
    if form == "html":
        return graph_page(circuit.graph)
    raise InterpError(f"a graph is written as .json or .html, not as .{form}.")


def revise_circuit(
    circuit: Circuit, *, pinned: Sequence[str], groups: Mapping[str, Sequence[str]], names: Mapping[str, str]
) -> Circuit:
    """The graph with these pins, groups and names added; ids that it has not are passed over."""
    graph = circuit.graph
    known = {each: kind for each, kind in zip(graph.ids, graph.nodes.kind_N, strict=True) if kind != TOKEN}
    added = [Group(name, tuple(each for each in members if each in known)) for name, members in groups.items()]
    taken = {each for group in added for each in group.members}
    kept = [replace(g, members=tuple(each for each in g.members if each not in taken)) for g in graph.groups]
    return replace(
        circuit,
        graph=replace(
            graph,
            pinned=tuple(dict.fromkeys([*graph.pinned, *(each for each in pinned if each in known)])),
            groups=tuple(group for group in (*kept, *added) if group.members),
            names={**graph.names, **{each: name for each, name in names.items() if each in known}},
        ),
    )
