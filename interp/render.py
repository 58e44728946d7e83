"""Tokens and tables as HTML, every string escaped: the one place of the project that makes HTML."""

import html
import math
from collections.abc import Iterable, Sequence

WARM = "234, 120, 40"
COOL = "60, 130, 220"


def tokens_html(tokens: Sequence[str], values: Sequence[float], top: float, *, peak: int | None = None) -> str:
    """The tokens in a line, each shaded by its value against `top`; `peak` is underlined.

    The shade is logarithmic, so that weak activations stay visible; negative values are blue. Line breaks are shown
    as ↵, and hovering gives the value.
    """
    spans = []
    for place, (token, value) in enumerate(zip(tokens, values, strict=True)):
        share = min(abs(value) / top, 1.0) if top > 0 else 0.0
        shade = 0.0 if share == 0 else 0.08 + 0.77 * math.log10(1 + 9 * share)
        colour = WARM if value >= 0 else COOL
        style = f"background: rgba({colour}, {shade:.2f}); border-radius: 3px; white-space: pre-wrap;"
        if place == peak:
            style += " border-bottom: 2px solid currentColor;"
        shown = html.escape(token.replace("\n", "↵").replace("\t", "⇥"))
        spans.append(f'<span style="{style}" title="{value:.3g}">{shown}</span>')
    return f'<span style="font-family: ui-monospace, monospace; line-height: 1.7;">{"".join(spans)}</span>'


def table_html(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A plain table; cells that are `Html` go in as they are, all others are escaped."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align: left'>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def title_html(text: str) -> str:
    return f"<p><b>{html.escape(text)}</b></p>"


class Html(str):
    """A string that is HTML already, because a function of this file made it."""

    __slots__ = ()


def _cell(cell: object) -> str:
    if isinstance(cell, Html):
        return str(cell)
    return html.escape(f"{cell:.4g}" if isinstance(cell, float) else str(cell))


def chart_text(text: str) -> str:
    """Text as a chart may show it: Plotly reads labels as HTML."""
    return html.escape(text)


def visible(token: str) -> str:
    """A token as plain text in which spaces and line breaks can be seen."""
    return token.replace("\n", "↵").replace("\t", "⇥").replace(" ", "·")
