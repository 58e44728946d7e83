"""From edits as they are written to functions that the model calls at its hook points.

Axes    B prompt, T token, D d_in, R row: 1 when every prompt has the same edits, else B.

Every edit is one formula: x moves along `write` by  kept · now + held + share · ‖x‖,  times the mask. `now` is what the
read side says: the feature's activation, or the length along a direction (Orthogonal).

    Clamp       -now + strength        Scale       (strength - 1) · now        Ablate, Orthogonal   -now
    Add         strength, or strength · ‖x‖ along the unit row
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.models import Edit, Site
from interp.sae import SAE
from interp.steering.edits import (
    Ablate,
    Add,
    Clamp,
    Direction,
    FeatureEdit,
    Hooked,
    Orthogonal,
    Saes,
    Scale,
    check_edit,
    hook_of,
    hooked,
    matches,
    number,
    row,
)
from interp.types import FeatureRef, InterpError

Vocabulary = Callable[[], Sequence[str]]


@dataclass(frozen=True, eq=False)
class _Read:
    """What is known of a position: each row's activation of its feature, or its length along a direction."""

    W_RD: Float[Tensor, "R D"]
    b_R: Float[Tensor, " R"]
    threshold_R: Float[Tensor, " R"] | None
    centre_D: Float[Tensor, " D"] | None
    whole: tuple[SAE, Tensor] | None = None
    """(SAE, feature of each row) where one feature's activation needs the whole code (topk) or is more than a cut (tanh)."""

    def now(self, x_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B T"]:
        if self.whole is not None:
            sae, features_R = self.whole
            index = features_R.expand(len(x_BTD))[:, None, None].expand(-1, x_BTD.shape[1], 1)
            return sae.encode(x_BTD).gather(2, index.to(sae.device))[..., 0].to(x_BTD.device)
        u_BTD = x_BTD if self.centre_D is None else x_BTD - self.centre_D
        pre = u_BTD @ self.W_RD[0] if len(self.W_RD) == 1 else (u_BTD @ self.W_RD[:, :, None])[..., 0]
        if self.threshold_R is None:
            return pre
        pre = pre + self.b_R[:, None]
        return pre * (pre > self.threshold_R[:, None])


@dataclass(frozen=True, eq=False)
class _Gate:
    """The condition of a step; read at its own hook point, perhaps an earlier one than the step's."""

    read: _Read
    above_R: Float[Tensor, " R"]
    hook_name: str
    passed: dict[str, Tensor]
    """What the earlier hook point left for this pass."""

    def open(self, x_BTD: Tensor) -> Bool[Tensor, "B T"]:
        return self.read.now(x_BTD) > self.above_R[:, None]


@dataclass(frozen=True, eq=False)
class _Step:
    """One edit of each row, where rows differ in numbers and directions only."""

    read: _Read | None
    kept_R: Float[Tensor, " R"]
    held_R: Float[Tensor, " R"]
    share_R: Float[Tensor, " R"] | None
    write_RD: Float[Tensor, "R D"]
    where: Callable[[Site], Tensor | None]
    include_masked: bool
    gate: _Gate | None

    def move(self, x_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B T"]:
        """By how much each position moves along its row's direction."""
        move = self.held_R[:, None].expand(x_BTD.shape[:2])
        if self.read is not None:
            move = move + self.kept_R[:, None] * self.read.now(x_BTD)
        if self.share_R is not None:
            move = move + self.share_R[:, None] * x_BTD.norm(dim=-1)
        return move


Part = TypeVar("Part", bound=_Read | _Gate | _Step)


def _on(part: Part, device: torch.device) -> Part:
    """The same with its tensors on the device (an SAE stays where it is, and moves what it reads)."""
    moved: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            moved[field.name] = value.to(device)
        elif isinstance(value, (_Read, _Gate)):
            moved[field.name] = _on(value, device)
    return replace(part, **moved)


def model_edit(edit: FeatureEdit, sae: SAE, *, norm_cutoff: float, separator: int) -> Edit:
    """One edit of a feature of `sae`, as the model takes it. Sinks and padding are never moved.

    Raises InterpError when the strength is not finite or the SAE has no such feature.
    """
    (made,) = compile_edits([[edit]], {"": Hooked(sae, norm_cutoff, separator)})
    return made


def compile_edits(
    rows: Sequence[Sequence[FeatureEdit]],
    saes: Saes,
    *,
    order: Sequence[str] = (),
    vocabulary: Vocabulary | None = None,
) -> list[Edit]:
    """The edits as the model takes them, one for each hook point; `rows` has one list for all prompts, or one each.

    `order` names the hook points in the order in which they fire, needed only for a condition that is read at another
    hook point than its edit's. `vocabulary` gives the tokens' texts, for places that are regular expressions.
    Raises InterpError when an edit cannot be made.
    """
    for edits in rows:
        for edit in edits:
            check_edit(edit, saes)
    steps: dict[str, list[_Step]] = {}
    for place in range(max(map(len, rows), default=0)):
        groups: dict[object, list[FeatureEdit | None]] = {}
        for at, edits in enumerate(rows):
            if place < len(edits):
                key = _likeness(edits[place], saes)
                groups.setdefault(key, [None] * len(rows))[at] = edits[place]
        for members in groups.values():
            one = next(edit for edit in members if edit is not None)
            steps.setdefault(hook_of(one, saes), []).append(_step(members, saes, vocabulary))
    return _edits(steps, saes, rows, order)


def _edits(
    steps: dict[str, list[_Step]], saes: Saes, rows: Sequence[Sequence[FeatureEdit]], order: Sequence[str]
) -> list[Edit]:
    """One Edit a hook point; conditions read at another hook point get a reader there, ahead of the edits."""
    readers, made = [], []
    for hook_name, at_hook in steps.items():
        for step in at_hook:
            if step.gate is not None and step.gate.hook_name != hook_name:
                _check_order(step.gate.hook_name, hook_name, order)
                readers.append(Edit(step.gate.hook_name, _reader(step.gate)))
        cutoff, separator = _mask(hook_name, saes, rows)
        made.append(Edit(hook_name, _applier(at_hook, hook_name, cutoff, separator)))
    return readers + made


def _check_order(read: str, written: str, order: Sequence[str]) -> None:
    if read in order and written in order and list(order).index(read) < list(order).index(written):
        return
    raise InterpError(
        f"the condition is read at {read}, which the model reaches after {written}; name a feature of an earlier layer."
    )


def _mask(hook_name: str, saes: Saes, rows: Sequence[Sequence[FeatureEdit]]) -> tuple[float, int]:
    """(norm cut-off, separator) of a hook point: those of the SAE there, or of the direction."""
    for home in saes.values():
        if home.hook_name == hook_name:
            return home.norm_cutoff, home.separator
    own = next(iter(saes.values()))
    for edits in rows:
        for edit in edits:
            if isinstance(edit.feature, Direction) and edit.feature.hook_name == hook_name:
                return edit.feature.norm_cutoff, own.separator
    raise AssertionError(hook_name)


def _reader(gate: _Gate) -> Callable[[Tensor, Site], Tensor]:
    def keep(x_BTD: Tensor, site: Site) -> Tensor:
        gate.passed["open"] = _on(gate, x_BTD.device).open(x_BTD.float())
        return x_BTD

    return keep


def _applier(
    steps: Sequence[_Step], hook_name: str, norm_cutoff: float, separator: int
) -> Callable[[Tensor, Site], Tensor]:
    placed: dict[torch.device, list[_Step]] = {}

    def apply(x_BTD: Float[Tensor, "B T D"], site: Site) -> Float[Tensor, "B T D"]:
        if x_BTD.device not in placed:  # the model's, which need not be the SAEs'
            placed[x_BTD.device] = [_on(step, x_BTD.device) for step in steps]
        before = x = x_BTD.float()
        plain_BT = editable(before, site, norm_cutoff, separator)
        moved_BT = None
        for step in placed[x_BTD.device]:
            keep_BT = site.real_BT if step.include_masked else plain_BT
            here = step.where(site)
            if here is not None:
                keep_BT = keep_BT & here
            if step.gate is not None:
                local = step.gate.hook_name == hook_name
                opened = step.gate.open(before) if local else step.gate.passed["open"].to(x.device)
                keep_BT = keep_BT & opened
            move_BT = step.move(x) * keep_BT
            x = x + move_BT[..., None] * step.write_RD[:, None]
            changed = move_BT != 0
            moved_BT = changed if moved_BT is None else moved_BT | changed
        assert moved_BT is not None
        # Where nothing moves the tensor keeps its very bits.
        return torch.where(moved_BT[..., None], x.to(x_BTD.dtype), x_BTD)

    return apply


def editable(x_BTD: Float[Tensor, "B T D"], site: Site, norm_cutoff: float, separator: int) -> Bool[Tensor, "B T"]:
    """Positions that an edit may touch: no padding, no first position, no separator, no sink."""
    real = site.real_BT & (site.position_BT > 0) & (site.tokens_BT != separator)
    return real & (x_BTD.float().norm(dim=-1) <= norm_cutoff)


# ---- building a step ----


def _likeness(edit: FeatureEdit, saes: Saes) -> object:
    """Edits of several rows share a step when this is equal."""
    gate = None
    if edit.when is not None:
        source = edit.feature if edit.when.feature is None else edit.when.feature
        gate = source.sae if isinstance(source, FeatureRef) else ""
    reads = "direction" if isinstance(edit, Orthogonal) else "nothing" if isinstance(edit, Add) else "feature"
    home = edit.feature.sae if isinstance(edit.feature, FeatureRef) else ""
    return hook_of(edit, saes), home, reads, edit.where, edit.include_masked, gate, getattr(edit, "unit", "")


def _step(members: Sequence[FeatureEdit | None], saes: Saes, vocabulary: Vocabulary | None) -> _Step:
    one = next(edit for edit in members if edit is not None)
    kept, held, share, writes = [], [], [], []
    nothing = torch.zeros_like(row(one.feature, saes))
    for edit in members:
        k, h, s, w = (0.0, 0.0, 0.0, nothing) if edit is None else _numbers(edit, saes)
        kept.append(k)
        held.append(h)
        share.append(s)
        writes.append(w)
    device = _device(saes)

    def rows(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    return _Step(
        read=None
        if isinstance(one, Add)
        else _read([e and e.feature for e in members], saes, isinstance(one, Orthogonal)),
        kept_R=rows(kept),
        held_R=rows(held),
        share_R=rows(share) if any(share) else None,
        write_RD=torch.stack(writes),
        where=_where(one.where, vocabulary),
        include_masked=one.include_masked,
        gate=_gate(members, saes),
    )


def _device(saes: Saes) -> torch.device:
    return next(iter(saes.values())).sae.device


def _numbers(edit: FeatureEdit, saes: Saes) -> tuple[float, float, float, Tensor]:
    """(kept, held, share, write) of the formula at the head of this file."""
    write = row(edit.feature, saes)
    if edit.along is not None:
        other = row(edit.along, saes)
        write = other * (write.norm() / other.norm())
    if isinstance(edit, Clamp):
        return -1.0, float(edit.strength), 0.0, write
    if isinstance(edit, Scale):
        return float(edit.strength) - 1.0, 0.0, 0.0, write
    if isinstance(edit, Ablate):
        return -1.0, 0.0, 0.0, write
    if isinstance(edit, Orthogonal):
        return -1.0, 0.0, 0.0, write / write.norm()
    assert isinstance(edit, Add)
    if edit.unit == "residual":
        return 0.0, 0.0, float(edit.strength), write / write.norm()
    return 0.0, float(edit.strength), 0.0, write


def _read(sources: Sequence[object], saes: Saes, along: bool) -> _Read:
    """The read side of features (or, `along`, of directions); rows without an edit read what another one does."""
    one = next(source for source in sources if source is not None)
    filled = [one if source is None else source for source in sources]
    device = _device(saes)
    if along:
        rows_RD = torch.stack([row(source, saes) for source in filled])  # type: ignore[arg-type]
        return _Read(rows_RD / rows_RD.norm(dim=1, keepdim=True), torch.zeros(len(filled), device=device), None, None)
    home = hooked(one, saes)  # type: ignore[arg-type]
    assert home is not None
    sae = home.sae
    features = torch.tensor([number(source) for source in filled], device=sae.device)  # type: ignore[arg-type]
    return _Read(
        W_RD=sae.W_enc[:, features].T.contiguous(),
        b_R=sae.b_enc[features],
        threshold_R=None if sae.threshold is None else sae.threshold[features],
        centre_D=sae.b_dec if sae.centred else None,
        whole=(sae, features) if sae.threshold is None or sae.tanh else None,
    )


def _gate(members: Sequence[FeatureEdit | None], saes: Saes) -> _Gate | None:
    found = [None if edit is None or edit.when is None else edit.when for edit in members]
    if not any(found):
        return None
    sources = [
        None if edit is None or when is None else edit.feature if when.feature is None else when.feature
        for edit, when in zip(members, found, strict=True)
    ]
    one = next(source for source in sources if source is not None)
    home = hooked(one, saes)
    assert home is not None
    above = torch.tensor([when.above if when else 0.0 for when in found], device=_device(saes))
    return _Gate(_read(sources, saes, False), above, home.hook_name, {})


def _where(where: str, vocabulary: Vocabulary | None) -> Callable[[Site], Tensor | None]:
    """Which positions of a pass the place means; None for all of them."""
    if where == "all":
        return lambda site: None
    if where in ("prompt", "generated"):
        asked = where == "generated"
        return lambda site: site.generated_BT == asked
    if where.startswith("from:"):
        first = int(where[5:])

        def after(site: Site) -> Tensor:
            return site.position_BT >= (first if first >= 0 else site.prompt_B[:, None] + first)

        return after
    if vocabulary is None:
        raise InterpError(f"{where} needs the tokens' texts, which were not given.")
    hits_V = torch.tensor(matches(where[7:-1], list(vocabulary())))
    return lambda site: hits_V.to(site.tokens_BT.device)[site.tokens_BT]
