"""An attribution graph: which features, errors and tokens of a prompt made its next token likely, and made each other fire.

1.  The prompt is read through the replacement: active features, errors, tokens (`replacement`).
2.  Attention patterns and scales of norms are held, so that all between two MLPs is linear (`frozen`).
3.  Targets are pulled back: first the logits (each less the mean of all), then features in order of what is known so far of their
    influence on these, a batch at a time. What a target's pull gives at a layer, times what a node writes there, is the edge:

        edge(source → target) = activation(source) · W_dec(source) · J(from the source's layer to the target's) · W_enc(target)

    for a feature; for an error the error vector, for a token its embedding, stand in the place of activation · W_dec. What writes into
    several layers (a cross-layer transcoder's feature) has the sum over those below the target.
4.  It ends when `max_nodes` features were targets. What influence the others have is told (`left_out`).

An edge is a direct effect: whatever passes through another MLP is an edge of that one's features. The sum of a target's edges and its
`bias` (what comes from b_dec and the model's own biases) is its pre-activation less b_enc: nothing is left over.

Axes    N node, S selected feature, E active feature, T token, D width, V vocabulary, K logit.
Source  Ameisen et al. 2025, "Circuit Tracing"; Dunefsky, Chlenski and Nanda 2024, "Transcoders Find Interpretable LLM Feature Circuits".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.frozen import EMBEDDING, Pulls
from interp.circuits.graph import Graph, Nodes
from interp.circuits.layer import Layer
from interp.circuits.replacement import Read, Replacement
from interp.progress import bar
from interp.types import InterpError

MAX_NODES = 7_500
"""Features that are targets at most."""
MAX_LOGITS, PROBABILITY = 10, 0.95
"""Of the likeliest next tokens, so many at most, until they hold this much together."""
BATCH = 512
"""Targets chosen at a time; the order of those that follow is by what these have shown."""


@dataclass(frozen=True)
class Target:
    """What a graph is asked for: directions of the logits of the last position, and what each is worth."""

    towards_KV: Float[Tensor, "K V"]
    weight_K: Float[Tensor, " K"]
    token_K: tuple[int, ...]
    says_K: tuple[str, ...]


def likeliest(model_logits_V: Float[Tensor, " V"], says: Sequence[str] | None = None) -> Target:
    """The likeliest next tokens until they hold PROBABILITY, each less the mean of all logits."""
    p_V = model_logits_V.softmax(0)
    top = p_V.topk(min(MAX_LOGITS, len(p_V)))
    count = int((top.values.cumsum(0) < PROBABILITY).sum()) + 1
    ids = top.indices[:count]
    towards = torch.full((len(ids), len(p_V)), -1 / len(p_V), device=p_V.device)
    towards[torch.arange(len(ids)), ids] += 1
    tokens = tuple(ids.tolist())
    return Target(towards, top.values[:count], tokens, tuple(says or map(str, tokens)))


def difference(model_logits_V: Float[Tensor, " V"], target: int, distractor: int, says: str = "") -> Target:
    """What speaks for one token rather than another: the difference of their logits."""
    towards = torch.zeros(1, len(model_logits_V), device=model_logits_V.device)
    towards[0, target], towards[0, distractor] = 1, -1
    return Target(towards, torch.ones(1), (target,), (says or f"{target} rather than {distractor}",))


@dataclass(frozen=True)
class _Sources:
    """All that may be a source, by the leaf at which it writes: columns of the graph's matrix."""

    read: Read
    leaves: tuple[str, ...]
    """The embedding's, then each layer's MLP output."""
    feature_slices: tuple[slice, ...]
    """Columns of each layer's features."""
    tokens: int
    padded: tuple[tuple[tuple[Tensor, ...], Tensor], ...]
    """Of each layer: what is written (T, A, D) by position, by each of its decoders, and which entry it is (T, A), -1 where there is none."""

    @property
    def count(self) -> int:
        """Columns: features, then errors layer by layer, then tokens."""
        return self.read.entries + (len(self.read.layers) + 1) * self.tokens

    def rows(self, pulled: dict[str, Float[Tensor, "N T D"]], count: int) -> Float[Tensor, "N C"]:
        """The edges from every source, of targets whose pulls these are."""
        edges = torch.zeros(count, self.count)
        errors = self.read.entries
        by_layer = [pulled[leaf] for leaf in self.leaves[1:] if leaf in pulled]
        for number, (layer, grad_NTD) in enumerate(zip(self.read.layers, by_layer, strict=False)):
            several, entry_TA = self.padded[number]
            there = entry_TA >= 0
            part = edges[:, self.feature_slices[number]]
            for written_TAD, towards_NTD in zip(several, _by_decoder(layer, by_layer), strict=True):
                value_TAN = torch.bmm(written_TAD, towards_NTD.permute(1, 2, 0))
                part[:, entry_TA[there]] += value_TAN[there].T
            first = errors + number * self.tokens
            edges[:, first : first + self.tokens] = (grad_NTD * layer.error_TD).sum(-1)
        embedding = self.read.clean.activations[EMBEDDING][0]
        edges[:, self.count - self.tokens :] = (pulled[EMBEDDING] * embedding).sum(-1)
        return edges


def _sources(replacement: Replacement, read: Read) -> _Sources:
    slices, padded, first = [], [], 0
    tokens = len(read.clean.tokens_T)
    for layer in read.layers:
        slices.append(slice(first, first + len(layer.feature_E)))
        first += len(layer.feature_E)
        decoders = [layer.W_dec] if layer.further is None else list(layer.further.rows_RFD)
        padded.append(_by_position(layer, decoders, tokens))
    return _Sources(read, (EMBEDDING, *replacement.writes), tuple(slices), tokens, tuple(padded))


def _by_decoder(layer: Layer, by_layer: Sequence[Float[Tensor, "N T D"]]) -> list[Float[Tensor, "N T D"]]:
    """What a target would gain by a unit along each decoder of a layer, at all layers together that it writes into."""
    if layer.further is None:
        return [by_layer[layer.number]]
    later = range(layer.number, len(by_layer))
    mix_RM = layer.further.mix_RM[:, later.start : later.stop]
    return [sum(by_layer[m] * float(share) for m, share in zip(later, mix_M, strict=True)) for mix_M in mix_RM]  # type: ignore[misc]


def _by_position(layer: Layer, decoders: Sequence[Tensor], tokens: int) -> tuple[tuple[Tensor, ...], Tensor]:
    position_E = layer.position_E
    counts = torch.bincount(position_E, minlength=tokens)
    widest = max(int(counts.max()) if len(position_E) else 0, 1)
    place = torch.arange(len(position_E)) - (counts.cumsum(0) - counts)[position_E]
    entry = torch.full((tokens, widest), -1)
    entry[position_E, place] = torch.arange(len(position_E))
    several = []
    for rows_FD in decoders:
        written = rows_FD.new_zeros(tokens, widest, rows_FD.shape[1])
        written[position_E, place] = layer.value_E[:, None] * rows_FD[layer.feature_E]
        several.append(written)
    return tuple(several), entry


def attribute(
    replacement: Replacement,
    tokens_T: Int[Tensor, " T"],
    target: Target | None = None,
    *,
    max_nodes: int = MAX_NODES,
    batch: int = BATCH,
    read: Read | None = None,
) -> Graph:
    """The graph of a prompt's next token (or of `target`), over at most `max_nodes` features.

    `tokens_T` has what the family puts before a text. `read` is what `replacement.read` gave for it, if that is known.
    Raises InterpError for a prompt of one token, and when `max_nodes` or `batch` is less than 1.
    """
    if min(max_nodes, batch) < 1:
        raise InterpError("a graph needs at least one node and one target a batch.")
    read = read or replacement.read(tokens_T)
    target = target or likeliest(read.clean.logits_V, None)
    sources = _sources(replacement, read)
    ends = replacement.reads
    held = replacement.linear(read)
    logit_rows = sources.rows(_pull_logits(held, target, sources), len(target.token_K))
    chosen, rows = _choose(held, sources, ends, target, logit_rows, min(max_nodes, read.entries), batch)
    graph = _graph(sources, target, chosen, rows, logit_rows)
    return replace(graph, about=replacement.about)


def _pull_logits(held: Pulls, target: Target, sources: _Sources) -> dict[str, Tensor]:
    return held.pull("logits", target.towards_KV[:, None], sources.leaves)


def _choose(
    held: Pulls,
    sources: _Sources,
    ends: Sequence[str],
    target: Target,
    logit_rows: Tensor,
    wanted: int,
    batch: int,
) -> tuple[Tensor, Tensor]:
    """(which entries were targets, their edges): those of most influence first, as far as is known at each batch."""
    entries, columns = sources.read.entries, sources.count
    chosen = torch.zeros(0, dtype=torch.int64)
    rows = torch.zeros(wanted, columns)
    taken = torch.zeros(entries, dtype=torch.bool)
    with bar("attributing", wanted, "nodes") as advance:
        while len(chosen) < wanted:
            score = known_influence(rows[: len(chosen)], chosen, logit_rows, target.weight_K)[:entries]
            score[taken] = -1
            some = score.topk(min(batch, wanted - len(chosen))).indices.sort().values
            first = len(chosen)
            for layer, part in _by_layer(sources, some):
                made = _pull_features(held, sources, ends, layer, part)
                rows[first : first + len(part)] = made
                first += len(part)
            chosen = torch.cat([chosen, some])
            taken[some] = True
            advance(len(some), f"{len(chosen):,} of {entries:,} that are active")
    return chosen, rows


def _by_layer(sources: _Sources, some: Tensor) -> Iterator[tuple[int, Tensor]]:
    for number, within in enumerate(sources.feature_slices):
        part = some[(some >= within.start) & (some < within.stop)]
        if len(part):
            yield number, part


def _pull_features(held: Pulls, sources: _Sources, ends: Sequence[str], number: int, part: Tensor) -> Tensor:
    layer = sources.read.layers[number]
    own = part - sources.feature_slices[number].start
    rows_ND = layer.read_rows(own)
    towards = torch.zeros(len(part), sources.tokens, rows_ND.shape[1])
    towards[torch.arange(len(part)), layer.position_E[own]] = rows_ND
    return sources.rows(held.pull(ends[number], towards, sources.leaves[: number + 1]), len(part))


def known_influence(
    rows_SC: Float[Tensor, "S C"], chosen_S: Int[Tensor, " S"], logit_rows_KC: Float[Tensor, "K C"], weight_K: Tensor
) -> Float[Tensor, " C"]:
    """Influence of every source on the logits, through the features that were targets already (see `prune.influence`)."""
    over = torch.cat([rows_SC, logit_rows_KC]).abs()
    over /= over.sum(1, keepdim=True).clamp_min(1e-12)
    direct = weight_K @ over[len(rows_SC) :]
    total, now = direct.clone(), direct
    for _ in range(1_000):
        if not len(rows_SC) or float(now[chosen_S].sum()) < 1e-9:
            break
        now = now[chosen_S] @ over[: len(rows_SC)]
        total += now
    return total


def _graph(sources: _Sources, target: Target, chosen: Tensor, rows: Tensor, logit_rows: Tensor) -> Graph:
    """Rows and columns of the nodes that were targets, of errors, tokens and logits."""
    order = chosen.argsort()
    chosen, rows = chosen[order], rows[order]
    entries, layers, tokens = sources.read.entries, len(sources.read.layers), sources.tokens
    columns = torch.cat([chosen, torch.arange(entries, sources.count)])
    features, all_nodes = len(chosen), len(columns) + len(target.token_K)
    edges = torch.zeros(all_nodes, all_nodes)
    edges[:features, : len(columns)] = rows[:, columns]
    edges[len(columns) :, : len(columns)] = logit_rows[:, columns]
    score = known_influence(rows, chosen, logit_rows, target.weight_K)
    left = score[:entries].sum() - score[chosen].sum()
    nodes = _nodes(sources, target, chosen, layers, tokens)
    bias = _bias(sources, chosen, rows)
    known = float(left / score[:entries].sum().clamp_min(1e-12))
    prompt = tuple(sources.read.clean.tokens_T.tolist())
    return Graph(nodes, edges, prompt, known, bias, towards_KV=target.towards_KV)


def _bias(sources: _Sources, chosen: Tensor, rows: Tensor) -> Tensor:
    """Of each feature its pre-activation less its own constant and less all that sources gave it: what biases gave."""
    value, constant = (
        torch.cat([getattr(layer, name) for layer in sources.read.layers]) for name in ("value_E", "constant_E")
    )
    return (value - constant)[chosen] - rows.double().sum(1).float()


def _nodes(sources: _Sources, target: Target, chosen: Tensor, layers: int, tokens: int) -> Nodes:
    layer_E = torch.cat(
        [torch.full((len(layer.feature_E),), layer.number, dtype=torch.int64) for layer in sources.read.layers]
    )
    position_E, feature_E, value_E = (
        torch.cat([getattr(layer, name) for layer in sources.read.layers])[chosen]
        for name in ("position_E", "feature_E", "value_E")
    )
    errors = torch.cartesian_prod(torch.arange(layers), torch.arange(tokens))
    ids, logits = sources.read.clean.tokens_T.cpu(), torch.tensor(target.token_K)
    kinds = [len(chosen), len(errors), tokens, len(logits)]
    return Nodes(
        kind_N=np.repeat(np.arange(4, dtype=np.int8), kinds),
        layer_N=torch.cat(
            [layer_E[chosen], errors[:, 0], torch.full_like(ids, -1), torch.full_like(logits, layers)]
        ).numpy(),
        position_N=torch.cat(
            [position_E, errors[:, 1], torch.arange(tokens), torch.full_like(logits, tokens - 1)]
        ).numpy(),
        index_N=torch.cat([feature_E, torch.full((len(errors),), -1), ids, logits]).numpy(),
        value_N=torch.cat([value_E, torch.zeros(len(errors) + tokens), target.weight_K.cpu()]).numpy(),
        says_K=target.says_K,
    )
