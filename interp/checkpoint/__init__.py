"""Checkpoints on disk: a folder that sae-lens opens as it is, with a card beside it."""

from interp.checkpoint.archive import pack, unpack
from interp.checkpoint.card import Card
from interp.checkpoint.folder import load, save, save_weights, stored, verify_files
from interp.checkpoint.remote import pull, push

__all__ = ["Card", "load", "pack", "pull", "push", "save", "save_weights", "stored", "unpack", "verify_files"]
