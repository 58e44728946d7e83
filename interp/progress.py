"""Progress for people: a Rich bar on a terminal, a line every half minute in a log; and for whoever listens, records."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from interp.render.terminal import console, printable, say
from interp.render.words import duration

LOG_EVERY_SECONDS = 30.0
HEARD_EVERY_SECONDS = 0.5
"""Between two records for a listener, but for the first and the last of a bar."""
TIMED = 0.2
"""Seconds that a speed is reckoned from at least."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a piece of work is."""

    what: str
    done: int
    total: int
    unit: str
    rate: float | None
    """Units a second; None before there is a time to speak of."""
    left: float | None
    """Seconds until it is done at that rate."""
    note: str = ""

    @property
    def share(self) -> float | None:
        """The part that is done, 0 to 1; None where there is no total."""
        return min(self.done / self.total, 1.0) if self.total else None

    def told(self) -> str:
        """All of it in a line."""
        share = f" ({self.done / self.total:.0%})" if self.total else ""
        rate = _pace(self.rate, self.unit)
        left = "" if self.left is None or self.done >= self.total else f"{duration(self.left)} left"
        done = f"{self.what}: {self.done:,} of {self.total:,} {self.unit}{share}"
        return ", ".join(filter(None, [done, rate, left, self.note]))


def _pace(rate: float | None, unit: str) -> str:
    """So many a second, or how long each takes where that is more than a second."""
    if not rate:
        return ""
    if rate < 1:
        return f"{duration(1 / rate)} each"
    return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s"


Listener = Callable[[Progress], None]
_listener: Listener | None = None
_shown = True


def show(bars: bool) -> None:
    """Whether people see this process's bars: of several at one piece of work, the first one's suffice."""
    global _shown
    _shown = bars


def listen(listener: Listener | None) -> None:
    """Let the listener hear of every bar of this process from now on; None: nobody."""
    global _listener
    _listener = listener


class _Count:
    """What is done of a piece of work, and how fast."""

    def __init__(self, title: str, total: int, unit: str, done: int) -> None:
        self.title, self.total, self.unit, self.before, self.count = title, total, unit, done, done
        self.began = self.said = self.told = time.perf_counter()

    def add(self, units: int) -> float:
        """Count the units; the seconds since the beginning."""
        self.count += units
        return time.perf_counter() - self.began

    def rate(self) -> float | None:
        """Units a second; None before there is a time to speak of."""
        took = time.perf_counter() - self.began
        return (self.count - self.before) / took if took >= TIMED else None

    def speed(self) -> str:
        return _pace(self.rate(), self.unit)

    def reaches_end(self, units: int) -> bool:
        """Whether it were the last so many units that ended the work."""
        return self.count >= self.total > self.count - units

    def say(self, took: float, note: str, ended: bool) -> None:
        """A line for the log, if its time has come."""
        if not _shown or (took + self.began - self.said < LOG_EVERY_SECONDS and not ended):
            return
        self.said = took + self.began
        left = (self.total - self.count) * took / max(self.count - self.before, 1)
        when = f"{duration(left)} left" if self.count < self.total else f"{duration(took)} in all"
        parts = (f"{self.title}: {self.count:,} of {self.total:,} {self.unit}", self.speed(), when, note)
        say(", ".join(filter(None, parts)))

    def tell(self, took: float, note: str, ended: bool) -> None:
        """A record for the listener, if there is one and its time has come."""
        if _listener is None or (took + self.began - self.told < HEARD_EVERY_SECONDS and not ended):
            return
        self.told = took + self.began
        rate = self.rate()
        _listener(
            Progress(
                what=self.title,
                done=self.count,
                total=self.total,
                unit=self.unit,
                rate=rate,
                left=max(self.total - self.count, 0) / rate if rate else None,
                note=note,
            )
        )


@contextmanager
def bar(title: str, total: int, unit: str = "tokens", done: int = 0) -> Iterator[Callable[..., None]]:
    """A function to call with the number of units just done (and `note=` for a word beside it); `done` of the total were
    done before, and count for no speed."""
    count = _Count(title, total, unit, done)
    count.tell(0.0, "", ended=True)
    if _shown and sys.stderr.isatty():
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}% {task.fields[rate]} {task.fields[note]}", markup=False),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=console(stderr=True)) as progress:
            task = progress.add_task(printable(title), total=total, completed=done, rate="", note="")

            def advance(units: int, note: str = "") -> None:
                took = count.add(units)
                progress.update(task, completed=count.count, rate=count.speed(), note=printable(note))
                count.tell(took, note, count.reaches_end(units))

            yield advance
    else:

        def log(units: int, note: str = "") -> None:
            took, ended = count.add(units), count.reaches_end(units)
            count.say(took, note, ended)
            count.tell(took, note, ended)

        yield log
