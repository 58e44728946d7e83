"""A .txt as documents: its paragraphs gathered, its lines, or the whole of it.

Blank lines part paragraphs, which are gathered while they fit; one that is too long is cut at a line's end, a line that is too
long between words.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from interp.corpus import rows
from interp.corpus.documents import Document, FileReading
from interp.types import InterpError

PIECE = 2_000
"""Characters of a piece of a .txt, at most: about two blocks of tokens."""
PARTINGS = ("paragraphs", "lines", "whole")


def described(parting: str) -> str:
    """How a .txt is parted, for a sentence."""
    if parting.isdigit():
        return f"paragraphs gathered up to {int(parting):,} characters"
    words = {
        "paragraphs": f"paragraphs gathered up to {PIECE:,} characters",
        "lines": "lines",
        "whole": "one document a file",
    }
    return words[parting]


def read_txt(source: str, path: Path, parting: str, reading: FileReading) -> Iterator[Document]:
    """The documents of a file, parted as PARTINGS name it or into so many characters; InterpError for none."""
    size = int(parting) if parting.isdigit() else PIECE
    if size == 0:
        raise InterpError(f"{path}#{parting}: a piece must have at least one character.")
    if parting == "lines":
        texts: Iterable[tuple[int, str]] = rows.lines(path)
    elif parting == "whole":
        texts = [(1, "\n".join(line for _, line in rows.lines(path)))]
    else:
        texts = _pieces(path, size)
    for line, text in texts:
        if not text.strip():
            continue
        reading.documents += 1
        title = source if line == 1 and parting != "lines" else f"{source}:{line}"
        yield Document(text=text, source=source, title=title, own=True)


def _pieces(path: Path, size: int) -> Iterator[tuple[int, str]]:
    """(line of its beginning, text): paragraphs gathered while they fit, with the blank lines between them."""
    held, began, ended = "", 1, 0
    for first, last, text in _paragraphs(path, size):
        gap = "\n" * (first - ended)
        if held and len(held) + len(gap) + len(text) <= size:
            held += gap + text
        else:
            if held:
                yield began, held
            held, began = text, first
        ended = last
    if held:
        yield began, held


def _paragraphs(path: Path, size: int) -> Iterator[tuple[int, int, str]]:
    """(first line, last line, text) of what stands between blank lines; one that is too long is cut at a line's end, a
    line that is too long between words, else anywhere."""
    part: list[str] = []
    length, ended = 0, 0
    for number, line in rows.lines(path):
        blank = not line.strip()
        if part and (blank or length + len(line) > size):
            yield number - len(part), number - 1, "\n".join(part)
            part, length = [], 0
        if len(line) > size and not blank:
            yield from ((number, number, text) for text in _cut(line, size))
        elif not blank:
            part.append(line)
            length, ended = length + len(line) + 1, number
    if part:
        yield ended - len(part) + 1, ended, "\n".join(part)


def _cut(line: str, size: int) -> Iterator[str]:
    start = 0
    while len(line) - start > size:
        space = line.rfind(" ", start + 1, start + size + 1)
        end = space if space > 0 else start + size
        yield line[start:end]
        start = end
    yield line[start:]
