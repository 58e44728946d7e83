"""Tokens and tables as HTML, every string escaped: the one place of the project that makes HTML (`svg.py`: plots); and cells of CSV."""

import html
import math
import re
from collections.abc import Iterable, Sequence

WARM = "234, 120, 40"
COOL = "60, 130, 220"
FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""What a spreadsheet takes for the beginning of a formula, in the first place of a cell."""


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


def text_html(text: str) -> str:
    """A paragraph."""
    return f"<p>{html.escape(text)}</p>"


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


NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def csv_cell(value: object) -> object:
    """A cell as spreadsheets may open it: text that they would run as a formula begins with an apostrophe, as text does
    there. Numbers stay numbers, those below zero too."""
    if isinstance(value, str) and value[:1] in FORMULA and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def visible(token: str) -> str:
    """A token as plain text in which spaces and line breaks can be seen."""
    return token.replace("\n", "↵").replace("\t", "⇥").replace(" ", "·")


# ---- pages that open without a server ----

STYLE = """body{font:15px system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color-scheme:light dark}
table{border-collapse:collapse;margin:.7em 0}td,th{padding:.15em .7em .15em 0;vertical-align:top;text-align:left}
.t{font-family:ui-monospace,monospace;white-space:pre-wrap;line-height:1.6}.t b{font-weight:400;border-radius:3px}
.t b{background:rgba(234,120,40,var(--a))}.t u{text-underline-offset:3px}svg{display:block;margin:.7em 0}
.look{display:flex;gap:.4em}.look.heard{display:block}.look svg{margin:0;border-radius:4px}.look .crop{width:96px;flex:none}
.look .whole-picture{width:152px;flex:none}.look svg:hover .heat{opacity:0}.look svg:hover .ground{filter:none!important}
.look .axis{display:flex;justify-content:space-between;font-size:.8em}.why{opacity:.75}"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

HELD = f"{POLICY}; img-src data:; media-src data:"
"""That, and pictures and sound which the page itself holds."""


def page_html(title: str, body: Html) -> str:
    """A whole document, whose content policy lets nothing run and nothing be fetched."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(HELD)}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def line_html(tokens: Sequence[str], values: Sequence[float], top: float, *, peak: int | None = None) -> Html:
    """As `tokens_html` for pages with STYLE, a tenth of its size: only tokens with a value get an element."""
    parts = []
    for place, (token, value) in enumerate(zip(tokens, values, strict=True)):
        shown = html.escape(token.replace("\n", "↵").replace("\t", "⇥"))
        if value:
            share = 0.08 + 0.77 * math.log10(1 + 9 * min(abs(value) / top, 1.0)) if top > 0 else 0.0
            shown = f'<b style="--a:{share:.2f}" title="{value:.3g}">{shown}</b>'
        parts.append(f"<u>{shown}</u>" if place == peak else shown)
    return Html(f'<span class="t">{"".join(parts)}</span>')


def link_html(address: str, text: str) -> Html:
    """A link to another page of the same folder."""
    return Html(f'<a href="{html.escape(address)}">{html.escape(text)}</a>')


def bars_svg(
    counts: Sequence[int], title: str, width: int = 500, height: int = 80, *, mark: float | None = None
) -> Html:
    """A histogram, heights by the logarithm of 1 + count; with a line at a share `mark` of its width."""
    most = math.log1p(max(counts, default=0)) or 1.0
    step = width / max(len(counts), 1)
    bars = []
    for place, count in enumerate(counts):
        tall = height * math.log1p(count) / most
        if count:
            bars.append(
                f'<rect x="{place * step:.1f}" y="{height - tall:.1f}" width="{step * 0.9:.1f}" height="{tall:.1f}" '
                f'fill="rgb({WARM})"><title>{count}</title></rect>'
            )
    if mark is not None:
        at = min(max(mark, 0.0), 1.0) * width
        bars.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height}" stroke="black" stroke-dasharray="4 3"/>')
    head = f'<svg width="{width}" height="{height}" role="img" aria-label="{html.escape(title)}">'
    return Html(f"{head}{''.join(bars)}</svg><p>{html.escape(title)} (heights logarithmic)</p>")
