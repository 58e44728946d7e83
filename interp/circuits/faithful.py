"""How much of a model's answer a share of a graph's features gives, when all others are as in a prompt that asks for another.

With m the difference of two logits, C_k the features of most influence (a share k of all), and a counterfactual prompt of the same length,
every MLP puts out what it did for the counterfactual, but for the features in C_k, which are as for the prompt itself:

    f(k) = (m(C_k) − m(∅)) / (m(M) − m(∅))      CPR = ∫ f dk      CMD = ∫ |1 − f| dk

m(∅) has no feature of its own, m(M) all of every MLP's output. Tokens and attention are the prompt's own in all of them, so what attention alone
carries is in m(∅) already. Errors are with the complement until the whole: f(1) below 1 is what the transcoders do not explain.

Axes    K share, T token, D width.
Source  MIB (Mueller et al. 2025), CPR and CMD, there over edges on a linear axis; here over features, on SHARES.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from interp.circuits.graph import FEATURE, Graph
from interp.circuits.prune import influence
from interp.circuits.replacement import Read, Replacement
from interp.models import Edit
from interp.models.passes import Site
from interp.types import InterpError

SHARES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
LEAST = 0.1
"""Nats by which the whole must differ from nothing, for a share of it to mean anything."""


@dataclass(frozen=True)
class Faithfulness:
    """f at each share, and its integrals over the share of features."""

    shares: tuple[float, ...]
    f: tuple[float, ...]
    cpr: float
    cmd: float
    whole: float
    """m(M), nats."""
    nothing: float
    """m(∅), nats."""


@torch.inference_mode()
def measure_faithfulness(
    replacement: Replacement,
    read: Read,
    other: Read,
    graph: Graph,
    target: int,
    distractor: int,
    shares: Sequence[float] = SHARES,
) -> Faithfulness:
    """Of a graph's features, the most influential first, on the difference of two logits.

    `read` is the graph's prompt, `other` the counterfactual. Raises InterpError when their lengths differ, and when the model's answer
    hardly changes between them.
    """
    if len(read.clean.tokens_T) != len(other.clean.tokens_T):
        raise InterpError(
            f"the prompt has {len(read.clean.tokens_T)} tokens and its counterfactual {len(other.clean.tokens_T)}; they must be of one "
            "length, so that position stands for position."
        )
    order = _by_influence(graph)
    rows = [_outputs(replacement, read, other, graph, order[: round(share * len(order))]) for share in shares]
    rows.append([layer.out_TD for layer in read.layers])
    tokens = read.clean.tokens_T.expand(len(rows), -1)
    edits = [
        Edit(hook, partial(put, torch.stack([row[number] for row in rows])))
        for number, hook in enumerate(replacement.writes)
    ]
    run = replacement.model.run(tokens, [], edits, logits=True, last=1)
    assert run.logits is not None
    m = (run.logits[:, -1, target] - run.logits[:, -1, distractor]).double()
    nothing, whole = float(m[list(shares).index(0.0)]) if 0.0 in shares else float("nan"), float(m[-1])
    if not abs(whole - nothing) >= LEAST:
        raise InterpError(
            f"the answer is the same ({whole:.2f} and {nothing:.2f} nats) with every MLP as in the counterfactual, so no share of the "
            "features can be told from another; choose a counterfactual that changes the answer."
        )
    f = ((m[:-1] - nothing) / (whole - nothing)).numpy()
    x = np.asarray(shares)
    return Faithfulness(
        tuple(shares),
        tuple(map(float, f)),
        float(np.trapezoid(f, x)),
        float(np.trapezoid(np.abs(1 - f), x)),
        whole,
        nothing,
    )


def put(rows_BTD: Tensor, out: Tensor, _: Site) -> Tensor:
    """An edit by which these stand at a hook point, whatever came there."""
    return rows_BTD.to(out)


def _by_influence(graph: Graph) -> list[int]:
    score = graph.influence_N if graph.influence_N is not None else influence(graph.edges_NN, graph.weights())
    features = np.flatnonzero(graph.nodes.kind_N == FEATURE)
    return [int(features[n]) for n in score[torch.from_numpy(features)].argsort(descending=True)]


def _outputs(replacement: Replacement, read: Read, other: Read, graph: Graph, kept: Sequence[int]) -> list[Tensor]:
    """What each MLP puts out, (T, D): the counterfactual's, but with the kept features as in the prompt."""
    n = graph.nodes
    outputs = [layer.out_TD.clone() for layer in other.layers]
    for node in kept:
        layer, at, index = int(n.layer_N[node]), int(n.position_N[node]), int(n.index_N[node])
        theirs = other.layers[layer]
        step = theirs.step(at, index, float(n.value_N[node]) - theirs.fires(at, index))
        for into, vector_D in step.vectors.items():
            outputs[into][at] += vector_D
    return outputs
