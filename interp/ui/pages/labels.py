"""Labels: a queue of features whose name waits for a person, decided from the keyboard; and who labelled what."""

import streamlit as st

from interp.commands.allowed import read_only
from interp.commands.evidence import evidence_time
from interp.commands.finding import index_time
from interp.commands.inspecting import Inspected, inspect_feature, look_at
from interp.commands.labelling import current_label, label, undo_label
from interp.commands.queue import decide, label_queue, orders, waiting
from interp.types import InterpError
from interp.ui.feature_sheet import SHOWN_AS
from interp.ui.keys import on_key
from interp.ui.queue_sheet import queue_html
from interp.ui.shared import bound, empty, link, page, plain, remember
from interp.ui.sheet import sheet, shown_as

KEYS = {"confirmed": ("a", "Accept"), "refuted": ("x", "Refute"), "undecided": ("u", "Leave undecided")}


@st.cache_data(show_spinner=False, max_entries=64)
def inspected(sae: str, sae_sha256: str, number: int, version: str) -> Inspected:
    """As on the feature's own page."""
    return inspect_feature(sae, number)


def go_on(sae: str, feature: int, which: str, order: str) -> None:
    """Show the next one that waits."""
    following = label_queue(sae, which=which, order=order).after(feature)
    remember(feature="" if following is None else following)


def decided(sae: str, feature: int, status: str, which: str, order: str) -> None:
    """Write the decision, and go on; a mistake is said on the page."""
    following = label_queue(sae, which=which, order=order).after(feature)
    try:
        decide(sae, feature, status, author=str(st.session_state.get("url-author", "")))
    except InterpError as error:
        st.session_state.refused = str(error)
        return
    st.session_state.setdefault("decided", []).append(feature)
    remember(feature="" if following in (None, feature) else following)


def undo(sae: str) -> None:
    """Take the last decision of this session back, and show that feature again."""
    last = st.session_state.decided.pop()
    try:
        undo_label(sae, last)
    except InterpError as error:
        st.session_state.refused = str(error)
    remember(feature=last)


def rename(sae: str, feature: int) -> None:
    """Write what was typed as the name."""
    text = str(st.session_state.get(f"name-{feature}", "")).strip()
    now = current_label(sae, feature)
    if not text or (now is not None and text == now.text):
        return
    try:
        label(sae, feature, text, author=str(st.session_state.get("url-author", "")))
    except InterpError as error:
        st.session_state.refused = str(error)


def choices() -> tuple[str, str, str]:
    """(which wait, in which order, who decides): one row. Raises InterpError for a value in the URL that none of them has."""
    kinds = waiting()
    which, order = st.query_params.get("which", "undecided"), st.query_params.get("order", "fires")
    for name, value, known in (("which", which, tuple(kinds)), ("order", order, orders())):
        if value not in known:
            raise InterpError(f"{name} {value!r} in the URL is none of {', '.join(known)}.")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        chosen = st.segmented_control(
            "Which",
            list(kinds),
            default=which,
            key="which",
            help="; ".join(f"{k}: {v}" for k, v in kinds.items()),
            label_visibility="collapsed",
        )
        by = st.selectbox(
            "First",
            orders(),
            orders().index(order),
            key="order",
            width=150,
            label_visibility="collapsed",
            format_func=lambda each: f"by {each}",
        )
        author = bound(
            st.text_input, "Who decides", "author", "", placeholder="your name", width=180, label_visibility="collapsed"
        )
    remember(which=None if chosen in (None, "undecided") else chosen, order=None if by == "fires" else by)
    return str(chosen or which), str(by), str(author)


def actions(sae: str, feature: int, which: str, order: str, author: str) -> None:
    """One row: what a person can say of the name, each with its key."""
    now = current_label(sae, feature)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="queue-actions"):
        for status, (key, words) in KEYS.items():
            with on_key(key):
                st.button(
                    words,
                    key=f"decide-{status}",
                    on_click=decided,
                    args=(sae, feature, status, which, order),
                    disabled=now is None or not author.strip(),
                    type="primary" if status == "confirmed" else "secondary",
                    help=f"key {key}" + ("" if author.strip() else "; say who decides first"),
                )
        with on_key("s"):
            st.button("Skip", key="skip", on_click=go_on, args=(sae, feature, which, order), help="key s")
        with on_key("z"):
            st.button(
                "Undo",
                key="undo",
                on_click=undo,
                args=(sae,),
                disabled=not st.session_state.get("decided"),
                help="key z: take the last decision back",
            )
        st.text_input(
            "Another name",
            now.text if now else "",
            key=f"name-{feature}",
            on_change=rename,
            args=(sae, feature),
            placeholder="A better name, then Enter",
            label_visibility="collapsed",
        )
        link("feature", "open its page", feature=feature)


with page("Labels", heading=False) as opened:
    sae = opened.sae
    which, order, author = choices()
    queue = label_queue(sae, which=which, order=order)
    asked = st.query_params.get("feature", "")
    number = int(asked) if asked.isdecimal() and int(asked) < opened.d_sae else next(iter(queue.features), None)
    if refused := st.session_state.pop("refused", ""):
        st.error(plain(refused), icon=":material/block:")
    if number is None:
        with empty("Nothing waits here", f"No feature that fires is {waiting()[which]}. Choose another kind above."):
            link("features", "all features")
        of = None
    else:
        if read_only():
            st.caption(":material/lock: These pages are read-only: names are given and judged elsewhere.")
        else:
            actions(sae, number, which, order, author)
        version = f"{current_label(sae, number)} {evidence_time(sae)} {index_time(sae)}"
        of = inspected(sae, opened.sae_sha256, number, version)
    seen = look_at(opened.sae, of) if of is not None else {}
    shown = queue_html(opened, queue, of, done=len(st.session_state.get("decided", [])), looks=seen)
    sheet(shown, key="queue", about=f"{sae} {number}", state=shown_as(SHOWN_AS))
