"""A text and its features as a score: lines of so many tokens, under each token what fires on it, a row a feature.

As `render/parts.py` has it, it carries classes and no colours, and `data-set` for what a click chooses.

Axes    T token of a line.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from interp.render.html import Html, visible
from interp.render.parts import go, shade, shown_token
from interp.render.tag import tag


@dataclass(frozen=True)
class Row:
    """A feature on a line of the score."""

    feature: int
    name: str
    address: str
    """Of its page."""
    values: Sequence[float]
    """Activations, 0 where it is silent; as many as the line has tokens."""
    top: float
    """The activation that is shown strongest."""


def reading_line(tokens: Sequence[str], unexplained: Sequence[float] | None, chosen: int | None) -> Html:
    """The text as it reads; the more of a token is left unexplained, the darker its ground. A click chooses a token."""
    shares = unexplained if unexplained is not None else [math.nan] * len(tokens)
    parts = [
        tag(
            "span",
            shown_token(token),
            class_="word" if not math.isnan(share) else "word sink",
            style=None if math.isnan(share) else f"--a:{min(max(share, 0.0), 1.0):.2f}",
            title=f"{at} {token!r}{'' if math.isnan(share) else f', {share:.0%} not explained'}",
            data_set=f"token={at}",
            aria_pressed="true" if at == chosen else None,
        )
        for at, (token, share) in enumerate(zip(tokens, shares, strict=True))
    ]
    return tag("p", parts, class_="reading", dir="auto")


def score_line(
    tokens: Sequence[str], first: int, rows: Sequence[Row], unexplained: Sequence[float] | None, chosen: int | None
) -> Html:
    """One line: the tokens from position `first`, the share of each that is not explained, and a row for each feature."""
    heads = [
        tag(
            "span",
            tag("span", shown_token(token).strip() or shown_token(token).replace(" ", "·")),
            class_="token",
            title=f"{first + at} {token!r}",
            data_set=f"token={first + at}",
            aria_pressed="true" if first + at == chosen else None,
        )
        for at, token in enumerate(tokens)
    ]
    parts: list[Html] = [tag("span", f"{first}–{first + len(tokens) - 1}", class_="corner"), *heads]
    if unexplained is not None:
        parts.append(tag("span", "not explained", class_="name faint"))
        parts += [
            _left(token, share, first + at) for at, (token, share) in enumerate(zip(tokens, unexplained, strict=True))
        ]
    for row in rows:
        parts.append(
            tag("span", go(f"{row.feature} {row.name}", row.address, f"{row.feature} {row.name}"), class_="name")
        )
        parts += [_cell(row, at, token, first) for at, token in enumerate(tokens)]
    words = f"tokens {first} to {first + len(tokens) - 1}, {len(rows)} features"
    return tag(
        "div",
        tag("div", parts, class_="system", style=f"--n:{len(tokens)}"),
        class_="scroll",
        role="group",
        aria_label=words,
    )


def _cell(row: Row, at: int, token: str, first: int) -> Html:
    value = row.values[at]
    if not value:
        return tag("b", class_="cell")
    said = f"{row.feature} {row.name}\n{first + at} {token!r}: {value:.3g}"
    style = f"--a:{shade(value, row.top):.2f}"
    return tag("b", class_="cell on", style=style, title=said, data_set=f"token={first + at}")


def _left(token: str, share: float, at: int) -> Html:
    if math.isnan(share):
        return tag("b", class_="cell sink", title=f"{at} {token!r}: a sink, which is not encoded")
    tall = f"height:{100 * min(max(share, 0.0), 1.0):.0f}%"
    return tag("b", tag("u", style=tall), class_="cell left", title=f"{at} {token!r}: {share:.0%} not explained")


def strongest_list(rows: Sequence[tuple[int, str, float, float]], address: Callable[[int], str]) -> Html:
    """Features of one token, strongest first: (number, name, activation, share of its own largest)."""
    lines = [
        tag(
            "li",
            go(f"{feature} {name}", address(feature), f"{feature} {name}"),
            tag("span", f"{value:.2f}", class_="value"),
            tag(
                "span",
                tag("b", style=f"width:{100 * min(share, 1.0):.0f}%"),
                class_="share",
                title=f"{share:.0%} of its largest activation in the index",
            ),
        )
        for feature, name, value, share in rows
    ]
    return tag("ol", lines, class_="strongest")


def layers_list(rows: Sequence[tuple[str, Sequence[str], bool, float]], said: str) -> Html:
    """What layers say at one token, deepest first: (layer, its likeliest tokens, whether the first is `said`, probability of `said`),
    `said` being what the model says in the end."""
    lines = [
        tag(
            "li",
            tag("span", name, class_="layer"),
            tag("span", [tag("code", visible(token), class_="says" if token == said else None) for token in tokens]),
            tag("span", f"{share:.0%}", class_="value", title=f"probability of ‘{visible(said)}’ there"),
            class_="first" if first else None,
        )
        for name, tokens, first, share in rows
    ]
    return tag("ol", lines, class_="layers")
