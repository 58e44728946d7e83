"""Compare: two features, two SAEs, or two lists of texts side by side, with intervals of their differences."""

from typing import Any

import streamlit as st

from interp import jobs
from interp.commands.allowed import allowed_sae
from interp.commands.evidence import evidence_time
from interp.commands.finding import AboutSae, about, index_time, name_feature
from interp.commands.inspecting import Inspected, inspect_feature, look_at
from interp.commands.labelling import current_label
from interp.commands.pairing import card_figures, pair_features, pair_texts
from interp.types import InterpError, check_feature
from interp.ui.compare_sheet import features_html, saes_html, texts_html
from interp.ui.shared import bound, empty, page, plain, remember, shelf
from interp.ui.sheet import sheet

MODES = {"features": "Two features", "saes": "Two SAEs", "texts": "Two texts"}


@st.cache_data(show_spinner=False, max_entries=64)
def inspected(sae: str, sae_sha256: str, number: int, version: str) -> Inspected:
    """As on the feature's own page."""
    return inspect_feature(sae, number)


@st.cache_data(show_spinner="Comparing …", max_entries=64)
def paired(sae: str, one: int, other: int, other_sae: str, version: str) -> Any:
    """The comparison of two features; `version` changes with indexes and labels."""
    return pair_features(sae, one, other, other_sae=other_sae)


@st.cache_data(show_spinner="Running the model …", max_entries=32)
def told_apart(sae: str, sae_sha256: str, one: tuple[str, ...], other: tuple[str, ...]) -> Any:
    """The comparison of two lists of texts."""
    return pair_texts(sae, one, other)


def another(opened: AboutSae, key: str = "with") -> str:
    """The other SAE: in the URL, chosen from those on this machine; the open one where none is."""
    known = {folder: name for folder, name, _ in shelf()}
    known.setdefault(opened.sae, opened.name)
    asked = st.query_params.get(key, "")
    given = allowed_sae(asked) if asked else opened.sae
    known.setdefault(given, given)
    choices = list(known)
    chosen = st.selectbox(
        "Of which SAE",
        choices,
        choices.index(given),
        format_func=lambda each: known[each],
        key=f"choose-{key}",
        label_visibility="collapsed",
    )
    remember(**{key: None if chosen == opened.sae else chosen})
    return str(chosen)


def features(opened: AboutSae) -> None:
    """Two features, of the open SAE or of two."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        size: dict[str, Any] = {"min_value": 0, "width": 120, "label_visibility": "collapsed"}
        first = bound(st.number_input, "First feature", "a", 0, max_value=opened.d_sae - 1, **size)
        st.caption("beside", width="content")
        place = st.empty()
        st.caption("of", width="content")
        beside = about(another(opened))
        default = min(1, beside.d_sae - 1)
        asked = st.query_params.get("b", "")
        if asked.isdecimal():
            check_feature(int(asked), beside.d_sae, beside.name)
        second = bound(place.number_input, "Second feature", "b", default, max_value=beside.d_sae - 1, **size)
    sides = []
    versions = []
    for name, about_it, number in (("first", opened, first), ("second", beside, second)):
        version = f"{current_label(about_it.sae, number)} {evidence_time(about_it.sae)} {index_time(about_it.sae)}"
        versions.append(version)
        of = inspected(about_it.sae, about_it.sae_sha256, number, version)
        sides.append((name, about_it, of, look_at(about_it.sae, of)))
    pair = paired(opened.sae, first, second, beside.sae, " ".join(versions))
    sheet(
        features_html(pair, sides), key="compare", about=f"{first} {beside.sae} {second}", state={"context": "snippet"}
    )


def texts(opened: AboutSae) -> None:
    """Two lists of texts, a line each."""
    left, right = st.columns(2)
    with left:
        one = bound(st.text_area, "First: a text a line", "one", "", height=140, placeholder="The cat sat on the mat.")
    with right:
        other = bound(
            st.text_area, "Second: a text a line", "other", "", height=140, placeholder="The dog sat on the mat."
        )
    sides = [tuple(line for line in side.splitlines() if line.strip()) for side in (one, other)]
    if not all(sides):
        empty(
            "Which features tell two texts apart?",
            "Write a text on each side. With as many lines on both, the lines are pairs, and differences get intervals.",
        )
        return
    pair = told_apart(opened.sae, opened.sae_sha256, *sides)
    names = {f: name_feature(opened.sae, f) for f in pair.features}
    sheet(texts_html(pair, names), key="compare", about="texts", state={"context": "snippet"})


def saes(opened: AboutSae) -> None:
    """Two SAEs: what their cards say, and a comparison on the same tokens once one was made."""
    beside = about(another(opened))
    if beside.sae == opened.sae:
        empty("Beside which other SAE?", "Choose one above; this one is compared with it.")
        return
    asked = {"saes": [opened.sae, beside.sae]}
    own = [job for job in jobs.jobs() if job.command == "compare" and job.arguments.get("saes") == asked["saes"]]
    done = next((job for job in reversed(own) if job.state == "done"), None)
    going = next((job for job in own if not job.over), None)
    with st.container(horizontal=True, vertical_alignment="center"):
        if going is not None:
            st.caption(plain(f"Job {going.id} compares them on the same tokens: {going.state}. Look again in a while."))
            st.button("Look again")
        elif st.button(
            "Compare on the same tokens", type="secondary" if done else "primary", help="A job of some minutes."
        ):
            jobs.submit("compare", asked)
            st.rerun()
    found = done.result() if done is not None else None
    sides = [(each, card_figures(each.sae)) for each in (opened, beside)]
    sheet(
        saes_html(sides, found if isinstance(found, dict) else None),
        key="compare",
        about=beside.sae,
        state={"context": "snippet"},
    )


with page("Compare") as opened:
    mode = st.query_params.get("mode", "features")
    if mode not in MODES:
        raise InterpError(f"mode {mode!r} in the URL is none of {', '.join(MODES)}.")
    chosen = st.segmented_control(
        "What",
        list(MODES),
        default=mode,
        key="mode",
        format_func=lambda each: MODES[each],
        label_visibility="collapsed",
    )
    remember(mode=None if chosen in (None, "features") else chosen)
    {"features": features, "saes": saes, "texts": texts}[str(chosen or mode)](opened)
