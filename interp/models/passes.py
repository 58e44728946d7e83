"""One forward pass: what is read at hook points, what is edited there, and what comes back.

1.  Every hook point asked for gets its edits, in their order, and then its reader.
2.  The module runs. A hook point may fire several times (an expert's activation once for each expert that is hit, a layer
    that stands twice in a network twice): each firing is kept, and edits are told which one they see.
3.  Without logits the pass ends at the last hook point, if all of them are known to fire once and on every token.

Axes    B prompt, T token, D width at a hook point, V vocabulary.
"""

from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.models.turns import Turns
from interp.types import InterpError

PROBE = (2, 4)
"""Rows and tokens of the pass in which a model's hook points are tried: two rows, for some modules run once a row."""


RESIDUAL = (".hook_resid_pre", ".hook_resid_mid", ".hook_resid_post", ".hook_attn_out", ".hook_mlp_out")
"""Hook points as wide as the residual stream, by the ends of their names."""


@dataclass(frozen=True)
class Site:
    """Where an edit is being applied: the tokens that pass the hook point, and where they stand."""

    tokens_BT: Int[Tensor, "B T"]
    real_BT: Bool[Tensor, "B T"]
    """False at padding."""
    position_BT: Int[Tensor, "B T"]
    """Position of each token in its own prompt, counted from 0 without padding."""
    prompt_B: Int[Tensor, " B"]
    """Tokens of each row's prompt, the first position counted; what stands after them was generated."""
    firing: int = 0
    """How often the hook point has fired before in this pass. A module that is called several times may see a part of the
    tokens each time (an expert those routed to it), and `tokens_BT` are then not the rows it is given."""
    given: Tensor | None = None
    """Of what is no text, what the model is given, an item a row; `tokens_BT` has the numbers of its places."""
    asked: bool = False
    """Whether the caller said where the prompt ends, so that an encoder–decoder takes what follows for its answer."""

    @property
    def generated_BT(self) -> Bool[Tensor, "B T"]:
        """True at tokens that were generated, and are not part of the prompt."""
        return self.position_BT >= self.prompt_B[:, None]

    @property
    def generated(self) -> bool:
        """Whether all of these tokens were generated."""
        return bool(self.generated_BT.all())


def make_site(
    tokens_BT: Int[Tensor, "B T"],
    real_BT: Bool[Tensor, "B T"] | None = None,
    prompt_B: Int[Tensor, " B"] | None = None,
    *,
    fills: int | None = None,
    given: Tensor | None = None,
) -> Site:
    """Where tokens stand: all are real unless `real_BT` says otherwise, and none was generated unless `prompt_B` does.

    `fills` is the token that closes a text and fills its row: the first of those that a row ends with is real.
    """
    position_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
    if real_BT is not None:
        real_BT = real_BT.to(tokens_BT.device)
        position_BT = (real_BT.long().cumsum(1) - 1).clamp_min(0)
    elif fills is not None:
        last_B1 = torch.where(tokens_BT != fills, position_BT, 0).amax(1, keepdim=True)
        real_BT = position_BT <= last_B1 + 1
    else:
        real_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
    ends_B = real_BT.sum(1) if prompt_B is None else prompt_B.to(tokens_BT.device)
    return Site(tokens_BT, real_BT, position_BT, ends_B, given=given, asked=prompt_B is not None)


@dataclass(frozen=True)
class Edit:
    """A change of the activations at one hook point, made while the model runs, at every firing (`Site.firing`).

    In a pass with `grad=True` the function is part of the graph, so it must be one that PyTorch can differentiate.
    """

    hook_name: str
    apply: Callable[[Float[Tensor, "B T D"], Site], Float[Tensor, "B T D"]]


class Activations:
    """By hook point, what passed it, for those that fired once; InterpError at one that fired several times.

    Read like a dict.
    """

    def __init__(self, firings: Mapping[str, Sequence[Tensor]]) -> None:
        self._firings = firings

    def __getitem__(self, hook_name: str) -> Tensor:
        each = self._firings[hook_name]
        if len(each) != 1:
            raise InterpError(
                f"{hook_name} fired {len(each)} times in this pass; say which with firings[{hook_name!r}][0] to "
                f"[{len(each) - 1}]."
            )
        return each[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._firings)

    def __len__(self) -> int:
        return len(self._firings)

    def __contains__(self, hook_name: object) -> bool:
        return hook_name in self._firings

    def keys(self) -> KeysView[str]:
        """The hook points read, in the order asked for."""
        return self._firings.keys()

    def items(self) -> list[tuple[str, Tensor]]:
        """(hook point, what passed it) of each."""
        return [(name, self[name]) for name in self]

    def values(self) -> list[Tensor]:
        """What passed each hook point."""
        return [self[name] for name in self]


@dataclass(frozen=True)
class Run:
    """What one forward pass left behind."""

    firings: dict[str, tuple[Tensor, ...]]
    """By hook point, what passed it at each of its firings, in their order."""
    logits: Float[Tensor, "B T V"] | None
    """Of a model without a vocabulary, the last vectors."""

    @property
    def activations(self) -> Activations:
        """The one firing of each hook point read; asking for one that fired several times raises InterpError."""
        return Activations(self.firings)


@dataclass(frozen=True)
class Tried:
    """What a hook point did when a few tokens were tried."""

    shape: tuple[int, ...]
    """Past (B, T), of the first firing."""
    firings: int
    whole: bool
    """Whether the first firing was of every token of every row."""

    @property
    def once(self) -> bool:
        """Whether one firing is all that a pass will have: so it is of what sees all tokens at once."""
        return self.firings == 1 and self.whole


@runtime_checkable
class Passable(Protocol):
    """What a pass needs of a `Model`."""

    name: str
    module: nn.Module
    hook_points: dict[str, nn.Module]
    turns: Turns

    @property
    def attention_for(self) -> Callable[[Sequence[str]], AbstractContextManager[None]]: ...
    @property
    def arguments(self) -> frozenset[str]: ...
    def outputs(self, site: Site, options: Mapping[str, Any], /) -> Tensor: ...
    def site_at(self, site: Site, hook_name: str, /) -> Site: ...
    def check_hook(self, hook_name: str) -> None: ...
    def probe(self) -> Site: ...
    def shapes(self) -> dict[str, tuple[int, ...]]: ...
    def fires_once(self, hook_name: str) -> bool: ...


class _Stop(BaseException):
    """Raised in the last hook that was asked for, so that later layers are never computed."""


def single_pass(
    model: Passable,
    site: Site,
    extra: Mapping[str, Any],
    read: Sequence[str],
    edits: Sequence[Edit],
    *,
    logits: bool,
    last: int = 0,
    grad: bool = False,
    within: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Run:
    """One forward pass with the module for itself; `extra` is what the module is told besides its tokens, and `within` what
    else is done to the module meanwhile.

    Raises InterpError for a hook point that does not exist, and for one that was to be read and did not fire.
    """
    seen: dict[str, list[Tensor]] = {name: [] for name in read}
    for name in (*seen, *(edit.hook_name for edit in edits)):
        model.check_hook(name)
    stops = not logits and all(map(model.fires_once, seen))

    def reader(name: str) -> Callable[[Tensor], Tensor | None]:
        def keep(x: Tensor) -> Tensor | None:
            began = grad and not x.requires_grad and x.is_floating_point()
            x = x.detach().requires_grad_() if began else x  # a place from which on the graph is built
            seen[name].append(x)
            if stops and all(seen.values()):
                raise _Stop
            return x if began else None

        return keep

    if last and "logits_to_keep" in model.arguments:
        extra = {**extra, "logits_to_keep": last}
    made = None
    with (
        model.turns.turn(),
        gradients(grad),
        hooked(model, {name: reader(name) for name in seen}, edits, site),
        within(),
        suppress(_Stop),
    ):
        made = model.outputs(site, extra)[:, -last:]
    for name, each in seen.items():
        if not each:
            raise InterpError(f"{name} did not fire when {model.name} ran; try another hook point.")
    return Run({name: tuple(each) for name, each in seen.items()}, made)


@contextmanager
def gradients(grad: bool) -> Iterator[None]:
    """Whether what is computed in the block builds a graph, whatever mode the caller is in."""
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(not grad))
        if grad:
            modes.enter_context(torch.enable_grad())
        yield


@contextmanager
def hooked(
    model: Passable, readers: Mapping[str, Callable[[Tensor], Tensor | None]], edits: Sequence[Edit], site: Site
) -> Iterator[None]:
    """Hooks in place while the block runs: edits first, in their order, then readers."""

    def editor(edit: Edit) -> Callable[..., Tensor]:
        at = model.site_at(site, edit.hook_name)

        def hook(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            nonlocal at
            here, at = at, replace(at, firing=at.firing + 1)
            return edit.apply(out, here)

        return hook

    names = [*readers, *(edit.hook_name for edit in edits)]
    handles = []
    try:
        for edit in edits:
            handles.append(model.hook_points[edit.hook_name].register_forward_hook(editor(edit)))
        for name, reader in readers.items():
            hook = model.hook_points[name].register_forward_hook(lambda _, __, out, reader=reader: reader(out))
            handles.append(hook)
        with model.attention_for(names):
            yield
    finally:
        for handle in handles:
            handle.remove()


def try_hooks(model: Passable) -> dict[str, Tried]:
    """What each hook point does that fires on a few tokens, in the order in which they first fire."""
    # An alias names the same module as its target, so one module can answer for many names.
    first: dict[int, Tensor] = {}
    times: dict[int, int] = {}

    def see(module: nn.Module, _: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            first.setdefault(id(module), out)
            times[id(module)] = times.get(id(module), 0) + 1

    site = model.probe()
    with model.turns.turn():
        handles = [point.register_forward_hook(see) for point in set(model.hook_points.values())]
        try:
            with model.attention_for(list(model.hook_points)), torch.inference_mode():
                model.outputs(site, {})
        finally:
            for handle in handles:
                handle.remove()
    order = {key: rank for rank, key in enumerate(first)}
    fired = {name: id(point) for name, point in model.hook_points.items() if id(point) in first}
    return {
        name: Tried(
            tuple(first[fired[name]].shape[2:]),
            times[fired[name]],
            first[fired[name]].shape[:2] == site.tokens_BT.shape,
        )
        for name in sorted(fired, key=lambda name: order[fired[name]])
    }


def width_of(model: Passable, hook_name: str) -> int:
    """See `Model.width`; InterpError as there."""
    model.check_hook(hook_name)
    hidden = getattr(getattr(model.module, "config", None), "hidden_size", None)
    if isinstance(hidden, int) and hook_name.endswith(RESIDUAL):
        return hidden
    shape = model.shapes().get(hook_name)
    if shape is None or len(shape) != 1:
        instead = "does not fire on text" if shape is None else f"has shape {shape} at a position"
        raise InterpError(f"{hook_name} of {model.name} {instead}, not one vector; choose another hook point.")
    return shape[0]
