"""What the next pages need is read while a person looks at the first: the model, and the text that an index may not pass on.

So neither the first sentence nor the first feature's page waits for it.
"""

import threading
import time
from contextlib import suppress

from interp.commands.finding import live_feature, read_spectrum
from interp.commands.inspecting import inspect_feature, look_at
from interp.types import InterpError

drawn = threading.Event()
"""Set when a page has been drawn: what is read before that would slow it."""
BROWSER = 1.5
"""Seconds that are left to the browser, which mostly has the same processor, to show what was drawn."""


def warm(sae: str) -> threading.Thread:
    """Begin, in a thread of its own; what cannot be read is said by the page that needs it."""

    def read() -> None:
        drawn.wait()
        time.sleep(BROWSER)
        with suppress(InterpError):
            read_spectrum(sae, "The model is read.")
        with suppress(InterpError):
            look_at(sae, inspect_feature(sae, live_feature(sae, 0)))

    thread = threading.Thread(target=read, daemon=True, name="read the model")
    thread.start()
    return thread
