"""The process of a job: `python -m interp.jobs.run FOLDER`, which the queue begins."""

import errno
import os
import sys
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from interp import places
from interp.commands import COMMANDS, as_json, use_threads
from interp.jobs import asking
from interp.jobs.process import Process, hear_stops, ignore_stops
from interp.jobs.queue import start_next, turn
from interp.jobs.record import HOW_FAR, STOPPED, Job, Standing, State, read
from interp.progress import Progress, listen
from interp.render.terminal import never_fail_on_a_character, say
from interp.types import InterpError

RESERVE = ".reserve"
RESERVED = 16_384
"""Bytes kept by for the file that says how the job ended."""
PATIENT = 600.0
"""Seconds to wait for the queue with the last word, which nobody else can say."""


def main(folder: Path) -> int:
    """Run the job in a folder; its exit code comes back.

    Nothing is done when the job is not this process's: whoever began it was killed before writing so.
    """
    never_fail_on_a_character()
    with turn("a job", wait=PATIENT):
        standing = Standing.read(folder)
    if standing.process != Process.of(os.getpid()):
        return 1
    with suppress(OSError):
        (folder / RESERVE).write_bytes(bytes(RESERVED))
    state: State = "stopped"
    code, error = STOPPED, ""
    try:
        hear_stops()
        state, code, error = _attempt(read(folder), standing.restarted)
    except KeyboardInterrupt:
        pass
    ignore_stops()
    listen(None)
    _end(folder, state, code, error)
    return code


def _attempt(job: Job, restarted: bool) -> tuple[State, int, str]:
    """Call the command; (state, exit code, the sentence of an error)."""
    again = f", attempt {job.attempt}" if job.attempt > 1 else ""
    _log(f"job {job.id}: {job.command}{again}, begun {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    arguments = dict(job.arguments)
    if restarted and arguments.get("restart"):
        arguments["restart"] = False  # what is there now is this job's own
    listen(lambda progress: _write_progress(job.folder, progress))
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        if COMMANDS[job.command].computes:
            use_threads()
        record = asking.call(job.command, arguments)
        places.write_json(job.result_path, as_json(record))
    except InterpError as error:
        _log(f"interp: {error}")
        return "failed", 2, str(error)
    except KeyboardInterrupt:
        kept = "; what was done is kept, and the job goes on from there when it is resumed"
        _log(f"interp: stopped{kept if COMMANDS[job.command].resumes else ''}.")
        return "stopped", STOPPED, ""
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # the log itself, most likely
            return "failed", 2, str(places.disk_error(job.log, error))
        _log(traceback.format_exc())
        return "failed", 1, f"{type(error).__name__}: {error}; the traceback is in the log."
    return "done", 0, ""


def _log(message: str) -> None:
    with suppress(OSError):  # a full disk: how the job ended is in its state as well
        say(message)


def _write_progress(folder: Path, progress: Progress) -> None:
    with suppress(InterpError):  # a full disk stops the command where it matters
        places.write_json(folder / HOW_FAR, vars(progress))


def _end(folder: Path, state: State, code: int, error: str) -> None:
    """Say how the job ended, and begin the next."""
    (folder / RESERVE).unlink(missing_ok=True)
    with turn("the end of a job", wait=PATIENT):
        replace(Standing.read(folder), state=state, exit_code=code, error=error, ended=time.time(), process=None).write(
            folder
        )
        start_next()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
