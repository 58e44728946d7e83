"""Evaluate: the report of an SAE, several reports side by side, and SAEs compared at equal sparsity, each begun as a job."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from interp import jobs
from interp.commands.allowed import allowed_text, offered
from interp.commands.finding import AboutSae
from interp.commands.reports import comparison_file, has_report, reports_beside, section_names, shown_report
from interp.commands.texts import corpora
from interp.types import InterpError
from interp.ui import work
from interp.ui.shared import empty, link, page, plain, remember

TABS = {"report": "This SAE's report", "beside": "Side by side", "compare": "At equal sparsity"}
FILES = {"report.html": "text/html", "report.md": "text/markdown", "report.json": "application/json"}
TALL = 1400  # pixels of a comparison's page, which scrolls in its frame


def text_and_tokens(key: str) -> dict[str, Any]:
    """What to measure on."""
    left, right = st.columns([2, 1])
    text = left.selectbox("Text", [each.name for each in corpora()], accept_new_options=True, key=f"{key}-text")
    tokens = right.number_input("Tokens", 2_048, 10**8, 50_000, 10_000, key=f"{key}-tokens")
    return {"corpus": text, "tokens": int(tokens)}


# ---- one report ----


def report(opened: AboutSae) -> None:
    """The report that there is, or how it is made."""
    note = f"evaluate-{opened.sae_sha256}"
    known = shown_report(opened.sae)
    work.watch(note, command="evaluate", sae=opened.sae)
    if known is None:
        empty(
            "No report of this SAE yet",
            "It says how faithfully the SAE stands in for the model, what its features mean and how far each figure tells it "
            "from an SAE that found nothing; every figure has its interval, and what could not be shown comes first.",
        )
        with st.container(width=680):
            measure(opened, note)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        when = f"Made {known.made:%Y-%m-%d %H:%M} UTC" if known.made else "Came with the SAE"
        st.caption(f"{when} · {len(known.sections)} sections", width="content")
        for name, kind in FILES.items():
            st.download_button(
                name, known.file(name), name, kind, type="tertiary", icon=":material/download:", on_click="ignore"
            )
        with st.popover("Measure again or more", icon=":material/refresh:", type="tertiary"):
            measure(opened, note)
    work.sheet(known.body, "report")


def measure(opened: AboutSae, note: str) -> None:
    """The form of a report."""
    if work.closed("reports are made"):
        return
    given = text_and_tokens(note)
    names = section_names(opened.sae)
    only = st.multiselect(
        "Sections", list(names), key=f"{note}-only", format_func=lambda name: names[name],
        placeholder="all that take minutes at most",
    )  # fmt: skip
    everything = st.checkbox("Also those that take long", key=f"{note}-all", disabled=bool(only))
    if st.button("Measure", type="primary", key=f"{note}-go"):
        given |= {"sae": opened.sae, "corpus": allowed_text(given["corpus"])}
        work.begin("evaluate", given | {"only": only, "everything": everything and not only}, note=note)
        st.rerun()


# ---- several ----


def choose(opened: AboutSae, key: str, among: Sequence[tuple[str, str]], label: str) -> list[str]:
    """Folders of SAEs, this one first; they stand in the URL."""
    folders = dict(among)
    asked = [folder for folder in st.query_params.get("with", "").split("|") if folder in folders]
    picked: list[str] = st.multiselect(
        label, list(folders), default=asked, key=key, format_func=lambda folder: folders[folder],
        placeholder="choose one or more",
    )  # fmt: skip
    remember(**{"with": "|".join(picked)})
    return [opened.sae, *picked]


def others(opened: AboutSae) -> list[tuple[str, str]]:
    """(folder, name and hook point) of the other SAEs of this model in the folders that the pages were given."""
    shown = [entry for entry in offered() if not entry.problem]
    return [
        (str(Path(entry.folder).resolve()), f"{entry.name} · {entry.hook}")
        for entry in shown
        if str(Path(entry.folder).resolve()) != str(Path(opened.sae).resolve())
    ]


def beside(opened: AboutSae) -> None:
    """Every figure of several reports, and how meanings change with depth."""
    known = [(folder, name) for folder, name in others(opened) if has_report(folder)]
    if not has_report(opened.sae) or not known:
        mine = "" if has_report(opened.sae) else "this SAE has none yet"
        theirs = "" if known else "no other SAE here has one"
        with empty(
            "There are not two reports to lay side by side",
            f"{' and '.join(filter(None, [mine, theirs]))}: measure them first, at several depths say, on the same text.",
        ):
            for folder, name in others(opened)[:6]:
                link("evaluate", plain(f"Measure {name}"), sae=folder)
        return
    chosen = choose(opened, "beside-saes", known, "Beside this one")
    if len(chosen) < 2:
        st.caption("Choose at least one other.")
        return
    work.sheet(reports_beside(chosen), "beside")


def compare(opened: AboutSae) -> None:
    """SAEs on the same tokens, as they are and at equal L0: begun as a job, and the comparisons that there are."""
    st.caption(
        "On the same tokens, as they are and cut to the same number of active features; one is called better only where the "
        "95 % interval of the paired difference leaves out 0."
    )
    with st.container(width=680):
        compare_form(opened)
    work.watch("compare")
    done = [job for job in jobs.jobs()[::-1] if job.command == "compare" and job.state == "done"]
    kept = [
        job for job in done if opened.sae in map(str, _list(job.arguments.get("saes"))) and job.arguments.get("html")
    ]
    if not kept:
        return
    job = st.selectbox("Comparisons", kept, format_func=_named, key="compare-shown")
    try:
        html = comparison_file(Path(str(job.arguments["html"])).stem).read_text(encoding="utf-8")
    except OSError:
        st.caption("Its page is gone from the cache; compare again.")
        return
    st.iframe(html, height=TALL)
    st.download_button(
        "comparison.html", html, "comparison.html", "text/html", icon=":material/download:", type="tertiary"
    )


def compare_form(opened: AboutSae) -> None:
    """Which SAEs, on what text."""
    picked = choose(opened, "compare-saes", others(opened), "Compare this one with")
    if work.closed("comparisons are begun"):
        return
    given = text_and_tokens("compare")
    if st.button("Compare", type="primary", disabled=len(picked) < 2):
        asked = {"saes": picked, "corpus": allowed_text(given["corpus"]), "tokens": given["tokens"]}
        name = hashlib.sha256(repr(sorted(asked.items())).encode()).hexdigest()[:32]
        work.begin("compare", asked | {"html": str(comparison_file(name))}, note="compare")
        st.rerun()


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _named(job: jobs.Job) -> str:
    names = ", ".join("/".join(Path(str(sae)).parts[-2:]) for sae in _list(job.arguments.get("saes")))
    return f"{names} · {job.arguments.get('corpus', 'wiki-en')} · {work.since(job.created)} ago"


# ---- the page ----


with page("Evaluate") as opened:
    work.rules()
    work.say_refusals()
    asked = st.query_params.get("show", "report")
    shown = st.segmented_control(
        "Show", list(TABS), format_func=lambda name: TABS[name], default=asked if asked in TABS else "report",
        label_visibility="collapsed", key="evaluate-show", required=True,
    )  # fmt: skip
    remember(show=None if shown == "report" else shown)
    try:
        {"report": report, "beside": beside, "compare": compare}[shown or "report"](opened)
    except InterpError as error:
        st.error(plain(str(error)), icon=":material/block:")
