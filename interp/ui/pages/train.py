"""Train: a recipe is filled in and started as a job; its loss, L0, dead features and speed are seen as they come."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from interp import jobs
from interp.commands.allowed import Harvest, allowed_model, allowed_text, given_folders, harvests, new_folder
from interp.commands.texts import corpora, models
from interp.commands.training import STREAMED, K
from interp.commands.watching import COMMANDS_THAT_TRAIN, Logged, Run, runs_of
from interp.jobs import Job
from interp.render import chart_text
from interp.render.words import counted
from interp.types import InterpError
from interp.ui import work
from interp.ui.shared import chart, empty, link, plain, remember

KINDS = {
    "batchtopk": "BatchTopK: k features a token on average",
    "topk": "TopK: exactly k features a token",
    "matryoshka": "Matryoshka: coarse features first",
    "jumprelu": "JumpReLU: a threshold a feature",
    "gated": "Gated: a gate a feature, L1",
    "standard": "ReLU with L1",
    "transcoder": "Transcoder: one hook point to another",
}
L1 = {"gated": 5.0, "standard": 5.0}
WIDTHS = (1024, 2304, 4608, 9216, 18432)
MEASURES: dict[str, tuple[str, str]] = {
    "fvu": ("FVU", "share of the variance that is not explained"),
    "loss": ("loss", "squared error in scaled units, and penalties"),
    "l0": ("L0", "active features a token"),
    "alive": ("features alive", "born and firing, of all"),
}
INDEXED = 200_000  # tokens of a text in which features are looked for
SHOWN = 12  # earlier runs that are linked


# ---- the recipe ----


def recipe() -> None:
    """The form, and what it would take."""
    only = work.closed("SAEs are trained")
    stores = harvests()
    by = st.segmented_control(
        "Activations", ["streamed from a model", "harvested"], default="streamed from a model", key="train-by",
        help="Streamed ones are computed as they are needed, and kept nowhere; `interp harvest` writes them to disk.",
    )  # fmt: skip
    given = harvested(stores) if by == "harvested" else streamed()
    kind = st.selectbox("Kind", list(KINDS), format_func=lambda name: KINDS[name], key="train-kind")
    left, right = st.columns(2)
    width = left.selectbox(
        "Features", WIDTHS, index=1, accept_new_options=True, key="train-width", format_func=lambda n: f"{int(n):,}"
    )
    given |= sparsity(kind, right)
    if kind == "transcoder":
        given["hook_out"] = st.text_input("Hook point that it predicts", "blocks.15.hook_mlp_out", key="train-out")
    given |= more()
    name = st.text_input("Name", f"mine/{kind}-{width}", key="train-name", help=f"A folder in {given_folders()[0]}.")
    tokens = given.get("tokens")
    if tokens:
        st.caption(f"{int(tokens * given['epochs'] / given['batch']):,} steps of {given['batch']:,} tokens.")
    asked = given | {"architecture": kind, "d_sae": width}
    if st.button("Start training", type="primary", icon=":material/play_arrow:", disabled=only):
        start(asked, name)


def streamed() -> dict[str, Any]:
    """The model, the text, the hook point and how many tokens."""
    model = st.selectbox(
        "Model", [each.name for each in models()], accept_new_options=True, key="train-model",
        help="An embedded one, org/name on the hub, or a folder in those that these pages were given.",
    )  # fmt: skip
    text = st.selectbox(
        "Text", [each.name for each in corpora()], accept_new_options=True, key="train-text",
        help="An embedded one, hf:org/name, a file or folder in those that these pages were given; several joined by +.",
    )  # fmt: skip
    left, right = st.columns([3, 2])
    hook = left.text_input("Hook point", "blocks.15.hook_resid_post", key="train-hook")
    tokens = right.number_input("Tokens", 10_000, 10**10, STREAMED, 100_000, key="train-tokens")
    return {"source": model, "corpus": text, "hook": [hook], "tokens": tokens}


def harvested(stores: Sequence[Harvest]) -> dict[str, Any]:
    """A store in the folders that were given, and which of its hook points.

    Raises InterpError when there is none.
    """
    if not stores:
        raise InterpError(
            f"there are no harvested activations in {', '.join(map(str, given_folders()))}; `interp harvest` writes them, and "
            "`interp dashboard --folder` gives these pages another folder."
        )
    store = st.selectbox("Activations in", stores, format_func=lambda each: each.folder, key="train-store")
    st.caption(plain(f"{store.positions:,} tokens of {store.text[:80]} through {store.model}"))
    hook = st.selectbox("Hook point", store.hooks, key="train-stored-hook")
    return {"source": store.folder, "hook": [hook]}


def sparsity(kind: str, where: Any) -> dict[str, Any]:
    """How many features are active, as the kind has it."""
    if kind in L1:
        return {"l1": where.number_input("L1", 0.0, 1e4, L1[kind], key="train-l1", help="Weight of the penalty.")}
    if kind == "jumprelu":
        return {"l0": where.number_input("L0", 1.0, 4096.0, float(K), key="train-l0", help="Active features aimed at.")}
    return {"k": where.number_input("k", 1, 4096, K, key="train-k", help="Active features a token.")}


def more() -> dict[str, Any]:
    """What most recipes leave as it is."""
    with st.expander("Passes, batch, rate, seed"):
        left, right = st.columns(2)
        return {
            "epochs": left.number_input("Passes over the text", 0.01, 1000.0, 1.0, key="train-epochs"),
            "batch": right.number_input("Tokens a step", 1, 1_000_000, 4096, 256, key="train-batch"),
            "lr": left.number_input(
                "Learning rate", 0.0, 1.0, None, format="%.6f", key="train-lr", placeholder="fits the width"
            ),
            "seed": right.number_input("Seed", 0, 2**31 - 1, 0, key="train-seed"),
        }


def start(asked: Mapping[str, Any], name: str) -> None:
    """Check what was typed, begin the job, and show it.

    Raises InterpError for a model, a text or a name that these pages may not use, and for what is no number.
    """
    given = {key: value for key, value in asked.items() if value is not None}
    try:
        given["d_sae"] = int(given["d_sae"])
    except ValueError:
        raise InterpError(f"{given['d_sae']!r} is no number of features; write one such as 4608.") from None
    if "corpus" in given:
        given |= {"source": allowed_model(given["source"]), "corpus": allowed_text(given["corpus"])}
    given["into"] = str(new_folder(name))
    job = jobs.submit("train", given)
    remember(job=job.id)
    st.rerun()


# ---- the run ----


@st.fragment(run_every=work.EVERY)
def going(id: str) -> None:
    """A run that is under way, drawn anew as it goes, and the whole page once it is over."""
    job = jobs.job(id)
    if job.over:
        st.rerun()
    draw(job)


def draw(job: Job) -> None:
    """Where the job stands, its figures, its curves, and what it said."""
    work.headline(job)
    work.progress(job)
    work.buttons(job, key=f"train-{job.id}")
    runs = runs_of(job.command, dict(job.arguments), job.cwd)
    if not any(run.steps or run.over for run in runs):
        st.caption("No step yet: the model reads its first text." if not job.over else "It made no step.")
        work.log(job.id, most=8)
        return
    if len(runs) == 1:
        figures(runs[0], job)
    curves(runs)
    for run in runs:
        leads_on(run, job)
    for note in dict.fromkeys(note for run in runs for note in run.notes):
        st.caption(plain(note))
    with st.expander("What it says"):
        work.log(job.id)


def figures(run: Run, job: Job) -> None:
    """The newest figures; at the end, those of text that it was not trained on."""
    now = run.last or run.steps[-1]
    rate = job.progress.rate if job.progress and not job.over else now.rate
    total = f" of {run.d_sae:,}" if run.d_sae else ""
    shown = [
        ("FVU", number(now.fvu, "{:.3f}"), "Share of the variance that is not explained."),
        ("L0", number(now.l0, "{:.1f}"), "Active features a token."),
        ("dead", f"{now.dead:,}{total}", "Features that have not fired for long; at the end, on no held-out token."),
        ("loss", number(now.loss, "{:.4g}"), "Squared error in scaled units, and penalties; of the last batch."),
        ("tokens/s", number(rate, "{:,.0f}"), "Reading and training together while it runs, a step alone afterwards."),
        ("tokens", f"{now.tokens:,}", "Trained on up to now."),
    ]
    with st.container(horizontal=True, gap="large"):
        for label, value, help_ in shown:
            st.metric(label, value, help=help_, width="content")
    if run.over:
        st.caption("FVU, L0 and dead are of held-out text, which neither training nor the threshold has seen.")


def number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def curves(runs: Sequence[Run]) -> None:
    """A small chart for each measure, over the tokens trained on."""
    for pair in (("fvu", "l0"), ("alive", "loss")):
        for column, name in zip(st.columns(2), pair, strict=True):
            with column:
                chart(curve(name, runs), f"curve-{name}", told(name, runs))


def curve(name: str, runs: Sequence[Run]) -> go.Figure:
    """One measure of every run."""
    title, says = MEASURES[name]
    figure = go.Figure()
    for run in runs:
        at = [step.tokens for step in run.steps]
        values = [value(name, step, run) for step in run.steps]
        figure.add_scatter(x=at, y=values, name=chart_text(run.name), mode="lines+markers" if len(at) < 30 else "lines")
    figure.update_traces(
        marker={"size": 4}, line={"width": 2}, hovertemplate="%{x:,} tokens<br>" + f"{title} %{{y:.4g}}"
    )
    figure.update_layout(
        title={"text": f"{title} <span style='font-size:0.8em;opacity:0.7;font-weight:400'>{says}</span>", "font": {"size": 14}},
        height=210, margin={"l": 8, "r": 8, "t": 36, "b": 8}, showlegend=len(runs) > 1, hovermode="x unified",
    )  # fmt: skip
    figure.update_yaxes(rangemode="tozero" if name in ("l0", "alive") else "normal", nticks=5)
    figure.update_xaxes(nticks=6, tickformat="~s")
    return figure


def value(name: str, step: Logged, run: Run) -> float | None:
    """A measure of a step."""
    if name == "alive":
        return None if run.d_sae is None else run.d_sae - step.dead
    found: float | None = getattr(step, name)
    return found


def told(name: str, runs: Sequence[Run]) -> str:
    """What a curve shows, in words."""
    title = MEASURES[name][0]
    said = []
    for run in runs:
        values = [found for step in run.steps if (found := value(name, step, run)) is not None]
        if values:
            said.append(
                f"{run.name}: {title} from {values[0]:.4g} to {values[-1]:.4g} over {run.steps[-1].tokens:,} tokens"
            )
    return "; ".join(said) or f"no {title} yet"


def leads_on(run: Run, job: Job) -> None:
    """What to do with an SAE that is trained: see where its features fire, then open them."""
    if not run.over:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{plain(run.name)}** is trained.", width="content")
        if not work.read_only():
            st.button(
                "Find where its features fire", key=f"index-{run.folder}", icon=":material/manage_search:",
                on_click=work.ask, args=(index, run.folder, job), help="`interp index`, a job of some minutes.",
            )  # fmt: skip
        link("features", "Its features", sae=run.folder)
        link("evaluate", "Measure it", sae=run.folder)
    work.watch(f"index-{run.folder}")


def index(folder: str, job: Job) -> None:
    """Begin the index of a trained SAE beside it: over the activations that it was trained on, or so much of the text."""
    text = str(job.arguments.get("corpus") or "")
    of = {"corpus": text, "tokens": INDEXED} if text else {"acts": str(job.arguments["source"])}
    work.begin("index", {"sae": folder, "beside": True} | of, note=f"index-{folder}")


# ---- the page ----


def main() -> None:
    work.heading("Train", "A recipe becomes a job of its own; it goes on without this page.")
    trained = [job for job in jobs.jobs()[::-1] if job.command in COMMANDS_THAT_TRAIN]
    asked = st.query_params.get("job", "") or next((job.id for job in trained if not job.over), "")
    with st.container(key="run-asked" if asked else "run-none"):
        left, right = st.columns([2, 5], gap="large")
    with left:
        st.subheader("Recipe", anchor=False)
        try:
            recipe()
        except InterpError as error:
            st.error(plain(str(error)), icon=":material/block:")
    with right:
        try:
            show(asked, trained)
        except InterpError as error:
            st.error(plain(str(error)), icon=":material/block:")


def show(asked: str, trained: Sequence[Job]) -> None:
    """The run that is asked for, or what would be here; and the others."""
    if asked:
        job = jobs.job(asked)
        st.subheader(plain(f"Run {job.id}: {work.about(job)}"), anchor=False)
        if job.over:
            draw(job)
        else:
            going(asked)
    else:
        with empty("No run is under way", "Its loss, L0, dead features and speed would be drawn here as they come."):
            st.caption("A first SAE of a million tokens takes some minutes on a laptop.")
    others = [job for job in trained if job.id != asked][:SHOWN]
    if others:
        st.markdown(f"**{counted(len(others), 'other run')}**")
        for job in others:
            with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"line-other-{job.id}"):
                work.badge(job)
                link("train", plain(f"{job.id} · {work.about(job)}"), job=job.id)
                st.caption(work.took(job), width="content")


main()
