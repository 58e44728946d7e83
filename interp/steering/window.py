"""The strengths at which a feature moves the text and the text stays text: the window in which steering with it is of use."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from interp.steering.verdict import DOUBLE, fluent

Figure = tuple[float, float, float]
CONTROLS = ("random features", "noise")


@runtime_checkable
class MovedText(Protocol):
    """What a window needs of a sweep's point."""

    @property
    def factor(self) -> float: ...
    @property
    def strength(self) -> float: ...
    @property
    def shift(self) -> Figure: ...
    @property
    def perplexity_ratio(self) -> Figure: ...
    @property
    def loops(self) -> Figure: ...


@dataclass(frozen=True, kw_only=True)
class Window:
    """Both ends among the strengths that were tried, or none."""

    factors: tuple[float, float] | None
    """Lowest and highest, as multiples of the feature's largest activation."""
    strengths: tuple[float, float] | None
    moves: list[float]
    """Every factor at which the feature moves the output."""
    fluent: list[float]
    """Every factor at which the text stays text."""
    sentence: str


def find_window(series: Mapping[str, Sequence[MovedText]], unsteered_loops: float) -> Window:
    """The longest stretch of tried strengths above 0 at which both hold (of equals, the weakest).

    A feature moves the text where the shift's interval lies above that of twice as likely and above the mean shift of
    every control of the same strength; text stays text by the verdict's rule (`verdict.fluent`).
    """
    points = sorted((p for p in series["feature"] if p.factor > 0), key=lambda p: p.factor)
    moves = [p.factor for p in points if p.shift[1] > max([DOUBLE, *_controls(series, p.factor)])]
    stays = [p.factor for p in points if fluent(p.perplexity_ratio, p.loops[0] - unsteered_loops)]
    best: list[MovedText] = []
    held: list[MovedText] = []
    for point in points:
        held = [*held, point] if point.factor in moves and point.factor in stays else []
        best = held if len(held) > len(best) else best
    ends = (best[0], best[-1]) if best else None
    return Window(
        factors=(ends[0].factor, ends[1].factor) if ends else None,
        strengths=(ends[0].strength, ends[1].strength) if ends else None,
        moves=moves,
        fluent=stays,
        sentence=_sentence(points, ends, moves, stays, any(name in series for name in CONTROLS)),
    )


def _controls(series: Mapping[str, Sequence[MovedText]], factor: float) -> list[float]:
    shifts = [p.shift[0] for name in CONTROLS for p in series.get(name, ()) if p.factor == factor]
    return [shift for shift in shifts if not math.isnan(shift)]


def _sentence(
    points: Sequence[MovedText],
    ends: tuple[MovedText, MovedText] | None,
    moves: list[float],
    stays: list[float],
    controlled: bool,
) -> str:
    tried = ", ".join(f"{p.factor:g}" for p in points)
    if not points:
        return "Window: none, for no strength above 0 was tried."
    beyond = "" if controlled else " (without controls to compare with)"
    if ends is None:
        at = {
            name: ", ".join(f"{f:g}" for f in factors) or "none"
            for name, factors in (("moves", moves), ("text", stays))
        }
        return (
            f"Window: none. Of the strengths tried ({tried} times its largest activation) the feature moves the text at "
            f"{at['moves']}{beyond}, and the text stays text at {at['text']}."
        )
    low, high = ends
    return (
        f"Window: from {low.factor:g} to {high.factor:g} times its largest activation ({low.strength:.3g} to "
        f"{high.strength:.3g}), of {tried} tried, the feature moves the text{beyond} and the text stays text."
    )
