"""Regular expressions over the vocabulary and over the text of an index.

RE2 (Arrow's): no backtracking, so no query can hang; no lookaround and no backreferences.

Axes    N position, V vocabulary, C byte of the text.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from interp.index import FeatureIndex
from interp.index.format import WINDOW
from interp.index.written import BEGIN, END
from interp.search.query import Term
from interp.types import InterpError

PROBES = pa.array(["", "a", "a a", " "])
"""Where a match of no characters shows: taking it away changes nothing."""


def pattern(term: Term) -> str:
    """The term's regular expression; a plain text becomes one that finds it."""
    return term.value if term.regex else re.escape(term.value).replace("\\ ", " ")


def check(term: Term) -> str:
    """`pattern`, or an InterpError when RE2 does not take it or it matches nothing at all, everywhere."""
    written = pattern(term)
    try:
        matches = pc.match_substring_regex(PROBES, written)
        emptied = pc.replace_substring_regex(PROBES, f"({written})", "")  # as it is used on texts, in a group
    except pa.ArrowInvalid as error:
        reason = str(error).partition(": ")[2] or str(error)
        raise InterpError(
            f"{term.key}:/{term.value}/ is no regular expression RE2 takes (at character {term.at}: {reason}); lookaround "
            "and backreferences do not exist there."
        ) from None
    if pc.any(pc.and_(matches, pc.equal(PROBES, emptied))).as_py():
        raise InterpError(
            f"{term.key}:/{term.value}/ matches the empty text, so it matches everywhere (at character {term.at}); ask "
            "for at least one character."
        )
    return written


def matching_tokens(term: Term, vocabulary: list[str]) -> np.ndarray:
    """Which token ids match, shape (V,)."""
    written = check(term)
    return np.asarray(pc.match_substring_regex(pa.array(vocabulary, pa.large_string()), written))


def matching_contexts(term: Term, index: FeatureIndex) -> tuple[np.ndarray, int]:
    """(positions within WINDOW tokens of a match in their document, as a mask; number of matches).

    Matches are found in each document's whole text, from left to right, without overlap; ^ and $ are a document's ends.
    """
    written = check(term)
    text = index.written
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
    np.add.at(edges, np.maximum(start - WINDOW, text.first_D[document]), 1)
    np.add.at(edges, np.minimum(last + WINDOW, text.last_D[document]) + 1, -1)
    return (np.cumsum(edges[:-1]) > 0) & index.kept, len(begin)
