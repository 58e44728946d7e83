"""How much one request may ask for, how long it may take, and what its answer may hold."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from interp.commands import as_json
from interp.render.terminal import printable_json
from interp.types import InterpError

LONGEST_TEXT = 20_000
"""Characters of a text that is given."""
LONGEST_QUERY = 2_000
MOST_ITEMS = 16
"""Of a list that is given."""
LONGEST_ANSWER = 200_000
"""Characters of an answer."""
LARGEST_BODY = 2**20
"""Bytes of a request over HTTP."""
AT_ONCE = 2
"""Requests that compute at the same time; further ones wait."""


@dataclass(frozen=True)
class Bounds:
    """What requests of one server share."""

    seconds: float
    """That a request may take, waiting included."""
    turns: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(AT_ONCE))


async def answer(work: Callable[[], object], bounds: Bounds) -> str:
    """What the work gives back, as JSON in which no control character stands as it is.

    Raises InterpError when it takes too long or says too much. A thread cannot be stopped from outside: work that took
    too long goes on unheard and keeps its turn until it ends, so that no more than AT_ONCE ever compute.
    """
    late = InterpError(f"this took longer than the {bounds.seconds:g} seconds that a request has here; ask for less.")

    def in_turn() -> str:
        if not bounds.turns.acquire(timeout=bounds.seconds):
            raise late
        try:
            return _written(work())
        finally:
            bounds.turns.release()

    try:
        with anyio.fail_after(bounds.seconds):
            return await anyio.to_thread.run_sync(in_turn, abandon_on_cancel=True)
    except TimeoutError:
        raise late from None


def _written(record: object) -> str:
    text = printable_json(json.dumps(as_json(record), ensure_ascii=False, allow_nan=False))
    if len(text) > LONGEST_ANSWER:
        raise InterpError(
            f"the answer has {len(text):,} characters, and {LONGEST_ANSWER:,} are the most here; ask for less."
        )
    return text
