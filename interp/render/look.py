"""What a position of a picture or a clip looks like: the patch cut out, the picture under a heat map, a waveform with a player.

Bytes go into data URIs that are made here, so that a page fetches nothing; every word is escaped by `tag`.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from interp.render.html import WARM, Html, tokens_html
from interp.render.tag import join, tag
from interp.render.words import strength

NO_PLACE = "·"
"""What CLS, registers and the silence that fills a clip are called."""
COPY = "a small copy, kept with the index"
BARE = "max-width:100%;height:auto;display:block"
WIDE, HIGH = 320, 56
"""Of a waveform, in its own units."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as a model sees it, in rows and columns of patches."""

    what: ClassVar[str] = "picture"

    jpeg: bytes
    width: int
    height: int
    """In pixels, of `jpeg`."""
    rows: int
    columns: int
    crop: bytes = b""
    """The peak's patch with its surroundings, a JPEG; empty where there is no peak."""
    around: tuple[int, int, int, int] = (0, 0, 0, 0)
    """(row, column, rows, columns) of the patches in `crop`."""
    copy: bool = False
    """Is it the small copy that the index has of a picture which is not on this machine?"""


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A stretch of a clip."""

    what: ClassVar[str] = "clip"

    wav: bytes
    """To be played; empty where it would be too long."""
    first: float
    """The second of the clip at which it begins."""
    seconds: float
    outline: Sequence[tuple[float, float]]
    """The least and the largest sample of equal parts of it, as shares of its largest, so that a quiet one is seen."""
    begins: Sequence[float]
    """The second of the clip at which each of its frames begins."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A picture or a stretch of sound, and how strongly a feature is active on each of its patches or frames."""

    of: Picture | Sound
    values: Sequence[float]
    """By patch, row by row, or by frame; 0 where it is silent or nothing is encoded."""
    peak: int | None = None
    """Which of them is shown."""


@dataclass(frozen=True)
class Unseen:
    """A picture or clip that cannot be shown."""

    why: str
    """As a sentence."""


def look_over(of: Picture | Sound, names: Sequence[str], values: Sequence[float]) -> Look:
    """A picture or clip under a feature's values at its positions, of which those called NO_PLACE are left out."""
    own = [value for name, value in zip(names, values, strict=True) if name != NO_PLACE]
    if isinstance(of, Sound):
        own = own[: len(of.begins)]
    most = max(own, default=0.0)
    return Look(of=of, values=own, peak=own.index(most) if most > 0 else None)


def shown_html(
    tokens: Sequence[str],
    values: Sequence[float],
    top: float,
    peak: int | None,
    look: Look | Unseen | None,
    title: str = "what was given",
) -> Html:
    """An example as it looks, if it is of a picture or clip, else its tokens in a line."""
    if look is None:
        return Html(tokens_html(tokens, values, top, peak=peak))
    return looked_html(look, top, title if peak is None else f"{title}, {tokens[peak]}")


def heat(value: float, top: float) -> float:
    """How opaque an activation lies over a picture, 0 to 1: by its share of `top`, the weakest still to be seen."""
    share = min(max(value, 0.0) / top, 1.0) if top > 0 else 0.0
    return 0.0 if share == 0 else 0.12 + 0.66 * share


def data_uri(kind: str, content: bytes) -> str:
    """The bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def looked_html(look: Look | Unseen, top: float, place: str, *, player: bool = True) -> Html:
    """As `look_html`; of what cannot be shown, the place and why.

    `place` says in words what is shown.
    """
    if isinstance(look, Unseen):
        return tag("span", tag("b", place), " ", look.why, class_="why")
    return look_html(look, top, place, player=player)


def look_html(look: Look, top: float, place: str, *, player: bool = True) -> Html:
    """The crop beside the whole picture, or the waveform over its player.

    Sizes are of a class where a style sheet has it, and its own where none is.
    """
    if isinstance(look.of, Sound):
        return sound_html(look.of, look.values, top, look.peak, place, player=player)
    place += f" ({COPY})" if look.of.copy else ""
    whole = heat_html(look.of, look.values, top, look.peak, place)
    return tag("span", _crop(look.of, look, place), whole, class_="look")


def heat_html(
    picture: Picture,
    values: Sequence[float],
    top: float,
    peak: int | None,
    place: str,
    *,
    class_: str = "whole-picture",
) -> Html:
    """The picture with the values over its patches; the peak is outlined, and hovering gives a patch's value."""
    wide, high = picture.width / picture.columns, picture.height / picture.rows
    cells = [
        tag(
            "rect",
            tag("title", f"r{at // picture.columns}c{at % picture.columns}: {strength(value)}"),
            x=f"{at % picture.columns * wide:.2f}",
            y=f"{at // picture.columns * high:.2f}",
            width=f"{wide:.2f}",
            height=f"{high:.2f}",
            fill=f"rgb({WARM})",
            fill_opacity=f"{heat(value, top):.2f}",
        )
        for at, value in enumerate(values)
        if value > 0
    ]
    box = (peak % picture.columns * wide, peak // picture.columns * high, wide, high) if peak is not None else None
    fires = sum(value > 0 for value in values)
    said = f"{place}: the picture, with the feature's values over the {fires} of {len(values)} patches it fires on"
    image = tag("image", href=data_uri("image/jpeg", picture.jpeg), width=picture.width, height=picture.height)
    return tag(
        "svg",
        tag("g", image, class_="ground", style="filter:grayscale(.75)"),
        tag("g", cells, class_="heat", shape_rendering="crispEdges"),
        _outline(box),
        viewBox=f"0 0 {picture.width} {picture.height}",
        width=picture.width,
        role="img",
        aria_label=said,
        class_=class_,
        style=BARE,
    )


def _crop(picture: Picture, look: Look, place: str) -> Html | None:
    if not picture.crop or look.peak is None:
        return None
    row, column, rows, columns = picture.around
    at = (look.peak % picture.columns - column, look.peak // picture.columns - row, 1, 1)
    image = tag(
        "image", href=data_uri("image/jpeg", picture.crop), width=columns, height=rows, preserveAspectRatio="none"
    )
    return tag(
        "svg",
        image,
        _outline(at),
        viewBox=f"0 0 {columns} {rows}",
        width=96,
        role="img",
        aria_label=f"{place}: the patch with its surroundings",
        class_="crop",
        style=BARE,
    )


def _outline(box: tuple[float, float, float, float] | None) -> Html | None:
    """A box in two colours, one of which is seen on any ground; its lines are as thin however large the picture is shown."""
    if box is None:
        return None
    x, y, width, height = (f"{each:.2f}" for each in box)
    lines = (("#000", 3.5), (f"rgb({WARM})", 1.6))
    return join(
        *(
            tag(
                "rect",
                x=x,
                y=y,
                width=width,
                height=height,
                fill="none",
                stroke=colour,
                stroke_width=thick,
                vector_effect="non-scaling-stroke",
            )
            for colour, thick in lines
        )
    )


def sound_html(
    sound: Sound, values: Sequence[float], top: float, peak: int | None, place: str, *, player: bool = True
) -> Html:
    """The waveform over a strip of the feature's values, the peak's time marked, and a player of the stretch."""
    last = sound.first + sound.seconds

    def at(second: float) -> float:
        return WIDE * min(max((second - sound.first) / (sound.seconds or 1.0), 0.0), 1.0)

    ends = [*sound.begins[1:], last]
    frames = [
        tag(
            "rect",
            tag("title", f"{begin:.2f} s: {strength(value)}"),
            x=f"{at(begin):.1f}",
            y=0,
            width=f"{max(at(end) - at(begin), 0.6):.1f}",
            height=HIGH,
            fill=f"rgb({WARM})",
            fill_opacity=f"{heat(value, top):.2f}",
        )
        for begin, end, value in zip(sound.begins, ends, values, strict=True)
        if value > 0
    ]
    mark = None
    if peak is not None:
        x = (at(sound.begins[peak]) + at(ends[peak])) / 2
        mark = tag("path", d=f"M{x:.1f} 0V{HIGH}", stroke="currentColor", stroke_width="1.5", stroke_dasharray="4 2")
    said = f"{place}: the waveform from {sound.first:.2f} to {last:.2f} s, with the feature's values behind it"
    wave = tag("path", d=_wave(sound.outline), fill="currentColor", opacity=".75")
    drawn = tag(
        "svg",
        tag("g", frames, class_="heat", shape_rendering="crispEdges"),
        wave,
        mark,
        viewBox=f"0 0 {WIDE} {HIGH}",
        width=WIDE,
        role="img",
        aria_label=said,
        class_="wave",
        style=BARE,
    )
    heard = player_html(sound, place) if player else None
    ticks = tag("span", tag("span", f"{sound.first:.2f} s"), tag("span", f"{last:.2f} s"), class_="axis")
    return tag("span", drawn, ticks, heard, class_="look heard")


def player_html(sound: Sound, place: str) -> Html | None:
    """What plays the stretch; None where it is too long."""
    if not sound.wav:
        return None
    address = data_uri("audio/wav", sound.wav)
    return tag("audio", controls=True, preload="metadata", src=address, aria_label=f"{place}: play it", class_="player")


def _wave(outline: Sequence[tuple[float, float]]) -> str:
    """The outline as one closed path: along the largest samples and back along the least."""
    step = WIDE / max(len(outline), 1)

    def y(sample: float) -> float:
        return HIGH / 2 * (1 - min(max(sample, -1.0), 1.0))

    there = [f"{at * step:.1f} {y(high) - 0.3:.1f}" for at, (_, high) in enumerate(outline)]
    back = [f"{at * step:.1f} {y(low) + 0.3:.1f}" for at, (low, _) in reversed(list(enumerate(outline)))]
    return f"M{'L'.join([*there, *back])}Z" if outline else ""


def look_card(look: Look | Unseen, top: float, *, lead: str, place: str, title: str, more: Html) -> Html:
    """An example of a picture or clip: what it looks like, under it its activation (`lead`), place and title; opened, `more`."""
    words = [
        tag("b", lead),
        " ",
        tag("span", place, class_="patch"),
        " ",
        tag("span", title, class_="place", dir="auto"),
    ]
    seen = tag("span", look.why, class_="why") if isinstance(look, Unseen) else None
    if isinstance(look, Look):
        seen = looked_html(look, top, f"{title}, {place}", player=False)
    heard = None
    if isinstance(look, Look) and isinstance(look.of, Sound):  # outside of what a click opens
        heard = player_html(look.of, f"{title}, {place}")
    return tag(
        "div",
        tag("details", tag("summary", seen, tag("span", words, class_="under")), tag("div", more, class_="more")),
        heard,
        class_="shot sound" if heard is not None else "shot",
    )
