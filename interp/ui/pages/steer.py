"""Steer: hold features at chosen strengths, read default and steered text side by side, and sweep with controls."""

import json
from typing import Any
from urllib.parse import quote, unquote

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from interp.render import chart_text
from interp.steering import OPENINGS, Ablate, Add, Clamp, FeatureEdit, Orthogonal, Scale, Sweep, SweepConfig, When
from interp.steering.edits import describe
from interp.steering.sweep import FACTORS
from interp.types import InterpError
from interp.ui.shared import ACCENT, bound, page, plain, remember, show_tokens
from interp.workbench import Workbench

KINDS = {"clamp": Clamp, "add": Add, "scale": Scale, "ablate": Ablate, "orthogonal": Orthogonal}
WITHOUT_STRENGTH = ("ablate", "orthogonal")
EMPTY = [{"feature": 0, "kind": "clamp", "strength": 8.0, "where": "all", "above": None}]
COLOURS = {
    "feature": ACCENT,
    "random features": "#6b7280",
    "noise": "#a3a3a3",
    "sign flipped": "#3c82dc",
    "prompt only": "#16a34a",
}
MEASURES = {
    "shift": "target tokens' log-probability, nats more than unsteered",
    "kl": "KL to the unsteered model, nats a token",
    "perplexity": "perplexity of the text under the unsteered model",
    "perplexity_ratio": "perplexity over that of the unsteered text",
    "distinct_2": "distinct bigrams, share",
    "loops": "texts that end in a loop, share",
    "fires": "texts on which the feature fires, share",
    "says_target": "texts with a target token, share",
    "matches": "texts that the regular expression matches, share",
}


def from_url() -> list[dict[str, Any]]:
    """The edits in the URL: `feature,kind,strength`, with a place and a threshold if any, joined by semicolons."""
    rows = []
    for part in filter(None, st.query_params.get("edits", "").split(";")):
        try:
            feature, kind, strength, *more = part.split(",")
            where, above = [*more, *["all", ""][len(more) :]]
            rows.append(
                {
                    "feature": int(feature),
                    "kind": kind,
                    "strength": float(strength),
                    "where": unquote(where) or "all",
                    "above": float(above) if above else None,
                }
            )
        except ValueError:
            raise InterpError(f"the edit {part!r} in the URL cannot be read; it is feature,kind,strength.") from None
    return rows or EMPTY


def to_url(rows: pd.DataFrame) -> str:
    parts = []
    for row in rows.dropna(subset=["feature"]).itertuples():
        written = f"{int(row.feature)},{row.kind},{row.strength:g}"
        above = "" if pd.isna(row.above) else f"{row.above:g}"
        if above or (row.where and row.where != "all"):
            written += f",{quote(row.where or 'all', safe=':/')}" + (f",{above}" if above else "")
        parts.append(written)
    return ";".join(parts)


def edits_of(rows: pd.DataFrame) -> list[FeatureEdit]:
    """The edits that the table's rows mean."""
    edits: list[FeatureEdit] = []
    for row in rows.dropna(subset=["feature"]).itertuples():
        kind = str(row.kind)
        if kind not in KINDS:
            raise InterpError(f"no edit {kind!r}: there is {', '.join(KINDS)}.")
        given: dict[str, Any] = {"feature": int(row.feature), "where": str(row.where or "all")}
        if kind not in WITHOUT_STRENGTH:
            given["strength"] = float(row.strength)
        if not pd.isna(row.above):
            given["when"] = When(above=float(row.above))
        edits.append(KINDS[kind](**given))
    return edits


def strengths(wb: Workbench, edits: list[FeatureEdit]) -> None:
    """What the chosen features are, and how strong they get on text."""
    for edit in edits:
        if isinstance(edit.feature, int):
            largest = float(wb.index.row(edit.feature)["max"])
            name = wb.name(edit.feature)
            st.caption(plain(f"feature {edit.feature}: {name}; its largest activation in the index is {largest:.2f}"))


def edit_table(wb: Workbench) -> pd.DataFrame:
    """The table of edits, as the user left it."""
    state = st.session_state
    given = st.query_params.get("edits", "")
    if state.get("steer_url") != given:  # a new page, or the browser went back or forward
        state.steer_rows = pd.DataFrame(from_url()).astype({"above": "float64"})
        state.steer_table = state.get("steer_table", 0) + 1
    state.steer_url = given
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    edited: pd.DataFrame = st.data_editor(
        state.steer_rows,
        num_rows="dynamic",
        hide_index=True,
        key=f"edits-{state.steer_table}",
        column_config={
            "feature": number("feature", min_value=0, max_value=wb.sae.d_sae - 1, step=1, required=True),
            "kind": st.column_config.SelectboxColumn("edit", options=list(KINDS), required=True, default="clamp"),
            "strength": number(
                "strength", default=8.0, help="In units of the feature's activation; for scale, a factor."
            ),
            "where": text("where", default="all", help="all, prompt, generated, from:I or token:/REGEX/"),
            "above": number("only above", help="Only where the feature's own activation is above this."),
        },
    )
    return edited


def preset_edits(wb: Workbench) -> list[FeatureEdit]:
    """The edits of the chosen or uploaded preset, which come before the table's."""
    left, right = st.columns(2)
    name = left.selectbox("Preset", ["", *wb.presets()], help="Its edits act before those of the table.")
    file = right.file_uploader("Preset from a file", type="json")
    if file is None and not name:
        return []
    try:
        found = wb.preset(json.loads(file.getvalue()) if file is not None else name)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InterpError(f"the preset's file is not readable as JSON: {error}.") from None
    for edit in found.edits:
        st.caption(plain(describe(edit)))
    return found.edits


def generate_tab(wb: Workbench, edits: list[FeatureEdit]) -> None:
    prompt = bound(st.text_area, "Prompt", "prompt", "The best city is", height=80)
    columns = st.columns(5)
    number = [column.number_input for column in columns]
    tokens = bound(number[0], "New tokens", "tokens", 40, min_value=1, max_value=400)
    temperature = bound(number[1], "Temperature", "temperature", 0.0, min_value=0.0, max_value=2.0, step=0.1)
    top_p = bound(number[2], "Top-p", "top_p", 1.0, min_value=0.01, max_value=1.0, step=0.05)
    seed = bound(number[3], "Seed", "seed", 0, min_value=0, max_value=2**31 - 1)
    chat = bound(columns[4].toggle, "Chat template", "chat", False)
    if st.button("Generate", type="primary") and prompt.strip():
        shown = st.empty()

        def show(baseline: str, steered: str) -> None:
            with shown:
                show_tokens([steered], [0.0], 1.0)

        options: dict[str, Any] = {"max_new_tokens": int(tokens), "temperature": float(temperature)}
        options |= {"seed": int(seed), "top_p": float(top_p), "chat": chat}
        with st.spinner("Generating with and without the edits …"):
            st.session_state.steer_run = wb.steer(prompt, edits, on_text=show, **options)
        shown.empty()
    run = st.session_state.get("steer_run")
    if run is None:
        return
    left, right = st.columns(2, gap="large", border=True)
    with left:
        st.subheader("Default")
        show_tokens([run.baseline], [0.0], 1.0)
    with right:
        st.subheader("Steered")
        show_tokens([run.steered], [0.0], 1.0)
    if run.baseline == run.steered:
        st.info("The text did not change: try a larger strength.")
    for sentence in run.conflicts:
        st.warning(plain(sentence))
    st.caption("One run, no controls: that a text changes does not show that the feature means what its label says.")
    with st.expander("Record of this run"):
        st.json(json.loads(run.to_json()), expanded=False)
    st.download_button("Download the record", run.to_json(), "steer.json", "application/json")


def sweep_tab(wb: Workbench, edits: list[FeatureEdit]) -> None:
    features = [edit.feature for edit in edits if isinstance(edit.feature, int)]
    if not features:
        st.caption("Put a feature into the table to sweep it.")
        return
    st.caption(plain(f"Sweeps feature {features[0]}: {wb.name(features[0])}. With controls it takes about a minute."))
    written = st.text_area("Prompts, one a line", "\n".join(OPENINGS), height=120)
    columns = st.columns(4)
    factors = columns[0].multiselect("Strengths, times its largest", FACTORS, default=[-1.0, 0.5, 1.0, 2.0, 4.0])
    tokens = columns[1].number_input("Tokens a text", 1, 200, 30)
    regex = columns[2].text_input("Regular expression to look for (RE2)")
    controls = columns[3].toggle("Controls and verdict", True)
    if st.button("Sweep", type="primary"):
        config = SweepConfig(
            factors=tuple(sorted(factors)),
            prompts=tuple(line for line in written.splitlines() if line.strip()),
            regex=regex or None,
            controls=controls,
            verdict=controls,
        )
        with st.status("Sweeping …") as status:

            def note(text: str) -> None:
                status.update(label=f"Sweeping: {text} …")

            st.session_state.steer_sweep = wb.sweep(features[0], config=config, note=note, max_new_tokens=int(tokens))
            status.update(label="Swept", state="complete")
    found = st.session_state.get("steer_sweep")
    if found is not None:
        show_sweep(found)


def show_sweep(found: Sweep) -> None:
    """Verdict, curve with controls, figures, texts and record of a sweep."""
    if found.verdict is not None:
        st.info(plain(found.verdict.sentence))
    st.info(plain(found.window.sentence))
    measure = st.selectbox("Measure", list(MEASURES), format_func=lambda name: f"{name}: {MEASURES[name]}")
    st.plotly_chart(curve(found, measure), key="curve")
    st.caption(plain(f"Targets: {' '.join(repr(t) for t in found.targets)}. Bars are 95 % intervals over prompts."))
    st.dataframe(pd.DataFrame(found.rows()), hide_index=True)
    with st.expander("Texts"):
        for point in [found.baseline, *found.curve]:
            st.caption("baseline" if point is found.baseline else f"{point.factor:g} times its largest activation")
            for text in point.texts:
                show_tokens([text], [0.0], 1.0)
    st.download_button("Download the sweep's record", found.to_json(), "sweep.json", "application/json")


def curve(found: Sweep, measure: str) -> go.Figure:
    """The measure against the strength, for the feature and each control."""
    figure = go.Figure()
    for name, points in found.series.items():
        at = [getattr(p, measure) for p in points]
        bars = {"array": [h - m for m, _, h in at], "arrayminus": [m - low for m, low, _ in at]}
        figure.add_scatter(
            x=[p.factor for p in points],
            y=[m for m, _, _ in at],
            error_y={"type": "data", "symmetric": False, **bars},
            name=chart_text(name),
            mode="markers" if name == "prompt only" else "lines+markers",
            line={"color": COLOURS.get(name, "#888888"), "width": 3 if name == "feature" else 1.5},
        )
    figure.add_hline(y=getattr(found.baseline, measure)[0], line_dash="dot", annotation_text="unsteered")
    figure.update_layout(
        height=380,
        margin={"l": 10, "r": 10, "t": 20, "b": 10},
        xaxis_title="strength, times the feature's largest activation",
        yaxis_title=measure,
    )
    if measure.startswith("perplexity"):
        figure.update_yaxes(type="log")
    return figure


def save_as_preset(wb: Workbench, edits: list[FeatureEdit]) -> None:
    with st.expander("Keep these edits as a preset"):
        name = st.text_input("Name of the preset")
        note = st.text_input("Note")
        if st.button("Save the preset") and name:
            st.success(plain(f"saved in {wb.save_preset(name, edits, note=note)}"))


with page("Steer") as wb:
    rows = edit_table(wb)
    table_edits = edits_of(rows)
    wb.check_edits(table_edits)
    strengths(wb, table_edits)
    remember(edits=to_url(rows))
    st.session_state.steer_url = to_url(rows)
    all_edits = [*preset_edits(wb), *table_edits]
    generating, sweeping = st.tabs(["Generate", "Sweep with controls"])
    with generating:
        generate_tab(wb, all_edits)
    with sweeping:
        sweep_tab(wb, all_edits)
    save_as_preset(wb, all_edits)
