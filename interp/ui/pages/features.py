"""Features: a table that is searched with the query language, and where their densities lie."""

import numpy as np
import pandas as pd
import streamlit as st

from interp.commands.finding import Answer, densities, keys, saved_searches, search, top_tokens
from interp.render import visible
from interp.ui.shared import bars, bound, link, page, plain, url

SHOWN = 500
EXAMPLES = (
    "token:/^ ?(Paris|London)$/ density:1e-5..1e-2",
    "medicine and disease",
    'context:"import " not topic:source=code-python',
    "neuron:15.3 or like:17",
)


def table(sae: str, answer: Answer) -> pd.DataFrame:
    """A row a hit, as the table shows it."""
    hits = answer.hits
    tokens = top_tokens(sae, [hit.feature for hit in hits])
    rows = [
        {
            "feature": url("feature", feature=hit.feature),
            "label": hit.label,
            "source": "automatic, untested" if hit.automatic else "label",
            "score": hit.score,
            "density": hit.density,
            "max": hit.max,
            "top token": visible(fires),
            "top logit": visible(promotes),
            "why": "; ".join(hit.why.values()),
        }
        for hit, (fires, promotes) in zip(hits, tokens, strict=True)
    ]
    frame = pd.DataFrame(rows)
    # Without a condition there is nothing to score and no reason to give.
    return frame if any(hit.why for hit in hits) else frame.drop(columns=["score", "why"])


def keep_search(sae: str, query: str, answer: Answer) -> None:
    """The answer as a file, and the searches that were kept."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.download_button("Download as CSV", answer.hits.to_csv(), "search.csv", "text/csv")
    with right.popover("Saved searches", use_container_width=True):
        name = st.text_input("Name", placeholder="capitals")
        if st.button("Save this search", disabled=not (name and query)):
            search(sae, query, save=name)
            st.success(f"Saved as {plain(name)}.")
        for kept in saved_searches(sae):
            link("features", plain(f"{kept.name}: {kept.query}"), q=kept.query)


with page("Features") as opened:
    query = bound(
        st.text_input,
        "Search",
        "q",
        "",
        placeholder="token:/^ ?(Paris|London)$/ density:1e-5..1e-2 sort:density",
        help="Conditions, joined by and, or, not and parentheses; bare words are looked for by meaning.  \n"
        + "  \n".join(f"**{key}:** {plain(about)}" for key, about in keys().items()),
    )
    if not query:
        st.caption("For example: " + " · ".join(f"`{example}`" for example in EXAMPLES))
    answer = search(opened.sae, query, limit=SHOWN)
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
    if hits:
        st.dataframe(
            table(opened.sae, answer),
            hide_index=True,
            height=460,
            column_config={
                "feature": st.column_config.LinkColumn("feature", display_text=r"feature=(\d+)", width="small"),
                "label": st.column_config.TextColumn("label", width="large"),
                "score": st.column_config.NumberColumn("score", format="%.4g"),
                "density": st.column_config.NumberColumn("density", format="scientific"),
                "max": st.column_config.NumberColumn("max", format="%.2f"),
            },
        )
        keep_search(opened.sae, query, answer)
    else:
        st.info("No feature meets this query. Take a condition away, or widen a range.")
    density = densities(opened.sae)
    alive = density[density > 0]
    if len(alive):
        counts, edges = np.histogram(np.log10(alive), bins=60)
        centres = (edges[:-1] + edges[1:]) / 2
        st.plotly_chart(
            bars(
                centres.tolist(),
                counts.tolist(),
                f"Densities of {len(alive):,} features that fire; {len(density) - len(alive):,} never do",
                "log10 of the share of tokens a feature fires on",
            ),
            key="density",
        )
