"""Keys that every page has: `/` to search, `?` to list them; and keys of a page's own, which click what they stand for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent
_LISTED = "<button class='open' hidden title='keys' aria-label='keys'>?</button><dialog><h2>Keys</h2><table><tbody></tbody></table></dialog>"
_keyboard = st.components.v2.component(
    "interp.keys",
    html=_LISTED,
    css=(HERE / "keys.css").read_text(encoding="utf-8"),
    js=(HERE / "keys.js").read_text(encoding="utf-8"),
)


def listen() -> None:
    """Hear the keyboard; the button that lists the keys shows from when they are heard (the script comes after the HTML)."""
    _keyboard(key="keyboard", width="content", height="content")


@contextmanager
def on_key(key: str) -> Iterator[None]:
    """What is drawn inside (a button or a link) is clicked when the key is pressed outside of a text field.

    Its label is what `?` says of the key; a key stands on a page once.
    """
    with st.container(key=f"on-{key}", width="content"):
        yield
