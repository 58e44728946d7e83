"""A command that runs as a job instead of at once: what is said of it."""

from typing import TYPE_CHECKING

from interp.render.terminal import tell

if TYPE_CHECKING:
    from interp.jobs import Job, Progress


def say_begun(job: "Job") -> None:
    """Where to look for a job that was submitted or resumed."""
    how = "waits for its turn" if job.state == "queued" else "runs" if job.state == "running" else f"is {job.state}"
    tell(
        f"job {job.id} {how}; `interp jobs log {job.id} --follow` shows what it says, `interp jobs stop {job.id}` stops it"
    )


def how_far(progress: "Progress | None") -> str:
    """Progress in a line; nothing where there is none."""
    return "" if progress is None else progress.told()
