"""Steer: features held at chosen strengths, default and steered text side by side, sweeps with controls."""

import json
from typing import Any
from urllib.parse import quote, unquote

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from interp.commands import steering
from interp.commands.allowed import read_only
from interp.commands.finding import AboutSae, name_feature, search
from interp.render import chart_text
from interp.render.words import strength
from interp.types import InterpError
from interp.ui import work
from interp.ui.shared import ACCENT, bound, link, page, plain, remember, show_tokens
from interp.ui.unfit import needs_next_token

Edit = dict[str, Any]
KINDS = {"clamp": "Clamp", "add": "Add", "scale": "Scale", "ablate": "Ablate", "orthogonal": "Orthogonal"}
WITHOUT_STRENGTH = ("ablate", "orthogonal")
COLUMNS = {"feature": "Int64", "kind": "object", "strength": "float64", "where": "object", "above": "float64"}
FOUND = 6  # features that the box offers
LEAST, MOST = -2.0, 6.0  # ends of a slider, times the feature's largest activation
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
    """The edits in the URL: `feature,kind,strength`, with a place and a threshold if any, joined by semicolons.

    Raises InterpError for one that cannot be read.
    """
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
    return rows


def to_url(rows: pd.DataFrame) -> str:
    parts = []
    for row in rows.dropna(subset=["feature"]).itertuples():
        written = f"{int(row.feature)},{row.kind},{row.strength:g}"
        above = "" if pd.isna(row.above) else f"{row.above:g}"
        if above or (row.where and row.where != "all"):
            written += f",{quote(row.where or 'all', safe=':/')}" + (f",{above}" if above else "")
        parts.append(written)
    return ";".join(parts)


def edits_of(rows: pd.DataFrame) -> list[Edit]:
    """The edits that the table's rows mean; InterpError for a kind that does not exist."""
    edits: list[Edit] = []
    for row in rows.dropna(subset=["feature"]).itertuples():
        kind = str(row.kind)
        if kind not in KINDS:
            raise InterpError(f"no edit {kind!r}: there is {', '.join(KINDS)}.")
        given: Edit = {"kind": KINDS[kind], "feature": int(row.feature), "where": str(row.where or "all")}
        if kind not in WITHOUT_STRENGTH:
            given["strength"] = float(row.strength)
        if not pd.isna(row.above):
            given["when"] = {"above": float(row.above)}
        edits.append(given)
    return edits


def find(sae: str) -> None:
    """A box that finds features by name or number, each a button that adds it."""
    asked = st.text_input(
        "Add a feature", key="steer-find", placeholder="by its name or number: Paris, past tense, 1234", width=460
    )
    if not asked.strip():
        return
    if asked.strip().isdigit():
        numbers = [int(asked)]
        steering.largest_activation(sae, numbers[0])  # which says that there is no such feature
    else:
        numbers = [hit.feature for hit in search(sae, asked, limit=FOUND).hits]
    with st.container(horizontal=True, gap="small"):
        for number in numbers:
            label = plain(f"{number} {name_feature(sae, number)}"[:70])
            st.button(label, key=f"add-{number}", icon=":material/add:", on_click=add, args=(sae, number))
    if not numbers:
        st.caption("No feature is found by that.")


def add(sae: str, number: int) -> None:
    """A row that holds the feature at its largest activation."""
    strength = round(steering.largest_activation(sae, number), 2) or 1.0
    row = {"feature": number, "kind": "clamp", "strength": strength, "where": "all", "above": None}
    put(pd.concat([st.session_state.steer_edited, frame([row])], ignore_index=True))


def slid(at: int, key: str, unit: float) -> None:
    """The strength that a slider says, in units of `unit`, into the row at that place."""
    rows = st.session_state.steer_edited.copy()
    rows.loc[at, "strength"] = round(st.session_state[key] * unit, 3)
    put(rows)


def dropped(at: int) -> None:
    """The edits without the one at that place."""
    rows = st.session_state.steer_edited
    put(rows.drop(index=at).reset_index(drop=True))


def put(rows: pd.DataFrame) -> None:
    """These are the edits now, in the table and in the URL."""
    state = st.session_state
    state.steer_rows, state.steer_table, state.steer_url = rows, state.get("steer_table", 0) + 1, to_url(rows)
    remember(edits=state.steer_url)


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def sliders(sae: str, rows: pd.DataFrame) -> None:
    """A line for each edit: the feature by its name, its strength in units of its own largest activation."""
    for row in rows.dropna(subset=["feature"]).itertuples():
        at, number, kind = row.Index, int(row.feature), str(row.kind)
        largest = steering.largest_activation(sae, number)
        unit = 1.0 if kind == "scale" else largest or 1.0
        with st.container(key=f"line-edit-{at}"):
            name, what, slide, gone = st.columns([4, 2, 4, 1], vertical_alignment="center")
        with name:
            link("feature", plain(f"{number} {name_feature(sae, number)}"[:80]), feature=number)
        words = [kind, "" if row.where in (None, "", "all") else str(row.where), f"largest {strength(largest)}"]
        what.caption(plain(" · ".join(filter(None, words))))
        if kind not in WITHOUT_STRENGTH:
            key = f"slide-{at}-{number}-{row.strength:g}-{kind}"
            value = min(max(float(row.strength) / unit, LEAST), MOST)
            slide.slider(
                f"Strength of {number}", LEAST, MOST, value, 0.05, key=key, on_change=slid, args=(at, key, unit),
                format="%.2f × its largest" if kind != "scale" else "%.2f ×", label_visibility="collapsed",
            )  # fmt: skip
        gone.button(
            "Remove", key=f"drop-{at}-{number}", icon=":material/close:", type="tertiary", on_click=dropped, args=(at,)
        )


def edit_table(opened: AboutSae) -> pd.DataFrame:
    """The table of edits, as the user left it."""
    state = st.session_state
    given = st.query_params.get("edits", "")
    if state.get("steer_url") != given:  # a new page, or the browser went back or forward
        state.steer_rows = frame(from_url())
        state.steer_table = state.get("steer_table", 0) + 1
    state.steer_url = given
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    edited: pd.DataFrame = st.data_editor(
        state.steer_rows,
        num_rows="dynamic",
        hide_index=True,
        key=f"edits-{state.steer_table}",
        column_config={
            "feature": number("feature", min_value=0, max_value=opened.d_sae - 1, step=1, required=True),
            "kind": st.column_config.SelectboxColumn("edit", options=list(KINDS), required=True, default="clamp"),
            "strength": number(
                "strength", default=8.0, help="In units of the feature's activation; for scale, a factor."
            ),
            "where": text("where", default="all", help="all, prompt, generated, from:I or token:/REGEX/"),
            "above": number("only above", help="Only where the feature's own activation is above this."),
        },
    )
    return edited


def preset_edits(sae: str) -> list[Edit]:
    """The edits of the chosen or uploaded preset, which come before the table's.

    Raises InterpError for a file that is none.
    """
    with st.expander("Edits that were kept, or are in a file"):
        left, right = st.columns(2)
    names = [preset["name"] for preset in steering.presets(sae)]
    name = left.selectbox("Preset", ["", *names], help="Its edits act before those of the table.")
    file = right.file_uploader("Preset from a file", type="json", max_upload_size=1)
    if file is None and not name:
        return []
    try:
        content = json.loads(file.getvalue()) if file is not None else None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InterpError(f"the preset's file is not readable as JSON: {error}.") from None
    edits: list[Edit] = steering.preset(sae, name, content=content)["edits"]
    for sentence in steering.check_edits(sae, edits):
        st.caption(plain(sentence))
    return edits


def generate_tab(sae: str, edits: list[Edit]) -> None:
    prompt = bound(st.text_area, "Prompt", "prompt", "The best city is", height=80)
    with st.container(key="pairs"):
        columns = st.columns(5, vertical_alignment="bottom")
    number = [column.number_input for column in columns]
    tokens = bound(number[0], "New tokens", "tokens", 40, min_value=1, max_value=400)
    temperature = bound(number[1], "Temperature", "temperature", 0.0, min_value=0.0, max_value=2.0, step=0.1)
    top_p = bound(number[2], "Top-p", "top_p", 1.0, min_value=0.01, max_value=1.0, step=0.05)
    seed = bound(number[3], "Seed", "seed", 0, min_value=0, max_value=2**31 - 1)
    chat = bound(columns[4].toggle, "Chat template", "chat", False)
    asked = st.button("Generate", type="primary") and bool(prompt.strip())
    run = st.session_state.get("steer_run")
    if run is None and not asked:
        return
    default, steered_text = side_by_side()
    if asked:

        def show(baseline: str, steered: str) -> None:
            for place, text in ((default, baseline), (steered_text, steered)):
                with place:
                    show_tokens([text], [0.0], 1.0)

        with st.spinner("Generating with and without the edits …"):
            st.session_state.steer_run = steering.steer(
                sae,
                [prompt],
                edits=edits,
                tokens=int(tokens),
                temperature=float(temperature),
                seed=[int(seed)],
                top_p=float(top_p),
                chat=chat,
                on_text=show,
            )
    run = st.session_state.steer_run
    for place, text in ((default, run.baseline), (steered_text, run.steered)):
        with place:
            show_tokens([text], [0.0], 1.0)
    if run.baseline == run.steered:
        st.info("The text did not change: try a larger strength.")
    for sentence in run.conflicts:
        st.warning(plain(sentence))
    st.caption("One run, no controls: that a text changes does not show that the feature means what its label says.")
    with st.expander("Record of this run"):
        st.json(json.loads(run.to_json()), expanded=False)
    st.download_button(
        "Download the record", run.to_json(), "steer.json", "application/json",
        help="`interp replay steer.json` repeats the run and says whether it is identical.",
    )  # fmt: skip


def side_by_side() -> tuple[Any, Any]:
    """Where the default and the steered text go, both while they are written."""
    places = []
    for column, title in zip(st.columns(2, gap="large", border=True), ("Default", "Steered"), strict=True):
        with column:
            st.subheader(title, anchor=False)
            places.append(st.empty())
    return places[0], places[1]


def sweep_tab(sae: str, edits: list[Edit]) -> None:
    """One feature at several strengths; InterpError when there is no text or no strength."""
    features = [edit["feature"] for edit in edits if isinstance(edit["feature"], int)]
    if not features:
        st.caption("Put a feature into the table to sweep it.")
        return
    st.caption(
        plain(f"Sweeps feature {features[0]}: {name_feature(sae, features[0])}. With controls it takes about a minute.")
    )
    prompts, factors_known = steering.sweep_defaults()
    written = st.text_area("Prompts, one a line", "\n".join(prompts), height=120)
    columns = st.columns(4)
    factors = columns[0].multiselect("Strengths, times its largest", factors_known, default=[-1.0, 0.5, 1.0, 2.0, 4.0])
    tokens = columns[1].number_input("Tokens a text", 1, 200, 30)
    regex = columns[2].text_input("Regular expression to look for (RE2)")
    controls = columns[3].toggle("Controls and verdict", True)
    if st.button("Sweep", type="primary"):
        lines = [line for line in written.splitlines() if line.strip()]
        if not lines or not factors:
            raise InterpError("the sweep has no prompts or no strengths; give at least one of each.")
        with st.status("Sweeping …") as status:

            def note(text: str) -> None:
                status.update(label=f"Sweeping: {text} …")

            st.session_state.steer_sweep = steering.sweep_strengths(
                sae,
                str(features[0]),
                strengths=sorted(factors),
                prompt=lines,
                regex=regex,
                controls=controls,
                verdict=controls,
                tokens=int(tokens),
                on_note=note,
            )
            status.update(label="Swept", state="complete")
    found = st.session_state.get("steer_sweep")
    if found is not None:
        show_sweep(found)


def show_sweep(found: Any) -> None:
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


def curve(found: Any, measure: str) -> go.Figure:
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


def save_as_preset(sae: str, edits: list[Edit]) -> None:
    if not edits or read_only():
        return
    with st.expander("Keep these edits as a preset"):
        name = st.text_input("Name of the preset")
        note = st.text_input("Note")
        if st.button("Save the preset") and name:
            st.success(plain(f"saved in {steering.save_preset(sae, name, edits, note=note)}"))


with page("Steer") as opened:
    needs_next_token(sae := opened.sae, "Steering")
    work.rules()
    top = st.container()
    with st.expander("The edits as a table: places, thresholds, other kinds", expanded=False):
        rows = edit_table(opened)
    st.session_state.steer_edited = rows
    table_edits = edits_of(rows)
    steering.check_edits(sae, table_edits)
    with top:
        find(sae)
        sliders(sae, rows)
    remember(edits=to_url(rows))
    st.session_state.steer_url = to_url(rows)
    all_edits = [*preset_edits(sae), *table_edits]
    generating, sweeping = st.tabs(["Generate", "Sweep with controls"])
    with generating:
        generate_tab(sae, all_edits)
    with sweeping:
        sweep_tab(sae, all_edits)
    save_as_preset(sae, all_edits)
