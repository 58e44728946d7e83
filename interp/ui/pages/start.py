"""Start: the whole SAE on one screen: its figures, the map of its features, one box for a search or a sentence, and what to see."""

import streamlit as st

from interp.commands.allowed import read_only
from interp.commands.asking import narrowed
from interp.commands.finding import AboutSae, read_spectrum, search
from interp.commands.items import ItemKind, item_kind
from interp.commands.mapping import map_laid, map_version
from interp.commands.starting import Meant, firing, glimpses, headline, indexed, look_at_glimpses, meant, shelf
from interp.render import Html
from interp.render.parts import go
from interp.render.tag import join, tag
from interp.types import InterpError
from interp.ui import work
from interp.ui.item_sheet import item_html
from interp.ui.map import show_map
from interp.ui.shared import PAGES, chosen, empty, page, plain, remember, url
from interp.ui.sheet import sheet
from interp.ui.start_sheet import (
    TRY,
    figures_html,
    fires_html,
    found_words,
    hits_html,
    shelf_html,
    try_html,
    try_item_html,
)

MARKED = 2000
"""Features that a search may mark on the map."""
SHOWN = 9
ASKS = 'Find features by meaning, token:/regex/, promotes:" France" …, or write a sentence to see what fires on it'
ASKS_ITEM = "Find features by topic:NAME, density:0.001..0.01, like:7 …"
OR_ITEM = ", or name a {} in the folders of these pages"


def address(asked: Meant) -> str:
    """Of this page with a search or a sentence."""
    return url("", **{name: value for name, value in (("q", asked.query), ("text", asked.text)) if value})


def box(reads: ItemKind) -> Meant:
    """The one box: what the URL has, or what was typed, which then is in the URL."""
    state, given = st.session_state, st.query_params
    asked = Meant(given.get("q", ""), "" if given.get("q") else given.get("text", ""))
    there = asked.query or asked.text
    if "box" not in state or state.get("box-seen") != there:
        state["box"] = there
    typed = st.text_input(
        "Search",
        key="box",
        label_visibility="collapsed",
        icon=":material/search:",
        placeholder=ASKS if reads.kind == "text" else ASKS_ITEM + (OR_ITEM.format(reads.one) if reads.runs else ""),
    )
    if typed != there:
        item = typed.strip().lower().endswith(tuple(f".{end}" for end in reads.ends)) if reads.ends else False
        asked = Meant(text=typed.strip()) if item and ":" not in typed else meant(typed)
        remember(q=asked.query, text=asked.text, token="")
    state["box-seen"] = asked.query or asked.text
    return asked


@st.cache_data(show_spinner=False, max_entries=8)
def first_look(sae: str, version: str) -> tuple[Html, Html]:
    """(figures, shelf); `version` changes with evidence and labels."""
    shelved = shelf(sae)
    looks = look_at_glimpses(sae, [each.feature for each in shelved], [each.glimpse for each in shelved])
    return figures_html(headline(sae)), shelf_html(shelved, looks)


def at_token(tokens: int) -> int | None:
    """The token in the URL; InterpError where the text has no such token."""
    given = st.query_params.get("token", "")
    if not given:
        return None
    if not given.isdecimal() or int(given) >= tokens:
        raise InterpError(f"token {given!r} in the URL is none of the text's {tokens}.")
    return int(given)


def beside(opened: AboutSae, reads: ItemKind, asked: Meant, shelved: Html) -> tuple[Html, list[int], str]:
    """What stands beside the map, which features it marks, and that in words."""
    if asked.text:
        spectrum = read_spectrum(opened.sae, asked.text)
        token = at_token(len(spectrum.tokens))
        marked = sorted(set(spectrum.features[spectrum.rows == token] if token is not None else spectrum.features))
        strongest = firing(opened.sae, spectrum, token=token, count=SHOWN)
        if spectrum.medium is None:
            body = fires_html(spectrum, strongest, token)
        else:
            body = item_html(asked.text, spectrum, strongest, reads, text=asked.text)
        words = f"{found_words(len(marked))} fire{'s' if len(marked) == 1 else ''} {'on the token' if token is not None else 'on the text'}"
        more = [
            go("heat map", url("prompt", text=asked.text)),
            go("search for it instead", address(Meant(query=asked.text))),
        ]
    elif asked.query:
        answer = search(opened.sae, asked.query, limit=MARKED)
        marked = [hit.feature for hit in answer.hits]
        first = marked[:SHOWN]
        seen = glimpses(opened.sae, first)
        body = hits_html(answer, seen, look_at_glimpses(opened.sae, first, seen), SHOWN)
        words = f"{found_words(answer.hits.total)} found"
        more = [
            go("all in a table", url("features", q=asked.query)),
            go("read it as a text", address(Meant(text=asked.query))),
        ]
        if not marked:
            body = join(tag("p", "No feature meets this. Take a condition away, or say it with other words."), body)
    else:
        return join(_head("Worth seeing", [go("all features", url("features"))]), shelved), [], ""
    if asked.query or asked.text:
        more.append(go("clear", address(Meant())))
    return join(_head(words, more), body), [int(f) for f in marked], f"Marked: {words}."


def _head(words: str, links: list[Html]) -> Html:
    return tag("div", tag("b", words), tag("span", *links, class_="links"), class_="listed")


def not_indexed(opened: AboutSae) -> None:
    """What stands here before anybody knows where the features fire."""
    there = empty(
        "Nobody knows yet where these features fire",
        "An index of a text says so: examples, statistics, searches and the map come from it. It takes minutes, once.",
    )
    if work.closed("an index is built"):
        return
    if there.button("Build it", type="primary", icon=":material/database:"):
        work.ask(work.begin, "index", {"sae": opened.sae})
        st.rerun()
    work.watch(command="index", sae=opened.sae)


def not_laid(opened: AboutSae) -> None:
    """Under a rough map: what makes the better one."""
    if not read_only() and st.button(
        "Lay the features out, near ones near (about a minute)", icon=":material/scatter_plot:"
    ):
        work.ask(work.begin, "map", {"sae": opened.sae})
        st.rerun()
    work.watch(command="map", sae=opened.sae)


def whole(opened: AboutSae) -> None:
    """The box, the map, and what stands beside it."""
    version = map_version(opened.sae)
    figures, shelved = first_look(opened.sae, version)
    sheet(figures, key="figures")
    reads = item_kind(opened.sae)
    asked = box(reads)
    if not (asked.query or asked.text):
        text = reads.kind == "text"
        if text or reads.runs:
            sheet(try_html([address(meant(line)) for line, _ in TRY]) if text else try_item_html(reads), key="try")
    picture, side = st.columns([1.6, 1], gap="medium")
    with side:
        marked, words = listed(opened, reads, asked, shelved)
    with picture:
        did = show_map(opened.sae, version, marked=marked, colour=st.query_params.get("colour", "topic"), alt=words)
        if not map_laid(opened.sae):
            not_laid(opened)
    if did.opened is not None:
        st.switch_page(PAGES / "feature.py", query_params={"sae": chosen(), "feature": str(did.opened)})
    if did.colour:
        remember(colour="" if did.colour == "topic" else did.colour)
    if did.outline:
        remember(q=narrowed(asked.query, f"map:{did.outline}"), text="", token="")
        st.rerun()


def listed(opened: AboutSae, reads: ItemKind, asked: Meant, shelved: Html) -> tuple[list[int], str]:
    """Draw what stands beside the map, a mistake as a sentence; which features it marks, and that in words."""
    token = st.query_params.get("token", "")
    try:
        body, marked, words = beside(opened, reads, asked, shelved)
    except InterpError as error:
        st.error(plain(str(error)), icon=":material/block:")
        return [], ""
    sheet(body, key="beside", state={"token": token})
    if st.query_params.get("token", "") != token:  # another token was chosen
        st.rerun()
    return marked, words


with page("Start", heading=False) as opened:
    with st.container(horizontal=True, key="heading"):
        st.title(f"{opened.d_sae:,} features of {opened.model}", anchor=False, width="content")
        st.caption(plain(f"{opened.name} reads {opened.hook}"), width="content")
    work.say_refusals()
    if indexed(opened.sae):
        whole(opened)
    else:
        sheet(figures_html(headline(opened.sae)), key="figures")
        not_indexed(opened)
