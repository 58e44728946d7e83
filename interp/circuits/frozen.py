"""One prompt through a model in which attention patterns and the scales of norms are held: what is left is linear.

1.  A pass of the prompt leaves behind every pattern, every norm's input and output, and what each cut puts out.
2.  In the held pass a norm gives gain · c(x) / s + b with the s of the first pass, a pattern is the first pass's, and a cut (the
    output of an MLP, which a transcoder stands for) is a constant that may be moved. Nothing else of a decoder bends: so what one
    position of the residual stream does to another, and to the logits, is a matrix.
3.  `Held.pull` multiplies by its transpose: from any direction at a hook point back to every cut and to the embedding, for
    many directions in one backward pass.

Axes    T token, D width of the residual stream, N direction, V vocabulary.
Source  Ameisen et al. 2025, "Circuit Tracing: Revealing Computational Graphs in Language Models", section 3 (linear attribution).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models import Edit, Model
from interp.models.passes import Site
from interp.models.readout import Norm, fit_norm
from interp.types import InterpError, unknown

EMBEDDING = "blocks.0.hook_resid_pre"
"""What the first block reads: the tokens' own vectors, with positions where a family adds them."""
NORM = re.compile(r"(blocks\.\d+\.ln\d(_post)?|ln_final)\.hook_out")
PATTERN = re.compile(r"blocks\.\d+\.attn\.hook_pattern")


@dataclass(frozen=True)
class HeldNorm:
    """A norm by the names of what it reads and puts out, and what it computes."""

    reads: str
    writes: str
    norm: Norm

    def scale(self, x: Float[Tensor, "*B D"], y: Float[Tensor, "*B D"]) -> Float[Tensor, "*B 1"]:
        """s of y = gain · c(x) / s + b, epsilon and all, read off what the norm made."""
        scaled, shaped = y - self.norm.bias_D.to(y), self.norm.gain_D.to(y) * self.centred(x)
        return shaped.square().sum(-1, keepdim=True) / (shaped * scaled).sum(-1, keepdim=True)

    def centred(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """c(x)."""
        return x - x.mean(-1, keepdim=True) if self.norm.centred else x


def held_norms(model: Model) -> tuple[HeldNorm, ...]:
    """The norms of a decoder's blocks and the last one.

    Raises InterpError when the model has no hook points for its patterns, or a norm that is neither RMSNorm nor LayerNorm.
    """
    names = model.hook_names()
    if not any(map(PATTERN.fullmatch, names)) or EMBEDDING not in names:
        raise InterpError(
            f"{model.name} has no hook points for attention patterns (blocks.0.attn.hook_pattern), so they cannot be held; "
            "circuits by transcoders are for decoders with softmax attention. `interp hooks` lists what there is."
        )
    found = []
    for written in filter(NORM.fullmatch, names):
        read = written.replace("hook_out", "hook_in")
        point = model.hook_points.get(read)
        owner = next((m for m in model.module.modules() if getattr(m, "hook_in", None) is point), None)
        norm = None if owner is None else fit_norm(owner, model.width(written))
        if norm is None:
            raise InterpError(
                f"{written} of {model.name} is no RMSNorm or LayerNorm that is known here, so it cannot be held."
            )
        norm = replace(norm, gain_D=norm.gain_D.clone(), bias_D=norm.bias_D.clone())  # fitted in inference mode
        found.append(HeldNorm(read, written, norm))
    return tuple(found)


@dataclass(frozen=True)
class Clean:
    """What the prompt's own pass left behind, by hook point: (1, T, ·) each, and the logits of its last position."""

    tokens_T: Int[Tensor, " T"]
    activations: Mapping[str, Tensor]
    logits_V: Float[Tensor, " V"]


def clean_pass(model: Model, norms: Sequence[HeldNorm], tokens_T: Int[Tensor, " T"], reads: Sequence[str]) -> Clean:
    """The prompt as it is, with all that a held pass needs, and what passes `reads` besides."""
    patterns = [name for name in model.hook_names() if PATTERN.fullmatch(name)]
    wanted = [*patterns, *(n.reads for n in norms), *(n.writes for n in norms), EMBEDDING, *reads]
    run = model.run(tokens_T[None], list(dict.fromkeys(wanted)), logits=True, last=1)
    assert run.logits is not None
    # Copies, for what was made in inference mode can be no part of a graph.
    return Clean(tokens_T, {name: x.clone() for name, x in run.activations.items()}, run.logits[0, -1].clone().float())


def holding(norms: Sequence[HeldNorm], clean: Clean) -> list[Edit]:
    """Edits by which a pass of the same tokens (in any number of rows) has the clean pass's patterns and scales."""
    edits = []
    for name, pattern in clean.activations.items():
        if PATTERN.fullmatch(name):
            edits.append(Edit(name, partial(_replace, pattern)))
    for each in norms:
        x, y = clean.activations[each.reads], clean.activations[each.writes]
        now: dict[str, Tensor] = {}
        edits.append(Edit(each.reads, partial(note, now)))
        edits.append(Edit(each.writes, partial(_hold, now, each, x, y, each.scale(x, y))))
    return edits


def _replace(held: Tensor, out: Tensor, _: Site) -> Tensor:
    return held.expand_as(out)


def note(now: dict[str, Tensor], out: Tensor, _: Site) -> Tensor:
    """An edit that changes nothing, and keeps what passes as `x`, for an edit further on in the same pass."""
    now["x"] = out
    return out


def _hold(now: dict[str, Tensor], each: HeldNorm, x: Tensor, y: Tensor, s: Tensor, _: Tensor, __: Site) -> Tensor:
    # Written as a difference, so that where nothing is moved the very bits of the clean pass come out.
    return y + each.norm.gain_D.to(y) * each.centred(now.pop("x") - x) / s


@runtime_checkable
class Pulls(Protocol):
    """What a graph's edges are read off."""

    def pull(self, end: str, towards: Float[Tensor, "N P W"], to: Sequence[str]) -> dict[str, Float[Tensor, "N T D"]]:
        """For each of N directions at `end` what a unit of each leaf `to` brings it (see `Held.pull`)."""


@dataclass(frozen=True)
class Held:
    """A held pass as a graph: constants that can be moved (`leaves`), and what follows from them."""

    leaves: Mapping[str, Float[Tensor, "1 T _"]]
    """By hook point of each cut, and the embedding's."""
    ends: Mapping[str, Float[Tensor, "1 _ _"]]
    """What came to each hook point that is pulled from, before a cut there; `logits` has those of the last position, (1, 1, V)."""

    def pull(self, end: str, towards: Float[Tensor, "N P W"], to: Sequence[str]) -> dict[str, Float[Tensor, "N T D"]]:
        """For each of N directions at `end` (zero at positions that do not matter) its derivative by the leaves `to`.

        `towards` has P positions (all, or the last one for the logits), W wide. A leaf that nothing leads from gives zeros. Raises InterpError when `end` was not kept.
        """
        if end not in self.ends:
            raise unknown("end of this pass", end, self.ends)
        at = [self.leaves[name] for name in to]
        given = torch.autograd.grad(
            self.ends[end], at, towards[:, None], retain_graph=True, is_grads_batched=True, allow_unused=True
        )
        zero = partial(torch.zeros, len(towards), *at[0].shape[1:]) if at else None
        return {name: zero() if grad is None else grad[:, 0] for name, grad in zip(to, given, strict=True)}


@dataclass(frozen=True)
class Cut:
    """A hook point whose output is held, but for the part that a skip connection makes of what is read at another."""

    writes: str
    reads: str = ""
    skip_TDD: Float[Tensor, "T O D"] | None = None
    """By position, for where a transcoder says nothing there is no skip either."""


def held_pass(
    model: Model,
    norms: Sequence[HeldNorm],
    clean: Clean,
    cuts: Sequence[Cut],
    ends: Sequence[str],
    moved: Mapping[str, Float[Tensor, "T D"]] | None = None,
) -> Held:
    """The held pass of the clean one's tokens, cut at `cuts`, ready to be pulled from `ends` and from the logits.

    `moved` is added to what stands at a cut, or at the embedding.
    """
    leaves: dict[str, Tensor] = {}
    came: dict[str, Tensor] = {}

    def hold(cut: Cut) -> list[Edit]:
        now: dict[str, Tensor] = {}

        def apply(out: Tensor, _: Site) -> Tensor:
            if cut.writes in ends:
                came[cut.writes] = out
            there = clean.activations[cut.writes].clone()
            if moved is not None and cut.writes in moved:
                there += moved[cut.writes]
            leaves[cut.writes] = there.requires_grad_()
            if cut.skip_TDD is None:
                return leaves[cut.writes]
            further = now.pop("x") - clean.activations[cut.reads]
            return leaves[cut.writes] + torch.einsum("btd,tod->bto", further, cut.skip_TDD)

        noting = [] if cut.skip_TDD is None else [Edit(cut.reads, partial(note, now))]
        return [*noting, Edit(cut.writes, apply)]

    edits = [edit for cut in (Cut(EMBEDDING), *cuts) for edit in hold(cut)]
    # Cuts last: where a norm stands behind the MLP (Gemma 2), both are at one hook point, and the cut is what counts.
    edits = [*holding(norms, clean), *edits]
    run = model.run(clean.tokens_T[None], list(ends), edits, grad=True, logits=True, last=1)
    assert run.logits is not None
    return Held(leaves, {**dict(run.activations.items()), **came, "logits": run.logits})
