"""From bound edits to functions that the model calls at its hook points.

Axes    R row: 1 when every prompt has the same edits, else one a prompt; D width read, W width written.

Of the formula in `apply`, (kept, held, share) and what is written along:

    Clamp       (-1, strength, 0)         Scale       (strength - 1, 0, 0)        Ablate, Orthogonal   (-1, 0, 0)
    Add         (0, strength, 0), or (0, 0, strength) along the unit row where the unit is `residual`
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models import Edit, Site
from interp.sae import SAE
from interp.steering.apply import Gate, Reading, Step, make_applier, make_reader
from interp.steering.binding import BoundEdit, Feature, Hooked, Saes, bind_all
from interp.steering.edits import Ablate, Add, Clamp, FeatureEdit, Orthogonal, Scale, matches
from interp.types import FeatureRef, InterpError

Vocabulary = Callable[[], Sequence[str]]


@dataclass(frozen=True, eq=False)
class Compiled:
    """Edits as the model takes them, and what a pass without edits must have read before."""

    edits: list[Edit]
    clean_hooks: tuple[str, ...] = ()
    _clean: dict[str, Tensor] = field(default_factory=dict)

    def after(self, activations: Mapping[str, Tensor]) -> list[Edit]:
        """The edits, once the activations (B, T, D) of the pass without edits are known at `clean_hooks`."""
        self._clean.update({name: activations[name].float() for name in self.clean_hooks})
        return self.edits


def model_edit(edit: FeatureEdit, sae: SAE, *, norm_cutoff: float, separator: int) -> Edit:
    """One edit of a feature of `sae`, as the model takes it. Sinks and padding are never moved.

    Raises InterpError when the strength is not finite, the SAE has no such feature, or it reads and writes different hook
    points (`compile_edits` then gives several).
    """
    made = compile_edits([[edit]], {"": Hooked(sae, norm_cutoff, separator)})
    if len(made) > 1:
        raise InterpError(f"an edit of {sae.name} acts at several hook points; use compile_edits.")
    return made[0]


def compile_edits(
    rows: Sequence[Sequence[FeatureEdit]],
    saes: Saes,
    *,
    order: Sequence[str] = (),
    vocabulary: Vocabulary | None = None,
) -> list[Edit]:
    """The edits as the model takes them, one for each hook point; `rows` has one list for all prompts, or one each.

    `order` names the hook points in the order in which they fire, needed only for what is read at another hook point
    than it is written. `vocabulary` gives the tokens' texts, for places that are regular expressions.
    Raises InterpError when an edit cannot be made, or needs a pass of its own first (`SteeredModel.compile` runs it).
    """
    bound = iter(bind_all([edit for edits in rows for edit in edits], saes))
    made = compile_bound([[next(bound) for _ in edits] for edits in rows], order=order, vocabulary=vocabulary)
    if made.clean_hooks:
        raise InterpError(needs_a_pass(made.clean_hooks))
    return made.edits


def needs_a_pass(hooks: Sequence[str]) -> str:
    """Why an edit cannot be made of a text that has not been read."""
    return (
        f"an activation at {', '.join(hooks)} is read from a pass of its own over the whole text, before the edited one, so "
        "it cannot be edited while text is generated; add to the feature instead (Add), or use effects and single passes."
    )


def compile_bound(
    rows: Sequence[Sequence[BoundEdit]], *, order: Sequence[str] = (), vocabulary: Vocabulary | None = None
) -> Compiled:
    """Bound edits as the model takes them (see `compile_edits`)."""
    at_hook: dict[str, list[Step]] = {}
    for place in range(max(map(len, rows), default=0)):
        groups: dict[object, list[BoundEdit | None]] = {}
        for at, edits in enumerate(rows):
            if place < len(edits):
                groups.setdefault(_likeness(edits[place]), [None] * len(rows))[at] = edits[place]
        for members in groups.values():
            for hook_name, step in _steps(members, order, vocabulary).items():
                at_hook.setdefault(hook_name, []).append(step)
    return _edits(at_hook, order)


def _edits(at_hook: dict[str, list[Step]], order: Sequence[str]) -> Compiled:
    """One Edit a hook point; what is read at another hook point gets a reader there, ahead of the edits."""
    readers: list[Edit] = []
    appliers: list[Edit] = []
    passed: dict[str, Tensor] = {}
    clean: dict[str, Tensor] = {}
    clean_hooks: dict[str, None] = {}
    for hook_name, steps in at_hook.items():
        for step in steps:
            for read in step.elsewhere(hook_name):
                _check_order(read, hook_name, order)
                if not any(edit.hook_name == read for edit in readers):
                    readers.append(Edit(read, make_reader(read, passed)))
            if step.clean and step.read is not None:
                clean_hooks |= dict.fromkeys(step.read.hooks)
        appliers.append(Edit(hook_name, make_applier(steps, hook_name, passed, clean)))
    return Compiled(readers + appliers, tuple(clean_hooks), clean)


def _is_before(read: str, written: str, order: Sequence[str]) -> bool:
    return read in order and written in order and list(order).index(read) < list(order).index(written)


def _check_order(read: str, written: str, order: Sequence[str]) -> None:
    if not _is_before(read, written, order):
        raise InterpError(
            f"what the edit depends on is read at {read}, which the model reaches after {written}; name a feature of an "
            "earlier layer."
        )


# ---- building a step ----


def _likeness(bound: BoundEdit) -> object:
    """Edits of several rows share a step when this is equal."""
    edit, gate = bound.edit, None
    if edit.when is not None:
        named = edit.feature if edit.when.feature is None else edit.when.feature
        gate = named.sae if isinstance(named, FeatureRef) else ""
    reads = "direction" if isinstance(edit, Orthogonal) else "nothing" if isinstance(edit, Add) else "feature"
    home = edit.feature.sae if isinstance(edit.feature, FeatureRef) else ""
    unit = getattr(edit, "unit", "")
    return bound.hook_names, home, reads, edit.where, edit.include_masked, bound.sinks, gate, unit


def _steps(members: Sequence[BoundEdit | None], order: Sequence[str], vocabulary: Vocabulary | None) -> dict[str, Step]:
    """The step at each hook point that these rows' edits write."""
    one = next(bound for bound in members if bound is not None)
    where, gate, read = _where(one.edit.where, vocabulary), _gate(members), None
    if isinstance(one.edit, (Clamp, Scale, Ablate)):
        read = _read_feature([bound.feature if bound else None for bound in members])
    clean = read is not None and not _is_passed(read.hooks, one.hook_names, order)
    steps = {}
    for hook_name in one.hook_names:
        along = _read_along(members, hook_name) if isinstance(one.edit, Orthogonal) else read
        numbers = [_numbers(bound, hook_name, one) for bound in members]
        steps[hook_name] = Step(
            read=along,
            kept_R=_row([n.kept for n in numbers], one),
            held_R=_row([n.held for n in numbers], one),
            share_R=_row([n.share for n in numbers], one) if any(n.share for n in numbers) else None,
            write_RW=torch.stack([n.write for n in numbers]),
            where=where,
            sinks=None if one.edit.include_masked else one.sinks,
            gate=gate,
            clean=clean,
        )
    return steps


def is_read_before(bound: BoundEdit, order: Sequence[str]) -> bool:
    """Whether a pass has read all that the edit needs of its feature by the time that it writes."""
    if bound.feature is None or isinstance(bound.edit, (Add, Orthogonal)):
        return True
    return _is_passed(bound.feature.home.reads, bound.hook_names, order)


def _is_passed(read: Sequence[str], written: Sequence[str], order: Sequence[str]) -> bool:
    """Whether at every hook point that is written, all that is read has been passed or is there."""
    return all(name == here or _is_before(name, here, order) for here in written for name in read)


def _row(values: list[float], one: BoundEdit) -> Float[Tensor, " R"]:
    return torch.tensor(values, dtype=torch.float32, device=one.vector.device)


class _Numbers(NamedTuple):
    """Of the formula at the head of this file."""

    kept: float
    held: float
    share: float
    write: Float[Tensor, " W"]


def _numbers(bound: BoundEdit | None, hook_name: str, one: BoundEdit) -> _Numbers:
    """Of a row's edit at a hook point; zeros for a row without the edit."""
    if bound is None:
        return _Numbers(0.0, 0.0, 0.0, torch.zeros_like(one.rows[hook_name]))
    edit, write = bound.edit, bound.along[hook_name]
    if isinstance(edit, Clamp):
        return _Numbers(-1.0, float(edit.strength), 0.0, write)
    if isinstance(edit, Scale):
        return _Numbers(float(edit.strength) - 1.0, 0.0, 0.0, write)
    if isinstance(edit, Ablate):
        return _Numbers(-1.0, 0.0, 0.0, write)
    if isinstance(edit, Orthogonal):
        return _Numbers(-1.0, 0.0, 0.0, write / write.norm())
    assert isinstance(edit, Add)
    if edit.unit == "residual":
        return _Numbers(0.0, 0.0, float(edit.strength), write / write.norm())
    return _Numbers(0.0, float(edit.strength), 0.0, write)


def _read_along(members: Sequence[BoundEdit | None], hook_name: str) -> Reading:
    """The length along each row's own direction at a hook point; rows without an edit read what another one does."""
    one = next(bound.rows[hook_name] for bound in members if bound is not None)
    rows_RD = torch.stack([one if bound is None else bound.rows[hook_name] for bound in members])
    zeros_R = torch.zeros(len(members), device=one.device)
    return Reading((hook_name,), rows_RD / rows_RD.norm(dim=1, keepdim=True), zeros_R, None, None, None)


def _read_feature(features: Sequence[Feature | None]) -> Reading:
    """Each row's activation of its feature, all of one SAE; rows without an edit read what another one does."""
    one = next(feature for feature in features if feature is not None)
    sae = one.home.sae
    numbers_R = torch.tensor([(feature or one).number for feature in features], device=sae.device)
    return Reading(
        hooks=one.home.reads,
        W_RD=sae.W_enc[:, numbers_R].T.contiguous(),
        b_R=sae.b_enc[numbers_R],
        threshold_R=None if sae.threshold is None else sae.threshold[numbers_R],
        centre_D=sae.b_dec if sae.centred else None,
        sae=sae,
        whole_R=numbers_R if sae.threshold is None or sae.tanh else None,
    )


def _gate(members: Sequence[BoundEdit | None]) -> Gate | None:
    gates = [bound.gate if bound else None for bound in members]
    if not any(gates):
        return None
    one = next(bound for bound in members if bound is not None)
    above = [bound.edit.when.above if bound and bound.edit.when else 0.0 for bound in members]
    above_R = torch.tensor(above, device=one.vector.device)
    return Gate(_read_feature(gates), above_R)


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
