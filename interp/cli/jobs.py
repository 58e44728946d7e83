"""Jobs on the command line: what was begun with --background."""

from collections.abc import Callable
from contextlib import nullcontext
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.app import add, app, print_json
from interp.cli.background import how_far, say_begun
from interp.commands import Command
from interp.render.terminal import console, printable, table, tell
from interp.render.words import duration

if TYPE_CHECKING:
    from interp.jobs import Job

group = typer.Typer(
    help="List, watch, stop, resume and remove what runs with --background. A job's arguments and log are kept on this "
    "machine until it is removed.",
    no_args_is_help=True,
)
app.add_typer(group, name="jobs")

Id = Annotated[str, typer.Argument(help="The job's number, as `interp jobs list` shows it.", show_default=False)]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else there.")
]


def _list(
    as_json: Json = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="Print every column and every cell whole, however long the lines.")
    ] = False,
) -> None:
    """All jobs of this INTERP_HOME, oldest first: state, how far, since when."""
    from interp import jobs

    found = jobs.jobs()
    if as_json:
        print_json(found)
        return
    head = ["job", "command", "state", "created", "took", "how far", "arguments"]
    rows = [[j.id, j.command, j.state, _when(j), _took(j), j.error or how_far(j.progress), _asked(j)] for j in found]
    table(head, rows, shorten=("how far", "arguments"), drop=("arguments", "created", "took"), wide=wide)


def _show(id: Id, as_json: Json = False) -> None:
    """One job: its arguments, how it stands, and what it gave back."""
    from interp import jobs

    job = jobs.job(id)
    if as_json:
        print_json(job.to_dict() | {"record": job.result() if job.state == "done" else None})
        return
    facts = [
        ("command", job.command),
        *((f"  {name}", value) for name, value in job.arguments.items()),
        ("in", job.cwd),
        ("state", f"{job.state}{': ' * bool(job.error)}{job.error}"),
        ("how far", how_far(job.progress)),
        ("created", _when(job)),
        ("took", _took(job)),
        ("attempts", job.attempt),
        ("log", job.log),
        ("record", job.result_path if job.state == "done" else ""),
    ]
    table(["", f"job {job.id}"], [[name, value] for name, value in facts])


def _log(
    id: Id,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job is over.")] = False,
    as_json: Json = False,
) -> None:
    """What a job said, with control characters escaped."""
    from interp import jobs

    lines = jobs.follow(id) if follow else jobs.log_lines(id)
    if as_json:
        print_json([line for line in lines if isinstance(line, str)])
        return
    there = console(stderr=True)
    with there.status("") if follow and there.is_terminal else nullcontext() as status:
        for line in lines:
            if isinstance(line, str):
                tell(line)
            elif status is not None:
                status.update(printable(how_far(line)))
    job = jobs.job(id)
    if follow and job.state != "done":
        raise typer.Exit(job.exit_code if job.exit_code and job.exit_code > 0 else 1)


def _stop(id: Id, as_json: Json = False) -> None:
    """Stop a job; what it did is kept.

    It gets what Ctrl-C sends and may save; after half a minute it is made to end.
    """
    from interp import jobs

    job = jobs.stop(id)
    print_json(job) if as_json else tell(f"job {job.id} is {job.state}")


def _resume(id: Id, as_json: Json = False) -> None:
    """Call a job's command again with the same arguments; it goes on from what it kept."""
    from interp import jobs

    job = jobs.resume(id)
    print_json(job) if as_json else say_begun(job)


def _remove(id: Id) -> None:
    """Take a job out of the list, with its log; what its command wrote stays."""
    from interp import jobs

    jobs.remove(id)
    tell(f"job {id} is removed")


def _when(job: "Job") -> str:
    return f"{job.created.astimezone():%Y-%m-%d %H:%M}"


def _took(job: "Job") -> str:
    if job.started is None or (job.ended is None and job.over):
        return ""
    ended = job.ended or job.started.now(job.started.tzinfo)
    return duration((ended - job.started).total_seconds())


def _asked(job: "Job") -> str:
    return " ".join(f"{name}={value}" for name, value in job.arguments.items())


def _add(run: Callable[..., Any], name: str, example: str) -> None:
    parameters = list(signature(run).parameters.values())
    add(run, name, example, Command(run, computes=False), parameters, group)


_add(_list, "list", "interp jobs list")
_add(_show, "show", "interp jobs show 3")
_add(_log, "log", "interp jobs log 3 --follow")
_add(_stop, "stop", "interp jobs stop 3")
_add(_resume, "resume", "interp jobs resume 3")
_add(_remove, "remove", "interp jobs remove 3")
