"""What cannot be had of a model that reads no text, said in the place of a form that would only be refused."""

import streamlit as st

from interp.commands.items import ItemKind, item_kind
from interp.ui.shared import empty

ABLATE = {
    "pictures": "`interp ablate SAE FEATURE PICTURE` says what a feature changes.",
    "sound": "`interp ablate SAE FEATURE CLIP` says what a feature changes, and `interp transcribe` what Whisper hears without it.",
    "numbers": "In Python `Workbench.open(SAE, model=interp.open_module(…)).ablate(ITEM, FEATURE)` says what a feature changes.",
}
SPECTRUM = "In Python `Workbench.open(SAE, model=interp.open_module(…)).spectrum(ITEM)` says what fires on one."


def needs_next_token(sae: str, what: str) -> None:
    """End the page of an SAE whose model reads no text: nothing follows there, so there is nothing to steer or to trace."""
    reads = item_kind(sae)
    if reads.kind != "text":
        empty(
            f"{what} needs a text", f"This SAE's model reads {reads.kind}, and no token follows. {ABLATE[reads.kind]}"
        )
        st.stop()


def needs_a_name(reads: ItemKind, what: str, instead: str) -> None:
    """End the page of an SAE whose model is a module that only Python can run, for no name opens it."""
    if not reads.runs:
        empty(what, f"This SAE's model is a module of somebody's own, which these pages cannot run. {instead}")
        st.stop()
