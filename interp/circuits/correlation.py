"""How far what a graph predicts happens: sources ablated one by one, and every feature and logit downstream.

Axes    N node, S source, T target, P pair of a source and a target.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.graph import FEATURE, LOGIT, Graph
from interp.circuits.intervene import ROWS, Way, changes, run_moved, written_by
from interp.circuits.replacement import Read, Replacement


def predict(
    replacement: Replacement, graph: Graph, sources: Sequence[int], share: float = -1.0
) -> Float[Tensor, "N S"]:
    """What moving each source by a share of itself does to every node, by the graph: layer by layer, over all paths.

    As `total_effects`, but a feature that falls below its threshold is off, and hands on no more than that.
    """
    n = graph.nodes
    value_N1 = torch.from_numpy(np.ascontiguousarray(n.value_N)).float()[:, None]
    layer_N, feature_N = torch.from_numpy(n.layer_N), torch.from_numpy(n.kind_N == FEATURE)
    level_N1 = torch.zeros(len(n), 1)
    for layer, part in enumerate(replacement.parts):
        own = feature_N & (layer_N == layer)
        level_N1[own, 0] = part.levels(torch.from_numpy(n.index_N)[own])
    part_NS, change_NS = torch.zeros(len(n), len(sources)), torch.zeros(len(n), len(sources))
    part_NS[list(sources), range(len(sources))] = share
    for layer in range(len(replacement.parts) + 1):
        own = (layer_N == layer) & (feature_N | torch.from_numpy(n.kind_N == LOGIT))
        change_NS[own] = graph.edges_NN[own] @ part_NS
        live = own & feature_N
        still = value_N1[live] + change_NS[live] > level_N1[live]
        moved = torch.where(still, change_NS[live] / value_N1[live], -1.0)
        part_NS[live] += torch.where(change_NS[live] != 0, moved, 0.0)
    return change_NS


def correlate(
    replacement: Replacement, read: Read, graph: Graph, sources: Sequence[int], way: Way = "held"
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"], Int[Tensor, " P"]]:
    """(predicted, measured, layers apart) of each source ablated in turn and each active feature or logit that it can reach.

    What is predicted is `predict`'s; each is flat, an entry a pair.
    """
    n = graph.nodes
    targets = [int(i) for i in range(len(n)) if n.kind_N[i] in (FEATURE, LOGIT)]
    layers = list(range(len(replacement.parts)))
    said_TS = predict(replacement, graph, sources)[targets]
    apart_TS = torch.from_numpy(n.layer_N[targets])[:, None] - torch.from_numpy(n.layer_N[list(sources)])[None]
    moves = []
    for source in sources:
        moves.append([written_by(read, graph, source).times(-1.0)])
    did = []
    for first in range(0, len(moves), ROWS):
        moved = run_moved(replacement, read, moves[first : first + ROWS], way, layers)
        did.append(changes(replacement, read, graph, moved, targets).T)
    reached_TS = said_TS != 0
    return said_TS[reached_TS], torch.cat(did, 1)[reached_TS], apart_TS[reached_TS]


def correlate_by_distance(
    replacement: Replacement, read: Read, graph: Graph, sources: Sequence[int], way: Way, distances: Sequence[int]
) -> dict[str, float]:
    """Pearson's correlation of what is predicted and what happens, over pairs that lie at most so many layers apart."""
    said, did, apart = correlate(replacement, read, graph, sources, way)
    found = {}
    for distance in distances:
        near = apart <= distance
        found[str(distance)] = round(float(torch.corrcoef(torch.stack([said[near], did[near]]))[0, 1]), 3)
    return found
