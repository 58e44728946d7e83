"""Edits of features, as they are written down: what to change, where, and under which condition.

Units   A strength is an SAE activation, the same number that the index stores.
Order   Edits at one hook point act one after the other as they are listed, each on what the former left; conditions are
        read before the first of them. Hook points act in the order in which the model runs them.
Source  Templeton et al. 2024, "Scaling Monosemanticity", feature steering: the SAE's error is kept, because only the
        difference between the wanted and the present activation is decoded.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from typing import Any

import duckdb
import torch
from torch import Tensor

from interp.sae import SAE
from interp.types import FeatureRef, InterpError, check_feature, unknown

PLACES = ("all", "prompt", "generated", "from:I", "token:/REGEX/")
UNITS = ("activation", "residual")
NEAR = 0.5
"""Two features' decoder rows with a larger cosine are named as a conflict."""
LARGEST = 1e9
"""Strengths and entries of directions beyond this are refused: no activation comes near, and float32 must hold products."""


@dataclass(frozen=True, kw_only=True)
class Direction:
    """A direction at a hook point that no SAE gave, such as a difference of means."""

    name: str
    hook_name: str
    vector: tuple[float, ...]
    norm_cutoff: float
    """Positions with a larger norm are sinks."""


Source = int | FeatureRef | Direction


@dataclass(frozen=True, kw_only=True)
class When:
    """A condition: the feature's activation at the same position is above `above`. None is the edited feature itself."""

    above: float
    feature: int | FeatureRef | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureEdit:
    """What all edits have; an int names a feature of the workbench's SAE, a FeatureRef one of any."""

    feature: Source
    where: str = "all"
    """`all`, `prompt`, `generated`, `from:I` (the prompt's position I and what follows; counted from its end when
    negative), or `token:/REGEX/` (RE2, found in the token's own text)."""
    when: When | None = None
    include_masked: bool = False
    """Also at sinks, separators and the first position."""
    along: Source | None = None
    """For controls: the same amount along another direction, scaled to the norm of the feature's row."""


@dataclass(frozen=True, kw_only=True)
class Clamp(FeatureEdit):
    """Hold the feature at an activation."""

    strength: float


@dataclass(frozen=True, kw_only=True)
class Add(FeatureEdit):
    """Add this much of the feature's decoder row, whatever its activation.

    `unit` says of what: `activation` (the row as it is), or `residual` (the row at the norm of the residual stream
    at that position).
    """

    strength: float
    unit: str = "activation"


@dataclass(frozen=True, kw_only=True)
class Scale(FeatureEdit):
    """Multiply the feature's activation."""

    strength: float


@dataclass(frozen=True, kw_only=True)
class Ablate(FeatureEdit):
    """Set the feature's activation to 0."""


@dataclass(frozen=True, kw_only=True)
class Orthogonal(FeatureEdit):
    """Remove the part of the activations that lies along the feature's decoder row."""


KINDS: dict[str, type[FeatureEdit]] = {kind.__name__: kind for kind in (Clamp, Add, Scale, Ablate, Orthogonal)}


@dataclass(frozen=True, eq=False)
class Hooked:
    """An SAE where its features are edited, with the mask of its training."""

    sae: SAE
    norm_cutoff: float
    separator: int
    sha256: str = ""
    """Of its weights, for the record."""

    @property
    def hook_name(self) -> str:
        return self.sae.hook_name


Saes = Mapping[str, Hooked]
"""By the name a FeatureRef uses; the empty name is the workbench's own."""


def hooked(source: Source, saes: Saes) -> Hooked | None:
    """The SAE a feature belongs to; None for a direction."""
    if isinstance(source, Direction):
        return None
    name = source.sae if isinstance(source, FeatureRef) else ""
    if name not in saes:
        raise unknown("SAE opened under the name", name, saes)
    return saes[name]


def number(source: int | FeatureRef) -> int:
    return source.feature if isinstance(source, FeatureRef) else int(source)


def hook_of(edit: FeatureEdit, saes: Saes) -> str:
    """The hook point at which the edit acts."""
    if isinstance(edit.feature, Direction):
        return edit.feature.hook_name
    home = hooked(edit.feature, saes)
    assert home is not None
    return home.hook_name


def row(source: Source, saes: Saes) -> Tensor:
    """The direction written along, of shape (d_in,): a decoder row, or the direction's own vector; wherever it was made,
    on the device of the first SAE."""
    device = next(iter(saes.values())).sae.device
    if isinstance(source, Direction):
        return torch.tensor(source.vector, device=device)
    home = hooked(source, saes)
    assert home is not None
    return home.sae.W_dec[number(source)].to(device)


def check_edit(edit: FeatureEdit, saes: Saes) -> None:
    """Raises InterpError when the edit cannot be made: no such feature, a strength that is not finite or beyond
    `LARGEST`, no such place, directions of unlike widths."""
    _check_types(edit)
    for source in (edit.feature, edit.along, edit.when.feature if edit.when else None):
        if source is not None:
            _check_source(source, saes)
    label = describe_source(edit.feature)
    if isinstance(edit.feature, Direction) and not isinstance(edit, (Add, Orthogonal)):
        raise InterpError(f"{label} has no activation to {type(edit).__name__.lower()}; use Add or Orthogonal.")
    if edit.when is not None and edit.when.feature is None and isinstance(edit.feature, Direction):
        raise InterpError(f"{label} has no activation, so the condition must name a feature.")
    for value in (getattr(edit, "strength", 0.0), edit.when.above if edit.when else 0.0):
        check_strength(value, label)
    if isinstance(edit, Add) and edit.unit not in UNITS:
        raise unknown("unit of a strength", edit.unit, UNITS)
    check_where(edit.where)
    _check_widths(edit, saes)


def check_strength(value: Any, label: str) -> None:
    """Raises InterpError when a strength is no number, not finite, or too large to mean anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InterpError(f"the strength {value} of {label} is not finite; give a number such as 8.0.")
    if abs(value) > LARGEST:
        raise InterpError(f"the strength {value:g} of {label} is beyond {LARGEST:g}; give a number such as 8.0.")


def _check_types(edit: FeatureEdit) -> None:
    """Raises InterpError when a field holds something else than it should, as hand-written files may."""
    for source in (edit.feature, edit.along, edit.when.feature if edit.when else None):
        if isinstance(source, Direction):
            named = isinstance(source.name, str) and isinstance(source.hook_name, str)
            right = named and isinstance(source.norm_cutoff, (int, float)) and source.norm_cutoff >= 0
        else:
            plain = source.feature if isinstance(source, FeatureRef) else source
            right = source is None or (isinstance(plain, Integral) and not isinstance(plain, bool))
            right = right and isinstance(getattr(source, "sae", ""), str)
        if not right or edit.feature is None:
            raise InterpError(f"{source!r} is no feature; give its number, a FeatureRef or a Direction.")
    if not isinstance(edit.where, str):
        raise unknown("place to edit", edit.where, PLACES)
    if not isinstance(edit.include_masked, bool):
        raise InterpError(f"include_masked is {edit.include_masked!r}; it is true or false.")


def _check_widths(edit: FeatureEdit, saes: Saes) -> None:
    """Raises InterpError when a direction is not as wide as the workbench's SAE at its hook point, or as its `along`."""
    label, width, own = describe_source(edit.feature), len(row(edit.feature, saes)), saes.get("")
    if own is not None and own.hook_name == hook_of(edit, saes) and own.sae.d_in != width:
        raise InterpError(
            f"{label} has width {width}, and {own.sae.name} at {own.hook_name} has {own.sae.d_in}; "
            "was it made for another model or hook point?"
        )
    if edit.along is not None and (other := len(row(edit.along, saes))) != width:
        raise InterpError(
            f"{describe_source(edit.along)} has width {other}, and {label} has {width}; "
            "an edit can only act along a direction of the same width."
        )


def _check_source(source: Source, saes: Saes) -> None:
    if isinstance(source, Direction):
        vector = torch.tensor(source.vector)
        if not len(vector) or not bool((vector.abs() <= LARGEST).all()) or not bool(vector.any()):
            raise InterpError(
                f"{describe_source(source)} must be finite and not 0, no entry beyond {LARGEST:g}; were the two sets of texts the same?"
            )
        return
    home = hooked(source, saes)
    assert home is not None
    check_feature(number(source), home.sae.d_sae, home.sae.name)


def check_where(where: str) -> None:
    """Raises InterpError when the place cannot be read."""
    if where in PLACES[:3] or re.fullmatch(r"from:-?\d+", where):
        return
    if where.startswith("token:/") and where.endswith("/") and len(where) > 8:
        matches(where[7:-1], [""])
        return
    raise unknown("place to edit", where, PLACES)


def matches(regex: str, texts: Sequence[str]) -> list[bool]:
    """Which texts the regular expression is found in, by RE2 (DuckDB's): no backtracking, so none can hang."""
    with duckdb.connect() as db:
        try:
            found = db.execute("SELECT regexp_matches(unnest(?), ?)", [list(texts), regex]).fetchall()
        except duckdb.Error as error:
            raise InterpError(
                f"/{regex}/ is no regular expression RE2 takes ({str(error).splitlines()[0]}); lookaround and "
                "backreferences do not exist there."
            ) from None
    return [bool(each) for (each,) in found]


def check_positions(edits: Sequence[FeatureEdit], prompts: Sequence[Sequence[int]]) -> None:
    """Raises InterpError when an edit begins outside one of the prompts."""
    for edit in edits:
        if not edit.where.startswith("from:"):
            continue
        first = int(edit.where[5:])
        shortest = min(map(len, prompts), default=0)
        if not -shortest <= first < shortest:
            raise InterpError(
                f"{describe(edit)} begins outside the prompt, which has positions 0 to {shortest - 1}; choose one of them."
            )


# ---- conflicts ----


def conflicts(edits: Sequence[FeatureEdit], saes: Saes) -> list[str]:
    """Sentences on edits that undo or disturb each other; the later one has the last word."""
    found = []
    for place, later in enumerate(edits):
        for former in edits[:place]:
            sentence = _conflict(former, later, saes)
            if sentence:
                found.append(sentence)
    return found


def _conflict(former: FeatureEdit, later: FeatureEdit, saes: Saes) -> str:
    apart = {former.where, later.where} == {"prompt", "generated"}
    if apart or hook_of(former, saes) != hook_of(later, saes):
        return ""
    if _same(former.feature, later.feature, saes):
        if isinstance(later, (Clamp, Ablate)):
            return f"{describe(later)} undoes the earlier {describe(former)} wherever both act."
        return f"{describe(later)} acts on what the earlier {describe(former)} left."
    cosine = float(torch.nn.functional.cosine_similarity(row(former.feature, saes), row(later.feature, saes), dim=0))
    if abs(cosine) <= NEAR:
        return ""
    return f"{describe(later)} disturbs the earlier {describe(former)}: their directions have a cosine of {cosine:.2f}."


def _same(a: Source, b: Source, saes: Saes) -> bool:
    """Whether two names mean one feature: an SAE can be named in several ways, and its weights tell."""
    one, other = hooked(a, saes), hooked(b, saes)
    if one is None or other is None or isinstance(a, Direction) or isinstance(b, Direction):
        return a == b
    same_sae = one is other or (one.sha256 != "" and one.sha256 == other.sha256)
    return same_sae and number(a) == number(b)


# ---- as text and as JSON ----


def describe_source(source: Source) -> str:
    return f"the direction {source.name!r}" if isinstance(source, Direction) else f"feature {source}"


def describe(edit: FeatureEdit) -> str:
    """The edit in a few words, such as `Clamp 8 on feature 11 at generated`."""
    strength = f" {edit.strength:g}" if hasattr(edit, "strength") else ""
    unit = " residual norms" if isinstance(edit, Add) and edit.unit == "residual" else ""
    words = f"{type(edit).__name__}{strength}{unit} on {describe_source(edit.feature)}"
    if edit.where != "all":
        words += f" at {edit.where}"
    if edit.when is not None:
        of = "it" if edit.when.feature is None else f"feature {edit.when.feature}"
        words += f" while {of} is above {edit.when.above:g}"
    return words


def to_dict(edit: FeatureEdit) -> dict[str, Any]:
    """The edit as JSON takes it; fields at their default are left out, but `where`."""
    out: dict[str, Any] = {"kind": type(edit).__name__}
    plain = {"when": None, "include_masked": False, "along": None, "unit": "activation"}
    for field in fields(edit):
        value = getattr(edit, field.name)
        if field.name in plain and value == plain[field.name]:
            continue
        out[field.name] = asdict(value) if isinstance(value, (Direction, FeatureRef, When)) else value
    order = ["kind", "feature", "strength", "where"]
    return {key: out[key] for key in sorted(out, key=lambda key: (order + sorted(out)).index(key))}


def from_dict(given: Any) -> FeatureEdit:
    """The edit that `to_dict` wrote; InterpError when it is none."""
    if not isinstance(given, Mapping):
        raise InterpError(
            f'{given!r} is no edit; one is written {{"kind": "Clamp", "feature": 1234, "strength": 8.0}}.'
        )
    rest = dict(given)
    kind = str(rest.pop("kind", ""))
    if kind not in KINDS:
        raise unknown("edit", kind, KINDS)
    try:
        for key in ("feature", "along"):
            if key in rest:
                rest[key] = _source(rest[key])
        if rest.get("when") is not None:
            when = dict(rest["when"])
            of = when.get("feature")
            rest["when"] = When(**{**when, "feature": None if of is None else _source(of)})
        edit = KINDS[kind](**rest)
    except (TypeError, KeyError, ValueError) as error:
        raise InterpError(f"an edit {kind} cannot be read from {dict(given)}: {error}.") from None
    _check_types(edit)
    return edit


def _source(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "vector" in value:
            return Direction(**{**value, "vector": tuple(float(x) for x in value["vector"])})
        return FeatureRef(**value)
    return value
