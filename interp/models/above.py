"""A pass that begins at a hook point of the residual stream: all that passes there is given, so the layers below are not computed.

What replaces the activations of a hook point in the same text many times over (an SAE's reconstruction, ablations, those of nulls)
needs the lower half of the model once. The layers below stand aside: each gives back the residual stream that it was given. The one
that the hook point is in runs, for its hook point must fire; what it makes is replaced there.

Whether a model may be run so is found by trying: the logits of a few tokens have to be those of a whole pass, bit for bit. It may not
where a layer stands twice in the network, hands the next one more than the residual stream, or where something above reads below.

Axes    B prompt, T token, D width of the residual stream, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.models.passes import Edit, Passable, Site, single_pass
from interp.types import InterpError

STREAM = (".hook_resid_post", ".hook_resid_pre")
"""Ends of the names of hook points at which nothing passes beside the residual stream."""


class Runs(Passable, Protocol):
    """What such a pass needs of a `Model`."""

    def site(self, tokens_BT: Tensor, /) -> tuple[Site, dict[str, Any]]: ...


@dataclass(frozen=True)
class Aside:
    """A layer that can stand aside."""

    layer: nn.Module
    gives: int
    """Of how many things what it gives is a tuple, the residual stream first and None for the others; 0 where it is that alone."""

    def forward(self, *args: Any, **options: Any) -> Any:
        """What it is given, as the layer would hand it on."""
        x = args[0] if args else options["hidden_states"]
        return (x, *[None] * (self.gives - 1)) if self.gives else x


@dataclass(frozen=True)
class Above:
    """Passes of one model that begin at a hook point."""

    model: Runs
    found: dict[str, tuple[Aside, ...]] = field(default_factory=dict, repr=False)
    """By hook point, the layers that stand aside; none where that changes what comes out."""

    def begins(self, hook_name: str) -> bool:
        """Whether a pass may begin there; InterpError when the model has no such hook point."""
        self.model.check_hook(hook_name)
        if hook_name not in self.found:
            self.found[hook_name] = _tried(self.model, hook_name)
        return bool(self.found[hook_name])

    def logits(
        self, hook_name: str, tokens_BT: Int[Tensor, "B T"], x_BTD: Float[Tensor, "B T D"]
    ) -> Float[Tensor, "B T V"]:
        """The logits with `x_BTD` at the hook point, which are those of a whole pass with that edit.

        Raises InterpError where a pass may not begin there.
        """
        if not self.begins(hook_name):
            raise InterpError(f"no pass of {self.model.name} begins at {hook_name}; edit it in a whole one.")
        site, extra = self.model.site(tokens_BT)
        return _pass(self.model, site, extra, hook_name, x_BTD, self.found[hook_name])


def _pass(
    model: Passable, site: Site, extra: dict[str, Any], hook_name: str, x_BTD: Tensor, aside: Sequence[Aside]
) -> Tensor:
    put = Edit(hook_name, lambda here_BTD, _: x_BTD.to(here_BTD))
    logits = single_pass(model, site, extra, [], [put], logits=True, within=lambda: _standing_aside(aside)).logits
    assert logits is not None
    return logits


@contextmanager
def _standing_aside(aside: Sequence[Aside]) -> Iterator[None]:
    """While the block runs, each layer gives back the residual stream that it is given."""
    own = [vars(each.layer).get("forward") for each in aside]
    for each in aside:
        vars(each.layer)["forward"] = (
            each.forward
        )  # as an attribute a bridge would pass it on to the layer that it wraps
    try:
        yield
    finally:
        for each, forward in zip(aside, own, strict=True):
            del vars(each.layer)["forward"]
            if forward is not None:
                vars(each.layer)["forward"] = forward


@contextmanager
def _seen(layers: Sequence[nn.Module], gave: dict[int, Any]) -> Iterator[None]:
    """While the block runs, what each layer gives is kept, by its number."""
    handles = [
        layer.register_forward_hook(lambda _, __, out, at=at: gave.update({at: out})) for at, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tried(model: Passable, hook_name: str) -> tuple[Aside, ...]:
    """The layers below, where a pass without them comes to the same."""
    layers = _below(model, hook_name)
    if not layers or not model.fires_once(hook_name):
        return ()
    site = model.probe()
    gave: dict[int, Any] = {}
    other = replace(
        site, tokens_BT=site.tokens_BT.roll(1, 1)
    )  # so that nothing which a layer remembers is of these tokens
    try:
        x_BTD = single_pass(model, site, {}, [hook_name], [], logits=False).activations[hook_name]
        x_BTD = x_BTD.flip(1)  # what the layers below would never give
        single_pass(model, other, {}, [], [], logits=True, within=lambda: _seen(layers, gave))
        aside = tuple(Aside(layer, _many(gave[at])) for at, layer in enumerate(layers))
        above, whole = (_pass(model, site, {}, hook_name, x_BTD, each) for each in (aside, ()))
    except (InterpError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return ()  # a layer hands on more than that, or is not called with it
    return aside if torch.equal(whole, above) else ()


def _many(gave: Any) -> int:
    """See `Aside.gives`. Where something above needs what else a layer gave (mostly attention weights, which nobody does), the
    trial fails."""
    return len(gave) if isinstance(gave, tuple) else 0


def _below(model: Passable, hook_name: str) -> tuple[nn.Module, ...]:
    """The layers before the one that the hook point is in, in the list of layers that it is in; none where there is no such list."""
    if not hook_name.endswith(STREAM):
        return ()
    point = model.hook_points[hook_name]
    for layers in model.module.modules():
        if isinstance(layers, nn.ModuleList):
            at = next((at for at, layer in enumerate(layers) if any(each is point for each in layer.modules())), 0)
            if at:
                return tuple(layers[:at])
    return ()
