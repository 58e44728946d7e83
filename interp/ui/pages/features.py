"""Features: a table that is searched with the query language, and where their densities lie."""

import numpy as np
import pandas as pd
import streamlit as st

from interp.render import visible
from interp.search import KEYS, Hits
from interp.search.saved import find
from interp.ui.shared import bars, bound, link, page, plain, url
from interp.workbench import Workbench

SHOWN = 500
EXAMPLES = (
    "token:/^ ?(Paris|London)$/ density:1e-5..1e-2",
    "medicine and disease",
    'context:"import " not topic:source=python',
    "neuron:15.3 or like:17",
)


def table(wb: Workbench, hits: Hits) -> pd.DataFrame:
    """A row a hit, as the table shows it."""
    features = wb.index.features
    rows = []
    for hit in hits:
        row = features.iloc[hit.feature]
        tokens, promoted = wb.index.text(row["top_tokens"][:1]), wb.index.text(row["promoted"][:1])
        rows.append(
            {
                "feature": url("feature", feature=hit.feature),
                "label": hit.label,
                "source": "automatic, untested" if hit.automatic else "label",
                "score": hit.score,
                "density": hit.density,
                "max": hit.max,
                "top token": visible(tokens[0]) if tokens else "",
                "top logit": visible(promoted[0]) if promoted else "",
                "why": "; ".join(hit.why.values()),
            }
        )
    frame = pd.DataFrame(rows)
    # Without a condition there is nothing to score and no reason to give.
    return frame if any(hit.why for hit in hits) else frame.drop(columns=["score", "why"])


def keep_search(wb: Workbench, query: str, hits: Hits) -> None:
    """The answer as a file, and the searches that were kept."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.download_button("Download as CSV", hits.to_csv(), "search.csv", "text/csv")
    with right.popover("Saved searches", use_container_width=True):
        name = st.text_input("Name", placeholder="capitals")
        if st.button("Save this search", disabled=not (name and query)):
            wb.save_search(name, query)
            st.success(f"Saved as {plain(name)}.")
        for saved in wb.saved_searches():
            kept = find(saved, wb.card.sae_sha256)
            link("features", plain(f"{saved}: {kept.query}"), q=kept.query)


with page("Features") as wb:
    query = bound(
        st.text_input,
        "Search",
        "q",
        "",
        placeholder="token:/^ ?(Paris|London)$/ density:1e-5..1e-2 sort:density",
        help="Conditions, joined by and, or, not and parentheses; bare words are looked for by meaning.  \n"
        + "  \n".join(f"**{key}:** {plain(about)}" for key, about in KEYS.items()),
    )
    if not query:
        st.caption("For example: " + " · ".join(f"`{example}`" for example in EXAMPLES))
    hits = wb.search(query, limit=SHOWN)
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
            table(wb, hits),
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
        keep_search(wb, query, hits)
    else:
        st.info("No feature meets this query. Take a condition away, or widen a range.")
    density = wb.index.features["density"].to_numpy()
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
