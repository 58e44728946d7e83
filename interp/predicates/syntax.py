"""What each position is in Python source, by Python's own tokenizer.

A document counts as Python where its title names a .py or .pyi file. One that is cut short is read as far as it goes. A
position is what stands at its first byte that is no space.

Axes    N position, D document, B byte of a document.
"""

import contextlib
import io
import keyword
import re
import tokenize
from collections.abc import Iterator, Sequence

import numpy as np

from interp.predicates.written import Written

KINDS = {
    "comment": "a comment",
    "string": "a string",
    "number": "a number",
    "keyword": "a keyword",
    "operator": "an operator or bracket",
    "name": "a name",
    "definition": "the name of a function or class that is defined",
    "call": "the name of what is called",
    "attribute": "a name behind a dot",
    "indent": "the space a line begins with",
}
"""By name, in words."""
_KIND_OF = {
    "COMMENT": "comment",
    "STRING": "string",
    "FSTRING_START": "string",
    "FSTRING_MIDDLE": "string",
    "FSTRING_END": "string",
    "NUMBER": "number",
    "OP": "operator",
    "NAME": "name",
}
BIT = {name: 1 << number for number, name in enumerate(KINDS)}
_PYTHON = re.compile(r"\.pyi?(:\d+)?$")
_SPACES = np.array([ord(space) for space in " \t\r\n"], dtype=np.uint8)


def is_python(title: str) -> bool:
    """Whether a document's title is that of Python source."""
    return bool(_PYTHON.search(title))


def syntax(written: Written, titles: Sequence[str], document_N: np.ndarray) -> np.ndarray:
    """For each position the kinds that it is of, as a sum of BIT; 0 outside Python source."""
    found_N = np.zeros(len(written.end_N), dtype=np.uint16)
    begin_N = np.concatenate([[0], written.end_N[:-1]])
    for run, first in enumerate(written.first_D):
        if not is_python(titles[int(document_N[first])]):
            continue
        raw = written.documents[run].as_py()
        here = slice(int(first), int(written.last_D[run]) + 1)
        found_N[here] = _of_document(raw, begin_N[here] - begin_N[first], written.end_N[here] - begin_N[first])
    return found_N


def _of_document(text: str, begin_P: np.ndarray, end_P: np.ndarray) -> np.ndarray:
    raw = np.frombuffer(text.encode(), dtype=np.uint8)
    kind_B = np.zeros(len(raw) + 1, dtype=np.uint16)
    byte_of = _bytes_of(text)
    for start, stop, kinds in _spans(text):
        kind_B[byte_of[start] : byte_of[stop]] |= kinds
    solid = np.append(np.flatnonzero(~np.isin(raw, _SPACES)), len(raw))
    next_P = solid[np.searchsorted(solid, begin_P)]
    return np.asarray(kind_B[np.where(next_P < end_P, next_P, np.maximum(end_P - 1, 0))])


def _bytes_of(text: str) -> np.ndarray:
    """The byte at which each character begins, and where the last ends."""
    code = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    return np.concatenate([[0], np.cumsum(1 + (code > 0x7F) + (code > 0x7FF) + (code > 0xFFFF))])


def _spans(text: str) -> Iterator[tuple[int, int, int]]:
    """(first character, one past the last, kinds) of each of Python's tokens, and of the space that lines begin with."""
    start_L = [0, *(place + 1 for place, character in enumerate(text) if character == "\n")]

    def at(place: tuple[int, int]) -> int:
        return min(start_L[min(place[0], len(start_L)) - 1] + place[1], len(text))

    tokens, line = _tokens(text), 0
    for number, token in enumerate(tokens):
        kind = _KIND_OF.get(tokenize.tok_name[token.type], "")
        if not kind:
            continue
        if token.start[0] != line:
            yield at((token.start[0], 0)), at(token.start), BIT["indent"]
        line = token.end[0]
        before, after = (tokens[place].string if 0 <= place < len(tokens) else "" for place in (number - 1, number + 1))
        yield at(token.start), at(token.end), _name(token.string, before, after) if kind == "name" else BIT[kind]


def _name(name: str, before: str, after: str) -> int:
    """The kinds of a name between what stands on either side."""
    if keyword.iskeyword(name):
        return BIT["keyword"]
    if before in ("def", "class"):
        return BIT["name"] | BIT["definition"]
    attribute = BIT["attribute"] if before == "." else 0
    return BIT["name"] | attribute | (BIT["call"] if after == "(" else 0)


def _tokens(text: str) -> list[tokenize.TokenInfo]:
    """Python's tokens, as far as it can be read."""
    found: list[tokenize.TokenInfo] = []
    # A piece of a file may end inside a bracket, or go back to where no line began.
    with contextlib.suppress(tokenize.TokenError, SyntaxError):
        found.extend(tokenize.generate_tokens(io.StringIO(text).readline))
    return found
