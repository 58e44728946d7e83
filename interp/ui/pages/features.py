"""Features: a table that is searched with the query language, its conditions as chips, its answer on the map beside it."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from interp.commands.asking import Facet, conditions, facets, narrowed, rows
from interp.commands.finding import AboutSae, Answer, keys, matching, saved_searches, search, top_tokens
from interp.commands.items import item_kind
from interp.commands.mapping import map_version
from interp.render import Html, visible
from interp.render.parts import go
from interp.render.tag import tag
from interp.ui.map import show_map
from interp.ui.shared import PAGES, bound, chosen, empty, link, page, plain, remember, url
from interp.ui.sheet import sheet

SHOWN = 500
MARKED = 2000
EXAMPLES = (
    "token:/^ ?(Paris|London)$/ density:1e-5..1e-2",
    "medicine and disease",
    'context:"import " not topic:source=code-python',
    "neuron:15.3 or like:17",
)
EXAMPLES_OF_ITEMS = ("density:1e-3..1e-2 sort:density", "dead:no sort:max", "like:17")
"""Where the model reads pictures or sound, whose places have no words."""
READY = (
    "confirmed:yes", "exceeds:yes", "replicates:2", "effect:0.01..", "scope:en", "scope:code", "labelled:no", "starred:yes",
    "dead:no", "density:1e-5..1e-2", "max:50..", "sort:effect", "sort:density", "sort:max", "sort:label", "sort:feature",
)  # fmt: skip
"""Conditions that the box of conditions offers as they are; any other is typed there."""


@st.cache_data(show_spinner="Filling the table …", max_entries=32)
def table(sae: str, query: str, version: str, _answer: Answer) -> pd.DataFrame:
    """A row a hit, as the table shows it; `version` changes with labels, evidence and index."""
    hits = _answer.hits
    features = [hit.feature for hit in hits]
    shown = [
        {
            "feature": url("feature", feature=hit.feature),
            "label": hit.label,
            "status": row.status or "no label",
            "firings": row.histogram,
            "score": hit.score,
            "density": hit.density,
            "max": hit.max,
            "effect": row.effect,
            "example": row.example,
            "top token": visible(fires),
            "promotes": visible(promotes),
            "why": "; ".join(hit.why.values()),
        }
        for hit, row, (fires, promotes) in zip(hits, rows(sae, features), top_tokens(sae, features), strict=True)
    ]
    frame = pd.DataFrame(shown)
    if all(row["effect"] is None for row in shown):
        frame = frame.drop(columns="effect")
    # Without a condition there is nothing to score and no reason to give.
    if not any(hit.score for hit in hits):
        frame = frame.drop(columns="score")
    return frame if any(hit.why for hit in hits) else frame.drop(columns="why")


def columns() -> dict[str, Any]:
    """How each column is shown."""
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        "feature": st.column_config.LinkColumn("feature", display_text=r"feature=(\d+)", width=70, pinned=True),
        "label": text("name", width=230),
        "status": text("status", width=105, help="What became of the name on text that it was not made from."),
        "firings": st.column_config.BarChartColumn(
            "firings", width=85, y_min=0, help="From the weakest to the strongest activation; heights are logarithmic."
        ),
        "score": number("score", format="%.4g", width=65),
        "density": number("density", format="%.2e", width=75, help="Share of tokens that it fires on."),
        "max": number("max", format="%.1f", width=55),
        "effect": number("effect", format="%.3f", width=60, help="KL in nats of the next token when it is ablated."),
        "example": text("example", width=330),
        "top token": text("top token", width=85),
        "promotes": text("promotes", width=85),
    }


def chips(query: str) -> None:
    """The conditions of the search, each with a cross; more to choose from, or to be typed."""
    held = [each.text for each in conditions(query)]
    options = [*held, *(each for each in READY if each not in held)]
    chosen_now = st.multiselect(
        "Conditions",
        options,
        default=held,
        key=f"chips-{query}",
        label_visibility="collapsed",
        placeholder="Add a condition: choose one, or type key:value",
        accept_new_options=True,
    )
    gone = [each for each in conditions(query) if each.text not in chosen_now]
    added = [each for each in chosen_now if each not in held]
    made = query
    for each in gone:
        made = next((now.without for now in conditions(made) if now.text == each.text), made)
    for condition in added:
        made = narrowed(made, condition)
    if made != query:
        remember(q=made)
        st.rerun()


def keep_search(sae: str, query: str, answer: Answer) -> None:
    """The answer as a file, and the searches that were kept."""
    with st.container(horizontal=True, gap="small"):
        st.download_button(
            "Download as CSV", answer.hits.to_csv(), "search.csv", "text/csv", icon=":material/download:"
        )
        with st.popover("Saved searches", icon=":material/bookmark:"):
            name = st.text_input("Name", placeholder="capitals")
            if st.button("Save this search", disabled=not (name and query)):
                search(sae, query, save=name)
                st.success(f"Saved as {plain(name)}.")
            for kept in saved_searches(sae):
                link("features", plain(f"{kept.name}: {kept.query}"), q=kept.query)
        with st.popover("Keys", icon=":material/help:"):
            st.markdown("\n".join(f"- **{key}:** {plain(about)}" for key, about in keys().items()))


@st.cache_data(show_spinner=False, max_entries=64)
def divided(sae: str, query: str, version: str) -> list[Facet]:
    """See `facets`; `version` changes with labels and evidence."""
    return facets(sae, query)


def facets_html(found: Sequence[Facet], query: str) -> Html:
    """Each facet with its count, a link that narrows the search to it."""
    groups = []
    for what in dict.fromkeys(facet.what for facet in found):
        links = [
            tag(
                "span",
                go(facet.name, url("features", q=narrowed(query, facet.condition))),
                tag("small", f" {facet.count:,}"),
            )
            for facet in found
            if facet.what == what
        ]
        groups.append(tag("div", tag("b", what), tag("span", *links), class_="facet"))
    return tag("div", *groups, class_="facets")


def beside(opened: AboutSae, query: str, answer: Answer) -> None:
    """The map with what was found, and how that divides."""
    version = map_version(opened.sae)
    marked = matching(opened.sae, query)[:MARKED] if query else []
    colour = st.query_params.get("colour", "topic")
    did = show_map(
        opened.sae, version, marked=marked, colour=colour, alt=f"{answer.hits.total:,} are marked.", small=True
    )
    sheet(facets_html(divided(opened.sae, query, version), query), key="facets")
    if did.opened is not None:
        st.switch_page(PAGES / "feature.py", query_params={"sae": chosen(), "feature": str(did.opened)})
    if did.colour:
        remember(colour="" if did.colour == "topic" else did.colour)
    if did.outline:
        remember(q=narrowed(query, f"map:{did.outline}"))
        st.rerun()


def found(opened: AboutSae, query: str, answer: Answer) -> None:
    """The table, and what the answer does not say by itself."""
    hits = answer.hits
    more = f", the first {SHOWN} shown" if hits.total > SHOWN else ""
    partial = (
        " Partial: answered from the examples that this index keeps; `interp index` builds the full one."
        if hits.partial
        else ""
    )
    st.markdown(f"**{hits.total:,}** features{more}.{partial}")
    for note in hits.notes:
        st.caption(plain(note))
    if not hits:
        empty("No feature meets this search", "Take a condition away (its cross above), or widen a range.")
        return
    st.dataframe(
        table(opened.sae, query, f"{opened.sae_sha256} {map_version(opened.sae)}", answer),
        hide_index=True,
        height=620,
        row_height=30,
        column_config=columns(),
    )
    keep_search(opened.sae, query, answer)


with page("Features") as opened:
    reads = item_kind(opened.sae).kind == "text"
    query = bound(
        st.text_input,
        "Search",
        "q",
        "",
        label_visibility="collapsed",
        icon=":material/search:",
        placeholder="Words that say what it means, or token:/^ ?(Paris|London)$/ density:1e-5..1e-2 sort:density"
        if reads
        else "Words of a label, or topic:NAME density:1e-3..1e-2 sort:density",
    )
    answer = search(opened.sae, query, limit=SHOWN)
    chips(query)
    if not query:
        st.caption(
            "For example: " + " · ".join(f"`{example}`" for example in (EXAMPLES if reads else EXAMPLES_OF_ITEMS))
        )
    wide, narrow = st.columns([2.8, 1], gap="medium")
    with narrow:
        beside(opened, query, answer)
    with wide:
        found(opened, query, answer)
