"""Edits bound to the SAEs they name: every name looked up and every number checked once, before any model is opened.

A transcoder's feature is read at what the transcoder reads and written at what it writes; a crosscoder's is read at
several hook points and written at several. A direction is written at its hook point, and has no activation.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from interp.mask import Mask
from interp.sae import SAE
from interp.steering.edits import (
    UNITS,
    Add,
    Direction,
    FeatureEdit,
    Named,
    Orthogonal,
    check_types,
    check_where,
    describe_feature,
)
from interp.types import FeatureRef, InterpError, check_feature, unknown

LARGEST = 1e9
"""Strengths and entries of directions beyond this are refused: no activation comes near, and float32 must hold products."""


@dataclass(frozen=True, eq=False)
class Hooked:
    """An SAE where its features are edited, with the mask of its training."""

    sae: SAE
    norm_cutoff: float | Mapping[str, float]
    """Of norms at the first hook point that it reads, or by hook point (`Card.mask`)."""
    separator: int
    sha256: str = ""
    """Of its weights, for the record."""

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Names of the hook points that it reads."""
        return tuple(map(str, self.sae.reads))

    @cached_property
    def writes(self) -> tuple[str, ...]:
        """Names of the hook points that it writes."""
        return tuple(map(str, self.sae.writes))

    @property
    def sinks(self) -> "Sinks":
        """What it was not trained on."""
        of = self.norm_cutoff
        cutoffs = of if isinstance(of, Mapping) else {self.reads[0]: of}
        return Sinks(tuple((name, cutoffs[name]) for name in self.reads if name in cutoffs), self.separator)

    def vectors(self, row: Tensor) -> dict[str, Tensor]:
        """A row as wide as what it writes, by hook point."""
        widths = [hook.width for hook in self.sae.writes]
        return dict(zip(self.writes, row.split(widths), strict=True))


@dataclass(frozen=True)
class Sinks:
    """Positions that an edit leaves alone: separators, the first, and norms above the cut-off at a hook point."""

    cutoffs: tuple[tuple[str, float], ...]
    """(hook point, cut-off) in the order in which they are read; at least one."""
    separator: int

    @property
    def hook_name(self) -> str:
        """The first hook point."""
        return self.cutoffs[0][0]

    @property
    def norm_cutoff(self) -> float:
        """At the first hook point."""
        return self.cutoffs[0][1]

    def mask(self, hook_name: str = "") -> Mask:
        """At every hook point; with `hook_name`, at the first and that one, which is what a pass knows there."""
        known = dict(self.cutoffs)
        return Mask(known if not hook_name else {k: v for k, v in known.items() if k in (self.hook_name, hook_name)})


Saes = Mapping[str, Hooked]
"""By the name a FeatureRef uses; the empty name is the workbench's own."""


@dataclass(frozen=True, eq=False)
class Feature:
    """A feature that was looked up: its SAE, and its number there."""

    home: Hooked
    number: int


@dataclass(frozen=True, eq=False)
class BoundEdit:
    """An edit that can be made, as far as its SAEs know, with all that it names."""

    edit: FeatureEdit
    feature: Feature | None
    """None of a direction."""
    gate: Feature | None
    """The feature of its condition."""
    vector: Tensor
    """Its decoder row, or the direction's own vector."""
    rows: dict[str, Tensor]
    """What a unit of it is at each hook point that it acts at."""
    along: dict[str, Tensor]
    """What is written in place of each row: the row itself, unless the edit is a control."""
    sinks: Sinks

    @property
    def hook_names(self) -> tuple[str, ...]:
        """Where it writes."""
        return tuple(self.rows)

    @property
    def label(self) -> str:
        """What it is of, in words."""
        return describe_feature(self.edit.feature)


def beside(rows: Mapping[str, Tensor]) -> Tensor:
    """The vectors of several hook points as one."""
    return next(iter(rows.values())) if len(rows) == 1 else torch.cat(list(rows.values()))


def bind(edit: FeatureEdit, saes: Saes) -> BoundEdit:
    """The edit with all that it names.

    Raises InterpError when it cannot be made: no such feature, a strength that is not finite or beyond `LARGEST`, no such
    place, directions of unlike widths, an activation or a unit that there is none of.
    """
    check_types(edit)
    feature, when = _find(edit.feature, saes), edit.when
    label = describe_feature(edit.feature)
    other = None if edit.along is None else _find(edit.along, saes)
    gate = feature if when is None or when.feature is None else _find(when.feature, saes)
    if feature is None and not isinstance(edit, (Add, Orthogonal)):
        raise InterpError(f"{label} has no activation to {type(edit).__name__.lower()}; use Add or Orthogonal.")
    if when is not None and when.feature is None and feature is None:
        raise InterpError(f"{label} has no activation, so the condition must name a feature.")
    for value in (getattr(edit, "strength", 0.0), when.above if when else 0.0):
        check_strength(value, label)
    if isinstance(edit, Add) and edit.unit not in UNITS:
        raise unknown("unit of a strength", edit.unit, UNITS)
    check_where(edit.where)
    vector = _vector(edit.feature, feature, saes)
    parts = _apart(vector, edit.feature, feature)
    # A feature of several hook points need not write at each.
    rows = {name: row for name, row in parts.items() if len(parts) == 1 or bool(row.any())} or parts
    _check_width(label, rows, saes)
    along = rows
    if edit.along is not None:
        beyond = _scaled(_vector(edit.along, other, saes), vector, edit)
        along = {name: row for name, row in _apart(beyond, edit.feature, feature).items() if name in rows}
    if len(rows) > 1 and isinstance(edit, Add) and edit.unit == "residual":
        raise InterpError(f"{label} writes {', '.join(rows)}, whose norms differ; give its strength as an activation.")
    return BoundEdit(edit, feature, gate if when else None, vector, rows, along, _sinks(edit.feature, feature, saes))


def bind_all(edits: Sequence[FeatureEdit | BoundEdit], saes: Saes) -> list[BoundEdit]:
    """Each edit bound (see `bind`), and those that are already as they are; one that comes several times is bound once."""
    known: dict[int, BoundEdit] = {}
    for edit in edits:
        if id(edit) not in known:
            known[id(edit)] = edit if isinstance(edit, BoundEdit) else bind(edit, saes)
    return [known[id(edit)] for edit in edits]


def check_strength(value: object, label: str) -> None:
    """Raises InterpError when a strength is no number, not finite, or too large to mean anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InterpError(f"the strength {value} of {label} is not finite; give a number such as 8.0.")
    if abs(value) > LARGEST:
        raise InterpError(f"the strength {value:g} of {label} is beyond {LARGEST:g}; give a number such as 8.0.")


def find_home(feature: int | FeatureRef, saes: Saes) -> Hooked:
    """The SAE a feature belongs to; InterpError when none is open under its name."""
    name = feature.sae if isinstance(feature, FeatureRef) else ""
    if name not in saes:
        raise unknown("SAE opened under the name", name, saes)
    return saes[name]


def number(feature: int | FeatureRef) -> int:
    """Its number in its SAE."""
    return feature.feature if isinstance(feature, FeatureRef) else int(feature)


def _find(named: Named, saes: Saes) -> Feature | None:
    """The feature; None for a direction. Raises InterpError when there is no such feature, or nothing to write along."""
    if isinstance(named, Direction):
        vector = torch.tensor(named.vector)
        if not len(vector) or not bool((vector.abs() <= LARGEST).all()) or not bool(vector.any()):
            raise InterpError(
                f"{describe_feature(named)} must be finite and not 0, no entry beyond {LARGEST:g}; were the two sets of texts the same?"
            )
        return None
    home = find_home(named, saes)
    several = [str(hook) for hook in (*home.sae.reads, *home.sae.writes) if hook.model]
    if several:
        raise InterpError(f"{home.sae.name} reads several models ({', '.join(several)}), and edits are made in one.")
    return Feature(home, check_feature(number(named), home.sae.d_sae, home.sae.name))


def _device(saes: Saes) -> torch.device:
    """Of the first SAE: wherever rows were made, they meet there."""
    return next(iter(saes.values())).sae.device


def _vector(named: Named, feature: Feature | None, saes: Saes) -> Tensor:
    """What a unit writes: a decoder row, or the direction's own vector."""
    if feature is not None:
        return feature.home.sae.W_dec[feature.number].to(_device(saes))
    assert isinstance(named, Direction)
    return torch.tensor(named.vector, device=_device(saes))


def _apart(vector: Tensor, named: Named, feature: Feature | None) -> dict[str, Tensor]:
    """The vector by hook point."""
    if feature is not None:
        return feature.home.vectors(vector)
    assert isinstance(named, Direction)
    return {named.hook_name: vector}


def _scaled(other: Tensor, vector: Tensor, edit: FeatureEdit) -> Tensor:
    """The direction of a control at the norm of the edit's own; InterpError when it has another width."""
    assert edit.along is not None
    if len(other) != len(vector):
        raise InterpError(
            f"{describe_feature(edit.along)} has width {len(other)}, and {describe_feature(edit.feature)} has {len(vector)}; "
            "an edit can only act along a direction of the same width."
        )
    return other * (vector.norm() / other.norm())


def _check_width(label: str, rows: dict[str, Tensor], saes: Saes) -> None:
    """Raises InterpError when a direction is not as wide as the workbench's SAE at its hook point."""
    own = saes.get("")
    for written in own.sae.writes if own is not None else ():
        row = rows.get(str(written))
        if own is not None and row is not None and len(row) != written.width:
            raise InterpError(
                f"{label} has width {len(row)}, and {own.sae.name} at {written} has {written.width}; "
                "was it made for another model or hook point?"
            )


def _sinks(named: Named, feature: Feature | None, saes: Saes) -> Sinks:
    if isinstance(named, Direction):
        return Sinks(((named.hook_name, named.norm_cutoff),), next(iter(saes.values())).separator)
    assert feature is not None
    return feature.home.sinks
