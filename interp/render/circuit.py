"""A circuit as a drawing: positions from left to right, layers from below, an edge a line; every string is escaped.

`place_dots` gives the places, which the dashboard's own drawing takes too. What is drawn is said in words by whoever shows it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from interp.render.html import Html, visible
from interp.render.tag import join, tag

FOR, AGAINST = "#0072b2", "#d55e00"
"""Edges that raise what they lead to, and those that lower it (dashed besides); told apart by people who see few colours."""
SLOT, ROW, LEFT, FOOT, TOP = 12.0, 21.0, 46, 92, 12
WIDEST = 9
"""Dots of a layer that stand side by side at one position; more share their room."""
LINES = 400
"""Edges that are drawn, the strongest first: more are a carpet."""
LETTERS = 14


@dataclass(frozen=True)
class Dot:
    """A node of a circuit as it is drawn."""

    position: int
    layer: int
    """-1 of a token, the number of layers of a logit."""
    kind: str
    """feature, error, token or logit."""
    size: float
    """0 to 1."""
    says: str
    pinned: bool = False


Line = tuple[int, int, float]
"""(source, target, effect); the first two are numbers of dots."""


def place_dots(dots: Sequence[Dot], positions: int) -> tuple[list[tuple[float, float]], list[float]]:
    """Where each dot stands, in widths of a dot and layers (tokens at -1), and the middle of each position's column.

    A column is as wide as its fullest layer needs.
    """
    full = Counter((dot.position, dot.layer) for dot in dots)
    need = [1] * positions
    for (position, _), count in full.items():
        need[position] = max(need[position], min(count, WIDEST))
    starts, x = [], 0.0
    for count in need:
        starts.append(x)
        x += count + 0.6
    seen: Counter[tuple[int, int]] = Counter()
    placed = []
    for dot in dots:
        here = (dot.position, dot.layer)
        count, width = full[here], need[dot.position]
        step = min(1.0, width / count)
        middle = starts[dot.position] + width / 2
        placed.append((middle + (seen[here] - (count - 1) / 2) * step, float(dot.layer)))
        seen[here] += 1
    return placed, [start + count / 2 for start, count in zip(starts, need, strict=True)]


def strongest_lines(lines: Sequence[Line], most: int = LINES) -> list[Line]:
    """The edges of largest effect, the weakest of them first, so that the strongest lie on top."""
    return sorted(lines, key=lambda line: -abs(line[2]))[:most][::-1]


def circuit_svg(
    words: Sequence[str], dots: Sequence[Dot], lines: Sequence[Line], *, layers: Sequence[str], says: str
) -> Html:
    """The drawing as inline SVG; `layers` are their names, from below, and `says` is what it shows, in words. Of more than LINES edges the strongest are drawn."""
    placed, columns = place_dots(dots, len(words))
    width = LEFT + SLOT * (max((x for x, _ in placed), default=0) + 2)
    base = TOP + ROW * (len(layers) + 1)

    def at(place: tuple[float, float]) -> tuple[float, float]:
        return LEFT + SLOT * (place[0] + 0.5), base - ROW * (place[1] + 1)

    shown = strongest_lines(lines)
    most = max((abs(weight) for *_, weight in shown), default=1.0) or 1.0
    drawn = [_line(at(placed[source]), at(placed[target]), weight, most) for source, target, weight in shown]
    marks = [_mark(dot, *at(place)) for dot, place in zip(dots, placed, strict=True)]
    return tag(
        "svg",
        tag("title", says),
        _grid(layers, base, width),
        [
            _word(word, number, LEFT + SLOT * (x + 0.5), base + 14)
            for number, (word, x) in enumerate(zip(words, columns, strict=True))
        ],
        drawn,
        marks,
        width=f"{width:.0f}",
        height=f"{base + FOOT:.0f}",
        role="img",
        aria_label=says,
        font_size="11",
        fill="currentColor",
        style="display:block;min-width:100%;flex:none" if width < 900 else "display:block",
    )


def _grid(layers: Sequence[str], base: float, width: float) -> Html:
    every = 1 if len(layers) <= 12 else 5
    parts = []
    for layer in range(0, len(layers), every):
        y = base - ROW * (layer + 1)
        line = tag(
            "line", x1=LEFT - 8, x2=f"{width:.0f}", y1=f"{y:.1f}", y2=f"{y:.1f}", stroke="currentColor", opacity=".1"
        )
        parts.append(
            join(line, tag("text", layers[layer], x=LEFT - 14, y=f"{y + 4:.1f}", text_anchor="end", opacity=".7"))
        )
    return join(parts)


def _word(word: str, number: int, x: float, y: float) -> Html:
    shown = visible(word)
    short = shown if len(shown) <= LETTERS else shown[: LETTERS - 1] + "…"
    turned = f"translate({x + 3:.1f} {y:.1f}) rotate(-90)"
    return tag(
        "text",
        tag("title", f"{number} {shown}"),
        short,
        transform=turned,
        text_anchor="end",
        font_family="ui-monospace,monospace",
    )


def _line(source: tuple[float, float], target: tuple[float, float], weight: float, most: float) -> Html:
    (x1, y1), (x2, y2) = source, target
    share = (abs(weight) / most) ** 0.5
    middle = (y1 + y2) / 2
    return tag(
        "path",
        d=f"M{x1:.1f} {y1:.1f}C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}",
        fill="none",
        stroke=FOR if weight > 0 else AGAINST,
        stroke_width=f"{0.5 + 2 * share:.2f}",
        stroke_dasharray=None if weight > 0 else "4 3",
        opacity=f"{0.12 + 0.7 * share:.2f}",
    )


def _mark(dot: Dot, x: float, y: float) -> Html:
    r = 2.2 + 4.2 * dot.size**0.5
    forms = {
        "feature": f"M{x - r:.1f} {y:.1f}a{r:.1f} {r:.1f} 0 1 0 {2 * r:.1f} 0a{r:.1f} {r:.1f} 0 1 0 {-2 * r:.1f} 0",
        "error": f"M{x:.1f} {y - r:.1f}l{r:.1f} {r:.1f}l{-r:.1f} {r:.1f}l{-r:.1f} {-r:.1f}z",
        "token": f"M{x - r:.1f} {y - r:.1f}h{2 * r:.1f}v{2 * r:.1f}h{-2 * r:.1f}z",
        "logit": f"M{x:.1f} {y - r:.1f}l{r:.1f} {1.8 * r:.1f}h{-2 * r:.1f}z",
    }
    hollow = dot.kind == "error"
    return tag(
        "g",
        tag("title", dot.says),
        _path(forms[dot.kind], hollow, "#e69f00" if dot.pinned else "currentColor"),
    )


def _path(form: str, hollow: bool, colour: str) -> Html:
    """A mark over its own ground, so that lines end at it."""
    return tag("path", d=form, fill="none" if hollow else colour, stroke=colour, stroke_width="1.2", opacity=".85")
