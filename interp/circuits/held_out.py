"""Which features carry a behaviour on prompts that they were not chosen on: faithfulness over many prompts, k features growing.

1.  A position has a role that any wording has: `changed` (the counterfactual twin has another token there), `last`, or `after` a changed
    one. Before the first changed token nothing differs from the twin, so nothing can be carried there.
2.  Graphs of a few pairs, of the prompt and of its twin, order features by their influence, a feature with its role: the mean over graphs
    of what it has there at all positions of the role.
3.  On other prompts, as in `faithful`, every MLP puts out what it did for the twin, but the first k features of that order have, at all
    positions of their roles, the activation of the prompt itself. With m the difference of two logits and sums over prompts,

        f(k) = Σ (m(C_k) − m(∅)) / Σ (m(M) − m(∅))        CPR = ∫ f        CMD = ∫ |1 − f|       over k / the largest k

4.  A control has, for each feature, another that fired at this role in the graphs' prompts, of the same layer where there is one left;
    which is drawn by a seed. Intervals are bootstraps over prompts.

Axes    P prompt, K size, R row, T token, D width.
Source  MIB (Mueller et al. 2025) for CPR and CMD.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.attribute import attribute, difference
from interp.circuits.behaviours import Pair
from interp.circuits.faithful import LEAST, put
from interp.circuits.graph import FEATURE, FEATURES
from interp.circuits.layer import Layer
from interp.circuits.prune import influence
from interp.circuits.replacement import Read, Replacement
from interp.models import Edit
from interp.progress import bar
from interp.statistics import bootstrap_ratio
from interp.types import InterpError

CHANGED, AFTER, LAST = "changed", "after", "last"
SIZES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
NODES = 2_000
"""Features that each graph attributes, those of most influence first."""
CONTROLS = 2
Figure = tuple[float, float, float]
"""(value, and the ends of its 95 % interval)."""


class Placed(NamedTuple):
    """A feature at all positions of a role."""

    layer: int
    feature: int
    role: str


@dataclass(frozen=True)
class Chosen:
    """Features in the order of their mean influence, and all that fired where they could."""

    order: tuple[Placed, ...]
    influence: tuple[float, ...]
    fired: tuple[Placed, ...]

    def control(self, count: int, seed: int) -> tuple[Placed, ...]:
        """Others, one for each of the first `count`: of its layer and role where one is left, else of its role, else any."""
        draw, left = random.Random(seed), sorted(set(self.fired) - set(self.order[:count]))
        draw.shuffle(left)
        made: list[Placed] = []
        for one in self.order[:count]:
            if not left:
                break
            same = (at for at, other in enumerate(left) if (other.layer, other.role) == (one.layer, one.role))
            role = (at for at, other in enumerate(left) if other.role == one.role)
            made.append(left.pop(next(same, next(role, 0))))
        return tuple(made)


@dataclass(frozen=True, kw_only=True)
class BehaviourFaithfulness:
    """f over prompts, with 95 % intervals."""

    n: int
    """Prompts."""
    sizes: tuple[int, ...]
    f: tuple[Figure, ...]
    """At each size; f(0) is 0."""
    control: tuple[Figure, ...]
    """The mean over random sets of that size."""
    cpr: Figure
    cmd: float
    control_cpr: Figure
    every: Figure
    """f of all features of every prompt, chosen or not: what is missing to 1 is the errors'."""
    whole: float
    """The mean of m(M), nats."""
    nothing: float
    """The mean of m(∅), nats."""

    def table(self) -> list[dict[str, float | int]]:
        """A row a size."""
        return [
            {"k": k, "f": f[0], "low": f[1], "high": f[2], "control": c[0], "control_low": c[1], "control_high": c[2]}
            for k, f, c in zip(self.sizes, self.f, self.control, strict=True)
        ]


def roles(pair: Pair) -> tuple[str, ...]:
    """The role of each position, empty before the first at which the prompt and its twin differ."""
    differ = [a != b for a, b in zip(pair.clean_tokens, pair.corrupt_tokens, strict=True)]
    found, seen = [], False
    for at, changed in enumerate(differ):
        seen = seen or changed
        found.append(CHANGED if changed else LAST if seen and at == len(differ) - 1 else AFTER if seen else "")
    return tuple(found)


def choose_features(replacement: Replacement, pairs: Sequence[Pair], *, nodes: int = NODES) -> Chosen:
    """Features by their mean influence on the difference of the two logits, in graphs of these prompts and of their twins.

    Raises InterpError where there are no pairs, and for a replacement by neurons, of which all have an activation and only some are nodes, or of the residual stream.
    """
    if replacement.over != FEATURES:
        raise InterpError(
            "faithfulness over prompts is measured of transcoders' features; open the model with transcoders."
        )
    if not pairs:
        raise InterpError("features are chosen on the graphs of some prompts; give at least one pair.")
    total: dict[Placed, float] = defaultdict(float)
    fired: set[Placed] = set()
    sides = [(pair, text) for pair in pairs for text in (pair.clean_tokens, pair.corrupt_tokens)]
    with bar("graphs", len(sides), "graphs") as advance:
        for pair, text in sides:
            where, tokens = roles(pair), torch.tensor(text)
            read = replacement.read(tokens)
            target = difference(read.clean.logits_V, pair.target, pair.distractor)
            graph = attribute(replacement, tokens, target, max_nodes=nodes, read=read)
            own_N, n = influence(graph.edges_NN, graph.weights()), graph.nodes
            for node in np.flatnonzero(n.kind_N == FEATURE).tolist():
                if role := where[int(n.position_N[node])]:
                    total[Placed(int(n.layer_N[node]), int(n.index_N[node]), role)] += float(own_N[node])
            fired |= set(_values(read, where))
            advance(1, "")
    order = sorted(total, key=lambda one: (-total[one], one))
    return Chosen(tuple(order), tuple(total[one] / len(sides) for one in order), tuple(sorted(fired)))


@torch.inference_mode()
def measure_held_out(
    replacement: Replacement,
    chosen: Chosen,
    pairs: Sequence[Pair],
    *,
    sizes: Sequence[int] = SIZES,
    controls: int = CONTROLS,
    seed: int = 0,
) -> BehaviourFaithfulness:
    """How much of the answers to these prompts the chosen features give (see the head of this file), and how much random ones.

    Sizes beyond what was chosen are left out. Raises InterpError for fewer than two prompts, and where the answers hardly differ from the twins'.
    """
    kept = sorted({0, *(size for size in sizes if size <= len(chosen.order))})
    if len(pairs) < 2 or len(kept) < 2:
        raise InterpError(
            f"faithfulness over prompts needs two prompts and a size that was chosen; there are {len(pairs)} prompts and "
            f"{len(chosen.order)} features."
        )
    orders = [chosen.order[: kept[-1]], *(chosen.control(kept[-1], seed + 1 + n) for n in range(controls))]
    m = []
    with bar("prompts", len(pairs), "prompts") as advance:
        for pair in pairs:
            m.append(_answers(replacement, pair, orders, kept))
            advance(1, "")
    m_PR = np.asarray(m, dtype=np.float64)
    nothing_P, whole_P = m_PR[:, 0], m_PR[:, -1]
    of_P = whole_P - nothing_P
    if not of_P.mean() >= LEAST:
        raise InterpError(
            f"the answers do not differ from the twins' as they should: {nothing_P.mean():.2f} nats on average with every MLP as in the "
            f"counterfactual, and {whole_P.mean():.2f} with the prompts' own; choose prompts that the model answers, and twins that it answers "
            "otherwise."
        )
    gained = m_PR[:, :-2].reshape(len(pairs), len(orders), len(kept)) - nothing_P[:, None, None]
    own_PK = gained[:, 0]
    other_PK = gained[:, 1:].mean(1) if controls else np.full_like(own_PK, np.nan)
    f = tuple(_figure(own_PK[:, at], of_P) for at in range(len(kept)))
    x = np.asarray(kept) / kept[-1]
    return BehaviourFaithfulness(
        n=len(pairs),
        sizes=tuple(kept),
        f=f,
        control=tuple(_figure(other_PK[:, at], of_P) for at in range(len(kept))),
        cpr=_figure(np.asarray(np.trapezoid(own_PK, x, axis=1)), of_P),
        cmd=float(np.trapezoid([abs(1 - each[0]) for each in f], x)),
        every=_figure(m_PR[:, -2] - nothing_P, of_P),
        control_cpr=_figure(np.asarray(np.trapezoid(other_PK, x, axis=1)), of_P),
        whole=float(whole_P.mean()),
        nothing=float(nothing_P.mean()),
    )


def _figure(gained_P: np.ndarray, of_P: np.ndarray) -> Figure:
    low, high = bootstrap_ratio(gained_P, of_P) or (float("nan"), float("nan"))
    return float(gained_P.sum() / of_P.sum()), low, high


def _values(read: Read, where: Sequence[str]) -> dict[Placed, dict[int, float]]:
    """What each feature fires at each position of a role."""
    found: dict[Placed, dict[int, float]] = defaultdict(dict)
    for layer in read.layers:
        entries = zip(layer.position_E.tolist(), layer.feature_E.tolist(), layer.value_E.tolist(), strict=True)
        for at, feature, value in entries:
            if where[at]:
                found[Placed(layer.number, feature, where[at])][at] = value
    return found


def _answers(
    replacement: Replacement, pair: Pair, orders: Sequence[Sequence[Placed]], sizes: Sequence[int]
) -> list[float]:
    """m of each order at each size, one after the other (the first is of nothing), of all features, and of the prompt's own MLPs."""
    read, twin = (replacement.read(torch.tensor(text)) for text in (pair.clean_tokens, pair.corrupt_tokens))
    where = roles(pair)
    ours, theirs = _values(read, where), _values(twin, where)
    rows: list[list[Tensor]] = []
    for order in orders:
        now = [layer.out_TD.clone() for layer in twin.layers]
        for first, end in zip((0, *sizes), sizes, strict=False):
            for one in order[first:end]:
                _carry(now, twin, one, ours.get(one, {}), theirs.get(one, {}))
            rows.append([out.clone() for out in now])
    at_T1 = torch.tensor([bool(role) for role in where])[:, None]
    rows.append([_every(own, other, at_T1) for own, other in zip(read.layers, twin.layers, strict=True)])
    rows.append([layer.out_TD for layer in read.layers])
    edits = [
        Edit(hook, partial(put, torch.stack([row[number] for row in rows])))
        for number, hook in enumerate(replacement.writes)
    ]
    tokens = read.clean.tokens_T.expand(len(rows), -1)
    run = replacement.model.run(tokens, [], edits, logits=True, last=1)
    assert run.logits is not None
    return [float(m) for m in (run.logits[:, -1, pair.target] - run.logits[:, -1, pair.distractor])]


def _every(own: Layer, other: Layer, at_T1: Bool[Tensor, "T 1"]) -> Float[Tensor, "T D"]:
    """What an MLP puts out with all features as for the prompt, and the twin's error."""
    return torch.where(at_T1, own.out_TD - own.error_TD + other.error_TD, other.out_TD)


def _carry(
    outputs: Sequence[Float[Tensor, "T D"]],
    twin: Read,
    one: Placed,
    ours: Mapping[int, float],
    theirs: Mapping[int, float],
) -> None:
    """Put a feature where it is for the prompt itself, at all positions of its role."""
    for at in {*ours, *theirs}:
        step = twin.layers[one.layer].step(at, one.feature, ours.get(at, 0.0) - theirs.get(at, 0.0))
        for layer, vector_D in step.vectors.items():
            outputs[layer][at] += vector_D
