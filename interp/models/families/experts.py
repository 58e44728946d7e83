"""Mixtures of experts: what the router says and what each expert puts out, as hook points.

- `blocks.N.mlp.hook_router_logits`, (B, T, E): before experts are chosen, so that an edit changes which are.
- `blocks.N.mlp.experts.E.hook_out`, (B, T, D): what expert E puts out, before its weight, at the tokens that were sent to it;
  not a number at all others, which therefore never count: an SAE of one expert is trained on that expert's tokens.

In transformers the experts of a layer are one module over stacked weights, which calls no submodules. Its plain loop is used
(`eager`), and the products with an expert's output weights, or with the router's, are met on their way. While nobody listens
nothing is looked at.

Axes    B row, T token, E expert, D width of the residual stream, N token of all rows, R token sent to one expert.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from interp.models.families.taps import Tap


@dataclass
class _Layer:
    """The experts of one layer, and the shape of what it was last given."""

    router: nn.Module
    experts: nn.Module
    logits: Tap = field(default_factory=Tap)
    outputs: list[Tap] = field(default_factory=list)
    shape: tuple[int, ...] = ()


class _Meeting(TorchFunctionMode):
    """While it is entered, every linear map's output is handed to `meet` with its weight, and what comes back goes on."""

    def __init__(self, meet: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.meet = meet

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is not F.linear:
            return out
        weight = args[1] if len(args) > 1 else (kwargs or {})["weight"]
        with torch._C.DisableTorchFunction():
            return self.meet(out, weight)


def tap_experts(module: nn.Module) -> dict[str, nn.Module]:
    """Hook points of every layer of experts in the module; {} where it has none whose way of computing is known."""
    points: dict[str, nn.Module] = {}
    for path, experts in list(module.named_modules()):
        layer = _layer(module, path, experts)
        number = re.search(r"\.(\d+)\.", path)
        if layer is None or number is None:
            continue
        experts.config._experts_implementation = "eager"
        _tap_router(layer)
        _tap_outputs(layer)
        name = f"blocks.{number[1]}.mlp"
        points[f"{name}.hook_router_logits"] = layer.logits
        points |= {f"{name}.experts.{e}.hook_out": tap for e, tap in enumerate(layer.outputs)}
    return points


def _layer(module: nn.Module, path: str, experts: nn.Module) -> _Layer | None:
    """The layer whose experts these are; None when they are none, or multiply otherwise than by plain linear maps."""
    down = dict(experts.named_parameters(recurse=False)).get("down_proj")
    if down is None or down.ndim != 3 or not hasattr(experts, "config"):
        return None
    if getattr(experts, "has_bias", False) or getattr(experts, "is_transposed", False):
        return None
    parent, router = path, None
    while parent and router is None:
        parent = parent.rpartition(".")[0]
        owner = module.get_submodule(parent)
        router = next((getattr(owner, name) for name in ("gate", "router") if hasattr(owner, name)), None)
    router = getattr(router, "original_component", router)
    weight = getattr(router, "weight", None)
    if not isinstance(router, nn.Module) or weight is None or weight.shape[0] != len(down):
        return None
    layer = _Layer(router, experts, outputs=[Tap() for _ in range(len(down))])

    def note(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        into = next(value for value in (*given, *named.values()) if isinstance(value, Tensor))
        layer.shape = tuple(into.shape[:2])

    owner.register_forward_pre_hook(note, with_kwargs=True)
    return layer


def _tap_router(layer: _Layer) -> None:
    plain, weight = layer.router.forward, layer.router.weight
    assert isinstance(weight, Tensor)

    def meet(out: Tensor, by: Tensor) -> Tensor:
        if by.shape != weight.shape:
            return out
        return layer.logits.passed(out.view(*layer.shape, -1)).reshape(out.shape)

    def forward(*given: Any, **named: Any) -> Any:
        if not layer.logits.heard:
            return plain(*given, **named)
        with _Meeting(meet):
            return plain(*given, **named)

    layer.router.__dict__["forward"] = forward


def _tap_outputs(layer: _Layer) -> None:
    plain, down_EDM = layer.experts.forward, layer.experts.down_proj
    assert isinstance(down_EDM, Tensor)

    def forward(x_ND: Tensor, chosen_NK: Tensor, *given: Any, **named: Any) -> Any:
        heard = {expert for expert, tap in enumerate(layer.outputs) if tap.heard}
        if not heard:
            return plain(x_ND, chosen_NK, *given, **named)
        size, left = down_EDM[0].numel() * down_EDM.element_size(), set(heard)

        def meet(out_RD: Tensor, by: Tensor) -> Tensor:
            expert, off = divmod(by.data_ptr() - down_EDM.data_ptr(), size)
            if off or expert not in heard:
                return out_RD
            left.discard(expert)
            row_R = torch.where((chosen_NK == expert).T)[1]
            whole_ND = out_RD.new_full((len(x_ND), out_RD.shape[1]), torch.nan)
            whole_ND[row_R] = out_RD
            return layer.outputs[expert].passed(whole_ND.view(*layer.shape, -1)).reshape(whole_ND.shape)[row_R]

        with _Meeting(meet):
            made = plain(x_ND, chosen_NK, *given, **named)
        for expert in left:  # no token was sent to it
            layer.outputs[expert].passed(x_ND.new_full((*layer.shape, down_EDM.shape[1]), torch.nan))
        return made

    layer.experts.__dict__["forward"] = forward
