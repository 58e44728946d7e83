"""Plots as inline SVG, which a page shows without scripts and without fetching anything; every string is escaped."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from interp.render.html import Html

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a00", "#7f7f7f")
"""Told apart by people who see few colours (Okabe and Ito 2008, the yellow darkened), on light and on dark ground."""
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 14, 46
TICKS = 5


@dataclass(frozen=True)
class Point:
    """A place in a plot, and the ends of its interval where it has one."""

    x: float
    y: float
    interval: tuple[float, float] | None = None
    says: str = ""
    """Shown when the pointer is on it."""


def curves_svg(
    curves: Mapping[str, Sequence[Point]],
    title: str,
    x_title: str,
    y_title: str,
    *,
    log_x: bool = False,
    width: int = 620,
    height: int = 340,
) -> Html:
    """Each curve's points in their order with a line between them, intervals as bars, the names beside a mark below."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return Html(f"<p>{html.escape(title)}: there is nothing to draw.</p>")
    ends = [end for p in points for end in (p.y, *(p.interval or ()))]
    across = _Axis([p.x for p in points], LEFT, width - RIGHT, log_x)
    up = _Axis(ends, height - BOTTOM, TOP, log=False)
    parts = [_frame(across, up, x_title, y_title, width, height)]
    for number, curve in enumerate(curves.values()):
        parts.append(_curve(curve, across, up, number))
    head = (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape(title)}" font-size="12" fill="currentColor">'
    )
    names = "".join(f"<span>{_key(number)} {html.escape(name)}</span> &nbsp; " for number, name in enumerate(curves))
    return Html(
        f"<figure style='margin:0'><b>{html.escape(title)}</b>{head}{''.join(parts)}</svg><p>{names}</p></figure>"
    )


class _Axis:
    """Where values lie between two places of the picture."""

    def __init__(self, values: Sequence[float], first: float, last: float, log: bool) -> None:
        self.log = log and min(values) > 0
        low, high = min(values), max(values)
        self._of: Callable[[float], float] = math.log if self.log else float
        pad = 0.06 * (self._of(high) - self._of(low)) or (0.1 if self.log else 0.1 * abs(low) or 1.0)
        self.low, self.high = self._of(low) - pad, self._of(high) + pad
        self.first, self.last = first, last
        self.values = sorted(set(values))

    def at(self, value: float) -> float:
        """The place of a value."""
        return self.first + (self._of(value) - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        """Round values to write beside the axis."""
        if self.log:
            low, high = math.exp(self.low), math.exp(self.high)
            doubled = [2.0**n for n in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
            return doubled if len(doubled) >= 2 else [self.values[0], *self.values[1:][-1:]]
        rough = (self.high - self.low) / TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
        return [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _frame(across: _Axis, up: _Axis, x_title: str, y_title: str, width: int, height: int) -> str:
    """Axes with their ticks and titles."""
    base, parts = height - BOTTOM, []
    for value in across.ticks():
        x = across.at(value)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 4}" stroke="currentColor"/>')
        parts.append(f'<text x="{x:.1f}" y="{base + 17}" text-anchor="middle">{value:.4g}</text>')
    for value in up.ticks():
        y = up.at(value)
        parts.append(
            f'<line x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" opacity=".15"/>'
        )
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{0.0 if abs(value) < 1e-12 else value:.4g}</text>'
        )
    parts.append(f'<path d="M{LEFT} {TOP}V{base}H{width - RIGHT}" fill="none" stroke="currentColor"/>')
    middle = (LEFT + width - RIGHT) / 2, (TOP + base) / 2
    parts.append(f'<text x="{middle[0]:.0f}" y="{height - 8}" text-anchor="middle">{html.escape(x_title)}</text>')
    parts.append(
        f'<text transform="translate(13 {middle[1]:.0f}) rotate(-90)" text-anchor="middle">{html.escape(y_title)}</text>'
    )
    return "".join(parts)


def _curve(curve: Sequence[Point], across: _Axis, up: _Axis, number: int) -> str:
    colour = COLOURS[number % len(COLOURS)]
    line = " ".join(f"{across.at(p.x):.1f},{up.at(p.y):.1f}" for p in curve)
    parts = [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'] if len(curve) > 1 else []
    for point in curve:
        x, y = across.at(point.x), up.at(point.y)
        if point.interval is not None:
            low, high = (up.at(end) for end in point.interval)
            parts.append(
                f'<path d="M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8" '
                f'stroke="{colour}" fill="none"/>'
            )
        parts.append(_mark(x, y, number, f"<title>{html.escape(point.says)}</title>"))
    return "".join(parts)


def _mark(x: float, y: float, number: int, inside: str = "") -> str:
    """A mark of the curve's own colour and form, so that neither is needed alone."""
    colour = COLOURS[number % len(COLOURS)]
    forms = (
        f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
        f"M{x - 4:.1f} {y - 4:.1f}h8v8h-8z",
        f"M{x:.1f} {y - 5:.1f}l5 9h-10z",
        f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z",
    )
    return f'<path d="{forms[number % len(forms)]}" fill="{colour}">{inside}</path>'


def _key(number: int) -> str:
    style = "display:inline;margin:0;vertical-align:-1px"
    return f'<svg width="14" height="12" style="{style}" aria-hidden="true">{_mark(7, 6, number)}</svg>'
