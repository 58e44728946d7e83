"""The text of an index's documents as one buffer, and which position wrote which bytes.

Axes    N position, D document (in the order of the text).
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

BEGIN, END = "\x01", "\x02"
"""Characters that never occur in the text, so that a search can mark its matches with them."""
_MARKS = bytes.maketrans(b"\x01\x02", b"??")


@dataclass(frozen=True)
class Written:
    """Documents as strings."""

    documents: pa.LargeStringArray
    end_N: np.ndarray
    """Byte at which each position ends, in all documents one after the other; separators write nothing."""
    first_D: np.ndarray
    last_D: np.ndarray
    """First and last position of each document."""


def write(token_N: np.ndarray, document_N: np.ndarray, vocabulary: Sequence[bytes], separator: int) -> Written:
    """The text that the tokens write; bytes that are no whole character (a document cut inside one) become `?`."""
    bytes_V = [raw.translate(_MARKS) for raw in vocabulary]
    bytes_V[separator] = b""
    end_N = np.cumsum(np.array([len(raw) for raw in bytes_V])[token_N])
    text = b"".join([bytes_V[token] for token in token_N.tolist()]).decode("utf-8", "interp-keep-length").encode()
    first_D = np.flatnonzero(np.diff(document_N.astype(np.int64), prepend=-1))
    last_D = np.append(first_D[1:], len(token_N)) - 1
    offsets = np.append(np.concatenate([[0], end_N])[first_D], len(text)).astype(np.int64)
    documents = pa.LargeStringArray.from_buffers(len(first_D), pa.py_buffer(offsets), pa.py_buffer(text))
    return Written(documents, end_N, first_D, last_D)


def _keep_length(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "?" * (error.end - error.start), error.end


codecs.register_error("interp-keep-length", _keep_length)
