"""The text of an index as files: its tokens, what counts where, and how often each token stands.

`tokens.parquet` and `documents.parquet` say nothing of the SAE, so that several indexes over the same text hold the same
files (see `checkpoint.shared`). What counts and fires at each position is the SAE's: `counted.parquet`,
`token_counts.parquet`.

In an index that is to be shared, a document that may not be passed on has no tokens: only its hash, its title and its
positions. How often each token stands in the whole text is kept, since no text can be read off it.

Axes    N position, D document, V vocabulary.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp.corpus import write_parquet
from interp.corpus.blocks import FILE


@dataclass(frozen=True)
class Tokens:
    """The tokens of an index, as far as they are known on this machine."""

    token_N: np.ndarray
    """The separator where a token is not known."""
    missing_N: np.ndarray
    """True where a token is not known."""
    why: dict[str, str] = field(default_factory=dict)
    """By source, why some of its documents have no text here, as a sentence."""


def hidden(documents: pa.Table, token_N: np.ndarray, document_N: np.ndarray, separator: int) -> np.ndarray:
    """Where an index that is shared has no token: in documents that may not be passed on, but at separators."""
    withheld_D = ~documents["passes_on"].to_numpy(zero_copy_only=False)
    return np.asarray(withheld_D[document_N] & (token_N != separator))


def without_places(documents: pa.Table) -> pa.Table:
    """The documents as an index that is shared has them: not where pictures and clips lie on this machine."""
    return documents.drop_columns([FILE]) if FILE in documents.column_names else documents


def write_tokens(folder: Path, token_N: np.ndarray, document_N: np.ndarray, hidden_N: np.ndarray) -> None:
    """Write tokens.parquet; hidden tokens are null."""
    columns = {
        "token": pa.array(token_N.astype(np.uint32), mask=hidden_N if hidden_N.any() else None),
        "document": pa.array(document_N.astype(np.uint32)),
    }
    pq.write_table(
        pa.table(columns),
        folder / "tokens.parquet",
        compression="zstd",
        compression_level=9,
        row_group_size=131_072,
        use_dictionary=False,  # a dictionary of the tokens is a sixth larger
        column_encoding={"document": "DELTA_BINARY_PACKED"},
    )


def write_counted(folder: Path, kept_N: np.ndarray, active_N: np.ndarray, counts_V: np.ndarray) -> None:
    """Write counted.parquet and token_counts.parquet: what counts for one SAE, and how often each token does."""
    write_parquet(pa.table({"kept": kept_N, "active": active_N.astype(np.uint32)}), folder / "counted.parquet")
    write_parquet(pa.table({"count": counts_V.astype(np.uint32)}), folder / "token_counts.parquet")


def text_sha256(token_N: np.ndarray) -> str:
    """A name for the tokens of a whole index; of an index of one text its `tokens_sha256`."""
    return hashlib.sha256(np.ascontiguousarray(token_N, dtype=np.int32).tobytes()).hexdigest()
