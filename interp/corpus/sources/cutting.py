"""Long texts as pieces that each stand on their own."""

import re
from collections.abc import Iterator

LONGEST = 20_000
"""Characters of a piece at most."""


def pieces(text: str, longest: int = LONGEST, heading: re.Pattern[str] | None = None) -> Iterator[tuple[int, str]]:
    """(line where it begins, counted from 1; the piece) of about equal lengths, each of at most `longest` characters.

    Cut before a heading, where one is known by its pattern; else before a line without indent that follows a blank one (a
    definition, a paragraph), else after any blank line, else
    between two lines, else in the middle of a line.
    """
    start = 0
    while start < len(text):
        left = len(text) - start
        end = (
            start + left
            if left <= longest
            else _end(text, start, min(longest, int(1.15 * left / -(-left // longest))), heading)
        )
        piece = text[start:end]
        if piece.strip():
            first = len(piece) - len(piece.lstrip("\n"))
            yield 1 + text.count("\n", 0, start + first), piece.strip("\n") + "\n"
        start = end


def _end(text: str, start: int, room: int, heading: re.Pattern[str] | None) -> int:
    """Where a piece of at most `room` characters ends best: as late as may be among the best places of its second half."""
    best, rank = start + room, -1
    at = text.find("\n", start + room // 2, start + room) + 1
    while at:
        after_blank = text[max(start, at - 2) : at] == "\n\n"
        opens = after_blank and text[at : at + 1].strip() not in {"", ")", "]", "}"}
        here = 3 if heading and heading.match(text, at) else after_blank + opens
        if here >= rank:
            best, rank = at, here
        at = text.find("\n", at, start + room) + 1
    return best
