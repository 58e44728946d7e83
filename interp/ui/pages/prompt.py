"""Prompt: the spectrum of a text, feature by token, and each token's strongest features."""

import plotly.graph_objects as go
import streamlit as st

from interp.commands.finding import name_feature, read_spectrum
from interp.render import chart_text, visible
from interp.ui.shared import bound, link, page, plain
from interp.views import Spectrum

EXAMPLE = "The Eiffel Tower is in Paris, the capital of France."
ROWS = 30
LABEL = 48


def heat_map(sae: str, spectrum: Spectrum, features: list[int]) -> go.Figure:
    matrix = spectrum.matrix(features)
    names = [chart_text(f"{feature} {name_feature(sae, feature)}"[:LABEL]) for feature in features]
    figure = go.Figure(
        go.Heatmap(
            z=matrix,
            x=[chart_text(f"{i} {visible(token)}") for i, token in enumerate(spectrum.tokens)],
            y=names,
            colorscale="Oranges",
            zmin=0,
            hovertemplate="%{y}<br>token %{x}<br>activation %{z:.2f}<extra></extra>",
            colorbar={"title": "activation"},
        )
    )
    figure.update_layout(height=120 + 22 * len(features), margin={"l": 10, "r": 10, "t": 20, "b": 10})
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(type="category", tickangle=-60)
    return figure


with page("Prompt") as opened:
    text = bound(st.text_area, "Text", "text", EXAMPLE, height=110)
    if not text.strip():
        st.info("Paste a text to see which features fire on it.")
        st.stop()
    with st.spinner("Running the model …"):
        spectrum = read_spectrum(opened.sae, text)
    left_out = sum(not counted for counted in spectrum.counted)
    st.caption(
        f"{len(spectrum.tokens)} tokens; {left_out} left out as sinks (the first position, separators, massive norms)."
    )
    features = spectrum.strongest(ROWS)
    st.subheader("Spectrum")
    st.plotly_chart(heat_map(opened.sae, spectrum, features), key="spectrum")
    st.subheader("Each token's strongest features")
    chosen = st.segmented_control(
        "Token",
        range(len(spectrum.tokens)),
        default=len(spectrum.tokens) - 1,
        format_func=lambda i: plain(f"{i} {visible(spectrum.tokens[i])}"),
        label_visibility="collapsed",
    )
    if chosen is not None:
        strongest = spectrum.top(chosen, 10)
        if not strongest:
            st.info("Nothing is encoded here: this position is a sink.")
        for feature, value in strongest:
            link("feature", plain(f"{feature} · {value:.2f} · {name_feature(opened.sae, feature)}"), feature=feature)
