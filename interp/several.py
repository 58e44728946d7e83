"""Several processes at one piece of work, of one machine or of many with a folder in common: whoever comes takes a share.

1. Who takes part holds the folder (`places.only_one`) while the work is laid out, then a file of its own for as long as it goes
   on (`taking part`). Nobody is told of anybody else, and the number of processes may change at any moment.
2. A share is held by a lock file while it is made (`Work.shares`), and whether one is made is seen by what it leaves behind.
3. What is to be put together is put together by one of them, holding the folder again, and the others wait for it.

The system lets go of every lock when its process ends, however it ends: the share of one that was lost is taken by the next, and
nothing else is. Where a file system has no locks between machines, two may make the same share, which both write whole.
"""

import os
import shutil
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from interp import places
from interp.types import InterpError

CLAIMS = ".claims"
"""The folder, in that of the work, of those who take part, of the shares that they hold, and of notes about what is made."""
PRESENT = ".present"
LOOK_EVERY = 0.2
"""Seconds between two looks at shares that others hold."""


@dataclass
class Work:
    """Work in a folder that this process holds, alone or together with others; see `at_work`."""

    folder: Path
    what: str
    together: bool
    _held: ExitStack = field(default_factory=ExitStack, repr=False)

    @property
    def notes(self) -> Path:
        """Where whatever tells of a share that is made may lie until all are."""
        return self.folder / CLAIMS

    def hold(self) -> None:
        """Hold the folder, which others of the same work are waited for."""
        self._held.enter_context(places.only_one(self.folder, self.what, wait=-1 if self.together else 0))

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Inside, the folder is free for others who take part; at its end it is held again. Alone, it is held all the time."""
        if not self.together:
            yield
            return
        self.notes.mkdir(exist_ok=True)
        with _claim(self.notes / f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}{PRESENT}"):
            self._held.close()
            yield
            self.hold()

    def shares(
        self, names: Sequence[str], done: Callable[[str], bool], passed: Callable[[str], None] = lambda name: None
    ) -> Generator[str]:
        """The shares that this process is to make, each held until the next is asked for; `done` says which are made.

        Ends when all are, by whomever; `passed` is told of those that others made, or that were there before.
        """
        left = list(names)
        while left:
            before = len(left)
            for name in list(left):
                if done(name):
                    passed(name)
                elif not self.together:
                    yield name
                else:
                    with _claim(self.notes / f"{name}.lock") as held:
                        if not held:
                            continue
                        if done(name):  # by another, since the last look
                            passed(name)
                        else:
                            yield name
                left.remove(name)
            if len(left) == before:
                time.sleep(LOOK_EVERY)

    def others(self) -> str:
        """One of those who take part, in words, and empty when there is none. The folder must be held.

        What those that are gone left is deleted.
        """
        for file in sorted(self.notes.glob(f"*{PRESENT}")):
            with _claim(file) as gone:
                if not gone:
                    host, number, _ = file.stem.rsplit("-", 2)
                    return f"another process (number {number} on {host})"
        return ""

    def forget(self) -> None:
        """Delete claims and notes; what they told of is to be made anew."""
        shutil.rmtree(self.notes, ignore_errors=True)


@contextmanager
def at_work(folder: Path, what: str, *, together: bool = False) -> Iterator[Work]:
    """Hold the folder (made if need be) for `what`, as `places.only_one` does; `together`, with all who say so too.

    Raises InterpError when another process holds it, and when others are at work there together and this one would be alone.
    """
    work = Work(folder, what, together)
    with work._held:
        work.hold()
        if not together and (who := work.others()):
            raise InterpError(
                f"{who} is at work on {folder} together with others, so {what} was not begun; take part in it (--together), "
                "wait until that has ended, or name another place."
            )
        yield work
        if not work.others():
            work.forget()


@contextmanager
def _claim(file: Path) -> Iterator[bool]:
    """Whether this process holds the file from now on: not when another does, which is not waited for."""
    lock = filelock.FileLock(file)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        yield False
        return
    except OSError as error:
        raise places.disk_error(file, error) from error
    try:
        yield True
    finally:
        if file.suffix == PRESENT:  # those of shares stay: whoever waits for one has it open
            with suppress(OSError):
                file.unlink()
        lock.release()
