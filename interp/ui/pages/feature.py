"""Feature: all that is known of one feature, with its label, and a box to try it on a text."""

import pandas as pd
import streamlit as st

from interp.commands.evidence import evidence_time
from interp.commands.finding import AboutSae, name_feature, read_spectrum
from interp.commands.labelling import current_label, current_marks, label, statuses, undo_label
from interp.render.words import counted
from interp.types import InterpError, check_feature
from interp.ui.shared import (
    bars,
    bound,
    example_rows,
    feature_page,
    link,
    page,
    plain,
    show_tokens,
)
from interp.views import FeaturePage

BANDS = {
    0: "Strongest",
    1: "1st fifth of documents",
    2: "2nd fifth",
    3: "3rd fifth",
    4: "4th fifth",
    5: "Weakest fifth",
}


def wanted(opened: AboutSae) -> int:
    """The feature in the URL; InterpError when it is no number."""
    asked = st.query_params.get("feature", "0")
    if not asked.isdecimal():
        raise InterpError(f"feature {asked!r} is no number; features are 0 to {opened.d_sae - 1}.")
    return int(asked)


def label_editor(sae: str, feature: int) -> None:
    now, marks = current_label(sae, feature), current_marks(sae, feature)
    with st.form("label", border=True):
        text = st.text_input("Label", now.text if now else "", key=f"text-{feature}", help="Empty withdraws the label.")
        left, right = st.columns(2)
        author = left.text_input("Author", now.author if now else "", key=f"author-{feature}")
        kinds = list(statuses())
        status = right.selectbox("Status", kinds, kinds.index(now.status) if now else 0, key=f"status-{feature}")
        note = st.text_area("Note", now.note if now else "", key=f"note-{feature}", height=80)
        tags = left.text_input(
            "Tags", " ".join(marks.tags) if marks else "", key=f"tags-{feature}", help="Short words."
        )
        star = right.checkbox("Star", marks is not None and marks.starred, key=f"star-{feature}")
        if st.form_submit_button("Save label"):
            tag = tags.replace(",", " ").split() or [""]
            label(sae, feature, text, author=author, note=note, status=status, tag=tag, star=star)
            st.rerun()
    history = label(sae, feature)
    if history:
        with st.expander(f"History ({len(history)})"):
            st.dataframe(pd.DataFrame([vars(version) for version in history]), hide_index=True)
            if st.button("Undo the last change", key=f"undo-{feature}"):
                undo_label(sae, feature)
                for name in ("text", "author", "status", "note", "tags", "star"):  # which would show what was undone
                    st.session_state.pop(f"{name}-{feature}", None)
                st.rerun()


def charts(shown: FeaturePage) -> None:
    step = shown.max / len(shown.histogram)
    centres = [(i + 0.5) * step for i in range(len(shown.histogram))]
    title = f"Activations above 0: {counted(shown.fires, 'token')} in {counted(shown.documents, 'document')}"
    figure = bars(centres, list(map(float, shown.histogram)), title, "activation")
    if shown.clean is not None and shown.clean.share < 1:
        figure.add_vline(shown.clean.level, line_dash="dash", annotation_text="clean above")
        figure.update_traces(marker_opacity=[1.0 if at > shown.clean.level else 0.35 for at in centres])
    st.plotly_chart(figure, key="histogram")
    if shown.clean_sentence():
        st.caption(plain(f"{shown.clean_sentence()}."))
    if shown.logit_histogram:
        low, high = shown.suppressed[0][1], shown.promoted[0][1]
        step = (high - low) / len(shown.logit_histogram)
        centres = [low + (i + 0.5) * step for i in range(len(shown.logit_histogram))]
        heights = list(map(float, shown.logit_histogram))
        title = "Direct effect of a unit on every token's logit (logit lens)"
        st.plotly_chart(bars(centres, heights, title, "logit", log_y=True), key="logits")
    for says in shown.says:
        columns = [
            f"{name}{' ' * (i // 3)}" for i, name in enumerate(says.heads)
        ]  # a table's columns have names of their own
        height = 390 if len(shown.says) == 1 else 250
        st.dataframe(pd.DataFrame(says.rows(), columns=columns), hide_index=True, height=height)
        st.caption(plain(f"{says.how}."))
    if shown.says[0].lens == "logit":
        st.caption(
            "Of the logit lens: direct effect of one unit on the logits, through the final norm's gain, less the mean over "
            "tokens. Tokens that the indexed text has fewer than five times are not listed."
        )


def examples(shown: FeaturePage) -> None:
    bands = sorted({example.band for example in shown.examples})
    for tab, band in zip(st.tabs([BANDS[band] for band in bands]), bands, strict=True):
        with tab:
            example_rows([e for e in shown.examples if e.band == band], shown.max)


def tested(shown: FeaturePage) -> None:
    """What was tested of it, a sentence a line; what could not be shown first."""
    said = shown.tested()
    if said:
        st.subheader("What was tested")
        st.markdown("\n".join(f"- {'' if each.shown else '*Not shown.* '}{plain(each.text)}" for each in said))


with page("Feature") as opened:
    sae = opened.sae
    check_feature(wanted(opened), opened.d_sae, opened.name)
    last = opened.d_sae - 1
    feature = bound(st.number_input, "Feature", "feature", 0, min_value=0, max_value=last, width=160)
    version = f"{current_label(sae, feature)} {evidence_time(sae)}"
    described = feature_page(sae, opened.sae_sha256, feature, version)
    shown = described.page
    if shown.label:
        st.header(plain(shown.label.text))
        st.caption(f"{shown.label.status} · {plain(shown.label.author or 'no author')}")
    else:
        st.header(plain(shown.description))
        st.caption("automatic description, untested")
    if not shown.fires:
        st.warning("This feature never fires in the index: it may be dead, or rarer than one in the index's tokens.")
    facts = st.columns(4)
    facts[0].metric("Density", f"{shown.density:.2e}", help="Share of counted tokens on which it fires.")
    facts[1].metric("Largest activation", f"{shown.max:.2f}")
    facts[2].metric("Mean when active", f"{shown.mean:.2f}")
    facts[3].metric("Entropy of its tokens", f"{shown.token_entropy:.2f} nats", help="0: always the same token.")
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Where it fires")
        if shown.examples:
            examples(shown)
            st.caption(plain(f"Detection: {described.detected}."))
        tested(shown)
        st.subheader("Try it on your text")
        text = bound(st.text_area, "Text", "text", "", height=80, placeholder="Paste a sentence …")
        if text.strip():
            with st.spinner("Running the model …"):
                spectrum = read_spectrum(sae, text)
            values = spectrum.matrix([feature])[0].tolist()
            show_tokens(spectrum.tokens, values, max(shown.max, *values))
            st.caption(f"Largest activation here: {max(values):.2f}. The first token is a sink and is left out.")
    with right:
        charts(shown)
        st.subheader("Nearest features")
        for other, cosine in shown.nearest[:8]:
            link("feature", plain(f"{other} · cosine {cosine:.2f} · {name_feature(sae, other)}"), feature=other)
        if shown.coactive:
            st.subheader("Fires together with")
        for c in shown.coactive[:6]:
            share = f"{c.count} of {c.of} tokens, {c.lift:,.0f} times chance"
            link("feature", plain(f"{c.feature} · {share} · {name_feature(sae, c.feature)}"), feature=c.feature)
        if shown.neurons:
            st.subheader("Aligned neurons")
            for layer, n, cosine in shown.neurons:
                link("neuron", f"{layer}.{n} · cosine {cosine:.2f}", neuron=f"{layer}.{n}")
            st.caption("Cosine of the decoder row with what the neuron writes.")
        st.subheader("Label")
        label_editor(sae, feature)
