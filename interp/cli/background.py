"""A command that runs as a job instead of at once: what is said of it."""

from typing import TYPE_CHECKING

from interp.render.terminal import tell
from interp.render.words import duration

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
    if progress is None:
        return ""
    share = f" ({progress.done / progress.total:.0%})" if progress.total else ""
    rate = "" if progress.rate is None else f"{progress.rate:,.0f} {progress.unit}/s"
    left = "" if progress.left is None or progress.done >= progress.total else f"{duration(progress.left)} left"
    done = f"{progress.what}: {progress.done:,} of {progress.total:,} {progress.unit}{share}"
    return ", ".join(filter(None, [done, rate, left, progress.note]))
