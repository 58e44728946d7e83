"""Prompt: a text as a score of its features, the share of each token that the SAE does not explain, a token's strongest features, and
what the model's layers would say there."""

import re
from typing import TYPE_CHECKING

import streamlit as st

from interp.commands.finding import AboutSae, name_feature, read_layers, read_spectrum
from interp.commands.items import ItemKind, item_kind
from interp.commands.starting import firing
from interp.commands.steering import largest_activation
from interp.render import Html, visible
from interp.render.score import Row, layers_list, reading_line, score_line, strongest_list
from interp.render.tag import join, tag
from interp.types import InterpError
from interp.ui.item_sheet import item_box, item_html
from interp.ui.shared import bound, empty, page, plain, url
from interp.ui.sheet import sheet
from interp.ui.unfit import SPECTRUM, needs_a_name
from interp.views import Spectrum

if TYPE_CHECKING:
    from interp.circuits.logit_lens import LayerReadings

EXAMPLE = "The Eiffel Tower is in Paris, the capital of France."
LINE = 32  # tokens of a line of the score
ROWS = 10  # features of a line
LISTED = 15  # features of a token
SHOWN = 12  # features on a picture or clip
LONGEST = 1_000  # letters of a text that links carry


@st.cache_data(show_spinner=False, max_entries=32)
def read(sae: str, sae_sha256: str, text: str) -> Spectrum:
    """The spectrum; `sae_sha256` changes with the weights."""
    return read_spectrum(sae, text)


@st.cache_data(show_spinner=False, max_entries=8)
def read_lens(sae: str, sae_sha256: str, text: str) -> "LayerReadings":
    """What layers say; `sae_sha256` changes with the weights."""
    return read_layers(sae, text)


def address(feature: int, text: str) -> str:
    """The feature's page, on which the text is marked where it is short."""
    return url("feature", feature=feature, **({"text": text} if len(text) <= LONGEST else {}))


def score(opened: AboutSae, spectrum: Spectrum, text: str, chosen: int | None) -> Html:
    """Line after line, each with the features that are strongest on it."""
    lines = []
    for first in range(0, len(spectrum.tokens), LINE):
        last = min(first + LINE, len(spectrum.tokens))
        features = spectrum.strongest_in(first, last, ROWS)
        matrix = spectrum.matrix(features)
        rows = [
            Row(
                feature,
                name_feature(opened.sae, feature),
                address(feature, text),
                matrix[at, first:last].tolist(),
                largest_activation(opened.sae, feature),
            )
            for at, feature in enumerate(features)
        ]
        left = None if spectrum.unexplained is None else spectrum.unexplained[first:last].tolist()
        lines.append(score_line(spectrum.tokens[first:last], first, rows, left, chosen))
    return join(*lines)


def token(opened: AboutSae, spectrum: Spectrum, text: str, at: int) -> Html:
    """One token's strongest features."""
    strongest = spectrum.top(at, LISTED)
    head = tag("h2", tag("span", f"{at} ", class_="faint"), visible(spectrum.tokens[at]))
    if not strongest:
        why = (
            "Nothing is encoded here: this position is a sink."
            if not spectrum.counted[at]
            else "No feature fires here."
        )
        return join(head, tag("p", why, class_="faint"))
    own = (spectrum.rows == at).sum()
    left = "" if spectrum.unexplained is None else f"; {spectrum.unexplained[at]:.0%} of it is not explained"
    rows = [
        (
            feature,
            name_feature(opened.sae, feature),
            value,
            value / max(largest_activation(opened.sae, feature), 1e-9),
        )
        for feature, value in strongest
    ]
    said = f"{own} features fire{left}. The bar: of the feature's largest activation in the index."
    return join(head, tag("p", said, class_="note"), strongest_list(rows, lambda feature: address(feature, text)))


def lens(said: "LayerReadings", at: int) -> Html:
    """What the layers would say after one token, deepest first."""
    read = said.at(at)[::-1]
    final = read[0][1][0]
    rows = [(depth(hook), tokens, tokens[0] == final, share) for hook, tokens, share in read]
    told = "The residual stream after so many layers, read as if the model ended there; beside it the probability of what it says in the end."
    return join(tag("h2", "What would be said next"), tag("p", told, class_="note"), layers_list(rows, final))


def depth(hook: str) -> str:
    """After how many layers a residual stream stands; its hook point where the name does not say."""
    found = re.search(r"blocks\.(\d+)\.", hook)
    return f"after {int(found[1]) + (not hook.endswith('resid_pre'))}" if found else hook


def chosen_token(spectrum: Spectrum) -> int:
    """The token in the URL, else the last one. Raises InterpError for one that the text has not."""
    given = st.query_params.get("token", "")
    if not given:
        return len(spectrum.tokens) - 1
    if not given.isascii() or not given.isdigit() or int(given) >= len(spectrum.tokens):
        if st.session_state.get("prompt-text") not in (None, st.query_params.get("text", EXAMPLE)):
            return len(spectrum.tokens) - 1  # another text was typed, which is shorter
        raise InterpError(
            f"token {given[:20]!r} in the URL is none of this text, which has 0 to {len(spectrum.tokens) - 1}."
        )
    return int(given)


def item(opened: AboutSae, reads: ItemKind) -> None:
    """The page of a model that reads pictures or sound."""
    needs_a_name(reads, "Nothing can be run here", SPECTRUM)
    given = item_box(opened, reads)
    if given is None:
        empty(
            f"No {reads.one}",
            f"Give one to see which features fire on it, and on which of its {reads.place[1]} each does.",
        )
        return
    name, spectrum = given
    strongest = firing(opened.sae, spectrum, count=SHOWN)
    text = st.query_params.get("text", "")
    sheet(item_html(name, spectrum, strongest, reads, text=text if name == text else ""), key="item", about=name)


with page("Prompt") as opened:
    reads = item_kind(opened.sae)
    if reads.kind != "text":
        item(opened, reads)
        st.stop()
    text = bound(st.text_area, "Text", "text", EXAMPLE, height=110)
    if not text.strip():
        empty(
            "No text", "Paste one to see which features fire on each of its tokens, and what of it they do not explain."
        )
        st.stop()
    with st.spinner("Running the model …"):
        spectrum = read(opened.sae, opened.sae_sha256, text)
    chosen = chosen_token(spectrum)
    said = None
    if bound(st.toggle, "What the model's layers would say (logit lens)", "lens", False):
        with st.spinner("Reading the layers …"):
            said = read_lens(opened.sae, opened.sae_sha256, text)
    st.session_state["prompt-text"] = text
    left_out = sum(not counted for counted in spectrum.counted)
    sinks = (
        f"{len(spectrum.tokens)} tokens; {left_out} left out as sinks (the first position, separators, massive norms)"
    )
    whole = "" if spectrum.unexplained is None else ". The darker a word, the more of it the SAE leaves unexplained"
    st.caption(plain(f"{sinks}{whole}."))
    line = None if spectrum.unexplained is None else spectrum.unexplained.tolist()
    body = tag(
        "div",
        reading_line(spectrum.tokens, line, chosen),
        tag(
            "div",
            tag("div", tag("h2", "Spectrum"), score(opened, spectrum, text, chosen), class_="score"),
            tag("div", token(opened, spectrum, text, chosen), lens(said, chosen) if said else None, class_="chosen"),
            class_="beside",
        ),
    )
    sheet(body, key="prompt", state={"token": str(chosen)})
