"""What happens when what a graph says is tried: sources are moved while the model runs, and their targets are measured.

Three ways to run what was moved:

    live    the model itself, nothing held
    direct  the model itself, but every other MLP puts out what it did: what then reaches a target came over no other MLP
    held    patterns and norms held, every MLP its transcoder, encoded anew, and the error: what a graph is a linear picture of

An edge is checked by moving its source (a feature's activation or an error ablated, halved and doubled; a token's embedding ablated, for
norms undo its size) and measuring its target, per unit of the source, once directly and once live. It is

    confirmed   if all have the sign that is predicted, the mean lies beyond 95 of 100 controls, and the prediction is within a
                factor of two of it
    refuted     if the mean has the other sign, or is no larger than half of the controls
    undecided   otherwise, and where no effect at all is predicted

What is predicted is the edge (`verdict`), and for the live model, which has all paths, the sum over all of the graph (`live_verdict`). A
control is another feature of the same layer, one that does not fire there, moved by the same norm. `adversarial` is what the direction
that moves the target most directly, by the gradient where nothing is moved and at the same norm, does to it.

Axes    B row, T token, D width, N node, C control.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.frozen import EMBEDDING, PATTERN, Clean, Cut, Held, held_pass, holding, note
from interp.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN, Check, Graph
from interp.circuits.layer import Kept, Step
from interp.circuits.replacement import Read, Replacement
from interp.models import Edit
from interp.models.passes import Site
from interp.progress import bar
from interp.types import InterpError

Way = Literal["live", "direct", "held"]
WAYS: tuple[Way, Way] = ("direct", "live")
SHARES = (-1.0, -0.5, 1.0)
"""Ablated, halved, doubled."""
CONTROLS = 19
ROWS = 32
"""Rows that run at once."""
FACTOR = 2.0


@dataclass(frozen=True)
class Moved:
    """What a pass left behind when something was moved."""

    read: Mapping[int, Float[Tensor, "B T D"]]
    """By layer, what passed where its activations are measured."""
    logits_BV: Float[Tensor, "B V"]


def written_by(read: Read, graph: Graph, node: int) -> Step:
    """What a node adds to the residual stream.

    Raises InterpError for a logit, which adds nothing.
    """
    n = graph.nodes
    kind, layer, at, index = (int(of[node]) for of in (n.kind_N, n.layer_N, n.position_N, n.index_N))
    if kind == LOGIT:
        raise InterpError("a logit adds nothing to the model, so it is the source of no edge.")
    if kind == TOKEN:
        return Step(-1, at, read.clean.activations[EMBEDDING][0, at])
    own = read.layers[layer]
    if kind == ERROR:
        return Step(layer, at, own.error_TD[at])
    return own.step(at, index, float(n.value_N[node]))


@torch.inference_mode()
def run_moved(
    replacement: Replacement,
    read: Read,
    moves: Sequence[Sequence[Step]],
    way: Way,
    layers: Sequence[int],
) -> Moved:
    """A row for each of the moves, run in that way; `layers` are read."""
    reads: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    logits = []
    for first in range(0, len(moves), ROWS):
        some = moves[first : first + ROWS]
        edits = _edits(replacement, read, some, way)
        came: dict[int, dict[str, Tensor]] = {
            layer: {} for layer in layers if replacement.measures[layer] == replacement.writes[layer]
        }
        # What comes to a hook point that is itself edited is what was made below it.
        edits = [*(Edit(replacement.measures[layer], partial(note, at)) for layer, at in came.items()), *edits]
        tokens = read.clean.tokens_T.expand(len(some), -1)
        run = replacement.model.run(
            tokens, [replacement.measures[layer] for layer in layers], edits, logits=True, last=1
        )
        assert run.logits is not None
        logits.append(run.logits[:, -1].float())
        for layer in layers:
            at = replacement.measures[layer]
            reads[layer].append(came[layer]["x"] if layer in came else run.activations[at])
    return Moved({layer: torch.cat(parts) for layer, parts in reads.items()}, torch.cat(logits))


def _edits(replacement: Replacement, read: Read, moves: Sequence[Sequence[Step]], way: Way) -> list[Edit]:
    clean = read.clean
    added: dict[int, Tensor] = {}
    kept: dict[int, list[Kept]] = {}
    for row, step in ((row, step) for row, steps in enumerate(moves) for step in steps):
        shape = (len(moves), len(clean.tokens_T), len(step.vector_D))
        for into, vector_D in step.vectors.items():
            added.setdefault(into, vector_D.new_zeros(shape))[row, step.at] += vector_D
        if step.feature >= 0:
            kept.setdefault(step.layer, []).append(Kept(row, step.at, step.feature))
    edits = list(holding(replacement.norms, clean)) if way == "held" else []
    if -1 in added:
        edits.append(Edit(EMBEDDING, partial(_add, added[-1])))
    seen: dict[int, Tensor] = {}
    for number, layer in enumerate(read.layers):
        more, part = added.get(number), replacement.parts[number]
        writes = part.writes
        if way == "live" and number in kept:  # before anything is added, for what is measured may be what is written
            edits.append(Edit(part.measures, partial(_note, seen, number)))
        if way == "held":
            edits.append(Edit(part.reads, partial(_note, seen, number)))
            said = partial(part.anew, read, number, seen, kept)
            edits.append(Edit(writes, partial(_encode, said, layer.out_TD, read.counted_LT[number], more)))
        elif way == "direct":
            edits.append(Edit(writes, partial(_set, layer.out_TD, more)))
        elif more is not None:
            edits.append(Edit(writes, partial(_add, more)))
        stay = {of: some for of, some in kept.items() if number in read.layers[of].into}
        if way == "live" and stay:
            edits.append(Edit(writes, partial(_keep, seen, replacement, read, number, stay)))
    return edits


def _note(seen: dict[int, Tensor], number: int, x: Tensor, _: Site) -> Tensor:
    seen[number] = x
    return x


def _keep(
    seen: Mapping[int, Tensor],
    replacement: Replacement,
    read: Read,
    number: int,
    kept: Mapping[int, Sequence[Kept]],
    out: Tensor,
    _: Site,
) -> Tensor:
    """Without what features that are to stay fire more, or less, than in the clean pass."""
    out = out.clone()
    for layer, one in ((layer, one) for layer, some in kept.items() for one in some):
        part = replacement.parts[layer]
        both = seen[layer][one.row], read.clean.activations[part.measures][0]
        fires, fired = (part.activation(x_TW[one.at], one.feature) for x_TW in both)
        out[one.row, one.at] -= (fires - fired) * read.layers[layer].rows(number, torch.tensor([one.feature]))[0]
    return out


def _add(more: Tensor, out: Tensor, _: Site) -> Tensor:
    return out + more


def _set(held_TD: Tensor, more: Tensor | None, out: Tensor, _: Site) -> Tensor:
    return held_TD.expand_as(out) if more is None else held_TD + more


def _encode(
    anew: Callable[[], Tensor],
    out_TD: Tensor,
    counted_T: Tensor,
    more: Tensor | None,
    out: Tensor,
    _: Site,
) -> Tensor:
    """What features say anew, and the error; at positions that do not count what stood there."""
    said = torch.where(counted_T[:, None], anew(), out_TD)
    return said if more is None else said + more


def changes(
    replacement: Replacement, read: Read, graph: Graph, moved: Moved, targets: Sequence[int]
) -> Float[Tensor, "B N"]:
    """How far each target went from what it was, in its own unit: a feature's pre-activation, a neuron's activation, a logit less the mean of
    all. Raises InterpError for a target that is not active in the prompt."""
    n = graph.nodes
    out = moved.logits_BV.new_zeros(len(moved.logits_BV), len(targets))
    place = torch.tensor(list(targets), dtype=torch.int64)
    kind, layer_N = torch.from_numpy(n.kind_N)[place], torch.from_numpy(n.layer_N)[place]
    for layer, seen_BTW in moved.read.items():
        own = ((kind == FEATURE) & (layer_N == layer)).nonzero()[:, 0]
        at, index = (torch.from_numpy(of)[place[own]] for of in (n.position_N, n.index_N))
        part, one = replacement.parts[layer], read.layers[layer]
        moved_BNW = (seen_BTW - read.clean.activations[part.measures])[:, at]
        out[:, own] = torch.einsum("bnw,nw->bn", moved_BNW, part.measured_rows(one, one.find(at, index)))
    logits = (kind == LOGIT).nonzero()[:, 0]
    if len(logits):
        towards_KV = graph.directions_KV[place[logits] - len(n)]
        out[:, logits] = (moved.logits_BV - read.clean.logits_V) @ towards_KV.T
    return out


def total_effects(graph: Graph, sources: Sequence[int]) -> Float[Tensor, "N S"]:
    """What each source, all of it, does to every node over all paths: columns of `spread`."""
    return spread(graph, graph.edges_NN[:, list(sources)])


def spread(graph: Graph, direct_NS: Float[Tensor, "N S"], kept: Sequence[int] = ()) -> Float[Tensor, "N S"]:
    """What direct effects become over all paths, but for those through nodes that are `kept` as they were put.

    An edge is of all of its source, so a feature whose pre-activation moves by δ hands on δ / activation of its own edges: with d the
    activations, A + A d⁻¹ A + A d⁻¹ A d⁻¹ A + …, of which these are columns where the first A's are given.
    """
    n = graph.nodes
    inner = (n.kind_N == FEATURE) & (n.value_N != 0)
    part_N = torch.from_numpy(np.where(inner, 1 / np.where(inner, n.value_N, 1), 0)).float()
    part_N[list(kept)] = 0
    now = direct_NS
    total = now.clone()
    for _ in range(len(graph.nodes)):
        now = graph.edges_NN @ (now * part_N[:, None])
        if not bool(now.any()):
            break
        total += now
    return total


def check_edges(
    replacement: Replacement, read: Read, graph: Graph, edges: Sequence[tuple[int, int]], *, seed: int = 0
) -> list[Check]:
    """Each edge (target, source) tried in the live model (see the head of this file).

    `graph` is the whole one, so that its prediction has all paths. Raises InterpError for an edge to a token or an error, or from a logit.
    """
    by_source: dict[int, list[int]] = {}
    for target, source in edges:
        if graph.nodes.kind_N[target] not in (FEATURE, LOGIT):
            raise InterpError("only features and logits are targets: nothing makes a token or an error.")
        by_source.setdefault(source, []).append(target)
    predicted = total_effects(graph, list(by_source))
    draw = torch.Generator().manual_seed(seed)
    made: dict[tuple[int, int], Check] = {}
    with bar("checking edges", len(edges), "edges") as advance:
        for column, (source, targets) in enumerate(by_source.items()):
            for check in _check_source(replacement, read, graph, source, targets, predicted[:, column], draw):
                made[check.target, check.source] = check
            advance(len(targets), f"{sum(c.verdict == 'confirmed' for c in made.values())} confirmed")
    return [made[edge] for edge in edges]


def _check_source(
    replacement: Replacement,
    read: Read,
    graph: Graph,
    source: int,
    targets: Sequence[int],
    predicted_N: Tensor,
    draw: torch.Generator,
) -> list[Check]:
    step = written_by(read, graph, source)
    others = _controls(read, step, draw)
    places = {(layer, step.at): float(vector_D.norm()) for layer, vector_D in step.vectors.items()}
    layers = sorted({int(graph.nodes.layer_N[t]) for t in targets if graph.nodes.kind_N[t] == FEATURE})
    shares = SHARES[:1] if graph.nodes.kind_N[source] == TOKEN else SHARES
    moves = [[step.times(share)] for share in shares]
    moves += [[other.times(-1.0)] for other in others]
    held = direct_pass(replacement, read)
    moves += [steepest(replacement, read, held, graph, places, target, -1.0) for target in targets]
    direct, live = (
        changes(replacement, read, graph, run_moved(replacement, read, moves, way, layers), targets) for way in WAYS
    )
    checks = []
    for column, target in enumerate(targets):
        edge, whole = float(graph.edges_NN[target, source]), float(predicted_N[target])
        found = outcome(direct[:, column], live[:, column], shares, len(others), column, edge, whole)
        checks.append(Check(source=source, target=target, edge=edge, **found))
    return checks


@dataclass(frozen=True)
class Judged:
    mean: float
    low: float
    high: float
    control: float
    p: float
    verdict: str


def outcome(
    direct_B: Tensor,
    live_B: Tensor,
    shares: Sequence[float],
    controls: int,
    column: int,
    predicted: float,
    whole: float,
) -> dict[str, Any]:
    """The measured fields of an `Outcome`: of a target's changes with all else held and in the live model, in the order in which they
    were run, by the shares, by the controls, and by the steepest direction of each target, of which its own is at `column`."""
    did, lived = judged(direct_B, shares, controls, predicted), judged(live_B, shares, controls, whole)
    return {
        "measured": did.mean, "low": did.low, "high": did.high, "control": did.control, "p": did.p, "verdict": did.verdict,
        "adversarial": float(direct_B[len(shares) + controls + column].abs()),
        "whole": whole, "live": lived.mean, "live_p": lived.p, "live_verdict": lived.verdict,
    }  # fmt: skip


def judged(changed_B: Tensor, shares: Sequence[float], controls: int, predicted: float) -> Judged:
    """Of a target's changes: those by the shares of its source, then those by the controls."""
    did = changed_B[: len(shares)] / torch.tensor(shares)
    control = changed_B[len(shares) : len(shares) + controls].abs()
    mean, low, high = float(did.mean()), float(did.min()), float(did.max())
    p = (1 + int((control >= abs(mean)).sum())) / (1 + controls)
    return Judged(mean, low, high, float(control.quantile(0.95)), p, judge(predicted, mean, low, high, p))


def judge(predicted: float, mean: float, low: float, high: float, p: float) -> str:
    """confirmed, refuted or undecided, by the rule at the head of this file."""
    if predicted == 0:
        return "undecided"
    if mean * predicted <= 0 or p > 0.5:
        return "refuted"
    near = 1 / FACTOR <= mean / predicted <= FACTOR
    return "confirmed" if low * high > 0 and p <= 0.05 and near else "undecided"


def _controls(read: Read, step: Step, draw: torch.Generator) -> list[Step]:
    """CONTROLS features of the same layer that do not fire there (neurons that are no nodes there), each at the norm of what is moved; where they are too few, as of the
    embedding, random directions.

    Those that do fire there are no controls: they are what else the graph says made the target.
    """
    made: list[Step] = []
    if step.layer >= 0:
        own = read.layers[step.layer]
        quiet = own.W_dec.norm(dim=1) > 0
        quiet[own.feature_E[own.position_E == step.at]] = False
        some = quiet.nonzero()[:, 0]
        some = some[torch.randperm(len(some), generator=draw)[:CONTROLS]]
        made = [own.step(step.at, feature, 1.0) for feature in some.tolist()]
    random = torch.randn(CONTROLS - len(made), len(step.vector_D), generator=draw)
    made += [Step(step.layer, step.at, vector_D) for vector_D in random]
    return [each.times(step.norm / each.norm) for each in made]


def direct_pass(replacement: Replacement, read: Read) -> Held:
    """The model with every MLP's output held, patterns and norms free, ready to be pulled from."""
    free = {name: x for name, x in read.clean.activations.items() if not PATTERN.fullmatch(name)}
    clean = Clean(read.clean.tokens_T, free, read.clean.logits_V)
    return held_pass(replacement.model, (), clean, [Cut(name) for name in replacement.writes], replacement.measures)


def steepest(
    replacement: Replacement,
    read: Read,
    held: Held,
    graph: Graph,
    places: Mapping[tuple[int, int], float],
    target: int,
    share: float,
) -> list[Step]:
    """At each place (layer or -1, position), with the norm that is told for it, the direction along which the target rises most
    in a `direct_pass`, times `share`."""
    n = graph.nodes
    kind, layer_t, at_t, index = (int(of[target]) for of in (n.kind_N, n.layer_N, n.position_N, n.index_N))
    if kind == LOGIT:
        end, towards = "logits", graph.directions_KV[target - len(n)][None, None]
    else:
        part, own = replacement.parts[layer_t], read.layers[layer_t]
        end = part.measures
        towards = torch.zeros_like(held.ends[end])
        towards[0, at_t] = part.measured_rows(own, own.find(torch.tensor([at_t]), torch.tensor([index])))[0]
    hooks = {layer: EMBEDDING if layer < 0 else replacement.writes[layer] for layer, _ in places}
    pulled = held.pull(end, towards, list(hooks.values()))
    steps = []
    for (layer, at), norm in places.items():
        row = pulled[hooks[layer]][0, at]
        steps.append(Step(layer, at, share * norm * row / row.norm().clamp_min(1e-12)))
    return steps
