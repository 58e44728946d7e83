"""A graph over SAEs of the residual stream, by gradients: for models of which nobody has trained transcoders.

1.  At the hook point of each SAE the stream x is taken apart, and nothing is lost: features, the SAE's error, and b_dec, which no node is.

        x  =  Σ over active features  activation · decoder row  +  error  +  b_dec

2.  The pass is cut there: what is above reads x as a constant. So what is between two SAEs (blocks with their attention, MLPs and norms, none
    of it held) is passed through by an edge, and what is beyond the next SAE is an edge of that one's features.
3.  With w what a node writes (activation · decoder row; the error; a token's embedding) and f what a target reads (a feature's
    pre-activation, a logit), the edge is

        steps 0    w · ∇f(x)                                    the gradient where the prompt is (attribution × gradient)
        steps n    w · Σ over k of c_k ∇f(x_0 + a_k (x - x_0))   integrated: all nodes of a hook point go together from x_0, where there is
                                                                none of them, to x; a_k and c_k are Gauss and Legendre's n places and weights

    Integrated, a target's edges add up, as n grows, to f(x) - f(x_0): the graph's `bias` is then what the target has where none of these nodes is.
    By the gradient they add up to that only if f is linear.

An error is the source of edges and the target of none, as in other graphs: what features below do to the error above is no edge. A logit's edges
come from the last SAE alone, for all of the stream passes there; what a node does to a logit by whatever way, `effects` has (the indirect effect
of Marks et al.), nothing above it cut.

Axes    B row, T token, D width of the residual stream, F feature, E entry (an active feature at its position), N direction, K logit.
Source  Marks et al. 2024, "Sparse Feature Circuits" (arXiv 2403.19647), section 2: nodes and errors, attribution and its integrated form, all nodes
        of a layer moved together. Hanna et al. 2024, "Have Faith in Faithfulness" (arXiv 2403.17806): integrated gradients for edges. Sundararajan
        et al. 2017 (arXiv 1703.01365): completeness.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.frozen import EMBEDDING, PATTERN, Clean, Cut, Held, HeldNorm, held_pass
from interp.circuits.graph import RESIDUAL
from interp.circuits.layer import Layer
from interp.circuits.replacement import Read, Replacement, Transcoded, check_model, read_layer
from interp.models import Model
from interp.sae import SAE
from interp.types import InterpError

STREAM = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|mid|post)")
STEPS = 0
"""The gradient where the prompt is, which tells better what a single feature does (benchmarks/circuits_residual.py)."""
ROWS = 128
"""Directions that are pulled back at once."""


@dataclass(frozen=True, eq=False)
class Stream(Transcoded):
    """An SAE at a hook point of the residual stream: it reads and writes there."""

    @property
    def over(self) -> str:
        return RESIDUAL

    @property
    def writes(self) -> str:
        return self.sae.hook_name

    @property
    def hooks(self) -> Sequence[str]:
        return (self.reads,)

    def read(self, number: int, clean: Clean, counted_LT: Bool[Tensor, "L T"]) -> Layer:
        x_TD = clean.activations[self.reads][0].float()
        layer = read_layer(number, self.sae, x_TD, x_TD, counted_LT[number])
        if not self.sae.centred:
            return layer
        # A row times x and the constant are the pre-activation, and b_dec is taken off x.
        return replace(layer, constant_E=layer.constant_E - (self.sae.b_dec @ self.sae.W_enc)[layer.feature_E])


@dataclass(frozen=True)
class Averaged:
    """Passes of one prompt at several places between a baseline and itself, and what each counts."""

    passes: tuple[Held, ...]
    weights: tuple[float, ...]

    def pull(self, end: str, towards: Float[Tensor, "N P W"], to: Sequence[str]) -> dict[str, Float[Tensor, "N T D"]]:
        """As `Held.pull`, the mean over the places."""
        parts: dict[str, list[Tensor]] = {name: [] for name in to}
        for some in towards.split(ROWS):
            total: dict[str, Tensor] = {}
            for held, weight in zip(self.passes, self.weights, strict=True):
                for name, grad in held.pull(end, some, to).items():
                    total[name] = total[name] + weight * grad if name in total else weight * grad
            for name, grad in total.items():
                parts[name].append(grad)
        return {name: torch.cat(each) for name, each in parts.items()}


@dataclass(frozen=True)
class StreamReplacement(Replacement):
    """A model whose residual stream is taken apart by SAEs; made by `replace_stream`."""

    steps: int = STEPS
    """0: the gradient where the prompt is."""

    @property
    def norms(self) -> tuple[HeldNorm, ...]:
        """None: nothing is held."""
        return ()

    @property
    def blocks(self) -> list[int]:
        """The blocks behind which each SAE's hook point is; 5 of blocks.5.hook_resid_post."""
        return [block_of(name) for name in self.reads]

    @property
    def about(self) -> dict[str, Any]:
        return {"over": self.over, "blocks": self.blocks, "steps": self.steps}

    def read(self, tokens_T: Int[Tensor, " T"]) -> Read:
        read = super().read(tokens_T)
        free = {name: x for name, x in read.clean.activations.items() if not PATTERN.fullmatch(name)}
        return replace(read, clean=Clean(read.clean.tokens_T, free, read.clean.logits_V))

    def linear(self, read: Read) -> Averaged:
        return average(self, read, self.writes, self.steps)


def average(replacement: Replacement, read: Read, cuts: Sequence[str], steps: int) -> Averaged:
    """Passes cut at these hook points and at the embedding, at `steps` places on the way from no nodes to the prompt; of 0 the prompt alone."""
    away = baselines(replacement, read)
    places, weights = [1.0], [1.0]
    if steps:
        x, c = np.polynomial.legendre.leggauss(steps)
        places, weights = ((x + 1) / 2).tolist(), (c / 2).tolist()
    # One pattern among the ends has attention computed step by step, which can be gone back through for many directions at once.
    patterns = [name for name in replacement.model.hook_names() if PATTERN.fullmatch(name)][:1]
    ends = [*(name for name in replacement.reads if name in cuts), *patterns]
    passes = [
        held_pass(
            replacement.model,
            (),
            read.clean,
            [Cut(name) for name in cuts],
            ends,
            {name: (place - 1) * away[name] for name in (EMBEDDING, *cuts)},
        )
        for place in places
    ]
    return Averaged(tuple(passes), tuple(weights))


def baselines(replacement: Replacement, read: Read) -> dict[str, Float[Tensor, "T D"]]:
    """By hook point x - x_0, all that its nodes write: features and errors, and at the embedding the tokens."""
    away = {EMBEDDING: read.clean.activations[EMBEDDING][0]}
    for layer, name in zip(read.layers, replacement.writes, strict=True):
        away[name] = layer.error_TD.index_add(0, layer.position_E, layer.written_ED)
    return away


def effects(
    replacement: StreamReplacement, read: Read, towards_KV: Float[Tensor, "K V"], steps: int | None = None
) -> list[tuple[Float[Tensor, "K E"], Float[Tensor, "K T"]]]:
    """Of each SAE (its features, its errors): what each does to the logits by whatever way, by the gradient or integrated.

    An SAE at a time, nothing above it cut. `steps` as in the head of this file; without, the replacement's own.
    """
    found = []
    for layer, name in zip(read.layers, replacement.writes, strict=True):
        made = average(replacement, read, [name], replacement.steps if steps is None else steps)
        grad_KTD = made.pull("logits", towards_KV[:, None], [name])[name]
        of_features = torch.einsum("ked,ed->ke", grad_KTD[:, layer.position_E], layer.written_ED)
        found.append((of_features, (grad_KTD * layer.error_TD).sum(-1)))
    return found


def pulled_effects(
    replacement: Replacement,
    read: Read,
    layer: int,
    entries_N: Int[Tensor, " N"],
    added: Mapping[str, Tensor],
    made: Averaged,
) -> Float[Tensor, " N"]:
    """What vectors (T, D) `added` at hook points below do directly to the pre-activations of a layer's entries, as edges have it."""
    own = read.layers[layer]
    rows_ND = own.read_rows(entries_N)
    towards = torch.zeros(len(rows_ND), len(read.clean.tokens_T), rows_ND.shape[1])
    towards[torch.arange(len(rows_ND)), own.position_E[entries_N]] = rows_ND
    lower = [name for name in (EMBEDDING, *replacement.writes[:layer]) if name in added]
    if not lower or not len(rows_ND):
        return torch.zeros(len(rows_ND))
    pulled = made.pull(replacement.reads[layer], towards, lower)
    return torch.stack([(pulled[name] * added[name]).sum((1, 2)) for name in lower]).sum(0)


# ---- what may be read so ----


def block_of(hook_name: str) -> int:
    """How many blocks lie below a hook point of the residual stream, less one: `hook_resid_pre` of a block is `hook_resid_post` of the one
    before. Raises InterpError for any other hook point."""
    found = STREAM.fullmatch(hook_name)
    if found is None:
        raise InterpError(f"{hook_name or 'a hook point without a name'} is not of the residual stream.")
    return int(found[1]) - (found[2] == "pre")


def reads_stream(sae: SAE) -> bool:
    """Whether it reads and writes one hook point of the residual stream."""
    return not sae.hook_name_out and sae.W_skip is None and STREAM.fullmatch(sae.hook_name) is not None


def replace_stream(
    model: Model, saes: Sequence[SAE], cutoffs: Mapping[str, float] | None = None, *, steps: int = STEPS
) -> StreamReplacement:
    """A model whose residual stream is taken apart by these SAEs, in the order in which a pass comes to them.

    Raises InterpError when the model is not in float32 or no decoder, has no hook point for its embedding or no gradients, when there is no SAE, two are
    at one hook point, one is of another kind of hook point or another width, and for fewer steps than 0.
    """
    check_model(model)
    if steps < 0:
        raise InterpError(f"gradients are taken at {steps} places; give 0 for the prompt alone, or 1 and more.")
    if not saes:
        raise InterpError("a graph over the residual stream needs at least one SAE; name its folder with --saes.")
    if EMBEDDING not in model.hook_names():
        raise InterpError(f"{model.name} has no hook point {EMBEDDING}, so nothing can be traced to its tokens.")
    by_block: dict[int, SAE] = {}
    for one in saes:
        _check_place(model, one)
        block = block_of(one.hook_name)
        if block in by_block:
            other = by_block[block]
            raise InterpError(
                f"{other.name} ({other.hook_name}) and {one.name} ({one.hook_name}) are both behind block {block}; a graph has one SAE there, so "
                "leave one of them out."
            )
        by_block[block] = one
    made = tuple(Stream(by_block[block]) for block in sorted(by_block))
    _check_gradients(model, made[0].reads)
    return StreamReplacement(model, made, dict(cutoffs or {}), steps)


def _check_place(model: Model, one: SAE) -> None:
    if not reads_stream(one):
        writes = f" and writes {one.hook_name_out}" if one.hook_name_out else ""
        raise InterpError(
            f"{one.name} reads {one.hook_name or 'nothing named'}{writes}; a graph over the residual stream is made of SAEs at hook points such as "
            "blocks.5.hook_resid_post. Transcoders go with --transcoders."
        )
    model.check_hook(one.hook_name)
    if one.hook_name == EMBEDDING:
        raise InterpError(f"{one.name} reads {EMBEDDING}, which is the tokens themselves: nothing leads to it.")
    if model.width(one.hook_name) != one.d_in:
        raise InterpError(
            f"{one.name} is {one.d_in} wide at {one.hook_name} and {model.name} {model.width(one.hook_name)}: it was made for another model."
        )


def _check_gradients(model: Model, hook_name: str) -> None:
    """Raises InterpError where PyTorch finds no way from the logits back to a hook point, found by trying."""
    try:
        run = model.run(model.some_tokens(4), [hook_name], grad=True, logits=True, last=1)
        assert run.logits is not None
        (grad,) = torch.autograd.grad(run.logits.sum(), run.activations[hook_name])
        found = bool(grad.isfinite().all())
    except RuntimeError:
        found = False
    if not found:
        raise InterpError(
            f"{model.name} gives no gradients: from its logits PyTorch finds no way back to {hook_name}, so a graph by gradients cannot be had of it."
        )
