"""What the nodes of a graph are to be, asked for on the page: features of transcoders, neurons, or features of residual SAEs."""

from pathlib import Path
from typing import Any

import streamlit as st

from interp.commands.circuits import OVER, STEPS, TRANSCODERS
from interp.types import InterpError
from interp.ui.shared import bound, chosen

STEPS_HELP = (
    "0 takes each gradient at the prompt, which tells best what a single feature does; more integrate it over so many places "
    "between no features and the prompt, so that shares add up, and take as many times as long."
)


def over(model: str) -> dict[str, Any]:
    """What the nodes of the graph that is asked for are, and of which folder; InterpError for an address that says another kind."""
    kinds = {
        "transcoders": "features of transcoders, one a layer",
        "neurons": f"the neurons of {model}, without transcoders",
        "residual": "features of SAEs of the residual stream",
    }
    named = st.query_params.get("over", OVER[0])
    if named not in kinds:
        raise InterpError(f"nodes are no {named!r}; they are {', '.join(kinds)}.")
    # Addresses of before say neurons=True.
    before = "neurons" if st.query_params.get("neurons") == "True" else OVER[0]
    left, middle, right = st.columns([3, 3, 2], vertical_alignment="bottom")
    with left:
        kind = bound(st.selectbox, "Nodes are", "over", before, options=list(OVER), format_func=kinds.__getitem__)
    if kind == "neurons":
        return {"over": kind, "model": model}
    with middle:
        if kind == "transcoders":
            return {"transcoders": bound(st.text_input, "Folder of the transcoders", "transcoders", TRANSCODERS)}
        # Those of the open SAE's model where they lie as the embedded ones do, in a folder for each hook point.
        here = Path(chosen())
        beside = here.parents[1] if here.parent.name.startswith("blocks.") else here
        folder = bound(st.text_input, "Folder of the SAEs", "saes", str(beside))
    with right:
        steps = bound(
            st.number_input, "Places of each gradient", "steps", STEPS, min_value=0, max_value=256, help=STEPS_HELP
        )
    return {"over": kind, "saes": [folder], "steps": steps}
