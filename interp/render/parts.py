"""The pieces that pages of figures are made of: stretches of text around a peak, histograms, intervals, folds, and words that lead on.

They carry classes and no colours: `ui/sheet.css` has those, light and dark, and `ui/sheet.js` what happens under the pointer. Attributes
that it reads: `data-go` (a link that stays in the session), `data-copy` (what a click copies), `data-set` (what of the page's state it changes),
`data-v` and `data-ids` (activations and token ids).

Axes    T token.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence

from interp.render.html import Html
from interp.render.tag import join, tag

LOG_LEAST = 0.10
"""The shade of the weakest activation, as a share of the strongest's, so that it stays visible."""


def shade(value: float, top: float) -> float:
    """How strongly an activation is shown, 0 to 1: by its logarithm, so that weak ones are seen."""
    share = min(abs(value) / top, 1.0) if top > 0 else 0.0
    return 0.0 if share == 0 else LOG_LEAST + (1 - LOG_LEAST) * math.log10(1 + 9 * share)


def shown_token(token: str) -> str:
    """A token as it stands in running text: line breaks and tabs can be seen."""
    return token.replace("\r", "␍").replace("\n", "↵").replace("\t", "⇥")


def tokens_row(tokens: Sequence[str], values: Sequence[float], top: float, peak: int | None = None) -> Html:
    """Tokens in a line, shaded; the pointer finds each one's activation (`data-v`)."""
    return join(*(_token(*each, top, at == peak) for at, each in enumerate(zip(tokens, values, strict=True))))


def _token(token: str, value: float, top: float, peak: bool) -> Html:
    blank = bool(token) and not token.strip()
    classes = " ".join(name for name, on in (("on", value), ("peak", peak), ("blank", blank)) if on)
    style = f"--a:{shade(value, top):.2f}" if value else None
    breaks = tag("br", class_="break") if "\n" in token else None
    shown = shown_token(token).replace(" ", "·") if blank else shown_token(token)
    return join(tag("i", shown, class_=classes or None, style=style, data_v=f"{value:.4g}" if value else None), breaks)


def right_to_left(tokens: Sequence[str]) -> bool:
    """Whether most letters of the text that have a direction are written from right to left."""
    seen = [unicodedata.bidirectional(character) for token in tokens for character in token]
    return sum(kind in ("R", "AL") for kind in seen) > sum(kind == "L" for kind in seen)


def stretch_row(
    tokens: Sequence[str],
    values: Sequence[float],
    top: float,
    *,
    peak: int,
    lead: str,
    place: str,
    more: Html,
    ids: Sequence[int] = (),
    first: int | None = None,
    unread: str = "",
) -> Html:
    """A line of a concordance: what stands before the peak, the peak, what follows; opened, the whole stretch and `more` below.

    `lead` stands before it (the activation), `place` behind it (where the text is from); `first` is the first token's position.
    `unread` says why there is no text.
    """
    parts = [slice(0, peak), slice(peak, peak + 1), slice(peak + 1, None)]
    before, own, after = (
        tokens_row(tokens[p], values[p], top, peak=0 if n == 1 else None) for n, p in enumerate(parts)
    )
    around = [
        tag("span", tag("span", before), class_="before"),
        tag("span", own, class_="own"),
        tag("span", after, class_="after"),
    ]
    whole = tag("span", tokens_row(tokens, values, top, peak), class_="whole")
    text = [tag("span", around, class_="kwic"), whole]
    if unread:
        text = [tag("span", "its text is not on this machine", class_="why", title=unread)]
        more = join(tag("p", worded(unread), class_="note"), more)
    return tag(
        "details",
        tag("summary", tag("span", lead, class_="lead"), text, tag("span", place, class_="place")),
        tag("div", more, class_="more"),
        class_="row",
        dir="rtl" if right_to_left(tokens) else None,
        data_first=first,
        data_ids=",".join(map(str, ids)) if ids else None,
    )


def histogram(
    counts: Sequence[int],
    low: float,
    high: float,
    alt: str,
    *,
    clean: float | None = None,
    marks: Mapping[str, float] | None = None,
    name: str | None = None,
) -> Html:
    """Bars whose heights are the logarithm of 1 + count, between `low` and `high`; bars at or below `clean` are pale.

    `marks` are lines at values, by what they are. `name` lets the pointer's activation be shown in it. `alt` says it in words.
    """
    most, step = math.log1p(max(counts, default=0)) or 1.0, (high - low) / max(len(counts), 1)
    bars = []
    for place, count in enumerate(counts):
        start = low + place * step
        pale = clean is not None and start + step / 2 <= clean
        tall = 100 * math.log1p(count) / most
        said = f"{start:.3g} to {start + step:.3g}: {count:,}"
        bars.append(tag("b", class_="pale" if pale else None, style=f"height:{tall:.1f}%", title=said))
    lines = [
        tag(
            "u",
            tag("span", words),
            style=f"inset-inline-start:{_percent(value, low, high)}",
            class_="mark flip" if value > low + 0.6 * (high - low) else "mark",
        )
        for words, value in (marks or {}).items()
    ]
    if name:
        lines.append(tag("u", class_="pointer", hidden=True))
    axis = tag("div", tag("span", f"{low:.3g}"), tag("span", f"{high:.3g}"), class_="axis")
    plot = tag("div", *bars, *lines, class_="bars", role="img", aria_label=alt)
    return tag("div", plot, axis, class_="histogram", data_name=name, data_low=low, data_high=high)


def _percent(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.0
    return f"{100 * min(max(share, 0.0), 1.0):.1f}%"


def interval(
    value: float,
    low: float,
    high: float,
    *,
    ends: tuple[float, float] = (0.0, 1.0),
    null: float | None = None,
    alt: str = "",
) -> Html:
    """A value with its interval on a line between two ends, and where chance reaches (`null`)."""
    at = {name: _percent(x, *ends) for name, x in (("v", value), ("l", low), ("h", high))}
    style = ";".join(f"--{name}:{x}" for name, x in at.items())
    chance = (
        None
        if null is None
        else tag("s", style=f"inset-inline-start:{_percent(null, *ends)}", title=f"chance {null:.2g}")
    )
    return tag("span", tag("b"), tag("i"), chance, class_="interval", style=style, role="img", aria_label=alt)


def fold(title: str, *inside: object, open_: bool = True, side: object = None, name: str) -> Html:
    """A section that can be folded; `side` stands beside its title. On narrow pages it begins folded."""
    head = tag(
        "summary", tag("span", title, class_="title"), None if side is None else tag("span", side, class_="side")
    )
    return tag("details", head, tag("div", *inside, class_="inside"), class_="fold", open=open_, data_fold=name)


def go(label: object, address: str, title: str | None = None, *, class_: str | None = None) -> Html:
    """A link to another page of the dashboard, which is followed in the session that is open."""
    return tag("a", label, href=address, title=title, class_=class_, data_go=True)


def copies(label: object, what: str, title: str | None = None) -> Html:
    """A button that copies."""
    return tag("button", label, type="button", data_copy=what, title=title)


def pill(text: str, kind: str = "", title: str | None = None) -> Html:
    """A word with a ground of its own: `good`, `bad`, `doubt` or plain."""
    return tag("span", text, class_=f"pill {kind}".strip(), title=title)


def worded(text: str) -> Html:
    """A sentence, with what stands between backticks as code."""
    return join(*(tag("code", part) if at % 2 else part for at, part in enumerate(text.split("`"))))


def share_bar(share: float) -> Html:
    """A share as a short bar."""
    return tag("span", tag("b", style=f"width:{_percent(share, 0.0, 1.0)}"), class_="share")
