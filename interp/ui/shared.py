"""What the pages share: the open workbench, errors as sentences, and links between pages."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import plotly.graph_objects as go
import streamlit as st
import torch

from interp.index import Example
from interp.render import tokens_html
from interp.types import InterpError
from interp.views import FeaturePage
from interp.workbench import EMBEDDED, Workbench

PAGES = Path(__file__).parent / "pages"
ACCENT = "#ea7828"


@st.cache_resource(show_spinner="Opening the SAE …")
def _open(path: str) -> Workbench:
    torch.set_num_threads(2)
    return Workbench.open(path)


def bench() -> Workbench:
    """The workbench of the SAE named in the URL (`?sae=`), on the command line, or the embedded one."""
    named = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    path = st.query_params.get("sae") or (named[0] if named and Path(named[0]).is_dir() else EMBEDDED)
    return _open(path)


@contextmanager
def page(title: str) -> Iterator[Workbench]:
    """The page's frame: heading, the SAE it speaks of, and mistakes shown as one sentence."""
    st.title(title)
    try:
        wb = bench()
        st.caption(f"{wb.card.name} · {wb.sae.d_sae:,} features · {wb.card.hook_name} of {wb.card.model}")
        yield wb
    except InterpError as error:
        st.error(str(error), icon=":material/block:")


def remember(**values: Any) -> None:
    """Put the page's state into its URL, so that the URL opens it again."""
    for key, value in values.items():
        if value in (None, ""):
            st.query_params.pop(key, None)
        elif st.query_params.get(key) != str(value):
            st.query_params[key] = str(value)


def url(name: str, **values: Any) -> str:
    """The address of a page, relative to the server."""
    return f"/{name}?{urlencode(values)}"


def feature_link(feature: int, label: str) -> None:
    st.page_link(PAGES / "feature.py", label=label, query_params={"feature": str(feature)})


def show_tokens(tokens: list[str], values: list[float], top: float, peak: int | None = None) -> None:
    st.html(tokens_html(tokens, values, top, peak=peak))


def example_rows(examples: list[Example], top: float) -> None:
    """Each example's activation, text and document."""
    for example in examples:
        value, text = st.columns([1, 9], vertical_alignment="center")
        value.markdown(f"**{example.value:.2f}**")
        with text:
            show_tokens(example.tokens, example.values, top, example.peak)
            st.caption(plain(f"{example.source} · {example.title} · position {example.position}"))


def plain(text: str) -> str:
    """Text in which Markdown has nothing to find."""
    return "".join("\\" + c if c in "\\`*_{}[]()#+-.!|~$<>:" else c for c in text)


def bars(x: list[float], y: list[float], title: str, x_title: str, *, log_y: bool = False) -> go.Figure:
    """A small histogram."""
    figure = go.Figure(go.Bar(x=x, y=y, marker_color=ACCENT))
    figure.update_layout(
        title=title, height=240, margin={"l": 10, "r": 10, "t": 36, "b": 10}, xaxis_title=x_title, bargap=0.05
    )
    if log_y:
        figure.update_yaxes(type="log")
    return figure


@st.cache_data(show_spinner=False, max_entries=256, hash_funcs={Workbench: lambda wb: wb.card.sae_sha256})
def feature_page(wb: Workbench, feature: int, version: str) -> FeaturePage:
    """The feature's page; `version` changes with its label."""
    return wb.feature(feature)
