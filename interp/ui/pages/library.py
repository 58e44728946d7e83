"""Library: the checkpoints on this machine, each a link that opens it."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd
import streamlit as st

from interp.commands.finding import library
from interp.render.words import counted
from interp.types import InterpError
from interp.ui.shared import bound, plain, url

st.title("Library")
root = bound(
    st.text_input,
    "Folder",
    "root",
    "",
    placeholder="saes",
    help="Every checkpoint below it is listed; without one, those in saes/ and those that came with interp.",
)
try:
    entries = library(Path(root) if root else None)
except InterpError as error:
    st.error(str(error), icon=":material/block:")
    st.stop()
readable = [entry for entry in entries if not entry.problem]
st.markdown(
    f"**{counted(len(readable), 'checkpoint')}.** Verified ones were recomputed on this machine (`interp verify`)."
)
if readable:
    rows = [asdict(entry) for entry in readable]
    frame = pd.DataFrame(rows).drop(columns=["folder", "problem"])
    frame.insert(0, "open", [url("", sae=str(Path(entry.folder).resolve())) for entry in readable])
    st.dataframe(
        frame,
        hide_index=True,
        column_config={
            "open": st.column_config.LinkColumn("open", display_text="open", width="small"),
            "name": st.column_config.TextColumn("name", width="large"),
            "mib": st.column_config.NumberColumn("MiB", format="%.1f"),
            "l0": st.column_config.NumberColumn("L0", format="%.1f"),
            "ev": st.column_config.NumberColumn("EV", format="%.3f", help="1 - FVU, on the text the card names."),
            "delta_ce": st.column_config.NumberColumn("ΔCE", format="%.3f", help="Nats a token."),
            "indexed": st.column_config.NumberColumn("indexed tokens", format="%d"),
        },
    )
for entry in entries:
    if entry.problem:
        st.warning(plain(entry.problem), icon=":material/warning:")
