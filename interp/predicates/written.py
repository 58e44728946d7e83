"""The text of an index's documents as one buffer, and which position wrote which bytes.

Axes    N position, D document (in the order of the text).
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from interp.grammar import Term
from interp.predicates.regex import check

BEGIN, END = "\x01", "\x02"
"""Characters that never occur in the text, so that a search can mark its matches with them."""
REACH = 16
"""Tokens on either side that are a position's context."""
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


def around_matches(term: Term, text: Written) -> tuple[np.ndarray, int]:
    """(positions within REACH tokens of a match in their document, as a mask; number of matches).

    Matches are found in each document's whole text, from left to right, without overlap; ^ and $ are a document's ends.
    """
    written = check(term)
    # Marks around every match; where they stand in the result tells where the matches were.
    marked = pc.replace_substring_regex(text.documents, f"({written})", f"{BEGIN}\\1{END}")
    flat = marked.combine_chunks() if isinstance(marked, pa.ChunkedArray) else marked
    raw = np.frombuffer(flat.buffers()[2], dtype=np.uint8) if flat.buffers()[2] is not None else np.zeros(0, np.uint8)
    begin, end = np.flatnonzero(raw == ord(BEGIN)), np.flatnonzero(raw == ord(END))
    count = np.arange(len(begin))
    start_byte, last_byte = begin - 2 * count, end - 2 * count - 2
    start, last = (np.searchsorted(text.end_N, byte, side="right") for byte in (start_byte, last_byte))
    edges = np.zeros(len(text.end_N) + 1, dtype=np.int32)
    document = np.searchsorted(text.first_D, start, side="right") - 1
    np.add.at(edges, np.maximum(start - REACH, text.first_D[document]), 1)
    np.add.at(edges, np.minimum(last + REACH, text.last_D[document]) + 1, -1)
    return np.cumsum(edges[:-1]) > 0, len(begin)
