"""Pages of figures as HTML: headings, cards, tables that hold plots, and the plots; every string is escaped.

They show the same in light and in dark, need no script and fetch nothing.
"""

import html
from collections.abc import Iterable, Sequence

from interp.render.html import POLICY, Html

SHEET = """
:root{color-scheme:light dark;--ink:#1c2126;--soft:#5c6670;--line:#dfe3e7;--ground:#fff;--card:#f6f8f9;--own:#0072b2;--null:#d55e00;
--warn:#8a4b00;--warnground:#fff4e5}
@media(prefers-color-scheme:dark){:root{--ink:#e7eaed;--soft:#9aa5b0;--line:#343b42;--ground:#15191d;--card:#1d2328;--own:#56b4e9;
--null:#e8914a;--warn:#f0b46a;--warnground:#2b2216}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);margin:0 auto;max-width:68rem;padding:2.2rem 1.4rem 4rem}
h1{font-size:1.55rem;line-height:1.25;margin:0 0 .3rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:2.6rem 0 .6rem}
p{margin:.3rem 0}.soft{color:var(--soft)}.small{font-size:.86rem}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:.8rem;margin:1rem 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem}
.card b{display:block;font-size:1.6rem;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.2;margin:.1rem 0}
.first{background:var(--warnground);border-left:4px solid var(--warn);border-radius:6px;padding:.7rem 1.1rem;margin:1.2rem 0}
.first ul{margin:.3rem 0;padding-left:1.2rem}.first li{margin:.25rem 0}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{font-weight:600;text-align:left;color:var(--soft);font-size:.82rem;border-bottom:1px solid var(--line);padding:.3rem .8rem .3rem 0}
td{padding:.42rem .8rem .42rem 0;border-bottom:1px solid var(--line);vertical-align:top}td.num{white-space:nowrap}
td.says{min-width:16rem}td.plot{width:190px;padding-top:.5rem}
.no{color:var(--warn);font-weight:600}.mark{display:inline-block;width:.65em;height:.65em;border-radius:50%;background:var(--own);margin:0 .35em 0 0}
.mark.null{background:none;border:2px solid var(--null);box-sizing:border-box;margin-left:1em;transform:rotate(45deg);border-radius:0}
details{margin:.7rem 0}summary{cursor:pointer;color:var(--soft)}code{font-size:.85em;overflow-wrap:anywhere}
svg{display:block}a{color:var(--own)}nav a{margin-right:1rem}
@media print{body{max-width:none}details{display:none}}
"""
HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
)
"""How every page begins: nothing that follows may run or be fetched."""


def sheet_html(title: str, body: Html) -> str:
    """A whole document, whose content policy lets nothing run and nothing be fetched."""
    return (
        f'{HEAD}<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{SHEET}</style></head><body>{body}</body></html>\n"
    )


def element(tag: str, *content: object, kind: str = "", id_: str = "") -> Html:
    """An element around its content, of which only `Html` goes in as it is."""
    marks = (f' class="{html.escape(kind)}"' if kind else "") + (f' id="{html.escape(id_)}"' if id_ else "")
    return Html(f"<{tag}{marks}>{''.join(map(_inside, content))}</{tag}>")


def join_html(parts: Iterable[Html]) -> Html:
    """One after the other."""
    return Html("".join(parts))


def rows_html(head: Sequence[str], rows: Iterable[Sequence[object]], kinds: Sequence[str] = ()) -> Html:
    """A table that scrolls sideways where it is too wide; `kinds` are the classes of its columns."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = []
    for row in rows:
        classes = [*kinds, *[""] * (len(row) - len(kinds))]
        cells = (
            f'<td class="{kind}">{_inside(cell)}</td>' if kind else f"<td>{_inside(cell)}</td>"
            for kind, cell in zip(classes, row, strict=True)
        )
        body.append(f"<tr>{''.join(cells)}</tr>")
    return Html(f'<div class="scroll"><table><tr>{top}</tr>{"".join(body)}</table></div>')


def folded_html(summary: str, content: Html) -> Html:
    """Content that is shown when its summary is clicked."""
    return Html(f"<details><summary>{html.escape(summary)}</summary>{content}</details>")


def links_html(names: Iterable[tuple[str, str]]) -> Html:
    """Links to places of the same page: (id, words)."""
    links = (f'<a href="#{html.escape(to)}">{html.escape(words)}</a>' for to, words in names)
    return Html(f'<nav class="small">{"".join(links)}</nav>')


def strip_svg(
    value: float | None,
    interval: tuple[float, float] | None,
    nulls: Sequence[tuple[str, float, float | None]],
    *,
    says: str,
    ends: tuple[float, float] | None = None,
    width: int = 180,
    height: int = 22,
) -> Html:
    """A figure on a line of its own: a dot with its interval, a diamond for each null (name, mean, spread) with its spread.

    `ends` are those of the line; without, it reaches from the least to the largest of all that is on it.
    """
    if value is None:
        return Html("")
    on = [value, *(interval or ()), *(mean + sign * (sd or 0) for _, mean, sd in nulls for sign in (-1, 1))]
    low, high = ends or (min(on), max(on))
    room = (high - low) or abs(high) or 1.0
    if ends is None:
        low, room = (low - 0.5 * room, 2 * room) if high == low else (low - 0.06 * room, 1.12 * room)

    def at(place: float) -> float:
        return 6 + min(max((place - low) / room, 0.0), 1.0) * (width - 12)

    y, parts = height / 2, [f'<line x1="2" x2="{width - 2}" y1="{height / 2}" y2="{height / 2}" stroke="var(--line)"/>']
    if ends is not None:
        parts.append(
            f'<line x1="{at(low):.1f}" x2="{at(value):.1f}" y1="{y}" y2="{y}" stroke="var(--own)" stroke-width="6" '
            'stroke-opacity=".3"/>'
        )
    for name, mean, sd in nulls:
        x = at(mean)
        if sd is not None:
            parts.append(
                f'<line x1="{at(mean - sd):.1f}" x2="{at(mean + sd):.1f}" y1="{y}" y2="{y}" stroke="var(--null)"/>'
            )
        parts.append(
            f'<path d="M{x:.1f} {y - 5}l5 5l-5 5l-5 -5z" fill="var(--ground)" stroke="var(--null)" stroke-width="1.5">'
            f"<title>{html.escape(name)}: {mean:.4g}</title></path>"
        )
    if interval is not None:
        left, right = (at(end) for end in interval)
        parts.append(
            f'<path d="M{left:.1f} {y}H{right:.1f}M{left:.1f} {y - 4}v8M{right:.1f} {y - 4}v8" stroke="var(--own)" '
            'stroke-width="1.6" fill="none"/>'
        )
    parts.append(f'<circle cx="{at(value):.1f}" cy="{y}" r="4" fill="var(--own)"/>')
    label = html.escape(says)
    return Html(
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )


def _inside(content: object) -> str:
    return str(content) if isinstance(content, Html) else html.escape(str(content))
