"""Features: a table that is searched with the query language, and where their densities lie."""

import numpy as np
import pandas as pd
import streamlit as st

from interp.render import visible
from interp.search import KEYS, Hits
from interp.ui.shared import bars, page, plain, remember, url
from interp.workbench import Workbench

SHOWN = 500


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


with page("Features") as wb:
    query = st.text_input(
        "Search",
        st.query_params.get("q", ""),
        placeholder="token:/^ ?(Paris|London)$/ density:1e-5..1e-2 sort:density",
        help="All conditions must hold. " + "  \n".join(f"**{key}:** {plain(about)}" for key, about in KEYS.items()),
    )
    remember(q=query)
    hits = wb.search(query, limit=SHOWN)
    more = f", the first {SHOWN} shown" if hits.total > SHOWN else ""
    partial = (
        " Partial: answered from the strongest tokens and logits that this index keeps."
        if any(h.partial for h in hits[:1])
        else ""
    )
    st.markdown(f"**{hits.total:,}** features{more}.{partial}")
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
