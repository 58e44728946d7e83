"""A picture or clip in the place of a sentence: the box that takes it, and what fires on it, a heat map or waveform a feature."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from interp.commands.finding import AboutSae, read_spectrum
from interp.commands.items import LARGEST_ITEM, ItemKind, read_upload
from interp.render import Html
from interp.render.look import NO_PLACE, Sound, look_html, player_html
from interp.render.parts import go
from interp.render.tag import join, tag
from interp.render.words import counted, strength
from interp.ui.shared import bound, url
from interp.views import Spectrum

if TYPE_CHECKING:
    from interp.commands.starting import Firing

KEPT = "item-given"
"""In the session: (what the uploaded file is called, what fires on it)."""


@st.cache_data(show_spinner="Running the model …", max_entries=16)
def _read(sae: str, sae_sha256: str, path: str) -> Spectrum:
    """What fires on a file that lies in the folders of these pages; `sae_sha256` changes with the weights."""
    return read_spectrum(sae, path)


def given_before() -> tuple[str, Spectrum] | None:
    """(name, what fires on it) of the picture or clip that was uploaded last, to this SAE and in this session."""
    found = st.session_state.get(KEPT)
    return None if found is None else (str(found[0]), found[1])


def item_box(opened: AboutSae, reads: ItemKind) -> tuple[str, Spectrum] | None:
    """The box that takes a picture or clip, uploaded or named; (its name, what fires on it), None where nothing was given.

    Raises InterpError for one that cannot be read, or does not lie in the folders of these pages.
    """
    most = LARGEST_ITEM // 2**20
    file = st.file_uploader(
        f"A {reads.one}, {most} MiB at most", type=list(reads.ends), key="item-file", max_upload_size=most
    )
    path = bound(
        st.text_input,
        "Or the file of one",
        "text",
        "",
        placeholder=f"A {reads.one} in the folders of these pages",
        label_visibility="collapsed",
    ).strip()
    seen = None if file is None else file.file_id
    if file is not None and st.session_state.get("item-seen") != seen:
        with st.spinner("Running the model …"):
            st.session_state[KEPT] = (file.name, read_upload(opened.sae, file, file.size, file.name))
    st.session_state["item-seen"] = seen
    if path and file is None:
        return path, _read(opened.sae, opened.sae_sha256, path)
    return given_before()


def item_html(name: str, spectrum: Spectrum, firing: "Sequence[Firing]", reads: ItemKind, *, text: str = "") -> Html:
    """What was given, and the features that are strongest on it, each over it. `text` is its path, where it has one."""
    own = sum(place != NO_PLACE for place in spectrum.tokens)
    out = f"; {spectrum.left_out} left out as sinks" if spectrum.left_out else ""
    said = f"{name}: {counted(own, *reads.place)}{out}. The features that are strongest on it, by the share of their own largest."
    player = player_html(spectrum.medium, name) if isinstance(spectrum.medium, Sound) else None
    cards = [_card(each, spectrum, text) for each in firing]
    nothing = None if cards else tag("p", "No feature fires on it.", class_="note")
    return join(tag("p", said, class_="note", dir="auto"), player, nothing, tag("div", cards, class_="shots"))


def _card(each: "Firing", spectrum: Spectrum, text: str) -> Html:
    look = spectrum.look(each.feature)
    assert look is not None  # only of what has a picture or sound
    address = url("feature", feature=each.feature, **({"text": text} if text else {}))
    words = f"{each.feature} {each.name}"
    return tag(
        "div",
        look_html(look, each.top, words, player=False),
        tag("div", go(words, address, words), class_="place", dir="auto"),
        tag("div", f"{strength(each.value)} here; at most {strength(each.top)} in the index", class_="note"),
        class_="shot",
    )


def yours_html(spectrum: Spectrum, feature: int, top: float) -> Html | None:
    """What was given under one feature's values; None of a text."""
    look = spectrum.look(feature)
    if look is None:
        return None
    return tag("div", look_html(look, top, "what you gave"), class_="shots")
