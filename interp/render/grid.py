"""Numbers as a table of coloured cells: above 0 warm, below 0 cool, by their share of the largest."""

import math
from collections.abc import Sequence

from interp.render.html import COOL, WARM, Html
from interp.render.tag import join, tag


def grid_html(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    title: str,
    *,
    written: Sequence[Sequence[str]] | None = None,
) -> Html:
    """A row of cells to each row of values; hovering gives the number. What is `written` stands in the cells, else nothing
    does. Values that are not finite are left blank."""
    known = [abs(value) for row in values for value in row if math.isfinite(value)]
    top = max(known, default=0.0) or 1.0
    head = tag("tr", tag("th"), *(tag("th", name, style="font-weight:400;white-space:pre") for name in columns))
    lines = []
    for number, (name, row) in enumerate(zip(rows, values, strict=True)):
        words = written[number] if written else [""] * len(row)
        places = (f"{name}, {column.strip()}" for column in columns)
        cells = (_cell(*each, top) for each in zip(row, words, places, strict=True))
        lines.append(tag("tr", tag("th", name, style="font-weight:400;text-align:right;white-space:nowrap"), *cells))
    table = tag("table", head, *lines, style="border-collapse:collapse;font-size:.8rem")
    return join(tag("p", tag("b", title)), tag("div", table, style="overflow-x:auto"))


def _cell(value: float, word: str, place: str, top: float) -> Html:
    if not math.isfinite(value):
        return tag("td", word)
    colour = WARM if value >= 0 else COOL
    style = f"background:rgba({colour},{0.9 * abs(value) / top:.2f});min-width:1.6em;height:1.3em;padding:0 .25em"
    return tag("td", word, style=style, title=f"{place}: {value:.3g}")
