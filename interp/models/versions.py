"""What a text says next when one of its positions is changed at a hook point: any number of such versions, each by itself.

1.  The text runs once. Kept are what passes the hook point, what enters its layer, and every layer's keys and values.
2.  A version replaces what passes the hook point at one position, and is asked for the logits there alone. What stands
    before the position is as it was, and what stands after it does not matter: so one position passes the layers from the
    hook point on, with the keys and values that the text left behind.
3.  Many versions are the new tokens of one pass. A mask lets each see the text before its position and itself, and none
    of the others. Layers below give back what they are given.

Whether a family does this is tried (`try_versions`), with a text as long as those to come, against whole passes with an
edit at the position; those are also what a family gets that does not (`Versions` with `cached=False`).

Axes    E version, T token, D width at the hook point, V vocabulary.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.models.kept import is_recurrent
from interp.models.model import Model
from interp.models.passes import Edit, hooked
from interp.types import InterpError

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""By number type, the largest difference from a whole pass that is taken for rounding, in standard deviations of the logits."""
ROUGH = 0.1
"""The same for other number types, which round at every layer."""
TRIED = 4
"""Positions of a text at which versions are tried."""
AT_ONCE = 16
"""Whole passes that are one batch."""


@dataclass(frozen=True)
class Trial:
    """Whether versions may be taken from what a text left behind."""

    cached: bool
    off: float
    """The largest difference of a logit from a whole pass, in standard deviations of the logits; nan where none was had."""
    why: str = ""
    """Why not."""


@dataclass(frozen=True, eq=False)
class _Kept:
    """What one pass over the text leaves behind."""

    cache: Any
    into_TD: Tensor
    """What enters the first layer that is run again."""
    layers: Sequence[nn.Module]
    first: int
    """The first layer that is run again; those before it are skipped."""
    outs: tuple[Any, ...] | None
    """What the last skipped layer gives beside the residual stream; None where it gives the stream alone."""
    boundary: bool
    """Whether the hook point is what enters that layer, so that nothing need be edited."""


class Versions:
    """One text of which single positions are changed at a hook point (see the head of the file)."""

    def __init__(
        self,
        model: Model,
        tokens_T: Int[Tensor, " T"],
        hook_name: str,
        *,
        read: Sequence[str] = (),
        cached: bool = True,
    ) -> None:
        """Runs the text; `cached` as `try_versions` says.

        Raises InterpError when the model has no such hook point, when it does not fire once on every token, and when what
        follows a token changes what the model says there.
        """
        names = tuple(dict.fromkeys((hook_name, *read)))
        for name in names:
            check(model, name)
        self.model, self.hook_name, self.cached = model, hook_name, cached
        self.tokens_1T = tokens_T[None].to(model.device)
        self._kept: _Kept | None = None
        if cached:
            x, self._kept = _keep(model, self.tokens_1T, names, hook_name)
        else:
            x = dict(model.run(self.tokens_1T, names).activations.items())
        self.x: dict[str, Tensor] = {name: x[name][0] for name in names}
        """By hook point (the one that is changed, and those of `read`), what passes it: shape (T, D)."""

    def logits(self, position_E: Int[Tensor, " E"], x_ED: Float[Tensor, "E D"]) -> Float[Tensor, "E V"]:
        """The logits at each version's position, when `x_ED` passes the hook point there."""
        x_ED = x_ED.to(self.model.device, self.model.dtype)
        position_E = position_E.to(self.model.device)
        if self._kept is None:
            return self._whole(position_E, x_ED)
        return self._from_kept(self._kept, position_E, x_ED)

    def _whole(self, position_E: Tensor, x_ED: Tensor) -> Tensor:
        """By whole passes over the text up to the position, for any family."""
        logits_EV: Tensor | None = None
        for position in position_E.unique().tolist():
            for rows in (position_E == position).nonzero()[:, 0].split(AT_ONCE):
                edit = Edit(self.hook_name, _at_last(x_ED[rows]))
                tokens = self.tokens_1T[:, : position + 1].expand(len(rows), -1)
                run = self.model.run(tokens, edits=[edit], logits=True, last=1)
                assert run.logits is not None
                if logits_EV is None:
                    logits_EV = run.logits.new_empty(len(position_E), run.logits.shape[-1])
                logits_EV[rows] = run.logits[:, -1]
        assert logits_EV is not None, "no version was asked for"
        return logits_EV

    def _from_kept(self, kept: _Kept, position_E: Tensor, x_ED: Tensor) -> Tensor:
        model, tokens_1E = self.model, self.tokens_1T[:, position_E]
        site, _ = model.site(tokens_1E[:, :1])
        edits = [] if kept.boundary else [Edit(self.hook_name, lambda _, __: x_ED[None])]
        into = x_ED if kept.boundary else kept.into_TD[position_E]
        extra = {
            "attention_mask": _mask(position_E, self.tokens_1T.shape[1], model.dtype),
            "position_ids": position_E[None],
            "past_key_values": _copied(kept.cache),
        }
        with (
            model.turns.turn(),
            torch.inference_mode(),
            hooked(model, {}, edits, site),
            _skipping(kept, into[None]),
        ):
            out = model.module(tokens_1E, use_cache=True, **extra).logits
        return out[0]


def _at_last(x_ED: Tensor) -> Any:
    """An edit that puts each row's own in the place of its last position."""

    def apply(x_BTD: Tensor, _: Any) -> Tensor:
        return torch.cat([x_BTD[:, :-1], x_ED[:, None].to(x_BTD)], 1)

    return apply


def check(model: Model, hook_name: str) -> None:
    """Raises InterpError when single positions cannot be changed at this hook point of this model."""
    model.check_hook(hook_name)
    if not model.fires_once(hook_name):
        raise InterpError(
            f"{hook_name} of {model.name} does not fire once on every token, so no position can be changed there; choose "
            "another hook point."
        )
    if not model.causal:
        raise InterpError(
            f"{model.name} reads a text in both directions, so no token is the next one; effects on it cannot be measured."
        )


# ---- keeping ----


def _stack(model: Model, layer: int) -> list[nn.Module] | None:
    """The layers of the model, in their order; None where they are not one list."""
    point = model.hook_points.get(f"blocks.{layer}.hook_out")
    for module in model.module.modules():
        if isinstance(module, nn.ModuleList) and layer < len(module):
            layers = list(module)
            if any(each is point for each in layers[layer].modules()):
                return layers
    return None


def _layer(hook_name: str) -> int | None:
    found = re.match(r"blocks\.(\d+)\.", hook_name)
    return int(found[1]) if found else None


def _keep(model: Model, tokens_1T: Tensor, names: Sequence[str], hook_name: str) -> tuple[dict[str, Tensor], _Kept]:
    """(what passes the hook points, what is kept) of one pass over the text."""
    layer = _layer(hook_name)
    stack = None if layer is None else _stack(model, layer)
    if layer is None or stack is None:
        raise InterpError(f"the layers of {model.name} that follow {hook_name} are not known.")
    x: dict[str, Tensor] = {}
    gone_in: dict[int, Tensor] = {}
    come_out: dict[int, Any] = {}
    site, extra = model.site(tokens_1T)
    extra = {**extra, **model.accepted({"logits_to_keep": 1})}
    readers = {name: _note(x, name) for name in names}
    with model.turns.turn():  # in which all hooks come and go, so that no other pass is seen by them
        handles = [stack[layer].register_forward_pre_hook(_note_in(gone_in, layer), with_kwargs=True)]
        handles += [stack[i].register_forward_hook(_note_out(come_out, i)) for i in (layer - 1, layer) if i >= 0]
        try:
            with torch.inference_mode(), hooked(model, readers, [], site):
                cache = model.module(tokens_1T, use_cache=True, **extra).past_key_values
        finally:
            for handle in handles:
                handle.remove()
    after, rest = _parts(come_out[layer])
    if torch.equal(after, x[hook_name]):
        return x, _Kept(cache, after[0], stack, layer + 1, rest, boundary=True)
    before = _parts(come_out[layer - 1])[1] if layer else None
    same = torch.equal(gone_in[layer], x[hook_name])
    return x, _Kept(cache, gone_in[layer][0], stack, layer, before, boundary=same and layer > 0)


def _note(into: dict[str, Tensor], name: str) -> Any:
    def keep(x: Tensor) -> None:
        into[name] = x

    return keep


def _note_in(into: dict[int, Tensor], layer: int) -> Any:
    def keep(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        into[layer] = given[0] if given else named["hidden_states"]

    return keep


def _note_out(into: dict[int, Any], layer: int) -> Any:
    def keep(_: nn.Module, __: Any, out: Any) -> None:
        into[layer] = out

    return keep


def _parts(out: Any) -> tuple[Tensor, tuple[Any, ...] | None]:
    """(the residual stream, what a layer gives beside it)."""
    return (out[0], tuple(out[1:])) if isinstance(out, tuple) else (out, None)


# ---- one pass of many versions ----


def _copied(cache: Any) -> Any:
    """The same keys and values in a cache of its own: what is added to it is not added to the first."""
    own = copy.copy(cache)
    own.layers = [copy.copy(each) for each in cache.layers]
    return own


def _mask(position_E: Tensor, length: int, dtype: torch.dtype) -> Float[Tensor, "1 1 E K"]:
    """Added to the scores: 0 at what stood before a version's position and at itself, else as low as can be."""
    place_T = torch.arange(length, device=position_E.device)
    alone_EE = torch.eye(len(position_E), dtype=torch.bool, device=position_E.device)
    seen_EK = torch.cat([place_T < position_E[:, None], alone_EE], 1)
    mask_EK = torch.zeros(seen_EK.shape, dtype=dtype, device=position_E.device)
    return mask_EK.masked_fill_(~seen_EK, torch.finfo(dtype).min)[None, None]


@contextmanager
def _skipping(kept: _Kept, into_1ED: Tensor) -> Iterator[None]:
    """While the block runs, the layers before the first one give back what they are given, and the last of them what is
    to go on. A module's own `forward` is hidden by an attribute of the same name, so that its other attributes stay."""
    skipped = kept.layers[: kept.first]

    def through(*given: Any, **named: Any) -> Any:
        return beside(given[0] if given else named["hidden_states"])

    def beside(x: Tensor) -> Any:
        return x if kept.outs is None else (x, *kept.outs)

    try:
        for layer in skipped:
            # In its __dict__, for the bridge's layers hand attributes that are set on to the model's own.
            layer.__dict__["forward"] = through
        if skipped:
            skipped[-1].__dict__["forward"] = lambda *_, **__: beside(into_1ED)
        yield
    finally:
        for layer in skipped:
            layer.__dict__.pop("forward", None)


# ---- trying ----


def try_versions(model: Model, tokens_T: Int[Tensor, " T"], hook_name: str) -> Trial:
    """Whether versions of texts as long as this one may be taken from what they left behind: tried at a few positions,
    twice, against whole passes. InterpError as `Versions`."""
    check(model, hook_name)
    if is_recurrent(model.module) or not model.caches:
        return Trial(False, float("nan"), f"{model.name} does not go on from keys and values that are kept")
    position_E = torch.linspace(0, len(tokens_T) - 1, TRIED + 1).long()[1:].repeat_interleave(2)
    try:
        kept = Versions(model, tokens_T, hook_name)
        x_ED = kept.x[hook_name][position_E].float()
        noise = torch.randn(x_ED.shape, generator=torch.Generator().manual_seed(0)).to(x_ED.device)
        x_ED[1::2] += 0.5 * noise[1::2] * x_ED[1::2].norm(dim=1, keepdim=True) / noise[1::2].norm(dim=1, keepdim=True)
        ours = [kept.logits(position_E, x_ED).float() for _ in range(2)]
    except (InterpError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Trial(False, float("nan"), f"layers from {hook_name} on could not be run by themselves ({first})")
    theirs = Versions(model, tokens_T, hook_name, cached=False).logits(position_E, x_ED).float()
    off = max(float((one - theirs).abs().max() / theirs.std()) for one in ours)
    if off <= TOLERANCE.get(model.dtype, ROUGH):
        return Trial(True, off)
    return Trial(False, off, f"logits differ from those of whole passes by {off:.2g} standard deviations")
