"""Where a token stands in its word, its number or its quotation.

Numbers are runs of digits, whether a tokenizer writes a digit a token or several.

Axes    P position.
"""

import numpy as np

from interp.grammar import Term
from interp.predicates.text import Around

_DIGITS = Term("token", r"^ ?\p{Nd}+$", regex=True)
_SPACED = Term("token", r"^\s", regex=True)
_CENTURY = Term("token", r"^ ?[12]$", regex=True)
_YEAR = Term("token", r"^ ?(?:1[0-9]|20)[0-9]{2}$", regex=True)
_OPENS = Term("token", r"""^(?:\s|[\s(\[=:,])["'`]+$|[“‘«„]\s?$""", regex=True)
_WRITES = Term("token", r"^\S", regex=True)


def _is(term: Term, around: Around, offset: int = 0) -> np.ndarray:
    return np.asarray(around.text.vocabulary.matching(term)[around.at(offset)])


def _goes_on(around: Around, offset: int = 0) -> np.ndarray:
    """Whether the token there goes on with the number before it."""
    here, before = _is(_DIGITS, around, offset), _is(_DIGITS, around, offset - 1)
    return np.asarray(here & before & ~_is(_SPACED, around, offset))


def word_start(around: Around) -> np.ndarray:
    """The first part of a word of several tokens."""
    joined = around.text.vocabulary.joined
    return np.asarray(~joined(around.at(-1), around.at(0)) & joined(around.at(0), around.at(1)))


def word_end(around: Around) -> np.ndarray:
    """The last part of a word of several tokens."""
    joined = around.text.vocabulary.joined
    return np.asarray(joined(around.at(-1), around.at(0)) & ~joined(around.at(0), around.at(1)))


def number_start(around: Around) -> np.ndarray:
    """The first token of a number."""
    return np.asarray(_is(_DIGITS, around) & ~_goes_on(around))


def number_inside(around: Around) -> np.ndarray:
    """A later token of a number."""
    return _goes_on(around)


def year_start(around: Around) -> np.ndarray:
    """The first token of four digits, 1000 to 2099, that stand alone."""
    single = _is(_CENTURY, around) & ~_goes_on(around)
    for offset in (1, 2, 3):
        single &= _goes_on(around, offset)
    single &= ~_goes_on(around, 4)
    return np.asarray(single | (_is(_YEAR, around) & ~_goes_on(around) & ~_goes_on(around, 1)))


def quote_start(around: Around) -> np.ndarray:
    """The first token after an opening quotation mark."""
    return np.asarray(_is(_OPENS, around, -1) & _is(_WRITES, around))
