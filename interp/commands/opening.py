"""The workbenches that commands work with: a checkpoint is opened once a process, whatever asks for it."""

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.labels import LabelBook
    from interp.workbench import Workbench
    from interp.workbench.opening import SharedModels

KEPT = 4
"""Checkpoints that stay open; the one that was asked for longest ago is let go of first."""
_open: "OrderedDict[tuple[str, ...], tuple[Workbench, str]]" = OrderedDict()
"""Each with the times of its full index and of what its features say, which another process (a job) may write meanwhile."""
_books: "OrderedDict[tuple[str, ...], LabelBook]" = OrderedDict()
_models: "dict[str, SharedModels]" = {}
"""The one place where models are opened, once there is one: all checkpoints of a model, in every session, share it."""
_lock = threading.Lock()


def open_book(sae: str) -> "LabelBook":
    """The labels of a checkpoint, whose weights and model stay closed; the same book until its files change.

    Those that came with a checkpoint take a tenth of a second to read. Raises InterpError when there is no such checkpoint.
    """
    from interp import places
    from interp.checkpoint.files import resolve
    from interp.labels import LabelBook

    folder = resolve(sae)
    with _lock:
        homes = str(places.data()), os.environ.get("INTERP_LABELS", ""), _time(str(folder / "labels.jsonl"))
        made = _known(str(folder), str(folder.resolve()), *homes)
        book = _books.get(made) or LabelBook.of(folder)
        _books[made] = book
        _books.move_to_end(made)
        while len(_books) > KEPT:
            _books.popitem(last=False)
        return book


def open_sae(sae: str, device: str = "auto") -> "Workbench":
    """The workbench of a checkpoint, the same one until its files or its index change.

    Raises InterpError when there is no such checkpoint.
    """
    from interp import places
    from interp.checkpoint.files import resolve
    from interp.workbench import Workbench
    from interp.workbench.opening import SharedModels

    folder = resolve(sae)
    with _lock:
        models = _models.setdefault("all", SharedModels())
        homes = str(places.cache()), str(places.data()), os.environ.get("INTERP_LABELS", "")
        made = _known(str(folder), str(folder.resolve()), device, *homes)
        bench, before = _open.get(made) or (Workbench.open(folder, device=device, models=models), "")
        full = _time(str(bench.full_index_folder / "index.json")) + _time(str(bench.said_path))
        if full != before:
            bench.__dict__.pop("index", None)  # the model stays open
            bench.__dict__.pop("said", None)
        _open[made] = bench, full
        _open.move_to_end(made)
        while len(_open) > KEPT:
            _open.popitem(last=False)
        return bench


def _known(*names: str) -> tuple[str, ...]:
    """The names, and what changes when the checkpoint, or the index beside it, is written anew."""
    files = (
        os.path.join(names[1], name) for name in ("card.json", "cfg.json", "index/index.json", "lenses.safetensors")
    )
    return (*names, *map(_time, files))


def _time(path: str) -> str:
    """When a file was written; empty where there is none."""
    try:
        return str(os.stat(path).st_mtime_ns)
    except OSError:
        return ""
