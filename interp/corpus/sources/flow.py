"""Text set for a page or a terminal, as flowing text: lines joined to paragraphs, paragraphs gathered to documents."""

import re
from collections.abc import Iterable, Iterator
from statistics import median

_POINT = re.compile(r"(?:[-*•]|\(?\d{1,2}[.)]|\([a-z]\))\s")
PART_CHARS = 12_000
"""Characters after which a long chapter is cut, at the end of a paragraph."""
_FULL_LINE = 45
"""Characters of a line that ended because the page did; verse and lists have shorter ones."""


def paragraphs(text: str) -> list[str]:
    """What stands between blank lines, with its own line breaks."""
    return [part.strip("\n") for part in re.split(r"\n[ \t]*(?:\n[ \t]*)+", text.replace("\r\n", "\n")) if part.strip()]


def joined(paragraph: str) -> str:
    """The paragraph in one line, but a line for each point of a list, and for each of verse, which has short ones that start large."""
    lines = [" ".join(line.split()) for line in paragraph.split("\n") if line.strip()]
    verse = len(lines) > 1 and median(map(len, lines[:-1])) < _FULL_LINE
    text = "".join(lines[:1])
    for line in lines[1:]:
        apart = _POINT.match(line) or (verse and not line[0].islower())
        hyphen = re.search(r"[a-z]-$", text) is not None and line[0].islower()
        text += ("\n" if apart else "" if hyphen else " ") + line
    return text


def gathered(parts: Iterable[str], most: int = PART_CHARS) -> Iterator[str]:
    """Paragraphs put together, with a blank line between, to texts of at most `most` characters; a longer one stands alone."""
    held: list[str] = []
    chars = 0
    for part in parts:
        if held and chars + len(part) > most:
            yield "\n\n".join(held)
            held, chars = [], 0
        held.append(part)
        chars += len(part) + 2
    if held:
        yield "\n\n".join(held)


def evenly(parts: list[str], most: int = PART_CHARS) -> list[str]:
    """As `gathered`, but in texts of about the same length, so that no stump is left."""
    whole = sum(len(part) + 2 for part in parts)
    count = -(-whole // most)
    texts = list(gathered(parts, most if count < 2 else whole // count + max(map(len, parts)) // 2))
    if len(texts) > 1 and len(texts[-1]) < most // 10:
        texts[-2:] = ["\n\n".join(texts[-2:])]
    return texts
