"""What labels mean, as sentence vectors: read from where they lie, and written for a checkpoint to ship."""

from contextlib import suppress
from pathlib import Path

from interp import places
from interp.checkpoint.files import LABELS
from interp.labels.book import read_jsonl
from interp.models.sentence import sentence_encoder
from interp.search.meanings import FILE, Meanings, write_meanings
from interp.types import InterpError

MANY = 500
"""Labels whose vectors are worth a file: fewer are made within two seconds."""


def meanings(folder: Path) -> Meanings:
    """Sentence vectors of texts, for the checkpoint in a folder."""
    encode, kept = lambda texts: sentence_encoder().encode(texts), places.cache() / "meanings.sqlite"
    return Meanings(encode, kept, folder / FILE)


def ship_meanings(folder: Path) -> None:
    """Write the vectors of the labels that lie in a checkpoint's folder beside them, where they are many and there is an encoder."""
    path = folder / LABELS
    texts = [label.meant for label in read_jsonl(path)] if path.exists() else []
    if len(texts) < MANY:
        (folder / FILE).unlink(missing_ok=True)
        return
    with suppress(InterpError):
        write_meanings(texts, meanings(folder), folder / FILE)
