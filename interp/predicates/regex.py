"""Regular expressions as conditions have them.

RE2 (Arrow's): no backtracking, so no condition can hang; no lookaround and no backreferences.
"""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from interp.grammar import Term
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


def matching(term: Term, texts: Sequence[str]) -> np.ndarray:
    """Which of the texts match, bool."""
    written = check(term)
    return np.asarray(pc.match_substring_regex(pa.array(texts, pa.large_string()), written), dtype=bool)
