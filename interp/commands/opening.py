"""The workbenches that commands work with: a checkpoint is opened once a process, whatever asks for it."""

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.workbench import Workbench

KEPT = 4
"""Checkpoints that stay open; the one that was asked for longest ago is let go of first."""
_open: "OrderedDict[tuple[str, ...], Workbench]" = OrderedDict()
_lock = threading.Lock()


def open_sae(sae: str, device: str = "auto") -> "Workbench":
    """The workbench of a checkpoint, the same one until its files or its index change.

    Raises InterpError when there is no such checkpoint.
    """
    from interp import places
    from interp.checkpoint.files import resolve
    from interp.workbench import Workbench

    folder = resolve(sae)
    with _lock:
        made = _known(str(folder), str(folder.resolve()), device, str(places.cache()), str(places.data()))
        if made not in _open:
            _open[made] = Workbench.open(folder, device=device)
            while len(_open) > KEPT:
                _open.popitem(last=False)
        _open.move_to_end(made)
        return _open[made]


def _known(*names: str) -> tuple[str, ...]:
    """The names, and what changes when the checkpoint, its index or its full index is written anew."""
    folder = names[1]
    files = [os.path.join(folder, name) for name in ("card.json", "cfg.json", "index/index.json")]
    return (*names, *(str(os.stat(path).st_mtime_ns) if os.path.exists(path) else "" for path in files))
