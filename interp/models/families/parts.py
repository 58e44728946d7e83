"""TransformerLens' names for the places of a layer, where its bridge gives none: which submodule each is.

A layer's parts are called differently in every implementation; PARTS has, for each place, the paths it is known under, and
the first that exists is taken. What exists nowhere has no such name, and is still reached by its module path.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from interp.models.families.taps import IN, Tap, tap_calls, tap_input, tap_output

PARTS: dict[str, tuple[str, ...]] = {
    "hook_attn_out": (
        "attention.output.dense",
        "attention.dense",
        "layer.0.SelfAttention",
        "self_attn",
        "attn",
        "attention",
    ),
    "hook_cross_attn_out": ("layer.1.EncDecAttention", "encoder_attn"),
    "hook_resid_mid": ("attention.output", "sa_layer_norm"),
    "hook_mlp_out": (
        "layer.2.DenseReluDense",
        "layer.1.DenseReluDense",
        "output.dense",
        "ffn_output",
        "mlp",
        "ffn",
        "feed_forward",
        "fc2",
    ),
    "mlp.hook_post": (
        "layer.2.DenseReluDense.wo.hook_in",
        "layer.1.DenseReluDense.wo.hook_in",
        "output.dense.hook_in",
        "ffn_output.hook_in",
        "mlp.fc2.hook_in",
        "mlp.Wo.hook_in",
        "mlp.down_proj.hook_in",
        "mlp.weights_out.hook_in",
        "ffn.lin2.hook_in",
        "feed_forward.output_dense.hook_in",
        "fc2.hook_in",
    ),
}
"""By place, paths inside a layer; `.hook_in` is what enters the submodule, else what it puts out."""


def name_layers(points: Mapping[str, nn.Module], path: str, count: int, prefix: str) -> dict[str, nn.Module]:
    """Hook points of `count` layers whose paths are `path.0`, `path.1` ..., by TransformerLens' names with the prefix."""
    named: dict[str, nn.Module] = {}
    for layer in range(count):
        at, to = f"{path}.{layer}", f"{prefix}.{layer}"
        named[f"{to}.hook_resid_pre"] = points[at + IN]
        for place, paths in PARTS.items():
            found = next((points[f"{at}.{one}"] for one in paths if f"{at}.{one}" in points), None)
            if found is not None:
                named[f"{to}.{place}"] = found
        named[f"{to}.hook_resid_post"] = named[f"{to}.hook_out"] = points[at]
    return named


def name_shared_layers(root: nn.Module, groups: Sequence[nn.Module], count: int, prefix: str) -> dict[str, nn.Module]:
    """The same for `count` layers that share the weights of a few groups (ALBERT): one tap for each call."""
    named: dict[str, nn.Module] = {}

    def place(name: str, modules: Sequence[nn.Module], put: Callable[[nn.Module, Any], Any]) -> None:
        taps = [Tap() for _ in range(count)]
        tap_calls(modules, root, taps, put)
        named.update({f"{prefix}.{layer}.{name}": tap for layer, tap in enumerate(taps)})

    place("hook_resid_pre", groups, tap_input)
    layers = [
        part for group in groups for lists in group.children() if isinstance(lists, nn.ModuleList) for part in lists
    ]
    if len(layers) == len(groups):  # else a call of a group is several layers
        for name, paths in PARTS.items():
            path = next((p for p in paths if _has(layers[0], p.removesuffix(IN))), None)
            if path is not None:
                parts = [layer.get_submodule(path.removesuffix(IN)) for layer in layers]
                place(name, parts, tap_input if path.endswith(IN) else tap_output)
    place("hook_resid_post", groups, tap_output)
    named |= {name.replace("hook_resid_post", "hook_out"): tap for name, tap in named.items() if "resid_post" in name}
    return named


def _has(module: nn.Module, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True


def stack_path(module: nn.Module, count: int, inside: str = "") -> str | None:
    """The path of the list of `count` layers that holds the most weights (inside a part whose name is given); None
    where there is none."""
    found = {
        path: sum(p.numel() for p in part.parameters())
        for path, part in module.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == count and (not inside or inside in path.split("."))
    }
    return max(found, key=lambda path: found[path], default=None)
