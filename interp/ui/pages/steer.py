"""Steer: hold features at chosen strengths and read the default and the steered text side by side."""

import json
from typing import Any

import pandas as pd
import streamlit as st

from interp.steering import Ablate, Add, Clamp, FeatureEdit, Scale
from interp.types import InterpError
from interp.ui.shared import page, plain, remember, show_tokens
from interp.workbench import Workbench

KINDS = {"clamp": Clamp, "add": Add, "scale": Scale, "ablate": Ablate}
EMPTY = [{"feature": 0, "kind": "clamp", "strength": 8.0}]


def from_url() -> list[dict[str, object]]:
    """The edits in the URL: `feature,kind,strength` joined by semicolons."""
    rows = []
    for part in filter(None, st.query_params.get("edits", "").split(";")):
        try:
            feature, kind, strength = part.split(",")
            rows.append({"feature": int(feature), "kind": kind, "strength": float(strength)})
        except ValueError:
            raise InterpError(f"the edit {part!r} in the URL cannot be read; it is feature,kind,strength.") from None
    return rows or EMPTY


def edits_of(rows: pd.DataFrame) -> list[FeatureEdit]:
    """The edits that the table's rows mean."""
    edits: list[FeatureEdit] = []
    for row in rows.dropna(subset=["feature"]).itertuples():
        kind = str(row.kind)
        if kind not in KINDS:
            raise InterpError(f"no edit {kind!r}: there is {', '.join(KINDS)}.")
        if kind == "ablate":
            edits.append(Ablate(feature=int(row.feature)))
        else:
            edits.append(KINDS[kind](feature=int(row.feature), strength=float(row.strength)))
    return edits


def strengths(wb: Workbench, edits: list[FeatureEdit]) -> None:
    """What the chosen features are, and how strong they get on text."""
    for edit in edits:
        feature = int(edit.feature)  # type: ignore[arg-type]
        largest = float(wb.index.row(feature)["max"])
        st.caption(
            plain(f"feature {feature}: {wb.name(feature)}; its largest activation in the index is {largest:.2f}")
        )


with page("Steer") as wb:
    prompt = st.text_area("Prompt", st.query_params.get("prompt", "The best city is"), height=80)
    if "steer_rows" not in st.session_state:
        st.session_state.steer_rows = pd.DataFrame(from_url())
    rows = st.data_editor(
        st.session_state.steer_rows,
        num_rows="dynamic",
        hide_index=True,
        key="edits",
        column_config={
            "feature": st.column_config.NumberColumn(
                "feature", min_value=0, max_value=wb.sae.d_sae - 1, step=1, required=True
            ),
            "kind": st.column_config.SelectboxColumn("edit", options=list(KINDS), required=True, default="clamp"),
            "strength": st.column_config.NumberColumn(
                "strength", default=8.0, help="In units of the feature's activation; for scale, a factor."
            ),
        },
    )
    first, second, third, fourth = st.columns(4)
    tokens = first.number_input("New tokens", 1, 400, int(st.query_params.get("tokens", "40")))
    temperature = second.number_input("Temperature", 0.0, 2.0, float(st.query_params.get("temperature", "0")), 0.1)
    seed = third.number_input("Seed", 0, 2**31 - 1, int(st.query_params.get("seed", "0")))
    chat = fourth.toggle("Chat template", st.query_params.get("chat") == "True")
    edits = edits_of(rows)
    wb.check_edits(edits)
    strengths(wb, edits)
    written = ";".join(
        f"{int(r.feature)},{r.kind},{r.strength:g}" for r in rows.dropna(subset=["feature"]).itertuples()
    )
    remember(prompt=prompt, edits=written, tokens=tokens, temperature=temperature, seed=seed, chat=chat or None)
    if st.button("Generate", type="primary") and prompt.strip():
        with st.spinner("Generating with and without the edits …"):
            options: dict[str, Any] = {
                "max_new_tokens": int(tokens),
                "temperature": float(temperature),
                "seed": int(seed),
            }
            st.session_state.steer_run = wb.steer(prompt, edits, chat=chat, **options)
    run = st.session_state.get("steer_run")
    if run is not None:
        left, right = st.columns(2, gap="large", border=True)
        with left:
            st.subheader("Default")
            show_tokens([run.baseline], [0.0], 1.0)
        with right:
            st.subheader("Steered")
            show_tokens([run.steered], [0.0], 1.0)
        if run.baseline == run.steered:
            st.info("The text did not change: try a larger strength.")
        st.caption(
            "One run, no controls: that a text changes does not show that the feature means what its label says."
        )
        with st.expander("Record of this run"):
            st.json(json.loads(run.to_json()), expanded=False)
        st.download_button("Download the record", run.to_json(), "steer.json", "application/json")
