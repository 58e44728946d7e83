"""The map of features as the pages show it: drawn by the browser, coloured there, its clicks and outlines sent back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from interp.commands.mapping import drawn_map
from interp.ui.shared import url

HERE = Path(__file__).parent
COLOURS = ("topic", "status", "effect", "density")
_CHOICES = "".join(f"<button data-by='{name}'>{name}</button>" for name in COLOURS)
_component = st.components.v2.component(
    "interp.map",
    html=(
        f"<div class='map'><div class='top'><div class='choice' role='group' aria-label='colour by'><span>colour</span>{_CHOICES}"
        "</div><div class='legend'></div></div><div class='frame'><canvas role='img' tabindex='0'></canvas>"
        "<div class='tip' hidden><b></b><span></span></div></div><div class='foot'><span class='how'></span>"
        "<span class='keys'>click opens · drag selects · scroll zooms · double-click shows all</span></div></div>"
    ),
    css=(HERE / "map.css").read_text(encoding="utf-8"),
    js=(HERE / "map.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True)
class Did:
    """What was done on the map since it was last drawn."""

    opened: int | None
    """The feature that was clicked."""
    outline: str
    """What was drawn around, as the search key `map:` takes it."""
    colour: str


@st.cache_data(show_spinner="Drawing the map …", max_entries=4)
def _drawn(sae: str, version: str) -> str:
    """The map's JSON; `version` changes with the layout, labels and evidence."""
    return drawn_map(sae)


def show_map(
    sae: str, version: str, *, marked: Sequence[int] = (), colour: str = "topic", alt: str = "", small: bool = False
) -> Did:
    """Draw the map, `marked` features before all others; `alt` says in words what is marked. `small`: beside a table."""
    base = f"{url('feature')}&feature="
    did = _component(
        key="map",
        data={
            "drawn": _drawn(sae, version),
            "marked": list(marked),
            "colour": colour,
            "alt": alt,
            "base": base,
            "small": small,
        },
        on_opened_change=_nothing,
        on_outline_change=_nothing,
        on_colour_change=_nothing,
    )
    opened, outline, chosen = (getattr(did, name, None) for name in ("opened", "outline", "colour"))
    return Did(
        int(opened) if isinstance(opened, int | float) else None,
        str(outline or ""),
        chosen if chosen in COLOURS else "",
    )


def _nothing() -> None:
    """The page looks at what came when it is drawn."""
