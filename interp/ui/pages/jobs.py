"""Jobs: everything long that was begun here or on the command line, how far it is, what it says; stop, resume, remove."""

import streamlit as st

from interp import jobs
from interp.commands.watching import COMMANDS_THAT_TRAIN
from interp.jobs import Job
from interp.render.sheet import rows_html
from interp.render.words import counted
from interp.types import InterpError
from interp.ui import work
from interp.ui.shared import empty, link, plain

SHOWN = 30  # jobs in the list; older ones are behind a click


def listed(open_: str) -> None:
    """The jobs, newest first, each a link; looked at more often while one is under way."""
    going = any(not job.over for job in jobs.jobs())
    st.fragment(draw_list, run_every=work.EVERY if going else work.SELDOM)(open_)


def draw_list(open_: str) -> None:
    found = jobs.jobs()[::-1]
    counts = {state: sum(job.state == state for job in found) for state in work.LOOKS}
    words = [f"{count} {state}" for state, count in counts.items() if count]
    st.caption(f"{' · '.join(words)} · room for {jobs.room()} at once")
    for job in found[:SHOWN]:
        line(job, job.id == open_)
    if len(found) > SHOWN:
        with st.expander(f"{counted(len(found) - SHOWN, 'older job')}"):
            for job in found[SHOWN:]:
                line(job, job.id == open_)


def line(job: Job, is_open: bool) -> None:
    """One job of the list."""
    with st.container(key=f"{'chosen-job' if is_open else 'job'}-{job.id}", gap=None):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            link("jobs", plain(f"{job.id} · {job.command}"), job=job.id)
            work.badge(job)
        st.caption(plain(" · ".join(filter(None, [work.about(job), work.took(job)]))))
        if job.state == "running" and job.progress is not None:
            st.progress(job.progress.share or 0.0)


def shown(id: str) -> None:
    """One job in whole; it draws itself anew while it goes, and the page once it is over."""
    over = jobs.job(id).over
    st.fragment(draw_job, run_every=None if over else work.EVERY)(id, over)


def draw_job(id: str, over: bool) -> None:
    job = jobs.job(id)
    if job.over != over:
        st.rerun()
    work.headline(job)
    work.progress(job)
    work.buttons(job, key=f"shown-{id}")
    leads_on(job)
    st.markdown("**What it says**")
    work.log(id)


def leads_on(job: Job) -> None:
    """Where what it does or did is to be seen."""
    if job.command in COMMANDS_THAT_TRAIN:
        link("train", "See it train, or trained", job=job.id)
    made = job.arguments.get("into")
    if job.state == "done" and isinstance(made, str) and (job.cwd / made / "cfg.json").exists():
        link("features", "Open what it made", sae=(job.cwd / made).resolve())
    about = job.arguments.get("sae")
    if isinstance(about, str) and job.command == "evaluate" and job.state == "done":
        link("evaluate", "Read the report", sae=(job.cwd / about).resolve())


def arguments(job: Job) -> None:
    """What it was called with, what it gave back."""
    with st.expander("Arguments", expanded=False):
        rows = [[name, str(value)] for name, value in job.arguments.items() if value not in (None, "", [])]
        work.sheet(
            rows_html(["", ""], [*rows, ["working folder", str(job.cwd)], ["attempts", job.attempt]]), "arguments"
        )
    if job.state == "done":
        with st.expander("What it gave back", expanded=job.command not in COMMANDS_THAT_TRAIN):
            st.json(job.result(), expanded=1)


def empty_page() -> None:
    with empty(
        "No job yet",
        "Training, reports, verifying, importing and exporting run as jobs, each in a process of its own: they go on when "
        "the browser is closed or the server is started again. Those begun with --background are here too.",
    ):
        link("train", "Train an SAE")
        link("evaluate", "Measure this one")


def main() -> None:
    work.heading("Jobs", "What takes long runs in a process of its own, and goes on without this page.")
    all_ = jobs.jobs()
    if not all_:
        empty_page()
        return
    work.closed("jobs are begun and stopped")
    asked = st.query_params.get("job", "")
    open_ = asked or all_[-1].id
    left, right = st.columns([2, 5], gap="large")
    with left:
        listed(open_)
    with right:
        try:
            shown(open_)
            arguments(jobs.job(open_))
        except InterpError as error:
            st.error(plain(str(error)), icon=":material/block:")


main()
