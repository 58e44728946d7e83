"""Ctrl-C and SIGTERM wait for the step in hand, so that what is saved is whole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """A function that tells whether a stop was asked for; after the block the signal takes its usual course."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {kind: signal.getsignal(kind) for kind in kinds}
    for kind in kinds:
        signal.signal(kind, lambda number, _: asked.append(number))
    try:
        yield lambda: bool(asked)
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])
        if asked:
            signal.raise_signal(asked[0])
