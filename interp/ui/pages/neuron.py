"""Neuron: a raw neuron's contexts, split by the features that fire there, beside the features nearest to what it writes."""

from collections.abc import Mapping

import streamlit as st

from interp import jobs
from interp.commands.finding import AboutSae, neuron, neuron_index_time, neuron_lacks
from interp.commands.items import item_kind
from interp.render.words import duration
from interp.types import InterpError
from interp.ui.neuron_sheet import neuron_html
from interp.ui.shared import bound, empty, page, plain
from interp.ui.sheet import sheet, shown_as
from interp.ui.unfit import needs_a_name
from interp.views import NeuronPage, neuron_named

TOKENS = 200_000  # that the button indexes: some minutes on a laptop


@st.cache_data(show_spinner="Reading its contexts …", max_entries=64)
def neuron_page(sae: str, sae_sha256: str, name: str, made: float) -> NeuronPage:
    """The neuron's page; `sae_sha256` changes with the weights, and `made` with the neurons' index."""
    return neuron(sae, name)


def build(opened: AboutSae, layer: int, why: str) -> None:
    """Why there is nothing to show, and a button that brings it; while that is under way, how far it is."""
    going = next((job for job in jobs.jobs() if not job.over and _ours(job.arguments, opened.sae, layer)), None)
    if going is not None:
        progress(going.id)
        return
    with empty(f"The neurons of layer {layer} are not indexed yet", why):
        st.button(
            f"Index {TOKENS:,} tokens",
            type="primary",
            on_click=begin,
            args=(opened.sae, layer),
            help="A job: it goes on when this page is closed, and the neurons of a layer need it once.",
        )


def begin(sae: str, layer: int) -> None:
    """Submit the job; a mistake is said on the page."""
    try:
        jobs.submit("index", {"sae": sae, "neurons": layer, "tokens": TOKENS})
    except InterpError as error:
        st.session_state.refused = str(error)


def _ours(arguments: Mapping[str, object], sae: str, layer: int) -> bool:
    return (arguments.get("sae"), arguments.get("neurons")) == (sae, layer)


@st.fragment(run_every=2.0)
def progress(id: str) -> None:
    """How far the job is, until it is over."""
    found = jobs.job(id)
    if found.over:
        if found.error:
            st.session_state.refused = found.error
        st.rerun()
    at = found.progress
    share = 0.0 if at is None or not at.total else min(at.done / at.total, 1.0)
    told = found.state if at is None else f"{at.what}: {at.done:,} of {at.total:,} {at.unit}"
    if at is not None and at.left is not None:
        told += f", {duration(at.left)} left"
    st.progress(share, text=plain(f"Indexing the layer's neurons (job {id}): {told}"))
    st.button("Stop", on_click=stop, args=(id,))


def stop(id: str) -> None:
    """End the job; it can be resumed."""
    try:
        jobs.stop(id)
    except InterpError as error:
        st.session_state.refused = str(error)


with page("Neuron") as opened:
    needs_a_name(item_kind(opened.sae), "No neurons are numbered here", "It has no layers by number.")
    name = bound(
        st.text_input,
        "Neuron",
        "neuron",
        "",
        placeholder="LAYER.NUMBER, such as 15.3",
        width=260,
        label_visibility="collapsed",
    )
    if refused := st.session_state.pop("refused", ""):
        st.error(plain(refused), icon=":material/block:")
    if not name.strip():
        empty(
            "Which neuron?",
            "A raw neuron takes part in many things at once. Name one to see where it fires, beside the features that split it.",
        )
        st.stop()
    layer, _ = neuron_named(name)
    if lacks := neuron_lacks(opened.sae, name):
        build(opened, layer, lacks)
        st.stop()
    found = neuron_page(opened.sae, opened.sae_sha256, name, neuron_index_time(opened.sae, name))
    sheet(neuron_html(opened, found), key="neuron", about=name, state=shown_as({"context": ("snippet", "full")}))
