"""The model is read while a person looks at the first page, so that the first sentence does not wait for it."""

import threading
import time
from contextlib import suppress

from interp.commands.finding import read_spectrum
from interp.types import InterpError

drawn = threading.Event()
"""Set when a page has been drawn: what is read before that would slow it."""
BROWSER = 1.5
"""Seconds that are left to the browser, which mostly has the same processor, to show what was drawn."""


def warm(sae: str) -> None:
    """Begin, in a thread of its own; what cannot be read is said by the page that needs it."""

    def read() -> None:
        drawn.wait()
        time.sleep(BROWSER)
        with suppress(InterpError):
            read_spectrum(sae, "The model is read.")

    threading.Thread(target=read, daemon=True, name="read the model").start()
