"""Streamlit has Python look through every object of the process after each run of a script, while the page waits for its end.

With a model and an index in memory that takes near half a second, and nothing is found: what was read stays. So what survives a
slow look is put out of the way (`gc.freeze`), and the next look is short. Frozen objects are freed by their counts as before, but a
circle of them would stay; every PATIENCE times all are looked through again.
"""

import atexit
import gc
import time
from typing import Any

SLOW = 0.03
"""Seconds of a full collection from which its survivors are frozen."""
PATIENCE = 4
"""Freezes after which everything is looked through once more, .4 s every 150 views or so: sessions that were open at a freeze are circles,
and with 20 freezes between two looks five hundred views left 150 MiB of them."""


class Keeper:
    """Hears of every collection; `gc.callbacks` calls it."""

    def __init__(self) -> None:
        self.began = 0.0
        self.frozen = 0

    def __call__(self, phase: str, about: dict[str, Any]) -> None:
        if about["generation"] < 2:
            return
        if phase == "start":
            self.began = time.perf_counter()
        elif time.perf_counter() - self.began > SLOW:
            self.frozen += 1
            if self.frozen % PATIENCE:
                gc.freeze()
            else:
                gc.unfreeze()  # the next collection is a long one, and freezes what survives it


keeper = Keeper()


def keep() -> None:
    """From now on, and what is there already is out of the way; a second call changes nothing."""
    if keeper not in gc.callbacks:
        gc.freeze()
        gc.callbacks.append(keeper)
        atexit.register(let_go)


def let_go() -> None:
    """All can be looked through again: at its end Python is to free modules too, or DuckDB's binding lists each of its objects as leaked."""
    if keeper in gc.callbacks:
        gc.callbacks.remove(keeper)
    gc.unfreeze()
