"""Progress for people: a Rich bar on a terminal, a line every half minute in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from interp.render.terminal import console, printable, say
from interp.render.words import duration

LOG_EVERY_SECONDS = 30.0
TIMED = 0.2
"""Seconds that a speed is reckoned from at least."""


@contextmanager
def bar(title: str, total: int, unit: str = "tokens", done: int = 0) -> Iterator[Callable[..., None]]:
    """A function to call with the number of units just done (and `note=` for a word beside it); `done` of the total were
    done before, and count for no speed."""
    began = last = time.perf_counter()
    count = done

    def rate() -> str:
        """Units a second; empty before there is a time to speak of."""
        took = time.perf_counter() - began
        return f"{(count - done) / took:,.0f} {unit}/s" if took >= TIMED else ""

    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}% {task.fields[rate]} {task.fields[note]}", markup=False),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console(stderr=True)) as progress:
            task = progress.add_task(printable(title), total=total, completed=done, rate="", note="")

            def advance(units: int, note: str = "") -> None:
                nonlocal count
                count += units
                progress.update(task, completed=count, rate=rate(), note=printable(note))

            yield advance
    else:

        def log(units: int, note: str = "") -> None:
            nonlocal last, count
            count += units
            now = time.perf_counter()
            if now - last >= LOG_EVERY_SECONDS or count >= total > count - units:
                last = now
                took = now - began
                left = (total - count) * took / max(count - done, 1)
                when = f"{duration(left)} left" if count < total else f"{duration(took)} in all"
                say(", ".join(filter(None, [f"{title}: {count:,} of {total:,} {unit}", rate(), when, note])))

        yield log
