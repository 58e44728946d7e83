"""What the pages share: the frame of a page, the SAE it speaks of, its URL, links to other pages, charts, empty states."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import plotly.graph_objects as go
import streamlit as st

from interp.commands import EMBEDDED, use_threads
from interp.commands.allowed import allowed_sae, offered, only_inside
from interp.commands.finding import AboutSae, ShownFeature, about, feature
from interp.render import tokens_html
from interp.render.words import TRAINED, TRAINED_MEANS
from interp.types import InterpError
from interp.views import Example

PAGES = Path(__file__).parent / "pages"
ACCENT = "#ea7828"
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath fill='%23ea7828' d='M1 15V9h3v6zm5 0V2h3v13zm5 0V6h3v9z'/%3E%3C/svg%3E"
)
"""The tab's icon, inline: Streamlit has the browser fetch its own icons and emoji for tabs from other hosts."""


def chosen() -> str:
    """The folder of the SAE that the page speaks of: in its URL (`?sae=`), on the command line, or the embedded one."""
    named = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    path = st.query_params.get("sae") or (named[0] if named and Path(named[0]).is_dir() else EMBEDDED)
    try:
        return allowed_sae(path)
    except InterpError:
        return path  # which the page says when it opens it


@contextmanager
def page(title: str, *, heading: bool = True) -> Iterator[AboutSae]:
    """The page's frame: heading (without, the page draws its own), the SAE it speaks of, mistakes shown as one sentence."""
    top = st.container(horizontal=True, key="heading") if heading else st.container(key="no-heading")
    if heading:
        top.title(title, width="content", anchor=False)
    here = chosen()
    if st.session_state.get("sae", here) != here:
        forget()
    st.session_state.sae = here
    try:
        with st.spinner("Opening the SAE …"):
            use_threads()
            opened = about(allowed_sae(here))
        remember(sae=here)
        if heading:
            top.caption(
                plain(f"{opened.name} · {opened.d_sae:,} features · {opened.hook} of {opened.model}"), width="content"
            )
        with only_inside():
            yield opened
    except InterpError as error:
        # Commands in it stay code, and nothing that was typed or imported becomes a link or a picture.
        st.error(str(error).replace("[", "\\[").replace("<", "\\<"), icon=":material/block:")
        st.stop()  # also where there is no SAE to hand to the page


def forget() -> None:
    """Nothing stays of what was typed and made: it belongs to another SAE.

    Key by key: Streamlit's `session_state.clear()` ends without a word at the first widget's key that it cannot take out,
    and which keys come before that is an accident of hashing.
    """
    for key in list(st.session_state):
        with suppress(KeyError):
            del st.session_state[key]


def empty(title: str, text: str, *, key: str = "empty") -> Any:
    """The container of an empty state: what would be here and why it is not; what is drawn in it leads on.

    `key` begins with `empty`, and differs where a page has two.
    """
    there = st.container(key=key)
    there.markdown(f"**{plain(title)}**")
    there.caption(said(text))
    return there


def switcher(first: Any) -> None:
    """The SAE that the page speaks of; opened, the others on this machine, each a link."""
    here = chosen()
    with st.popover(
        plain(Path(here).name), key="switch", type="tertiary", on_change="rerun", icon=":material/stacks:"
    ) as menu:
        if not menu.open:
            return
        for folder, name, about_it in shelf():
            mark = " ✓" if folder == str(Path(here).resolve()) else ""
            st.page_link(first, label=plain(f"{name}{mark}"), query_params={"sae": folder})
            st.caption(plain(about_it))


@st.cache_data(show_spinner=False, ttl=30)
def shelf() -> list[tuple[str, str, str]]:
    """(folder, name, model and hook point) of every checkpoint that can be read here."""
    return [
        (
            str(Path(entry.folder).resolve()),
            entry.name,
            f"{entry.features or 0:,} features · {entry.hook} of {entry.model}",
        )
        for entry in offered()
        if not entry.problem
    ]


def remember(**values: Any) -> None:
    """Put the page's state into its URL, so that the URL opens it again."""
    for key, value in values.items():
        if value in (None, ""):
            st.query_params.pop(key, None)
        elif st.query_params.get(key) != str(value):
            st.query_params[key] = str(value)


def bound(widget: Callable[..., Any], label: str, name: str, default: Any, **options: Any) -> Any:
    """What a widget holds, which is the URL's `name` as well: each follows the other, also when the browser goes back.

    Raises InterpError when the URL has a value that the widget cannot take.
    """
    state, key, seen = st.session_state, f"url-{name}", f"seen-{name}"
    given = st.query_params.get(name, str(default))
    if key not in state or state.get(seen) != given:
        state[key] = _read(name, given, default, options)
    value = widget(label, key=key, **options)
    remember(**{name: None if value is False else value})
    state[seen] = st.query_params.get(name, str(default))
    return value


def _read(name: str, given: str, default: Any, options: Mapping[str, Any]) -> Any:
    """The URL's text as a value of the default's type, within the bounds in `options`."""
    if isinstance(default, bool):
        return given == "True"
    if isinstance(default, str):
        return given
    low, high = options["min_value"], options["max_value"]
    try:
        value = type(default)(given)
    except ValueError:
        raise InterpError(f"{name} {given!r} in the URL is no number; it is one of {low} to {high}.") from None
    if not low <= value <= high:
        raise InterpError(f"{name} {given} in the URL is not between {low} and {high}.")
    return value


def url(name: str, **values: Any) -> str:
    """The address of a page, relative to the server, with the SAE that is open unless another is given."""
    return f"/{name}?{urlencode({'sae': _here()} | values)}"


def _here() -> str:
    """The SAE that is open, as `page` found it in this run of the script: a table has hundreds of addresses."""
    return str(st.session_state.get("sae") or chosen())


def link(name: str, label: str, **values: Any) -> None:
    """A link to a page about the SAE that is open."""
    query = {"sae": _here()} | {key: str(value) for key, value in values.items()}
    st.page_link(PAGES / f"{name}.py", label=label, query_params=query)


def show_tokens(tokens: list[str], values: list[float], top: float, peak: int | None = None) -> None:
    st.html(tokens_html(tokens, values, top, peak=peak))


def unreadable(example: Example) -> bool:
    """Whether its text is not on this machine: such examples stand behind those that can be read."""
    return bool(example.unread)


def example_rows(examples: list[Example], top: float) -> None:
    """Each example's activation, text and document."""
    for example in examples:
        value, text = st.columns([1, 9], vertical_alignment="center")
        value.markdown(f"**{example.value:.2f}**")
        with text:
            show_tokens(example.tokens, example.values, top, example.peak)
            where = f"{example.source} · {example.title} · position {example.position}"
            trained = example.trained_on
            st.caption(plain(f"{where} · {TRAINED[trained]}"), help=TRAINED_MEANS[trained])
            if example.unread:
                st.caption(plain(example.unread))


def plain(text: str) -> str:
    """Text in which Markdown has nothing to find."""
    return "".join("\\" + c if c in "\\`*_{}[]()#+-.!|~$<>:" else c for c in text)


def said(text: str) -> str:
    """A sentence as Markdown in which only what stands between backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return plain(text)
    written = "".join(f"`{part}`" if at % 2 and part else plain(part) for at, part in enumerate(parts))
    return f"{written[:1].upper()}{written[1:]}"


def bars(x: list[float], y: list[float], title: str, x_title: str, *, log_y: bool = False) -> go.Figure:
    """A small histogram."""
    figure = go.Figure(go.Bar(x=x, y=y, marker_color=ACCENT))
    figure.update_layout(
        title=title, height=240, margin={"l": 10, "r": 10, "t": 36, "b": 10}, xaxis_title=x_title, bargap=0.05
    )
    if log_y:
        figure.update_yaxes(type="log")
    return figure


def chart(figure: go.Figure, key: str, alt: str) -> None:
    """A chart without a row of buttons over it; `alt` says in words what it shows, for those who cannot see it."""
    st.plotly_chart(figure, key=key, alt=alt, config={"displayModeBar": False})


@st.cache_data(show_spinner=False, max_entries=256)
def feature_page(sae: str, sae_sha256: str, number: int, version: str) -> ShownFeature:
    """The feature's page; `sae_sha256` changes with the weights, and `version` with the feature's label and evidence."""
    return feature(sae, number)
