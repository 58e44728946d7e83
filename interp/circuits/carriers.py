"""Which attention heads carried an edge, and why they looked where they looked.

Carried (OV). With patterns and norms held, what a source adds reaches its target along the residual stream and through heads, and that is
linear. With δz what the source does to the outputs of a layer's heads, and g the target's gradient there,

    brought by a head   Σ over positions of g · δz, g over the way on which no further head lies: the head is the last one. These and
                        `straight`, what comes through no head, add up to the edge
    through a head      the same with the whole gradient: all ways on which the head lies. A way through two heads counts for both

Looked (QK). The score of one query position and one key position, before the softmax, is q · k of that head: linear in the query's residual
stream where the key stays, and in the key's where the query stays. With earlier patterns and norms held, either side is a sum over what was
written before: features, errors, tokens and a rest, the model's own biases.

Axes    L layer, H head, T position, D width of the residual stream, Z all heads' outputs side by side.
Source  Ameisen et al. 2025, "Circuit Tracing", on what graphs leave out; Elhage et al. 2021, "A Mathematical Framework for Transformer
        Circuits" (OV and QK); Kamath et al. 2025, "Tracing Attention Computation Through Feature Interactions" (QK by features).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.frozen import EMBEDDING, Clean, Cut, clean_pass, held_pass
from interp.circuits.graph import FEATURE, LOGIT, RESIDUAL, Graph
from interp.circuits.intervene import written_by
from interp.circuits.points import PATTERN, Z, attention_heads, check_fires
from interp.circuits.replacement import Read, Replacement
from interp.types import InterpError

SCORES = "attn.hook_attn_scores"
"""Before the softmax; what is masked is -inf there."""
QUERY, KEY = "attn.q.hook_out", "attn.k.hook_out"
"""Before rotary positions and the norms that some families put there."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Carried:
    """An edge by the heads that carried it, in the target's unit."""

    edge: float
    straight: float
    """What comes through no head: only where source and target are at one position."""
    brought_LH: Float[np.ndarray, "L H"]
    """By the last head on the way; with `straight` these add up to the edge."""
    through_LH: Float[np.ndarray, "L H"]
    """Over all ways on which the head lies."""
    attention_LH: Float[np.ndarray, "L H"]
    """How much of its pattern the head gives, at the target's position, to the source's."""

    def heads(self, count: int = 5) -> list[tuple[int, int]]:
        """The heads (layer, number) that brought most of it, whatever its sign."""
        order = np.argsort(-np.abs(self.brought_LH).ravel(), kind="stable")[:count]
        return [divmod(int(at), self.brought_LH.shape[1]) for at in order if self.brought_LH.ravel()[at]]


def carried(replacement: Replacement, read: Read, graph: Graph, target: int, source: int) -> Carried:
    """An edge of a graph by the heads that carried it (see the head of this file).

    Raises InterpError for an edge to a token or an error, or from a logit, over residual SAEs, and for families without `attn.hook_z`.
    """
    if replacement.over == RESIDUAL:
        raise InterpError(
            "edges over residual SAEs pass through whole blocks, in which nothing is held, so no head has a part of them; ask of a graph over "
            "transcoders or neurons."
        )
    model, clean = replacement.model, read.clean
    layers, heads = len(replacement.parts), attention_heads(model).count
    zs = [f"blocks.{layer}.{Z}" for layer in range(layers)]
    for name in zs:
        check_fires(model, name)
    step = written_by(read, graph, source)
    added = {}
    for layer, vector_D in step.vectors.items():
        leaf = _leaf(replacement, layer)
        added[leaf] = torch.zeros_like(clean.activations[leaf][0])
        added[leaf][step.at] = vector_D
    end, towards = _towards(replacement, read, graph, target)
    ends = [] if end == "logits" else [end]
    cuts = replacement.cuts(read)

    whole = held_pass(model, replacement.norms, clean, cuts, [*ends, *zs])
    after = held_pass(model, replacement.norms, clean, cuts, [*ends, *zs], moved=added)
    delta = {name: (after.ends[name] - whole.ends[name])[0].detach() for name in zs}
    through = torch.autograd.grad(
        whole.ends[end], [whole.ends[name] for name in zs], towards, retain_graph=True, allow_unused=True
    )
    with_z = Clean(clean.tokens_T, {**clean.activations, **_outputs(replacement, clean, zs)}, clean.logits_V)
    cut = held_pass(model, replacement.norms, with_z, [*cuts, *map(Cut, zs)], ends)
    pulled = cut.pull(end, towards, [*added, *zs])
    by_head = [_by_head(pulled[name][0], delta[name], heads) for name in zs]
    through_LH = [
        np.zeros(heads) if grad is None else _by_head(grad[0], delta[name], heads)
        for name, grad in zip(zs, through, strict=True)
    ]
    at_target = int(graph.nodes.position_N[target])
    patterns = [clean.activations[f"blocks.{number}.{PATTERN}"][0, :, at_target, step.at] for number in range(layers)]
    return Carried(
        edge=float(graph.edges_NN[target, source]),
        straight=sum(float((pulled[leaf][0] * added_TD).sum()) for leaf, added_TD in added.items()),
        brought_LH=np.stack(by_head),
        through_LH=np.stack(through_LH),
        attention_LH=torch.stack(patterns).detach().double().numpy(),
    )


def _towards(replacement: Replacement, read: Read, graph: Graph, target: int) -> tuple[str, Float[Tensor, "1 P W"]]:
    """(the end at which a node is read, the direction that reads it)."""
    n = graph.nodes
    kind, layer, at, index = (int(of[target]) for of in (n.kind_N, n.layer_N, n.position_N, n.index_N))
    if kind == LOGIT:
        return "logits", graph.directions_KV[target - len(n)][None, None]
    if kind != FEATURE:
        raise InterpError("only features and logits are targets: nothing makes a token or an error.")
    own = read.layers[layer]
    row_D = own.read_rows(own.find(torch.tensor([at]), torch.tensor([index])))[0]
    towards = torch.zeros(1, len(read.clean.tokens_T), len(row_D))
    towards[0, at] = row_D
    return replacement.reads[layer], towards


def _outputs(replacement: Replacement, clean: Clean, zs: Sequence[str]) -> dict[str, Tensor]:
    return {
        name: x
        for name, x in clean_pass(replacement.model, replacement.norms, clean.tokens_T, zs).activations.items()
        if name in zs
    }


def _by_head(grad_TZ: Tensor, delta_TZ: Tensor, heads: int) -> Float[np.ndarray, " H"]:
    tokens = len(delta_TZ)
    return (grad_TZ.reshape(tokens, heads, -1) * delta_TZ.reshape(tokens, heads, -1)).sum((0, 2)).double().numpy()


# ---- why a head looked there ----


@dataclass(frozen=True, eq=False, kw_only=True)
class Looked:
    """The score of a query and a key position in one head, by what was written into either side's residual stream."""

    score: float
    attention: float
    """What the softmax makes of it."""
    query: tuple[tuple[int, float], ...]
    """(node of the graph, its part of the score by way of the query), the largest first."""
    key: tuple[tuple[int, float], ...]
    query_rest: float
    """What no node of the graph made: biases, and features that are not in it."""
    key_rest: float


def looked(replacement: Replacement, read: Read, graph: Graph, head: tuple[int, int], query: int, key: int) -> Looked:
    """Why a head (layer, number) gave what it gave to `key` at `query`, by the nodes of a graph (see the head of this file).

    Raises InterpError where there is no such head or position, and for families whose scores, queries or keys have no hook point.
    """
    model, clean = replacement.model, read.clean
    layer, number = head
    count, tokens = attention_heads(model).count, len(clean.tokens_T)
    if not (0 <= layer < len(replacement.parts) and 0 <= number < count):
        raise InterpError(
            f"there is no head {layer}.{number}: {model.name} has {len(replacement.parts)} layers of {count}."
        )
    if not 0 <= key <= query < tokens:
        raise InterpError(f"position {query} does not look at {key}: give 0 <= key <= query < {tokens}.")
    names = [f"blocks.{layer}.{point}" for point in (SCORES, QUERY, KEY)]
    for name in names:
        model.check_hook(name)
    run = model.run(clean.tokens_T[None], names, grad=True)
    score = run.activations[names[0]][0, number, query, key]
    toward = torch.autograd.grad(score, [run.activations[name] for name in names[1:]])
    held = held_pass(model, replacement.norms, clean, replacement.cuts(read), names[1:])
    leaves = [EMBEDDING, *replacement.writes[:layer]]
    sides = []
    for name, grad in zip(names[1:], toward, strict=True):
        pulled = held.pull(name, grad.detach().clone(), leaves)
        sides.append(_parts(replacement, read, graph, pulled))
    own = float(score.detach())
    (q_parts, k_parts) = sides
    return Looked(
        score=own,
        attention=float(clean.activations[f"blocks.{layer}.{PATTERN}"][0, number, query, key]),
        query=q_parts,
        key=k_parts,
        query_rest=own - sum(value for _, value in q_parts),
        key_rest=own - sum(value for _, value in k_parts),
    )


def _parts(
    replacement: Replacement, read: Read, graph: Graph, pulled: dict[str, Float[Tensor, "1 T D"]]
) -> tuple[tuple[int, float], ...]:
    """What each node that writes before gave, the largest first; nodes that gave nothing are left out."""
    found = []
    for node in np.flatnonzero(graph.nodes.kind_N != LOGIT).tolist():
        step = written_by(read, graph, node)
        leaves = {_leaf(replacement, layer): vector_D for layer, vector_D in step.vectors.items()}
        value = sum(float(pulled[leaf][0, step.at] @ vector_D) for leaf, vector_D in leaves.items() if leaf in pulled)
        if value:
            found.append((node, value))
    return tuple(sorted(found, key=lambda each: -abs(each[1])))


def _leaf(replacement: Replacement, layer: int) -> str:
    """Where what a layer, or the embedding (-1), puts out is added."""
    return EMBEDDING if layer < 0 else replacement.writes[layer]
