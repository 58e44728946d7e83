"""The MLPs of a decoder's blocks as matrices: plain or gated, with the names of the hook points of what they compute.

    plain   y = W_down · act(W_up x + b_up) + b_down
    gated   y = W_down · (act(W_gate x + b_gate) ⊙ (W_up x + b_up)) + b_down

Weights are taken from the modules whose hook points these are, and tried on a few tokens: an MLP that puts out something else is none of the
two, and is refused, as a mixture of experts is.

Axes    M neuron, D width of the residual stream, T token.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.models.model import Model
from interp.types import InterpError

READS, WRITES = ("mlp.hook_in", "mlp.in.hook_in"), ("mlp.out.hook_out", "mlp.hook_out")
"""The last matrix itself first: some families add the residual stream before the MLP is left."""
UP, GATE, POST, DOWN = "mlp.in.hook_out", "mlp.gate.hook_out", "mlp.hook_post", "mlp.out.hook_in"
LAYER = re.compile(r"blocks\.(\d+)\.")
CLOSE = 1e-3
"""Relative difference within which a matrix is taken for what passed."""
TOKENS = 8


@dataclass(frozen=True, eq=False)
class MLP:
    """One block's MLP: hook points and weights in float32, a row a neuron."""

    reads: str
    writes: str
    up: str
    gate: str
    """Before its activation; empty of a plain MLP."""
    post: str
    """What the neurons put out, before the last matrix."""
    W_up: Float[Tensor, "M D"]
    b_up: Float[Tensor, " M"]
    W_gate: Float[Tensor, "M D"] | None
    b_gate: Float[Tensor, " M"] | None
    W_down: Float[Tensor, "M D"]
    b_down: Float[Tensor, " D"]


def find_mlps(model: Model) -> tuple[MLP, ...]:
    """The MLP of every block, in their order.

    Raises InterpError when one is neither plain nor gated (a mixture of experts is not), or has no hook points for its neurons.
    """
    layers = sorted({int(found[1]) for name in model.hook_names() if (found := LAYER.match(name))})
    if not layers:
        raise InterpError(f"{model.name} has no blocks with hook points, so its MLPs cannot be found.")
    owners = {id(each): owner for owner in model.module.modules() for each in _points(owner)}
    made = [_mlp(model, owners, layer) for layer in layers]
    names = dict.fromkeys(name for one in made for name in (one.reads, one.up, one.gate, one.post, one.writes) if name)
    seen = model.run(model.some_tokens(TOKENS), list(names)).activations
    for layer, one in zip(layers, made, strict=True):
        x, up, post, y = (seen[name][0].float() for name in (one.reads, one.up, one.post, one.writes))
        known = _is(x @ one.W_up.T + one.b_up, up) and _is(post @ one.W_down + one.b_down, y)
        if one.W_gate is not None and one.b_gate is not None:
            known = known and _is(x @ one.W_gate.T + one.b_gate, seen[one.gate][0].float())
        if not known:
            raise _refused(model, layer, "its matrices do not give what it puts out")
    return tuple(made)


def _points(owner: nn.Module) -> list[Any]:
    return [each for name in ("hook_in", "hook_out") if (each := getattr(owner, name, None)) is not None]


def _is(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and float((ours - theirs).norm()) <= CLOSE * float(theirs.norm())


def _mlp(model: Model, owners: Mapping[int, nn.Module], layer: int) -> MLP:
    there = set(model.hook_names())

    def first(*ends: str) -> str:
        return next((name for end in ends if (name := f"blocks.{layer}.{end}") in there), "")

    reads, writes, up, post = first(*READS), first(*WRITES), first(UP), first(POST)
    gate = first(GATE)
    if not (reads and writes and up and post):
        raise _refused(model, layer, "it has no hook points for its neurons")
    W_up, b_up = _projection(model, owners, layer, up)
    W_gate, b_gate = _projection(model, owners, layer, gate) if gate else (None, None)
    W_DM, b_down = _projection(model, owners, layer, f"blocks.{layer}.{DOWN}")
    return MLP(reads, writes, up, gate, post, W_up, b_up, W_gate, b_gate, W_DM.T, b_down)


def _projection(model: Model, owners: Mapping[int, nn.Module], layer: int, hook: str) -> tuple[Tensor, Tensor]:
    """(weight, a row an output; bias) of the linear map at whose entry or exit the hook point stands."""
    owner = owners.get(id(model.hook_points.get(hook)))
    inner = getattr(owner, "original_component", owner)
    weight, bias = (getattr(inner, name, None) for name in ("weight", "bias"))
    if weight is None or weight.ndim != 2:
        raise _refused(model, layer, f"no matrix is found at {hook}")
    # A Linear keeps (out, in); GPT-2's Conv1D keeps (in, out).
    rows = (weight if isinstance(inner, nn.Linear) else weight.T).detach().float()
    return rows, torch.zeros(len(rows), device=rows.device) if bias is None else bias.detach().float()


def _refused(model: Model, layer: int, why: str) -> InterpError:
    return InterpError(
        f"the neurons of {model.name} cannot be told: the MLP of layer {layer} is neither a plain nor a gated one ({why}); mixtures of experts "
        "are none. Use transcoders of what it reads and writes instead."
    )
