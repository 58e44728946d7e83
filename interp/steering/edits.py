"""Edits of features, as they are written down: what to change, where, and under which condition.

Units   A strength is an SAE activation, the same number that the index stores.
Order   Edits at one hook point act one after the other as they are listed, each on what the former left; conditions are
        read before the first of them. Hook points act in the order in which the model runs them.
Source  Templeton et al. 2024, "Scaling Monosemanticity", feature steering: the SAE's error is kept, because only the
        difference between the wanted and the present activation is decoded.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from typing import Any

import duckdb

from interp.types import FeatureRef, InterpError, unknown

PLACES = ("all", "prompt", "generated", "from:I", "token:/REGEX/")
UNITS = ("activation", "residual")


@dataclass(frozen=True, kw_only=True)
class Direction:
    """A direction at a hook point that no SAE gave, such as a difference of means."""

    name: str
    hook_name: str
    vector: tuple[float, ...]
    norm_cutoff: float
    """Positions with a larger norm are sinks."""


Named = int | FeatureRef | Direction
"""What an edit may name: a feature of the workbench's SAE, one of any SAE, or a direction."""


@dataclass(frozen=True, kw_only=True)
class When:
    """A condition: the feature's activation at the same position is above `above`. None is the edited feature itself."""

    above: float
    feature: int | FeatureRef | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureEdit:
    """What all edits have; an int names a feature of the workbench's SAE, a FeatureRef one of any."""

    feature: Named
    where: str = "all"
    """`all`, `prompt`, `generated`, `from:I` (the prompt's position I and what follows; counted from its end when
    negative), or `token:/REGEX/` (RE2, found in the token's own text)."""
    when: When | None = None
    include_masked: bool = False
    """Also at sinks, separators and the first position."""
    along: Named | None = None
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


# ---- what can be seen of an edit by itself ----


def check_types(edit: FeatureEdit) -> None:
    """Raises InterpError when a field holds something else than it should, as hand-written files may."""
    for named in (edit.feature, edit.along, edit.when.feature if edit.when else None):
        if isinstance(named, Direction):
            texts = isinstance(named.name, str) and isinstance(named.hook_name, str)
            right = texts and isinstance(named.norm_cutoff, (int, float)) and named.norm_cutoff >= 0
        else:
            number = named.feature if isinstance(named, FeatureRef) else named
            right = named is None or (isinstance(number, Integral) and not isinstance(number, bool))
            right = right and isinstance(getattr(named, "sae", ""), str)
        if not right or edit.feature is None:
            raise InterpError(f"{named!r} is no feature; give its number, a FeatureRef or a Direction.")
    if not isinstance(edit.where, str):
        raise unknown("place to edit", edit.where, PLACES)
    if not isinstance(edit.include_masked, bool):
        raise InterpError(f"include_masked is {edit.include_masked!r}; it is true or false.")


def check_where(where: str) -> None:
    """Raises InterpError when the place cannot be read."""
    if where in PLACES[:3] or re.fullmatch(r"from:-?\d+", where):
        return
    if where.startswith("token:/") and where.endswith("/") and len(where) > 8:
        matches(where[7:-1], [""])
        return
    raise unknown("place to edit", where, PLACES)


def matches(regex: str, texts: Sequence[str]) -> list[bool]:
    """Which texts the regular expression is found in, by RE2 (DuckDB's): no backtracking, so none can hang.

    Raises InterpError when RE2 does not take it.
    """
    with duckdb.connect() as db:
        try:
            hits = db.execute("SELECT regexp_matches(unnest(?), ?)", [list(texts), regex]).fetchall()
        except duckdb.Error as error:
            raise InterpError(
                f"/{regex}/ is no regular expression RE2 takes ({str(error).splitlines()[0]}); lookaround and "
                "backreferences do not exist there."
            ) from None
    return [bool(each) for (each,) in hits]


def check_positions(edits: Iterable[FeatureEdit], prompts: Sequence[Sequence[int]]) -> None:
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


# ---- as text and as JSON ----


def describe_feature(named: Named) -> str:
    """What an edit names, in words."""
    return f"the direction {named.name!r}" if isinstance(named, Direction) else f"feature {named}"


def describe(edit: FeatureEdit) -> str:
    """The edit in a few words, such as `Clamp 8 on feature 11 at generated`."""
    strength = f" {edit.strength:g}" if hasattr(edit, "strength") else ""
    unit = " residual norms" if isinstance(edit, Add) and edit.unit == "residual" else ""
    words = f"{type(edit).__name__}{strength}{unit} on {describe_feature(edit.feature)}"
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


def from_dict(given: object) -> FeatureEdit:
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
                rest[key] = _named(rest[key])
        if rest.get("when") is not None:
            when = dict(rest["when"])
            of = when.get("feature")
            rest["when"] = When(**{**when, "feature": None if of is None else _named(of)})
        edit = KINDS[kind](**rest)
    except (TypeError, KeyError, ValueError) as error:
        raise InterpError(f"an edit {kind} cannot be read from {dict(given)}: {error}.") from None
    check_types(edit)
    return edit


def _named(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "vector" in value:
            return Direction(**{**value, "vector": tuple(float(x) for x in value["vector"])})
        return FeatureRef(**value)
    return value
