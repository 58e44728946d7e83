"""Checkpoints on disk: a folder that sae-lens opens as it is, with a card beside it.

Names are imported when first used: a card is read without PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.checkpoint.archive import pack, unpack
    from interp.checkpoint.bundle import open_bundle
    from interp.checkpoint.card import Card, verify_files
    from interp.checkpoint.folder import load, load_part, save
    from interp.checkpoint.formats.saelens.tensors import stored
    from interp.checkpoint.formats.saelens.writing import save_weights
    from interp.checkpoint.remote import pull, push

_HOME = {
    "Card": "card",
    "load": "folder",
    "load_part": "folder",
    "open_bundle": "bundle",
    "pack": "archive",
    "pull": "remote",
    "push": "remote",
    "save": "folder",
    "save_weights": "formats.saelens.writing",
    "stored": "formats.saelens.tensors",
    "unpack": "archive",
    "verify_files": "card",
}

__all__ = [
    "Card",
    "load",
    "load_part",
    "open_bundle",
    "pack",
    "pull",
    "push",
    "save",
    "save_weights",
    "stored",
    "unpack",
    "verify_files",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'interp.checkpoint' has no attribute {name!r}")
    return getattr(importlib.import_module(f"interp.checkpoint.{_HOME[name]}"), name)
