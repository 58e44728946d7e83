"""Neuron: a raw neuron's two signs, beside the features nearest to what it writes."""

import streamlit as st

from interp.ui.shared import example_rows, feature_link, page, plain, remember, show_tokens
from interp.views import FeaturePage, neuron_named

SHOWN = 8


def side(sign: str, shown: FeaturePage) -> None:
    st.subheader(f"Where it is {sign}")
    st.caption(plain(f"{shown.description} · density {shown.density:.2e} · entropy {shown.token_entropy:.2f} nats"))
    example_rows([e for e in shown.examples if e.band == 0][:SHOWN], shown.max)


with page("Neuron") as wb:
    name = st.text_input("Neuron (LAYER.NUMBER)", st.query_params.get("neuron", ""), placeholder="15.3", width=220)
    remember(neuron=name.strip())
    if not name.strip():
        st.info("A neuron takes part in many things at once. Name one to see where it fires, beside its features.")
        st.stop()
    shown = wb.neuron(*neuron_named(name))
    left, right = st.columns(2, gap="large")
    with left:
        for sign, found in shown.signs.items():
            side(sign, found)
    with right:
        st.subheader("The features nearest to what it writes")
        st.caption(
            "By the cosine of their decoder rows. The lower the entropy of a feature's tokens, the fewer it fires on."
        )
        for feature, cosine in shown.features:
            called = feature.label.text if feature.label else feature.description
            facts = f"{feature.feature} · cosine {cosine:.2f} · entropy {feature.token_entropy:.2f} nats · {called}"
            feature_link(feature.feature, plain(facts))
            for example in feature.examples[:2]:
                show_tokens(example.tokens, example.values, feature.max, example.peak)
