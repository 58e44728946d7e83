"""Feature: all that is known of one feature, what speaks against it first, with its label and a box to try it on a text."""

import pandas as pd
import streamlit as st

from interp.commands.allowed import read_only
from interp.commands.evidence import evidence_time
from interp.commands.finding import AboutSae, index_time, live_feature, read_spectrum
from interp.commands.inspecting import Inspected, again, inspect_feature, look_at
from interp.commands.items import item_kind
from interp.commands.labelling import current_label, current_marks, label, statuses, undo_label
from interp.types import InterpError, check_feature
from interp.ui.feature_sheet import SHOWN_AS, feature_html
from interp.ui.item_sheet import given_before
from interp.ui.keys import on_key
from interp.ui.shared import bound, page, remember
from interp.ui.sheet import sheet, shown_as
from interp.views import Spectrum


@st.cache_data(show_spinner=False, max_entries=256)
def inspected(sae: str, sae_sha256: str, number: int, version: str) -> Inspected:
    """The feature's page; `sae_sha256` changes with the weights, `version` with labels, evidence and index."""
    return inspect_feature(sae, number)


@st.cache_data(show_spinner="Running the model …", max_entries=64)
def spectrum(sae: str, sae_sha256: str, text: str) -> Spectrum:
    """Which features fire on a text."""
    return read_spectrum(sae, text)


def wanted(opened: AboutSae) -> int:
    """The feature in the URL; InterpError when it is no number."""
    asked = st.query_params.get("feature", "0")
    if not asked.isdecimal():
        raise InterpError(f"feature {asked!r} is no number; features are 0 to {opened.d_sae - 1}.")
    return check_feature(int(asked), opened.d_sae, opened.name)


def controls(opened: AboutSae) -> tuple[int, str]:
    """(which feature, the text to try it on): one row."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="feature-controls"):
        number = bound(
            st.number_input,
            "Feature",
            "feature",
            0,
            min_value=0,
            max_value=opened.d_sae - 1,
            width=90,
            label_visibility="collapsed",
        )
        for key, words, help_, other in (
            ("k", "‹", "previous", (number - 1) % opened.d_sae),
            ("j", "›", "next", (number + 1) % opened.d_sae),
        ):
            with on_key(key):
                st.button(words, help=help_, on_click=remember, kwargs={"feature": other}, key=f"go-{key}")
        with on_key("r"):
            st.button("random", on_click=at_random, args=(opened.sae, number), key="go-r", help="any that fires")
        reads = item_kind(opened.sae)
        text = (
            ""
            if not reads.runs
            else bound(
                st.text_input,
                "Try it on a text",
                "text",
                "",
                placeholder="Try it on a sentence …"
                if reads.kind == "text"
                else f"Try it on a {reads.one} in the folders of these pages (Prompt takes any) …",
                label_visibility="collapsed",
            )
        )
        if not read_only():
            # Its fields are made when it is opened: a page without them stands sooner.
            with st.popover("Label", key="label-editor", width="content", on_change="rerun") as editor:
                if editor.open:
                    label_editor(opened.sae, number)
    return number, text


def at_random(sae: str, seed: int) -> None:
    """Another feature that fires; which one follows from the one that is shown."""
    remember(feature=live_feature(sae, seed))


def label_editor(sae: str, feature: int) -> None:
    """What the label says, to be changed; its history, and one step back."""
    now, marks = current_label(sae, feature), current_marks(sae, feature)
    with st.form("label", border=False):
        text = st.text_input("Label", now.text if now else "", key=f"text-{feature}", help="Empty withdraws the label.")
        left, right = st.columns(2)
        author = left.text_input("Author", now.author if now else "", key=f"author-{feature}")
        kinds = list(statuses())
        status = right.selectbox("Status", kinds, kinds.index(now.status) if now else 0, key=f"status-{feature}")
        claims = now.predicate if now else ""
        predicate = st.text_input(
            "What it claims",
            claims,
            key=f"predicate-{feature}",
            help="As a search, such as at:(token:/^ ?Paris$/); then it can be tried.",
        )
        note = st.text_area("Note", now.note if now else "", key=f"note-{feature}", height=68)
        left, right = st.columns([3, 1], vertical_alignment="bottom")
        given = " ".join(marks.tags) if marks else ""
        tags = left.text_input("Tags", given, key=f"tags-{feature}", help="Short words.")
        star = right.checkbox("Star", marks is not None and marks.starred, key=f"star-{feature}")
        if st.form_submit_button("Save label", type="primary"):
            tag = tags.replace(",", " ").split() or [""]
            label(sae, feature, text, author=author, note=note, status=status, tag=tag, star=star, predicate=predicate)
            st.rerun()
    history = label(sae, feature)
    if history:
        if st.button("Undo the last change", key=f"undo-{feature}"):
            undo_label(sae, feature)
            for name in (
                "text",
                "author",
                "status",
                "predicate",
                "note",
                "tags",
                "star",
            ):  # which would show what was undone
                st.session_state.pop(f"{name}-{feature}", None)
            st.rerun()
        with st.expander(f"History ({len(history)})"):
            st.dataframe(pd.DataFrame([vars(version) for version in history]), hide_index=True)


def measured_again(sae: str, feature: int, figure: str) -> None:
    """Measure it, and keep what came out for as long as the page is open."""
    kept = st.session_state.setdefault("ran", {})
    with st.spinner("Measuring again …", show_time=True):
        try:
            kept[sae, feature, figure] = again(sae, feature, figure)
        except InterpError as error:
            kept[sae, feature, figure] = str(error)
    st.rerun()


with page("Feature", heading=False) as opened:
    wanted(opened)
    number, text = controls(opened)
    sae = opened.sae
    version = f"{current_label(sae, number)} {current_marks(sae, number)} {evidence_time(sae)} {index_time(sae)}"
    of = inspected(sae, opened.sae_sha256, number, version)
    read = spectrum(sae, opened.sae_sha256, text) if text.strip() else None
    if read is None and (before := given_before()):
        read = before[1]
    ran = {key[2]: found for key, found in st.session_state.get("ran", {}).items() if key[:2] == (sae, number)}
    shown = feature_html(opened, of, text=read, ran=ran, read_only=read_only(), looks=look_at(sae, of))
    figure = sheet(shown, key="feature", about=f"{sae} {number}", state=shown_as(SHOWN_AS))
    if figure:
        measured_again(sae, number, figure)
