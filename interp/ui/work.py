"""Jobs as pages show them: what each is doing, and buttons that begin, stop, resume and remove them."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import streamlit as st

from interp import jobs
from interp.commands.allowed import read_only
from interp.jobs import Job
from interp.render import Html
from interp.render.terminal import printable
from interp.render.words import duration
from interp.types import InterpError
from interp.ui.shared import PAGES, chosen, link, plain

HERE = Path(__file__).parent
LOOKS: dict[str, tuple[str, Any]] = {
    "queued": (":material/schedule:", "gray"),
    "running": (":material/play_arrow:", "blue"),
    "done": (":material/check:", "green"),
    "failed": (":material/error:", "red"),
    "stopped": (":material/stop:", "orange"),
    "lost": (":material/help:", "red"),
}
"""Icon and colour of a job's state; the word stands beside them."""
_figures = st.components.v2.component(
    "interp.figures",
    html="<div class='root'></div>",
    css=(HERE / "figures.css").read_text(encoding="utf-8"),
    js=(HERE / "figures.js").read_text(encoding="utf-8"),
)
EVERY = 1.5
"""Seconds between two looks at a job that is under way."""
SELDOM = 10.0
"""Seconds between two looks at a list of jobs of which none is."""


def heading(title: str, about: str = "") -> None:
    """The head of a page that speaks of no one SAE, with what a button asked for in vain."""
    with st.container(horizontal=True, key="heading"):
        st.title(title, width="content", anchor=False)
        if about:
            st.caption(about, width="content")
    rules()
    say_refusals()


def rules() -> None:
    """What the pages of work look like beyond what all pages do."""
    st.html(HERE / "work.css")


def sheet(html: Html, key: str) -> None:
    """Figures, tables and plots that `render/sheet.py` made, in the page's own colours (`st.html` leaves plots out)."""
    assert isinstance(html, Html)  # what is not made by `render` is not shown
    _figures(key=f"sheet-{key}", data={"html": str(html)})


def begin(command: str, arguments: Mapping[str, Any], *, note: str = "work") -> None:
    """Submit a job, and remember its number for `watch` under `note`.

    Raises InterpError when it cannot be submitted.
    """
    st.session_state[f"job-{note}"] = jobs.submit(command, dict(arguments)).id


def ask(call: Any, *given: Any) -> None:
    """Do what a button asks; what cannot be done is said above the page when it is drawn again."""
    try:
        call(*given)
    except InterpError as error:
        st.session_state["asked-in-vain"] = str(error)


def say_refusals() -> None:
    """What a button asked for in vain, once."""
    if told := st.session_state.pop("asked-in-vain", ""):
        st.error(plain(told), icon=":material/block:")


def closed(what: str) -> bool:
    """Whether these pages may only show; then a line says that `what` is not to be done here."""
    if read_only():
        st.caption(f":material/lock: These pages are read-only: {plain(what)} elsewhere.")
    return read_only()


def watch(note: str = "work", *, command: str = "", sae: str = "") -> Job | None:
    """The job that was begun under `note` in this session, drawn with its buttons; None when there is none.

    In a session that began none, the one that is under way for this command and SAE, whoever began it.
    """
    id = st.session_state.get(f"job-{note}") or _under_way(command, sae)
    if not id:
        return None
    with suppress(InterpError):  # removed meanwhile
        if not jobs.job(id).over:
            st.session_state[f"job-{note}"] = id
            _going(id, f"{note}-{id}")
        found = jobs.job(id)
        if found.over:
            with st.container(border=True):
                headline(found, note)
                buttons(found, key=f"{note}-{id}")
        return found
    return None


def _under_way(command: str, sae: str) -> str:
    going = (job for job in jobs.jobs() if not job.over and job.command == command) if command else ()
    return next((job.id for job in going if job.arguments.get("sae") == sae), "")


@st.fragment(run_every=EVERY)
def _going(id: str, key: str) -> None:
    found = jobs.job(id)
    if found.over:
        st.rerun()
    with st.container(border=True):
        headline(found, key)
        progress(found)
        buttons(found, key=key)


def headline(job: Job, key: str = "shown") -> None:
    """State, command, number, how long; and why it failed."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"line-{job.id}-{key}"):
        badge(job)
        st.markdown(f"**{job.command}**", width="content")
        link("jobs", plain(f"job {job.id}"), job=job.id)
        st.caption(took(job), width="content")
    if job.error:
        st.error(plain(job.error), icon=":material/error:")


def badge(job: Job) -> None:
    """The state, as a word with its colour and sign."""
    icon, colour = LOOKS[job.state]
    st.badge("stopping" if job.stopping else job.state, icon=icon, color=colour)


def progress(job: Job) -> None:
    """A bar, and the words for it; nothing of a job that is done."""
    if job.state == "done":
        return
    if job.progress is not None:
        st.progress(job.progress.share or 0.0, text=plain(job.progress.told()))
    elif job.state == "running":
        st.progress(0.0, text="begun; it has not said how far it is")
    elif job.state == "queued":
        st.caption("Waits for its turn: jobs run one after the other on a small machine.")


def buttons(job: Job, *, key: str) -> None:
    """Stop, resume, remove: those that make sense now."""
    only = read_only()
    with st.container(horizontal=True, gap="small"):
        if not job.over:
            st.button(
                "Stop",
                key=f"stop-{key}",
                icon=":material/stop:",
                disabled=only or job.stopping,
                on_click=ask,
                args=(stop, job.id),
                help="What it did is kept; it goes on from there when it is resumed.",
            )
        elif job.state != "done":
            st.button(
                "Resume", key=f"resume-{key}", icon=":material/play_arrow:", disabled=only, on_click=ask,
                args=(jobs.resume, job.id), help="The same call again, which goes on from what it kept.",
            )  # fmt: skip
        if job.over:
            st.button(
                "Remove", key=f"remove-{key}", icon=":material/delete:", type="tertiary", disabled=only, on_click=ask,
                args=(jobs.remove, job.id), help="Out of the list, with its log; what it wrote stays.",
            )  # fmt: skip


def stop(id: str) -> None:
    """Ask a job to stop, and do not wait for it: a step may take long.

    Raises InterpError when there is none, and when it is over.
    """
    found = jobs.job(id)
    if found.over or read_only():
        jobs.stop(id)  # which says why not

    def end() -> None:
        with suppress(InterpError):
            jobs.stop(id)

    threading.Thread(target=end, daemon=True, name=f"stop job {id}").start()


def took(job: Job) -> str:
    """When it was begun and how long it took, or takes up to now."""
    if job.started is None:
        return f"asked for {since(job.created)} ago"
    spent = duration((job.ended - job.started).total_seconds()) if job.ended and job.over else ""
    return f"begun {since(job.started)} ago" + (f", took {spent}" if spent else "")


def since(when: datetime) -> str:
    """How long ago."""
    seconds = (datetime.now(UTC) - when).total_seconds()
    return duration(seconds) if seconds < 86_400 else f"{seconds / 86_400:.0f} days"


def about(job: Job) -> str:
    """What the job is about: the SAE or folder among its arguments."""
    for name in ("into", "sae", "source", "archive", "model"):
        given = job.arguments.get(name)
        if isinstance(given, str) and given:
            return "/".join(Path(given).parts[-2:]) if name != "source" else given[-60:]
    return ""


def log(id: str, *, most: int = 16) -> None:
    """The end of what the job said, control characters escaped; beyond `most` lines it scrolls."""
    lines = jobs.last_lines(id)
    height: Any = "content" if len(lines) <= most else 24 * most
    st.code(
        "\n".join(printable(line) for line in lines) or "nothing said yet",
        language=None,
        height=height,
        wrap_lines=True,
    )


def to_job(id: str) -> None:
    """Show the job on its own page."""
    st.switch_page(PAGES / "jobs.py", query_params={"sae": chosen(), "job": id})
