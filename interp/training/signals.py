"""Ctrl-C and SIGTERM wait for the step in hand, so that what is saved is whole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """A function that tells whether a stop was asked for; after the block the signal takes its usual course.

    Blocks may lie in each other: the outer one hears of the signal when the inner one ends.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before: dict[int, Any] = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    # Left alone: a signal that is ignored (as under nohup), and a handler that is not Python's.
    before = {kind: handler for kind, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for kind in before:
        signal.signal(kind, lambda number, _: asked.append(number))
    try:
        yield lambda: bool(asked)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
        if asked:
            signal.raise_signal(asked[0])
