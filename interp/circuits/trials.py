"""A node, a group of nodes together, or one feature in the place of another: moved in the model, and any target measured.

1.  A move is what is added to the residual stream, a step a node. Nodes are ablated, halved and doubled, all of a group in the same pass.
    A swap takes a feature out and puts in another of its layer, at its position and activation: all of it, and half of it.
2.  What is predicted of a target is linear, with patterns and norms held: directly by what is added (for a group the sum of its edges),
    and over all paths of the graph. Nodes that are moved stay where they were put: nothing is counted twice.
3.  In the live model they stay there too: what a lower member of a group makes a higher one fire more or less is taken off again.
4.  A control has, for each feature that is moved, another of its layer that is quiet at all of its positions, and for an error or a token
    another direction; each is moved at the same positions by the same norm. `adversarial` is, at every place and with the norm that is
    moved there, the direction along which the target rises most.

The verdict is `intervene`'s, by the same rule.

Axes    T token, D width, N node, Q quiet feature, B row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.frozen import EMBEDDING, held_pass
from interp.circuits.graph import FEATURE, LOGIT, TOKEN, Graph, Trial
from interp.circuits.intervene import (
    CONTROLS,
    SHARES,
    WAYS,
    changes,
    direct_pass,
    outcome,
    run_moved,
    spread,
    steepest,
    written_by,
)
from interp.circuits.layer import Step
from interp.circuits.replacement import Read, Replacement
from interp.circuits.residual import StreamReplacement, pulled_effects
from interp.types import InterpError

SWAPPED = (1.0, 0.5)
"""A swap, and half of it."""


@dataclass(frozen=True)
class Move:
    """Nodes that are moved together."""

    name: str
    sources: tuple[int, ...]
    """Their numbers."""
    steps: tuple[Step, ...]
    """What is added at a share of 1."""
    shares: tuple[float, ...]
    put_in: int = -1
    """Of a swap the feature that takes the source's place."""


def moved_nodes(read: Read, graph: Graph, nodes: Sequence[int], name: str) -> Move:
    """Nodes to be ablated, halved and doubled together (only ablated where one is a token, for norms undo its size).

    Raises InterpError where there is none, and for a logit, which adds nothing.
    """
    if not nodes:
        raise InterpError(f"{name} has no feature, error or token of this graph, so nothing of it can be moved.")
    steps = []
    for node in dict.fromkeys(nodes):
        own = graph.nodes.kind_N[node] == FEATURE
        step = written_by(read, graph, node)
        steps.append(replace(step, feature=int(graph.nodes.index_N[node]) if own else -1))
    token = any(graph.nodes.kind_N[node] == TOKEN for node in nodes)
    return Move(name, tuple(dict.fromkeys(nodes)), tuple(steps), SHARES[:1] if token else SHARES)


def swap(read: Read, graph: Graph, node: int, feature: int, name: str = "") -> Move:
    """A feature of the graph taken out, and another of its layer put in at its position and activation.

    Raises InterpError for what is no feature, for a feature that its layer does not have, and for itself.
    """
    n = graph.nodes
    if n.kind_N[node] != FEATURE:
        raise InterpError(f"{graph.ids[node]} is no feature, and only a feature is swapped with another of its layer.")
    out = written_by(read, graph, node)
    layer, own, index = out.layer, read.layers[out.layer], int(n.index_N[node])
    wide = len(own.W_dec)
    if not 0 <= feature < wide or feature == index:
        raise InterpError(
            f"{graph.ids[node]} cannot be swapped with {feature}: give another feature of layer {layer}, 0 to {wide - 1}."
        )
    put = own.step(out.at, feature, float(n.value_N[node]) - own.fires(out.at, feature))
    steps = (replace(out.times(-1.0), feature=index), replace(put, feature=feature))
    return Move(name or f"{graph.ids[node]}={feature}", (node,), steps, SWAPPED, feature)


def try_move(
    replacement: Replacement, read: Read, graph: Graph, move: Move, targets: Sequence[int] = (), *, seed: int = 0
) -> list[Trial]:
    """What a move does to each target, by number; without targets, to each logit of the graph.

    `graph` is the whole one, so that its prediction has all paths. Raises InterpError for a target that is a token or an error, or
    that is moved itself.
    """
    n = graph.nodes
    targets = list(targets) or [node for node in range(len(n)) if n.kind_N[node] == LOGIT]
    for target in targets:
        if n.kind_N[target] not in (FEATURE, LOGIT):
            raise InterpError("only features and logits are targets: nothing makes a token or an error.")
        if target in move.sources:
            raise InterpError(f"{graph.ids[target]} is moved itself, so it is no target of {move.name}.")
    direct_N, whole_N = predict_move(replacement, read, graph, move)
    others = _controls(read, move, torch.Generator().manual_seed(seed))
    rows = [_times(move.steps, share) for share in move.shares] + [_times(each, move.shares[0]) for each in others]
    held = direct_pass(replacement, read)
    rows += [steepest(replacement, read, held, graph, _norms(move), target, move.shares[0]) for target in targets]
    layers = sorted({int(n.layer_N[t]) for t in targets if n.kind_N[t] == FEATURE})
    direct, live = (
        changes(replacement, read, graph, run_moved(replacement, read, rows, way, layers), targets) for way in WAYS
    )
    found = []
    for column, target in enumerate(targets):
        predicted, whole = float(direct_N[target]), float(whole_N[target])
        did = outcome(direct[:, column], live[:, column], move.shares, len(others), column, predicted, whole)
        found.append(
            Trial(name=move.name, sources=move.sources, put_in=move.put_in, target=target, predicted=predicted, **did)
        )
    return found


def predict_move(
    replacement: Replacement, read: Read, graph: Graph, move: Move
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """(what a move does to every node directly, and over all paths), by the held picture, which is linear; 0 at tokens and errors."""
    added = {
        replacement.writes[layer]: torch.zeros_like(read.layers[layer].out_TD)
        for layer in {layer for step in move.steps for layer in step.vectors if layer >= 0}
    }
    if any(step.layer < 0 for step in move.steps):
        added[EMBEDDING] = torch.zeros_like(read.clean.activations[EMBEDDING][0])
    for step in move.steps:
        for layer, vector_D in step.vectors.items():
            added[EMBEDDING if layer < 0 else replacement.writes[layer]][step.at] += vector_D
    if isinstance(replacement, StreamReplacement):
        direct_N = _pulled(replacement, read, graph, added)
    else:
        direct_N = _passed(replacement, read, graph, added)
    return direct_N, spread(graph, direct_N[:, None], move.sources)[:, 0]


def _pulled(
    replacement: StreamReplacement, read: Read, graph: Graph, added: Mapping[str, Tensor]
) -> Float[Tensor, " N"]:
    """Where nothing is held a pass with more in it would not be linear: every target is pulled back, as its edges are."""
    made, n = replacement.linear(read), graph.nodes
    direct_N = torch.zeros(len(n))
    for layer, own in enumerate(read.layers):
        nodes = np.flatnonzero((n.kind_N == FEATURE) & (n.layer_N == layer))
        entries_N = own.find(*(torch.from_numpy(of[nodes]) for of in (n.position_N, n.index_N)))
        direct_N[nodes] = pulled_effects(replacement, read, layer, entries_N, added, made)
    pulled = made.pull("logits", graph.directions_KV[:, None], list(added))
    direct_N[n.kind_N == LOGIT] = sum((pulled[hook] * added[hook]).sum((1, 2)) for hook in added)
    return direct_N


def _passed(replacement: Replacement, read: Read, graph: Graph, added: Mapping[str, Tensor]) -> Float[Tensor, " N"]:
    """By a held pass with that added, which is linear."""
    reads, cuts = replacement.reads, replacement.cuts(read)
    still, held = (
        held_pass(replacement.model, replacement.norms, read.clean, cuts, reads, moved) for moved in (None, added)
    )
    n, direct_N = graph.nodes, torch.zeros(len(graph.nodes))
    for layer, name in enumerate(reads):
        nodes = np.flatnonzero((n.kind_N == FEATURE) & (n.layer_N == layer))
        at, index = (torch.from_numpy(of[nodes]) for of in (n.position_N, n.index_N))
        rows_ND = read.layers[layer].read_rows(read.layers[layer].find(at, index))
        moved_ND = (held.ends[name].detach() - read.clean.activations[name])[0, at]
        direct_N[nodes] = (moved_ND * rows_ND).sum(1)
    # Logits by the derivative, for some families bend them at the very end (Gemma 2's soft cap).
    pulled = still.pull("logits", graph.directions_KV[:, None], list(added))
    direct_N[n.kind_N == LOGIT] = sum((pulled[hook] * added[hook]).sum((1, 2)) for hook in added)
    return direct_N


def _times(steps: Sequence[Step], share: float) -> list[Step]:
    return [step.times(share) for step in steps]


def _norms(move: Move) -> dict[tuple[int, int], float]:
    """The norm of all that is added at each place."""
    total: dict[tuple[int, int], Tensor] = {}
    for step in move.steps:
        for layer, vector_D in step.vectors.items():
            place = layer, step.at
            total[place] = total[place] + vector_D if place in total else vector_D
    return {place: float(vector.norm()) for place, vector in total.items()}


def _controls(read: Read, move: Move, draw: torch.Generator) -> list[list[Step]]:
    """CONTROLS moves that have nothing to do with the prompt, of the same layers, positions, signs and norms (see the head of this file)."""
    named = [(step.layer, step.feature if step.feature >= 0 else -1 - at) for at, step in enumerate(move.steps)]
    quiet = {layer: _quiet(read, move, layer) for layer, _ in named}
    made = []
    for _ in range(CONTROLS):
        units: dict[tuple[int, int], Step] = {}
        for layer, quiet_Q in quiet.items():
            keys = list(dict.fromkeys(key for key in named if key[0] == layer))
            some = quiet_Q[torch.randperm(len(quiet_Q), generator=draw)[: len(keys)]].tolist()
            width = len(next(step.vector_D for step in move.steps if step.layer == layer))
            each = [read.layers[layer].step(0, feature, 1.0) for feature in some]
            each += [Step(layer, 0, vector_D) for vector_D in torch.randn(len(keys) - len(some), width, generator=draw)]
            units |= dict(zip(keys, each, strict=True))
        made.append(
            [
                replace(units[key], at=step.at).times(_sign(read, step) * step.norm / units[key].norm)
                for step, key in zip(move.steps, named, strict=True)
            ]
        )
    return made


def _quiet(read: Read, move: Move, layer: int) -> Int[Tensor, " Q"]:
    """A layer's features that fire nowhere where something of it is moved; of the embedding there are none."""
    if layer < 0:
        return torch.zeros(0, dtype=torch.int64)
    own = read.layers[layer]
    places = torch.tensor([step.at for step in move.steps if step.layer == layer])
    quiet = own.W_dec.norm(dim=1) > 0
    quiet[own.feature_E[torch.isin(own.position_E, places)]] = False
    quiet[[step.feature for step in move.steps if step.layer == layer and step.feature >= 0]] = False
    return quiet.nonzero()[:, 0]


def _sign(read: Read, step: Step) -> float:
    """Whether a feature is put in (1) or taken out (-1)."""
    if step.feature < 0:
        return 1.0
    return 1.0 if float(step.vector_D @ read.layers[step.layer].W_dec[step.feature]) >= 0 else -1.0
