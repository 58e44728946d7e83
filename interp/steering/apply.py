"""Compiled edits at work: what the model calls at its hook points.

Axes    B prompt, T token, D width read, W width written, R row: 1 when every prompt has the same edits, else B.

Every edit is one formula: x moves along `write` by  kept · now + held + share · ‖x‖,  times the mask. `now` is what the
read side says: the feature's activation, or the length along a direction (Orthogonal). `compiling` has each kind's numbers.

What is read at other hook points than it is written is kept from there as the pass comes by, before any edit of that hook
point. Where the pass has not been there yet (a crosscoder's later hook points), a pass without edits is run first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.mask import Mask, own_tokens
from interp.models import Site
from interp.sae import SAE, join
from interp.steering.binding import Sinks


@dataclass(frozen=True, eq=False)
class Reading:
    """What is known of a position: each row's activation of its feature, or its length along a direction."""

    hooks: tuple[str, ...]
    """Where it is read; all but directions' (which are read where they are written) by one SAE."""
    W_RD: Float[Tensor, "R D"]
    b_R: Float[Tensor, " R"]
    threshold_R: Float[Tensor, " R"] | None
    centre_D: Float[Tensor, " D"] | None
    sae: SAE | None
    """None of a direction."""
    whole_R: Tensor | None = None
    """The feature of each row, where its activation needs the whole code (topk) or is more than a cut (tanh)."""

    def now(self, x_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B T"]:
        """The activation (or length) at each position, from what stands at `hooks` side by side."""
        if self.whole_R is not None:
            assert self.sae is not None
            index = self.whole_R.expand(len(x_BTD))[:, None, None].expand(-1, x_BTD.shape[1], 1)
            return self.sae.encode(x_BTD).gather(2, index.to(self.sae.device))[..., 0].to(x_BTD.device)
        u_BTD = x_BTD if self.centre_D is None else x_BTD - self.centre_D
        pre = u_BTD @ self.W_RD[0] if len(self.W_RD) == 1 else (u_BTD @ self.W_RD[:, :, None])[..., 0]
        if self.threshold_R is None:
            return pre
        pre = pre + self.b_R[:, None]
        return pre * (pre > self.threshold_R[:, None])


@dataclass(frozen=True, eq=False)
class Gate:
    """The condition of a step."""

    read: Reading
    above_R: Float[Tensor, " R"]


@dataclass(frozen=True, eq=False)
class Step:
    """One edit of each row at one hook point, where rows differ in numbers and directions only."""

    read: Reading | None
    kept_R: Float[Tensor, " R"]
    held_R: Float[Tensor, " R"]
    share_R: Float[Tensor, " R"] | None
    write_RW: Float[Tensor, "R W"]
    where: Callable[[Site], Tensor | None]
    sinks: Sinks | None
    """None: masked positions are moved too."""
    gate: Gate | None
    clean: bool = False
    """Whether it is read from the pass without edits."""

    def elsewhere(self, hook_name: str) -> list[str]:
        """The hook points that must have been passed before this one: those of the condition, of the mask, and of what
        is read unless that is clean."""
        read = self.read.hooks if self.read is not None and not self.clean else ()
        gate = self.gate.read.hooks if self.gate is not None else ()
        mask = (self.sinks.hook_name,) if self.sinks is not None and not self.clean else ()
        return [name for name in dict.fromkeys((*gate, *mask, *read)) if name != hook_name]


Part = TypeVar("Part", bound=Reading | Gate | Step)


def _on(part: Part, device: torch.device) -> Part:
    """The same with its tensors on the device (an SAE stays where it is, and moves what it reads)."""
    moved: dict[str, Any] = {}
    for each in fields(part):
        value = getattr(part, each.name)
        if isinstance(value, Tensor):
            moved[each.name] = value.to(device)
        elif isinstance(value, (Reading, Gate)):
            moved[each.name] = _on(value, device)
    return replace(part, **moved)


def make_reader(hook_name: str, passed: dict[str, Tensor]) -> Callable[[Tensor, Site], Tensor]:
    """What keeps in `passed` what passes a hook point, and changes nothing."""

    def keep(x_BTD: Tensor, site: Site) -> Tensor:
        passed[hook_name] = x_BTD.float()
        return x_BTD

    return keep


def make_applier(
    steps: Sequence[Step], hook_name: str, passed: dict[str, Tensor], clean: dict[str, Tensor]
) -> Callable[[Tensor, Site], Tensor]:
    """What makes the steps at a hook point, one after the other, from what `passed` and `clean` hold of others."""
    placed: dict[torch.device, list[Step]] = {}

    def apply(x_BTD: Float[Tensor, "B T W"], site: Site) -> Float[Tensor, "B T W"]:
        if x_BTD.device not in placed:  # the model's, which need not be the SAEs'
            placed[x_BTD.device] = [_on(step, x_BTD.device) for step in steps]
        before = x = x_BTD.float()
        here: Mapping[str, Tensor] = {**passed, hook_name: before}
        masks: dict[object, Tensor] = {}
        moved_BT = None
        for step in placed[x_BTD.device]:
            move_BT = _move(step, x, hook_name, here, clean) * _touched(step, site, hook_name, here, clean, masks)
            x = x + move_BT[..., None] * step.write_RW[:, None]
            changed = move_BT != 0
            moved_BT = changed if moved_BT is None else moved_BT | changed
        assert moved_BT is not None
        # Where nothing moves the tensor keeps its very bits.
        return torch.where(moved_BT[..., None], x.to(x_BTD.dtype), x_BTD)

    return apply


def _touched(
    step: Step,
    site: Site,
    hook_name: str,
    here: Mapping[str, Tensor],
    clean: Mapping[str, Tensor],
    masks: dict[object, Tensor],
) -> Bool[Tensor, "B T"]:
    """The positions that the step may move."""
    keep_BT = site.real_BT
    if step.sinks is not None:
        key = step.sinks, step.clean
        if key not in masks:
            mask = step.sinks.mask("" if step.clean else hook_name)
            x = {name: _columns(clean[name], site) if step.clean else here[name] for name in mask.cutoffs}
            masks[key] = mask.counted(x, own_positions(site, step.sinks.separator))
        keep_BT = masks[key]
    where_BT = step.where(site)
    if where_BT is not None:
        keep_BT = keep_BT & where_BT
    if step.gate is not None:
        keep_BT = keep_BT & (_now(step.gate.read, here, step.gate.above_R.device) > step.gate.above_R[:, None])
    return keep_BT


def _move(
    step: Step, x_BTW: Tensor, hook_name: str, here: Mapping[str, Tensor], clean: Mapping[str, Tensor]
) -> Float[Tensor, "B T"]:
    """By how much each position moves along its row's direction; an activation read here is that after earlier edits."""
    move_BT = step.held_R[:, None].expand(x_BTW.shape[:2])
    if step.read is not None:
        if step.clean:  # a family that reads its padding is given a part of the columns, the last ones
            read = {name: clean[name][:, -x_BTW.shape[1] :] for name in step.read.hooks}
        else:
            read = {**here, hook_name: x_BTW}
        move_BT = move_BT + step.kept_R[:, None] * _now(step.read, read, x_BTW.device)
    if step.share_R is not None:
        move_BT = move_BT + step.share_R[:, None] * x_BTW.norm(dim=-1)
    return move_BT


def _now(read: Reading, x: Mapping[str, Tensor], device: torch.device) -> Float[Tensor, "B T"]:
    if len(read.hooks) == 1:
        return read.now(x[read.hooks[0]].to(device))
    assert read.sae is not None
    return read.now(join(read.sae, {name: x[name].to(device) for name in read.hooks}))


def _columns(x_BTW: Tensor, site: Site) -> Tensor:
    """Those of a whole text that a pass sees, the last ones."""
    return x_BTW[:, -site.real_BT.shape[1] :]


def own_positions(site: Site, separator: int) -> Bool[Tensor, "B T"]:
    """Positions of texts' own tokens: no padding, no first position, no separator."""
    return site.real_BT & own_tokens(site.tokens_BT, separator, site.position_BT)


def editable(x_BTD: Float[Tensor, "B T D"], site: Site, norm_cutoff: float, separator: int) -> Bool[Tensor, "B T"]:
    """Positions that an edit may touch: own tokens that are no sinks."""
    return Mask({"": norm_cutoff}).counted({"": x_BTD}, own_positions(site, separator))
