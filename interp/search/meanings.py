"""Sentence vectors of texts, each made once: labels are looked at by every search, and change seldom.

A checkpoint with many labels ships their vectors (`label_meanings.safetensors`, a byte a number): those of nine thousand names
take half a minute of a core. A text is known there by the first bytes of its SHA-256, so that a label that was
changed since finds none.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp import places
from interp.index.meanings import restore, stored
from interp.render.terminal import say

FILE = "label_meanings.safetensors"
NAME_BYTES = 8

BUSY_SECONDS = 5.0
LATELY = 4096
"""Vectors kept in memory besides those of the file."""


class Meanings:
    """A function from texts to unit vectors, shape (texts, width), that remembers them in a file of the cache.

    For any number of threads and processes. What the file cannot give or take is computed; one that is damaged is
    begun anew, for all in it can be made again.
    """

    def __init__(self, encode: Callable[[list[str]], Tensor], path: Path, shipped: Path | None = None) -> None:
        self.encode, self.path, self.shipped = encode, path, shipped
        self.known: dict[str, Tensor] = {}
        self._turn = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        with self._turn:
            missing = [text for text in dict.fromkeys(texts) if text not in self.known]
            if len(missing) > 1:  # a query comes alone, and is not worth keeping
                missing = self._from_file(self._from_shipped(missing))
            if missing:
                made = self.encode(missing)
                if len(missing) > 1:
                    self._to_file(missing, made)
                self.known |= dict(zip(missing, made, strict=True))
            out = torch.stack([self.known[text] for text in texts])
            while len(self.known) > max(LATELY, 2 * len(texts)):
                self.known.pop(next(iter(self.known)))
            return out

    def _from_shipped(self, texts: list[str]) -> list[str]:
        """Take what came with the checkpoint; what it has not, or cannot be read, comes back."""
        if self.shipped is None or not self.shipped.exists():
            return texts
        try:
            tensors = load_file(self.shipped)
            rows = {bytes(name): row for row, name in enumerate(tensors["names"].numpy())}
            vectors = restore(tensors)
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError):
            return texts
        for text in texts:
            if (row := rows.get(_digest(text)[:NAME_BYTES])) is not None:
                self.known[text] = vectors[row]
        return [text for text in texts if text not in self.known]

    def _from_file(self, texts: list[str]) -> list[str]:
        """Take what the file has; what it has not comes back."""
        vectors: dict[str, Tensor] = {}
        try:
            if not self.path.exists():
                return texts
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as db:
                for text in texts:
                    row = db.execute("SELECT vector FROM meaning WHERE name = ?", [_name(text)]).fetchone()
                    if row:
                        vectors[text] = torch.from_numpy(np.frombuffer(row[0], dtype=np.float32).copy())
        except (sqlite3.Error, OSError):  # damaged, held by another, or out of reach: made anew
            return texts
        except (TypeError, ValueError):
            vectors = {}
        if len({vector.shape for vector in vectors.values()}) > 1:
            vectors = {}
        self.known |= vectors
        return [text for text in texts if text not in self.known]

    def _to_file(self, texts: list[str], vectors: Tensor) -> None:
        rows = [
            (_name(text), row.numpy().astype(np.float32).tobytes()) for text, row in zip(texts, vectors, strict=True)
        ]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write(rows)
        except sqlite3.OperationalError:  # held, full or read-only: it is a cache, and the search has its answer
            return
        except sqlite3.DatabaseError:
            say(f"{self.path} is damaged; it is a cache, and begun anew.")
            with suppress(OSError, sqlite3.Error):
                self.path.unlink()
                self._write(rows)
        except OSError:
            return

    def _write(self, rows: list[tuple[str, bytes]]) -> None:
        with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS meaning (name TEXT PRIMARY KEY, vector BLOB)")
            db.executemany("INSERT OR REPLACE INTO meaning VALUES (?, ?)", rows)


def write_meanings(texts: Sequence[str], encode: Callable[[list[str]], Tensor], path: Path) -> None:
    """Write the vectors of these texts for a checkpoint to ship. Raises InterpError where there is no encoder."""
    once = sorted(set(texts))
    names = torch.tensor([list(_digest(text)[:NAME_BYTES]) for text in once], dtype=torch.uint8)
    with places.whole_file(path) as partial:
        save_file({"names": names, **stored(encode(once))}, partial)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _name(text: str) -> str:
    return _digest(text).hex()
