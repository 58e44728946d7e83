"""What every sparse dictionary is, whatever it was made of, and what can be asked of it before it is used.

An SAE reads and writes one hook point, a transcoder writes another, a crosscoder reads and writes several, and a layer's
neurons are read inside its MLP and write the MLP's output. Rows of several hook points lie side by side, in the order of
`reads` and `writes`; `join` and `split` lay them so and take them apart.

Axes    B batch row, D d_in, O d_out, F d_sae, W width of one hook point.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae.kernels import Active
from interp.types import Hook, InterpError, check_feature, unknown


@runtime_checkable
class Dictionary(Protocol):
    """Features that are read off some hook points and write along directions at some."""

    @property
    def name(self) -> str: ...
    @property
    def reads(self) -> tuple[Hook, ...]:
        """At least one, each with its width; the widths add up to `d_in`."""
        ...

    @property
    def writes(self) -> tuple[Hook, ...]:
        """At least one, each with its width; the widths add up to `d_out`."""
        ...

    @property
    def d_in(self) -> int: ...
    @property
    def d_out(self) -> int: ...
    @property
    def d_sae(self) -> int: ...
    @property
    def W_dec(self) -> Tensor:
        """(F, O): what a unit of each feature writes, at all hook points side by side."""
        ...

    def active(self, x_BD: Tensor, /) -> Active:
        """The active entries of each row (see `join` for rows of several hook points)."""
        ...

    def direction(self, feature: int, hook: Hook | str | None = None) -> Tensor:
        """(W,): what a unit of the feature writes at a hook point."""
        ...


def join(dictionary: Dictionary, rows: Mapping[str, Float[Tensor, "*B W"]]) -> Float[Tensor, "*B D"]:
    """What the dictionary reads, side by side, from activations by hook point (`str` of each of its `reads`).

    Raises InterpError when a hook point is missing or its rows have another width.
    """
    parts = []
    for hook in _named(dictionary.name, "reads", dictionary.reads):
        if str(hook) not in rows:
            raise InterpError(f"{dictionary.name} reads {hook}, and there are activations of {_list(rows)} only.")
        part = rows[str(hook)]
        if part.shape[-1] != hook.width:
            raise InterpError(
                f"{hook} has width {part.shape[-1]} and {dictionary.name} reads {hook.width} there: it was made for "
                "another model."
            )
        parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def split(dictionary: Dictionary, y: Float[Tensor, "*B O"]) -> dict[str, Float[Tensor, "*B W"]]:
    """What the dictionary writes, by hook point (`str` of each of its `writes`); views of `y`."""
    hooks = _named(dictionary.name, "writes", dictionary.writes)
    return dict(zip(map(str, hooks), y.split([hook.width for hook in hooks], dim=-1), strict=True))


def direction(dictionary: Dictionary, feature: int, hook: Hook | str | None = None) -> Float[Tensor, " W"]:
    """The part of a feature's decoder row that is written at a hook point; which, need not be said where there is one.

    Raises InterpError when there is no such feature or hook point, and when none of several is named.
    """
    row = dictionary.W_dec[check_feature(feature, dictionary.d_sae, dictionary.name)]
    if hook is None:
        return row[: one_written(dictionary, "a direction without its hook point").width]
    first = 0
    for written in dictionary.writes:
        if str(written) == str(hook):
            return row[first : first + written.width]
        first += written.width
    raise unknown(f"hook point that {dictionary.name} writes", hook, dictionary.writes)


# What a dictionary can do is asked of it here; whoever needs it and has it not says why by these errors.


def reads_what_it_writes(dictionary: Dictionary) -> bool:
    """Whether its reconstruction can stand in the place of what it reads (SAEs and crosscoders).

    Hook points without names are taken for the same where they are of one width.
    """
    return dictionary.reads == dictionary.writes


def one_read(dictionary: Dictionary, what: str) -> Hook:
    """The one hook point that it reads; InterpError, naming `what` needs it, when there are several."""
    return _one(dictionary.name, "reads", dictionary.reads, what)


def one_written(dictionary: Dictionary, what: str) -> Hook:
    """The one hook point that it writes; InterpError, naming `what` needs it, when there are several."""
    return _one(dictionary.name, "writes", dictionary.writes, what)


def one_hook(dictionary: Dictionary, what: str) -> Hook:
    """The one hook point that it both reads and writes; InterpError, naming `what` needs it, for any other dictionary."""
    read = one_read(dictionary, what)
    if not reads_what_it_writes(dictionary):
        raise InterpError(
            f"{dictionary.name} reads {read} and writes {_list(dictionary.writes)}; {what} needs a dictionary that writes "
            "what it reads, which SAEs do."
        )
    return read


def _one(name: str, does: str, hooks: tuple[Hook, ...], what: str) -> Hook:
    if len(hooks) > 1:
        raise InterpError(f"{name} {does} {_list(hooks)}; {what} needs a dictionary that {does} one hook point.")
    return hooks[0]


def _list(names: Sequence[Hook] | Mapping[str, Tensor]) -> str:
    return ", ".join(str(name) or "a hook point without a name" for name in names) or "nothing"


def _named(name: str, does: str, hooks: tuple[Hook, ...]) -> tuple[Hook, ...]:
    """The hook points, when their names tell them apart."""
    if len({str(hook) for hook in hooks}) < len(hooks):
        raise InterpError(
            f"{name} {does} {len(hooks)} hook points that have no names of their own yet; name them (`SAE.set_hooks`)."
        )
    return hooks


def with_widths(hooks: tuple[Hook, ...], widths: Sequence[int]) -> tuple[Hook, ...]:
    """Hook points with these widths; as many without names where the names are not as many. No widths: as they are."""
    if not widths:
        return hooks
    named = hooks if len(hooks) == len(widths) else (Hook(""),) * len(widths)
    return tuple(replace(hook, width=width) for hook, width in zip(named, widths, strict=True))


def fit(hooks: tuple[Hook, ...], total: int, before: tuple[Hook, ...], said: str) -> tuple[Hook, ...]:
    """The hook points with every width filled in: as told, else as before, else what the others leave of `total`.

    None given stand for as many as before, without names. `said` begins the InterpError when the widths do not add up to `total`.
    """
    hooks = hooks or (Hook(""),) * max(len(before), 1)
    if len(hooks) == len(before):
        hooks = tuple(h if h.width else replace(h, width=b.width) for h, b in zip(hooks, before, strict=True))
    missing = [hook for hook in hooks if not hook.width]
    if len(missing) == 1:
        rest = total - sum(hook.width for hook in hooks)
        hooks = tuple(hook if hook.width else replace(hook, width=rest) for hook in hooks)
    if sum(hook.width for hook in hooks) != total or min(hook.width for hook in hooks) < 1:
        widths = ", ".join(f"{_list([hook])} of width {hook.width or 'unknown'}" for hook in hooks)
        raise InterpError(f"{said} rows of width {total}, which {widths} do not make; give each `Hook` its width.")
    return hooks
