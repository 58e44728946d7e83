"""What of a graph matters: influence on the logits, pruning by it, and how much of it the features account for.

With Ā the edges' absolute values, each row (target) scaled to sum 1, and w the logits' weights, a node's influence is

    I = w (Ā + Ā² + Ā³ + …)

the weight that reaches it when each target hands its own on to its sources in proportion. A graph has no cycles, so the sum ends.

    replacement    influence of tokens / (influence of tokens and errors)
    completeness   mean over nodes, by influence (logits by weight), of the share of their inputs that does not come from errors

Axes    N node, S source, T target.
Source  Ameisen et al. 2025, "Circuit Tracing", appendix on pruning; circuit-tracer's `graph.py` has the same two scores.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN, Graph

NODES, EDGES = 0.8, 0.98
"""Shares of the influence that what is kept holds."""


def scaled(edges_NN: Float[Tensor, "N N"]) -> Float[Tensor, "N N"]:
    """Absolute values, each target's scaled to sum 1 (a target without sources stays 0)."""
    size = edges_NN.abs()
    return size / size.sum(1, keepdim=True).clamp_min(1e-10)


def influence(edges_NN: Float[Tensor, "N N"], weight_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Of each node on the logits, whose weights stand in `weight_N` (0 elsewhere)."""
    over_NN, total, now = scaled(edges_NN), torch.zeros_like(weight_N), weight_N
    for _ in range(len(edges_NN)):
        now = now @ over_NN
        if not bool(now.any()):
            break
        total = total + now
    return total


@dataclass(frozen=True)
class Scores:
    """How much of a graph is its features' and not its errors': shares from 0 to 1."""

    replacement: float
    completeness: float


def score(graph: Graph) -> Scores:
    """Replacement and completeness of the whole graph."""
    weight = graph.weights()
    total, over = influence(graph.edges_NN, weight), scaled(graph.edges_NN)
    of = {kind: torch.from_numpy(graph.nodes.kind_N == kind) for kind in (TOKEN, ERROR)}
    tokens, errors = float(total[of[TOKEN]].sum()), float(total[of[ERROR]].sum())
    explained = 1 - over[:, of[ERROR]].sum(1)
    shown = total + weight
    return Scores(
        tokens / (tokens + errors) if tokens + errors else 0.0, float((explained * shown).sum() / shown.sum())
    )


def prune(graph: Graph, nodes: float = NODES, edges: float = EDGES) -> Graph:
    """The graph of the nodes that hold `nodes` of the influence, then of the edges that hold `edges` of theirs.

    Tokens and logits stay. A feature or an error that is left with no target goes, and a feature that is left with no source.
    """
    weight = graph.weights()
    kind = torch.from_numpy(graph.nodes.kind_N)
    ends, features = (kind == TOKEN) | (kind == LOGIT), kind == FEATURE
    total = influence(graph.edges_NN, weight)
    kept = (total >= level(total, nodes)) | ends
    left = graph.edges_NN * kept[:, None] * kept[None, :]
    # An edge's influence: its share of the target's inputs, times what reaches the target.
    flow = scaled(left) * (influence(left, weight) + weight)[:, None]
    shown = (flow >= level(flow.flatten(), edges)) & (flow > 0)
    while True:
        live = shown & kept[:, None] & kept[None, :]
        still = kept & (ends | live.any(0)) & (~features | live.any(1))
        if bool((still == kept).all()):
            break
        kept = still
    return graph.part(kept.numpy(), torch.where(live, graph.edges_NN, 0.0), total)


def level(values: Float[Tensor, " N"], share: float) -> float:
    """The value above which (itself included) the largest hold that share of the sum."""
    ordered = values.sort(descending=True).values
    reached = int(torch.searchsorted(ordered.cumsum(0), share * float(ordered.sum())))
    return float(ordered[min(reached, len(ordered) - 1)])


def strong_edges(graph: Graph, count: int) -> list[tuple[int, int, float]]:
    """(target, source, effect) of the edges that most influence passes through.

    Not those that are largest: an edge is in the unit of its target, and pre-activations of two features are in no common one.
    """
    weight = graph.weights()
    flow = scaled(graph.edges_NN) * (influence(graph.edges_NN, weight) + weight)[:, None]
    wide, flat = len(graph.nodes), flow.flatten()
    top = flat.topk(min(count, int((flat > 0).sum()))).indices.tolist()
    return [(n // wide, n % wide, float(graph.edges_NN[n // wide, n % wide])) for n in top]
