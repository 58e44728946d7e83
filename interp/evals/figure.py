"""What a measure gives: figures, each with its interval and what it was counted over, in one section of a report.

A measure is a file of this room with one function that returns a `Section`. Figures are plain numbers, so that a report
can be kept as JSON, compared with that of a null and with another SAE's, and read by people.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Better = Literal["higher", "lower", ""]
"""Which way a figure is better; "" where neither is."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number, and how far it may be trusted."""

    name: str
    """Short, unique in its section: `fvu`, `auroc_k5`."""
    says: str
    """What it is, in words, with its unit."""
    value: float | None
    """None where it cannot be said; `note` says why."""
    interval: tuple[float, float] | None = None
    """95 %, over the units that `n` counts; None where there is a single unit, or the figure has no sampling error."""
    n: int
    """How many units it was counted over."""
    unit: str
    """What those are: documents, tasks, features, seeds, tokens."""
    better: Better = ""
    note: str = ""
    """What a reader has to know before using it, in one sentence."""

    def __post_init__(self) -> None:
        # JSON has no nan, and a figure that cannot be said must say why.
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "value", None)
            object.__setattr__(self, "note", self.note or "not a finite number")
        if self.interval is not None and not all(math.isfinite(end) for end in self.interval):
            object.__setattr__(self, "interval", None)


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one measure found."""

    name: str
    """The measure's: that of its file."""
    title: str
    figures: tuple[Figure, ...]
    rows: tuple[Mapping[str, Any], ...] = ()
    """A table under the figures, such as a row a task: plain values, the same keys in each."""
    of: Mapping[str, Any] = field(default_factory=dict)
    """What it was measured on and how: text, hash of its tokens, seed, versions; enough to do it again."""
    seconds: float = 0.0

    def __getitem__(self, name: str) -> Figure:
        return next(figure for figure in self.figures if figure.name == name)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Section":
        """Of what `to_dict` gave, also by way of JSON."""
        figures = tuple(
            Figure(**{**one, "interval": None if one["interval"] is None else tuple(one["interval"])})
            for one in value["figures"]
        )
        return cls(**{**value, "figures": figures, "rows": tuple(value["rows"])})


# ---- read by people ----


def number(value: float | None, figure: Figure | None = None) -> str:
    """A figure as people read it: shares to a tenth of a percent, counts with their thousands."""
    if value is None:
        return "cannot be said"
    if figure is not None and is_share(figure):
        return f"{value:.1%}"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def is_share(figure: Figure) -> bool:
    """Whether it is a share of what it counts, to be read in percent."""
    value, says = figure.value, figure.says.lower()
    return value is not None and 0 <= value <= 1 and says.startswith("share")


def interval(figure: Figure) -> str:
    """`.1 to .2`; empty where there is none."""
    return "" if figure.interval is None else " to ".join(number(end, figure) for end in figure.interval)
