"""Neuron: a raw neuron's two signs, beside the features nearest to what it writes."""

import streamlit as st

from interp.commands.finding import neuron, neuron_index_time
from interp.ui.shared import bound, example_rows, link, page, plain, show_tokens
from interp.views import NeuronPage

SHOWN = 8


@st.cache_data(show_spinner="Running the model …", max_entries=64)
def neuron_page(sae: str, sae_sha256: str, name: str, made: float) -> NeuronPage:
    """The neuron's page; `sae_sha256` changes with the weights, and `made` with the neurons' index."""
    return neuron(sae, name)


def side(found: NeuronPage, sign: str) -> None:
    shown = found.signs[sign]
    st.subheader(f"Where it is {sign}")
    st.caption(plain(f"{shown.description} · density {shown.density:.2e} · entropy {shown.token_entropy:.2f} nats"))
    for example in [e for e in shown.examples if e.band == 0][:SHOWN]:
        example_rows([example], shown.max)
        for feature, share, name in found.untangled.get(example.position, []):
            link("feature", plain(f"{feature} · {share:.0%} of its largest · {name}"), feature=feature)


with page("Neuron") as opened:
    name = bound(st.text_input, "Neuron (LAYER.NUMBER)", "neuron", "", placeholder="15.3", width=220)
    if not name.strip():
        st.info("A neuron takes part in many things at once. Name one to see where it fires, beside its features.")
        st.stop()
    shown = neuron_page(opened.sae, opened.sae_sha256, name, neuron_index_time(opened.sae, name))
    left, right = st.columns(2, gap="large")
    with left:
        st.caption("Under each example, the features that fire where the neuron does.")
        for sign in shown.signs:
            side(shown, sign)
    with right:
        st.subheader("The features nearest to what it writes")
        st.caption(
            "By the cosine of their decoder rows. The lower the entropy of a feature's tokens, the fewer it fires on."
        )
        for feature, cosine in shown.features:
            called = feature.label.text if feature.label else feature.description
            facts = f"{feature.feature} · cosine {cosine:.2f} · entropy {feature.token_entropy:.2f} nats · {called}"
            link("feature", plain(facts), feature=feature.feature)
            for example in feature.examples[:2]:
                show_tokens(example.tokens, example.values, feature.max, example.peak)
