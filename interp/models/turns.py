"""Whose turn it is: many threads use one model, and one at a time is inside it.

Hooks, early stops and the choice of an attention belong to a single forward pass, but a PyTorch module keeps them on
itself, where every caller would see them. So a pass has the module for itself, from its first hook to its last.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that is handed on in the order in which it was asked for, so that nobody waits for ever.

    (`threading.Lock` goes to whoever comes by: a generation that asks again after each token would keep it.)
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._holder: int | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until it is this caller's turn, and keeps it for the block."""
        me = threading.get_ident()
        with self._mutex:
            assert self._holder != me, "a model was run from inside one of its own edits"
            mine = None
            if self._holder is None:
                self._holder = me
            else:
                mine = threading.Event()
                self._waiting.append(mine)
        try:
            if mine is not None:
                mine.wait()
                self._holder = me
            yield
        finally:
            self._leave(mine)

    def _leave(self, mine: threading.Event | None) -> None:
        """Hand the turn on; who gave up while waiting (Ctrl-C) only leaves the queue."""
        with self._mutex:
            if mine is not None and not mine.is_set():
                self._waiting.remove(mine)
            elif self._waiting:
                self._holder = -1  # taken, by the one who wakes up
                self._waiting.popleft().set()
            else:
                self._holder = None
