"""A graph of a prompt: its nodes, and the direct effect of each on each.

Nodes stand in four groups, in this order: features (a feature at a position), errors (of a layer at a position), tokens (the embedding at
a position), logits. `edges_NN[target, source]` is in units of the target: of a feature its pre-activation, of a logit nats.

Axes    N node, K logit, T token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.types import InterpError

FEATURE, ERROR, TOKEN, LOGIT = range(4)
KINDS = ("feature", "error", "token", "logit")
FEATURES, NEURONS, RESIDUAL = "transcoders", "neurons", "residual"
"""What a graph can be over: what its nodes that are `FEATURE` are."""


@dataclass(frozen=True, eq=False)
class Nodes:
    """A row a node."""

    kind_N: Int[np.ndarray, " N"]
    """FEATURE, ERROR, TOKEN or LOGIT."""
    layer_N: Int[np.ndarray, " N"]
    """-1 of a token, the number of layers of a logit."""
    position_N: Int[np.ndarray, " N"]
    index_N: Int[np.ndarray, " N"]
    """Of a feature its number, of a token or a logit the vocabulary's, -1 of an error."""
    value_N: Float[np.ndarray, " N"]
    """Of a feature its activation, of a logit its weight (its probability, where the question is what comes next)."""
    says_K: tuple[str, ...]
    """What each logit node stands for."""

    def __len__(self) -> int:
        return len(self.kind_N)

    def take(self, at: np.ndarray) -> "Nodes":
        """Some of them, by mask or number, in their order."""
        logits = np.flatnonzero(self.kind_N == LOGIT)
        chosen = np.arange(len(self))[at]
        says = tuple(self.says_K[int(np.searchsorted(logits, n))] for n in chosen if self.kind_N[n] == LOGIT)
        arrays = {name: getattr(self, name)[at] for name in ("kind_N", "layer_N", "position_N", "index_N", "value_N")}
        return Nodes(**arrays, says_K=says)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What moving something did to a target (see `intervene`); in the target's unit, for all of what was moved."""

    target: int
    """The node's number."""
    measured: float
    """In the model with every other MLP held, the mean over the sizes that were tried, each per unit of what was moved."""
    low: float
    high: float
    control: float
    """The 95th percentile of what matched controls do, in size."""
    p: float
    adversarial: float
    """The size of what the direction that moves the target most does, at the same norm."""
    verdict: str
    """confirmed, refuted or undecided: of the direct effect."""
    whole: float
    """The effect over all paths, as the graph has it."""
    live: float
    """The same in the live model, where nothing is held."""
    live_p: float
    live_verdict: str


@dataclass(frozen=True, kw_only=True)
class Check(Outcome):
    """An edge that was tried: its source ablated, halved and doubled."""

    source: int
    """The node's number."""
    edge: float
    """The direct effect, as the graph has it."""


@dataclass(frozen=True, kw_only=True)
class Trial(Outcome):
    """A node, a group of nodes moved together, or a swap, that was tried on a target (see `trials`)."""

    name: str
    """What was asked for: a node's id, a group's name, or ID=FEATURE."""
    sources: tuple[int, ...]
    """Numbers of the nodes that were moved."""
    put_in: int = -1
    """Of a swap the feature, of the source's layer, that took its place; -1 where the sources were ablated, halved and doubled."""
    predicted: float
    """The direct effect, as the graph has it: the sum of the sources' edges, or what a swap changes."""


@dataclass(frozen=True)
class Group:
    """Nodes that are shown as one (a supernode), by their ids."""

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes and direct effects, whole or pruned."""

    nodes: Nodes
    edges_NN: Float[Tensor, "N N"]
    """(target, source)."""
    tokens: tuple[int, ...]
    """The prompt's, with what the family puts before it."""
    left_out: float = 0.0
    """The share of the features' known influence that belongs to those that were never targets, and are no nodes."""
    bias_S: Tensor | None = None
    """Of each feature what its pre-activation owes to biases."""
    influence_N: Tensor | None = None
    """Of a pruned graph: each node's in the whole one."""
    towards_KV: Tensor | None = field(default=None, repr=False)
    """Of each logit node, in their order, the direction of the logits that it is."""
    checks: tuple[Check, ...] = ()
    """Edges that were tried."""
    trials: tuple[Trial, ...] = ()
    """Nodes, groups and swaps that were tried."""
    about: dict[str, Any] = field(default_factory=dict)
    """What it was made of: model, its hash, transcoders, the prompt."""
    words: tuple[str, ...] = ()
    """The text of each token, where it is known."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What nodes are called, by id."""
    groups: tuple[Group, ...] = ()
    pinned: tuple[str, ...] = ()
    """Ids of nodes that stay in sight."""
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """What a file had under `metadata` and `qParams` that is not ours: kept, and never looked at."""

    @property
    def unit(self) -> str:
        """What its features are: `feature` (of a transcoder) or `neuron`."""
        return "neuron" if self.about.get("over") == NEURONS else "feature"

    @property
    def sign(self) -> str:
        """What stands before the number of a feature, or of a neuron."""
        return "n" if self.unit == "neuron" else "#"

    @property
    def rest(self) -> str:
        """What errors are, in words: what … leave over."""
        of = {NEURONS: "the other neurons write", RESIDUAL: "the SAEs leave over"}
        return of.get(str(self.about.get("over")), "transcoders leave over")

    def layer_name(self, layer: int) -> int:
        """The block of a layer: its own number, but over residual SAEs, which are not behind every block, what `about` says."""
        blocks = self.about.get("blocks")
        known = isinstance(blocks, list) and all(isinstance(each, int) and 0 <= each < 10**6 for each in blocks)
        if not known or not blocks or layer < 0:
            return layer
        return int(blocks[layer]) if layer < len(blocks) else int(blocks[-1]) + 1 + layer - len(blocks)

    @property
    def ids(self) -> list[str]:
        """Each node's id, `LAYER_FEATURE_POSITION` as other programs have it: -1 stands for the feature of an error, E for the layer of a
        token, and a logit's layer is one more than ours; over residual SAEs the layer is the block."""
        n = self.nodes
        ids = []
        for kind, layer, position, index in zip(n.kind_N, n.layer_N, n.position_N, n.index_N, strict=True):
            block = self.layer_name(int(layer))
            first = {TOKEN: "E", LOGIT: str(block + 1)}.get(int(kind), str(block))
            ids.append(f"{first}_{-1 if kind == ERROR else index}_{position}")
        return ids

    def spelt(self) -> tuple[str, ...]:
        """The text of each token, its number where the text is not known."""
        return self.words if len(self.words) == len(self.tokens) else tuple(map(str, self.tokens))

    def weights(self) -> Float[Tensor, " N"]:
        """What each logit is worth, 0 at all other nodes."""
        value = torch.from_numpy(np.where(self.nodes.kind_N == LOGIT, self.nodes.value_N, 0.0)).float()
        return value

    @property
    def directions_KV(self) -> Float[Tensor, "K V"]:
        """Of each logit node the direction of the logits that it is; InterpError where the graph came without them."""
        if self.towards_KV is None:
            raise InterpError("this graph does not say what its logits are directions of; attribute the prompt anew.")
        return self.towards_KV

    def at(self, kind: int, layer: int, position: int, index: int = -1) -> int:
        """The number of a node; InterpError when the graph has no such."""
        n = self.nodes
        same = (n.kind_N == kind) & (n.layer_N == layer) & (n.position_N == position)
        if kind in (FEATURE, LOGIT):
            same &= n.index_N == index
        found = np.flatnonzero(same)
        if not len(found):
            raise InterpError(
                f"the graph has no {KINDS[kind]} {index if index >= 0 else ''} of layer {layer} at position {position}; it was "
                "pruned, or does not fire there."
            )
        return int(found[0])

    def part(self, kept: np.ndarray, edges_NN: Tensor, influence_N: Tensor) -> "Graph":
        """Some of the nodes (a mask), with these edges among them."""
        mask = torch.from_numpy(kept)
        features = mask[torch.from_numpy(self.nodes.kind_N == FEATURE)]
        left = {each for each, there in zip(self.ids, kept, strict=True) if there}
        number = (np.cumsum(kept) - 1).tolist()
        return replace(
            self,
            checks=tuple(
                replace(c, source=number[c.source], target=number[c.target])
                for c in self.checks
                if kept[c.source] and kept[c.target]
            ),
            trials=tuple(
                replace(t, sources=tuple(number[s] for s in t.sources), target=number[t.target])
                for t in self.trials
                if kept[[*t.sources, t.target]].all()
            ),
            groups=tuple(g for each in self.groups if (g := _among(each, left)).members),
            pinned=tuple(each for each in self.pinned if each in left),
            names={each: name for each, name in self.names.items() if each in left},
            nodes=self.nodes.take(kept),
            edges_NN=edges_NN[mask][:, mask],
            bias_S=None if self.bias_S is None else self.bias_S[features],
            influence_N=influence_N[mask],
        )

    def strongest(self, count: int) -> list[tuple[int, int, float]]:
        """(target, source, effect) of the edges that are largest in size."""
        flat = self.edges_NN.abs().flatten()
        top = flat.topk(min(count, int((flat > 0).sum()))).indices.tolist()
        wide = len(self.nodes)
        return [(n // wide, n % wide, float(self.edges_NN[n // wide, n % wide])) for n in top]


def _among(group: Group, ids: set[str]) -> Group:
    return replace(group, members=tuple(each for each in group.members if each in ids))


def group_by_name(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The graph in which features of one name (`names`: by id) are a group, whatever their positions and layers.

    A feature without a name, or with one that no other has, stays alone. Groups of before that share none of these stay.
    """
    called: dict[str, list[str]] = {}
    for each, kind in zip(graph.ids, graph.nodes.kind_N, strict=True):
        if kind == FEATURE and (name := names.get(each, "").strip()):
            called.setdefault(name, []).append(each)
    found = [Group(name, tuple(members)) for name, members in called.items() if len(members) > 1]
    taken = {each for group in found for each in group.members}
    kept = [group for group in graph.groups if not taken & set(group.members)]
    return replace(graph, groups=(*kept, *found), names={**graph.names, **names})


def node_names(graph: Graph, tokens: Sequence[str]) -> list[str]:
    """Each node in a few words: `L5 #120 @3 ' Paris'`, of a neuron `L5 n120 @3 ' Paris'`."""
    names = []
    logit = iter(graph.nodes.says_K)
    for kind, layer, position, index in zip(
        graph.nodes.kind_N, graph.nodes.layer_N, graph.nodes.position_N, graph.nodes.index_N, strict=True
    ):
        at, block = f"@{position} {tokens[position]!r}", graph.layer_name(int(layer))
        if kind == FEATURE:
            names.append(f"L{block} {graph.sign}{index} {at}")
        elif kind == ERROR:
            names.append(f"L{block} error {at}")
        elif kind == TOKEN:
            names.append(f"token {at}")
        else:
            names.append(f"logit {next(logit)}")
    return names
