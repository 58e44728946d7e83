"""Which documents an SAE was trained on: `trained.parquet` beside its card has 40 bits of each one's SHA-256.

That is about 3 bytes a document, and it tells of a text that one has whether it was among them, never what they say. Of
10,000 other documents, beside 100,000 trained ones, one is taken for trained once in a thousand indexes (10^9 / 2^40).

Axes    D document.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp import places
from interp.checkpoint.card import TRAINED, Card
from interp.types import InterpError

YES, NO, UNKNOWN = "yes", "no", "unknown"
DIGITS = 10
"""Hexadecimal digits of a SHA-256 that are kept."""


@dataclass(frozen=True, eq=False)
class TrainedOn:
    """What a checkpoint says of the documents that it was trained on."""

    kept_D: np.ndarray | None
    """The first 40 bits of each one's SHA-256, sorted; None where none were written down."""
    split: str = ""
    """The only split that was read of the text of training; empty where it was not limited to one."""

    @staticmethod
    def of(digests: Iterable[str]) -> "TrainedOn":
        """Of documents by the SHA-256 of their texts, in hexadecimal."""
        return TrainedOn(np.unique(_kept(digests)))

    @staticmethod
    def read(folder: Path, card: Card) -> "TrainedOn":
        """What the checkpoint in a folder says; InterpError when its file cannot be read."""
        split, path = card.corpus.get("split"), folder / TRAINED
        known = split if isinstance(split, str) else ""
        if not path.exists():
            return TrainedOn(None, known)
        try:
            return TrainedOn(pq.read_table(path, columns=["sha256"])["sha256"].to_numpy().astype(np.uint64), known)
        except (OSError, pa.ArrowException, ValueError, LookupError):
            raise InterpError(f"{path} cannot be read as a table: it was cut short or changed.") from None

    def write(self, folder: Path) -> None:
        """Write `trained.parquet`."""
        table = pa.table({"sha256": pa.array(self.kept_D, pa.uint64())})
        encoding = {"use_dictionary": False, "column_encoding": {"sha256": "DELTA_BINARY_PACKED"}}
        with places.whole_file(folder / TRAINED) as partial:
            pq.write_table(table, partial, compression="zstd", **encoding)

    def marks(self, digests: Sequence[str], splits: Sequence[str]) -> list[str]:
        """For each document, by the SHA-256 of its text and its split: whether it was trained on, YES, NO or UNKNOWN.

        Where no documents were written down, those of another split than the one of training were not.
        """
        if self.kept_D is not None:
            return [YES if known else NO for known in np.isin(_kept(digests), self.kept_D).tolist()]
        return [NO if self.split and split != self.split else UNKNOWN for split in splits]


def _kept(digests: Iterable[str]) -> np.ndarray:
    return np.array([int(digest[:DIGITS], 16) for digest in digests], dtype=np.uint64)
