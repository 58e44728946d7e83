"""What each logit reads from the residual stream: the final norm's own derivative, and the unembedding.

1.  The model runs on a few tokens; the tensors that pass from the last layer to the unembedding are followed.
2.  Between the two stands nothing, or one module. What it computes is found by calling it, not by its name: RMSNorm
    (also Gemma's, which multiplies by 1 + w) and LayerNorm both are

        f(x) = g · c(x) / rms(c(x)) + b,    c(x) = x - mean x  or  x

    and g, b and c are read off a few chosen inputs. Anything else is refused.
3.  At an x at right angles to d the derivative of f along d is g · c(d) / rms(c(x)). The scale is positive and common to
    all tokens: it does not order them, and is left out.

Axes    D width of the residual stream, V vocabulary, N probe.
"""

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.types import InterpError

LARGE = 100.0
"""Norm of a probe's entries: large, so that the norm's epsilon is lost beside it."""
CLOSE = 1e-3
"""Relative difference within which a formula is taken for the module's."""
SAME = 1e-5
"""Relative difference within which a gain is taken for the parameter it comes from, whose bits are then used."""


@dataclass(frozen=True)
class Norm:
    """f(x) = gain · c(x) / rms(c(x)) + b; c takes the mean off where `centred`."""

    gain_D: Float[Tensor, " D"]
    centred: bool
    bias_D: Float[Tensor, " D"]


def last_residual(hook_names: Iterable[str]) -> str | None:
    """The hook point of what the last layer (of the decoder, where there are two stacks) puts out; None where no layer has
    one."""
    layers = [name for name in hook_names if re.fullmatch(r"(decoder_)?blocks\.\d+\.hook_(resid_post|out)", name)]
    return max(layers, key=lambda name: int(name.split(".")[1]), default=None)


def read_unembedding(
    module: nn.Module, run: Callable[[], Any], last_layer: nn.Module | None, name: str
) -> tuple[Float[Tensor, "V D"], Float[Tensor, " D"]]:
    """(unembedding, gain) in float32: a direction d moves the logits by (unembedding · gain) d, up to a common scale.

    `run` runs the module on a few tokens; `last_layer` is what puts out the residual stream after the last layer.
    Raises InterpError when there is no unembedding, or when what stands before it is no norm of a known kind.
    """
    head: nn.Module | None = getattr(module, "get_output_embeddings", lambda: None)()
    weight = _weight(head)
    if head is None or weight is None:
        raise InterpError(f"{name} has no unembedding, so logit effects cannot be had.")
    if last_layer is None:
        raise _unknown(name, "its last layer has no hook point for the residual stream")
    seen = _follow(module, head, last_layer, run)
    if seen is None:
        raise _unknown(name, "its layers or its unembedding did not run on a plain text")
    if not _is_linear(seen.head_in, seen.logits, weight):
        raise _unknown(name, "its unembedding does more than multiply by a matrix")
    W_VD = weight.detach().float()
    if seen.head_in.data_ptr() == seen.residual.data_ptr():
        return W_VD, torch.ones(W_VD.shape[1], device=W_VD.device)
    if seen.between is None:
        raise _unknown(name, "more than one module stands between its last layer and its unembedding")
    norm = fit_norm(seen.between, W_VD.shape[1])
    if norm is None:
        kind = type(getattr(seen.between, "original_component", seen.between)).__name__
        raise _unknown(name, f"its final norm ({kind}) is neither an RMSNorm nor a LayerNorm")
    if not norm.centred:
        return W_VD, norm.gain_D.to(W_VD.device)
    folded_VD = W_VD * norm.gain_D.to(W_VD.device)
    return folded_VD - folded_VD.mean(1, keepdim=True), torch.ones_like(norm.gain_D, device=W_VD.device)


def _unknown(name: str, why: str) -> InterpError:
    return InterpError(f"what the logits of {name} read from its residual stream is not known here: {why}.")


def _weight(head: Any) -> Tensor | None:
    named = head.named_parameters() if head is not None else ()
    return next((p for n, p in named if n.endswith("weight") and p.ndim == 2), None)


@dataclass
class _Seen:
    """The tensors on the way out, and the module between them."""

    residual: Tensor
    head_in: Tensor
    logits: Tensor
    between: nn.Module | None


def _follow(module: nn.Module, head: nn.Module, last_layer: nn.Module, run: Callable[[], Any]) -> _Seen | None:
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []  # kept alive, so that no address is used twice

    def note(owner: nn.Module, given: Any, out: Any) -> None:
        into = given[0] if given and isinstance(given[0], Tensor) else None
        if into is not None and isinstance(out, Tensor):
            calls.append((owner, into, out))

    handles = [each.register_forward_hook(note) for each in module.modules()]
    if all(each is not last_layer for each in module.modules()):
        handles.append(last_layer.register_forward_hook(note))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    ends = [out for owner, _, out in calls if owner is last_layer]
    heads = [(into, out) for owner, into, out in calls if owner is head]
    if not ends or not heads:
        return None
    residual, (head_in, logits) = ends[-1], heads[-1]
    between = [
        owner
        for owner, into, out in calls
        if into.data_ptr() == residual.data_ptr() and into.shape == out.shape and _is_multiple(head_in, out)
    ]
    return _Seen(residual, head_in, logits, between[-1] if between else None)  # the outermost ends last


def _is_multiple(x: Tensor, of: Tensor) -> bool:
    """Whether one tensor is another, or a positive number times it (T5's, before an unembedding that is tied)."""
    if x.data_ptr() == of.data_ptr():
        return True
    if x.shape != of.shape:
        return False
    ours, theirs = of.double(), x.double()
    scale = (ours * theirs).sum() / ours.square().sum().clamp_min(1e-30)
    return bool(scale > 0) and float((scale * ours - theirs).norm()) < CLOSE * float(theirs.norm())


def _is_linear(x: Tensor, logits: Tensor, weight: Tensor) -> bool:
    """Whether the logits of the last position are x Wᵀ and a bias, to the precision of the model's own number type."""
    rows = x.reshape(-1, x.shape[-1]).float()
    if rows.shape[1] != weight.shape[1] or len(rows) < 2:
        return False
    ours = (rows[-1] - rows[-2]) @ weight.float().T  # of a difference, so that a bias drops out
    logits_NV = logits.reshape(-1, logits.shape[-1]).float()
    theirs = logits_NV[-1] - logits_NV[-2]
    if ours.shape != theirs.shape:
        return False
    scale = float((ours @ theirs) / (ours @ ours).clamp_min(1e-30))  # some multiply all logits by one number
    return scale > 0 and float((scale * ours - theirs).norm()) < 0.05 * float(theirs.norm())


@torch.inference_mode()
def fit_norm(module: nn.Module, width: int) -> Norm | None:
    """The formula of a module that normalises, or None when it computes something else."""
    alone = copy.deepcopy(module).float()  # in the model's own number type the gain would be rounded

    def f(x_ND: Tensor) -> Tensor:
        out = alone(x_ND[None])
        return out[0] if isinstance(out, Tensor) and out.shape == (1, *x_ND.shape) else torch.full_like(x_ND, torch.nan)

    device = next(module.parameters(), torch.zeros(0)).device
    draw = torch.Generator().manual_seed(0)
    # As many 1s as -1s: mean 0 and rms 1, so that f(x) = gain · x + b whether or not it takes the mean off.
    signs = torch.ones(width)
    signs[torch.randperm(width, generator=draw)[: width // 2]] = -1
    if width % 2:
        signs[(signs == 1).nonzero()[0]] = 0
    x_ND = torch.cat([torch.randn(4, width, generator=draw), torch.rand(2, width, generator=draw)]) * LARGE
    try:
        pair_ND = f(torch.stack([signs, -signs]).to(device) * LARGE).cpu()
        theirs_ND = f(x_ND.to(device)).cpu()
    except (TypeError, RuntimeError, ValueError, IndexError, AttributeError):
        return None  # it asks for more than a tensor
    rms = float(signs.square().mean().sqrt())
    bias_D = pair_ND.mean(0)
    gain_D = (pair_ND[0] - pair_ND[1]) / 2 * rms / torch.where(signs == 0, 1, signs)
    if width % 2:  # the entry that was 0 told nothing of its gain
        gain_D[signs == 0] = _gain_at(int((signs == 0).nonzero()), f, width, device, bias_D)
    for centred in (False, True):
        c_ND = x_ND - x_ND.mean(1, keepdim=True) if centred else x_ND
        ours_ND = gain_D * c_ND / c_ND.square().mean(1, keepdim=True).sqrt() + bias_D
        if float((ours_ND - theirs_ND).norm()) < CLOSE * float(theirs_ND.norm()):
            return Norm(_exact(gain_D, alone), centred, bias_D)
    return None


def _gain_at(at: int, f: Callable[[Tensor], Tensor], width: int, device: torch.device, bias_D: Tensor) -> float:
    x = torch.zeros(1, width)
    x[0, at], x[0, (at + 1) % width] = LARGE, -LARGE
    return float((f(x.to(device)).cpu()[0] - bias_D)[at] * (2 / width) ** 0.5)


def _exact(gain_D: Tensor, module: nn.Module) -> Tensor:
    """The parameter that the gain was measured from, or 1 + it, with its own bits; else what was measured."""
    for parameter in module.parameters():
        for exact in (parameter.detach().cpu(), 1.0 + parameter.detach().cpu()):
            near = SAME * float(gain_D.abs().max())
            if exact.shape == gain_D.shape and float((exact - gain_D).abs().max()) <= near:
                return exact
    if float((gain_D - 1).abs().max()) < SAME:
        return torch.ones_like(gain_D)
    return gain_D


def neuron_outputs(
    module: nn.Module, hook_points: Mapping[str, nn.Module], width: int
) -> dict[int, Float[Tensor, "M D"]]:
    """By layer, what a unit of each MLP neuron adds to a residual stream of that width; {} when it cannot be told."""
    rows_of: dict[int, Tensor] = {}
    for layer in range(10_000):
        hook, out = (hook_points.get(f"blocks.{layer}.mlp.{name}") for name in ("hook_post", "out.hook_in"))
        if hook is None or out is None:
            return rows_of
        owner = next((m for m in module.modules() if getattr(m, "hook_in", None) is out), None)
        weight = getattr(getattr(owner, "original_component", owner), "weight", None)
        if weight is None or weight.ndim != 2:
            return {}
        # A Linear keeps (out, in); GPT-2's Conv1D keeps (in, out).
        linear = isinstance(getattr(owner, "original_component", owner), nn.Linear)
        rows = (weight.T if linear else weight).detach().float()
        if rows.shape[1] != width:
            return {}
        rows_of[layer] = rows.contiguous()
    return rows_of
