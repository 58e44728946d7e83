"""Looking at jobs: none of it needs to write, and whoever looks starts what waits in vain."""

import codecs
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from interp.jobs.queue import find, folders, start_next, turn, waiting
from interp.jobs.record import Job, read
from interp.progress import Progress
from interp.types import InterpError

POLL = 0.2
"""Seconds between two looks at a job that is followed."""
LINE = 1_000_000
"""Characters of a line of the log that come at once, however long the line."""
TAIL = 65_536
"""Bytes from which the end of a log is read."""


def jobs() -> list[Job]:
    """All jobs, oldest first."""
    found = _read_all()
    if any(job.state == "queued" for job in found):
        _see_to_queue()
        found = _read_all()
    return found


def _read_all() -> list[Job]:
    found = []
    for folder in folders():
        with suppress(InterpError):  # removed in the meantime
            found.append(read(folder))
    return found


def job(id: str) -> Job:
    """The job of this number.

    Raises InterpError when there is none.
    """
    found = find(id)
    if found.state == "queued":
        _see_to_queue()
        return find(id)
    return found


def _see_to_queue() -> None:
    """Begin what waits though there is room: whoever should have done so was killed, or the machine went down."""
    queued, free = waiting()
    if queued and free > 0:
        with suppress(InterpError), turn("the next job", wait=0.0):  # others are at it, or this home can only be read
            start_next()


def follow(id: str) -> Iterator[str | Progress]:
    """The lines of the job's log from its first, and its progress whenever that changed, until the job is over.

    Lines come without their end, and as they are: escape them where they are shown. Raises InterpError when there is no
    such job, and when it is removed meanwhile.
    """
    lines, last = _Lines(job(id).log), None
    while True:
        found = job(id)
        yield from lines.new()
        if found.progress is not None and found.progress != last:
            last = found.progress
            yield last
        if found.over:
            yield from lines.rest()
            return
        time.sleep(POLL)


def log_lines(id: str) -> Iterator[str]:
    """The lines of the job's log up to now, without their ends, and as they are: escape them where they are shown.

    Raises InterpError when there is no such job.
    """
    lines = _Lines(job(id).log)
    yield from lines.new()
    yield from lines.rest()


def last_lines(id: str, most: int = 200) -> list[str]:
    """The end of the job's log up to now, however long that is; lines as `log_lines` gives them, the first perhaps cut.

    Raises InterpError when there is no such job.
    """
    try:
        with job(id).log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            text = file.read(TAIL).decode("utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-most:]


class _Lines:
    """The lines of a file that others write on."""

    def __init__(self, path: Path) -> None:
        self._path, self._at, self._begun = path, 0, ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def new(self) -> Iterator[str]:
        """The whole lines that have been added."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._at)
            while raw := file.read(LINE):
                self._at += len(raw)
                *whole, self._begun = (self._begun + self._decoder.decode(raw)).split("\n")
                if len(self._begun) > LINE:
                    whole, self._begun = [*whole, self._begun], ""
                yield from whole

    def rest(self) -> Iterator[str]:
        """A last line that has no end."""
        if self._begun:
            yield self._begun


def wait(id: str, *, timeout: float | None = None) -> Job:
    """The job once it is over.

    Raises InterpError when there is no such job, and when it is not over after `timeout` seconds.
    """
    ends = None if timeout is None else time.monotonic() + timeout
    while not (found := job(id)).over:
        if ends is not None and time.monotonic() > ends:
            raise InterpError(f"job {id} is still {found.state} after {timeout:g} s.")
        time.sleep(POLL)
    return found
