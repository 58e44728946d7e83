"""Sentence vectors of texts, each made once: labels are looked at by every search, and change seldom."""

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LATELY = 4096
"""Vectors kept in memory besides those of the file."""


class Meanings:
    """A function from texts to unit vectors, shape (texts, width), that remembers them in a file of the cache."""

    def __init__(self, encode: Callable[[list[str]], Tensor], path: Path) -> None:
        self.encode, self.path = encode, path
        self.known: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        with self._lock:  # one thread at a time: what one looks up, another would drop
            return self._vectors(texts)

    def _vectors(self, texts: Sequence[str]) -> Tensor:
        missing = [text for text in dict.fromkeys(texts) if text not in self.known]
        if len(missing) > 1:  # a query comes alone, and is not worth keeping
            missing = self._from_file(missing)
        if missing:
            made = self.encode(missing)
            if len(missing) > 1:
                self._to_file(missing, made)
            self.known |= dict(zip(missing, made, strict=True))
        out = torch.stack([self.known[text] for text in texts])
        while len(self.known) > max(LATELY, 2 * len(texts)):
            self.known.pop(next(iter(self.known)))
        return out

    def _from_file(self, texts: list[str]) -> list[str]:
        """Take what the file has; what it has not comes back."""
        if not self.path.exists():
            return texts
        names = {_name(text): text for text in texts}
        with sqlite3.connect(self.path) as db:
            for name, text in names.items():
                row = db.execute("SELECT vector FROM meaning WHERE name = ?", [name]).fetchone()
                if row:
                    self.known[text] = torch.from_numpy(np.frombuffer(row[0], dtype=np.float32).copy())
        return [text for text in texts if text not in self.known]

    def _to_file(self, texts: list[str], vectors: Tensor) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            (_name(text), row.numpy().astype(np.float32).tobytes()) for text, row in zip(texts, vectors, strict=True)
        ]
        with sqlite3.connect(self.path) as db:
            db.execute("CREATE TABLE IF NOT EXISTS meaning (name TEXT PRIMARY KEY, vector BLOB)")
            db.executemany("INSERT OR REPLACE INTO meaning VALUES (?, ?)", rows)


def _name(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
