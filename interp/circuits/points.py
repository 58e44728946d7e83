"""Hook points by layer and by head: the names that a family has, how many heads there are, and what each writes.

Axes    B prompt, T position, D width at a hook point, H head, O width of the residual stream.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.models import Edit, Model
from interp.types import InterpError

RESIDUAL, Z, PATTERN = "hook_resid_pre", "attn.hook_z", "attn.hook_pattern"
ATTENTION, MLP, EMBED = "hook_attn_out", "hook_mlp_out", "hook_embed"
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")


def count_layers(model: Model) -> int:
    """How many layers there are; InterpError where hook points are not named by layers of one stack."""
    found = [int(m[1]) for m in (re.match(r"blocks\.(\d+)\.", name) for name in model.hook_points) if m]
    if not found:
        raise InterpError(
            f"{model.name} has no hook points blocks.0, blocks.1 and so on, so it has no layers to go by."
        )
    return max(found) + 1


def each_layer(model: Model, point: str) -> list[str]:
    """The hook point of that name in every layer: `hook_resid_pre`, `hook_mlp_out`, `attn.hook_z` …

    Raises InterpError where a layer has none.
    """
    names = [f"blocks.{layer}.{point}" for layer in range(count_layers(model))]
    for name in names:
        check_fires(model, name)
    return names


def check_fires(model: Model, hook_name: str) -> None:
    """Raises InterpError when the model has no such hook point, or it does not fire once for all tokens."""
    model.check_hook(hook_name)
    if not model.fires_once(hook_name):
        raise InterpError(
            f"{hook_name} of {model.name} does not fire once for all tokens of a text, so it has no activation to a "
            "position; choose another hook point."
        )


@dataclass(frozen=True)
class Heads:
    """How the attention of a model is divided."""

    count: int
    key_count: int
    """Heads of keys and values; fewer than `count` where several heads share them."""


def attention_heads(model: Model) -> Heads:
    """How many heads a layer has; InterpError where the family shows no output of its heads (`attn.hook_z`)."""
    z = f"blocks.0.{Z}"
    if z not in model.shapes():
        raise InterpError(f"{model.name} has no hook point {z}, so its heads cannot be told apart.")
    config = getattr(model.module.config, "text_config", model.module.config)
    count = _number(config, _HEADS)
    if not count or prod(model.shapes()[z]) % count:
        raise InterpError(f"the configuration of {model.name} does not say how many heads share {z}.")
    return Heads(count, _number(config, _KEY_HEADS) or count)


def _number(config: object, names: Sequence[str]) -> int:
    return next((value for name in names if isinstance(value := getattr(config, name, None), int)), 0)


def output_matrix(model: Model, layer: int) -> tuple[Float[Tensor, "H d O"], Float[Tensor, " O"]]:
    """(what each head's output is multiplied by, the bias that is added once), in float32.

    Raises InterpError where the matrix behind `attn.hook_z` is not found.
    """
    heads = attention_heads(model).count
    point = model.hook_points.get(f"blocks.{layer}.attn.o.hook_in")
    owner = next(
        (m for m in model.module.modules() if point is not None and getattr(m, "hook_in", None) is point), None
    )
    linear = getattr(owner, "original_component", owner)
    weight, bias = getattr(linear, "weight", None), getattr(linear, "bias", None)
    if weight is None or weight.ndim != 2:
        raise InterpError(f"the output matrix of the attention in layer {layer} of {model.name} is not found.")
    # A Linear keeps (out, in); GPT-2's Conv1D keeps (in, out).
    W_ZO = (weight.T if isinstance(linear, nn.Linear) else weight).detach().float()
    b_O = torch.zeros_like(W_ZO[0]) if bias is None else bias.detach().float()
    return W_ZO.reshape(heads, -1, W_ZO.shape[1]), b_O


def put_in(hook_name: str, value: Tensor, where: Bool[Tensor, "..."]) -> Edit:
    """An edit that puts `value` at a hook point where `where` is true: (B, T), or (B, T, H) for slices of its width."""

    def apply(x: Tensor, site: object) -> Tensor:
        parts = x.shape[:2] + where.shape[2:] + (-1,)
        mixed = torch.where(where[..., None], value.to(x.dtype).reshape(parts), x.reshape(parts))
        return mixed.reshape(x.shape)

    return Edit(hook_name, apply)


def replace_all(hook_name: str, value: Tensor) -> Edit:
    """An edit that puts `value` in place of all that passes a hook point."""

    def apply(x: Tensor, site: object) -> Tensor:
        return value.to(x.dtype).clone()  # what the module does in place is not to reach what was kept

    return Edit(hook_name, apply)
