"""Essays and sayings: an encyclopaedia of anarchism, and the fortunes of Unix."""

import gzip
import html
import re
from collections.abc import Iterator

from interp.corpus import archives
from interp.corpus.documents import Corpus, Document
from interp.corpus.sources import flow

_NO_ESSAY = re.compile(
    r"(?:biblio|links|alinks|arlinks|new|translations|contact|pdf|index|book|quotes|supplementary|sec[A-J]con|append\d*)\.md"
)
"""Pages of links and lists. (`append1.md` and its like only lead to the pages of an appendix.)"""
_LEAST = 400
FORTUNES = (
    *("computers", "definitions", "education", "food", "goedel", "kids", "law", "medicine", "miscellaneous", "news"),
    *("paradoxum", "people", "pets", "platitudes", "science", "sports", "tao", "wisdom", "work"),
)
"""The files whose sayings are neither offensive, nor songs, nor drawings."""
GATHERED = 1_200
"""Characters of sayings that make a document."""


def anarchism() -> Corpus:
    """An Anarchist FAQ: essays on politics, economics and history, each section a document."""

    def read() -> Iterator[Document]:
        for path, content in archives.members("anarchism", "*/markdown/*.md.gz", "*/markdown/*.md"):
            name = path.rsplit("/", 1)[1]
            if _NO_ESSAY.fullmatch(name.removesuffix(".gz")):
                continue
            text = (gzip.decompress(content) if name.endswith(".gz") else content).decode("utf-8")
            page = name.split(".")[0]
            for number, (heading, parts) in enumerate(_sections(text), 1):
                for part, body in enumerate(flow.evenly(parts), 1):
                    if len(body) >= _LEAST:
                        title = f"{page} {number}.{part}: {heading}"
                        yield Document(text=body, source="anarchism", title=title, topic="anarchism")

    return Corpus(
        name="anarchism",
        licence="GPL-2.0-or-later (An Anarchist FAQ)",
        about="essays of An Anarchist FAQ on politics, economics and history",
        version=archives.version("anarchism"),
        read=read,
    )


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """(Heading, paragraphs) of a page of Markdown, without its navigation."""
    text = re.split(r"^\[‹", text, maxsplit=1, flags=re.MULTILINE)[0]
    heading, parts = "", list[str]()
    for part in flow.paragraphs(text):
        if part.startswith("#"):
            if parts:
                yield heading, parts
            heading, parts = _unmarked(" ".join(part.split())).lstrip("# ") or heading, []
        elif not re.match(r"\s*(?:---|\*\s+\[|\|)", part):
            said = flow.joined(_unmarked(part))
            if re.search(r"[a-z]{2}", said):
                parts.append(said)
    if parts:
        yield heading, parts


def _unmarked(markdown: str) -> str:
    """The text without emphasis, links and escapes."""
    text = re.sub(r"!?\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\([^()]*\)", r"\1", markdown)
    text = re.sub(r"<https?://[^>]*>", "", text)
    text = re.sub(r"\\([-*_.#+()\[\]>])", r"\1", text)
    text = re.sub(r"\*\*_|_\*\*|\*\*|(?<!\w)_+(?=\S)|(?<=\S)_+(?!\w)", "", text)
    text = re.sub(r"^\s{0,3}>\s?|^\s*\*\s{1,3}", "", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=[\w\"')]) +([,.;:?!])(?=\s(?!\.)|$)", r"\1", html.unescape(text))
    return text


def fortunes() -> Corpus:
    """Sayings, those of one kind gathered."""

    def read() -> Iterator[Document]:
        for path, content in archives.members("fortunes", *(f"*/games/fortunes/{kind}" for kind in FORTUNES)):
            kind = path.rsplit("/", 1)[1]
            for number, text in enumerate(flow.gathered(_sayings(content.decode("utf-8", "replace")), GATHERED), 1):
                yield Document(text=text, source="fortunes", title=f"{kind} {number}", topic=f"fortunes: {kind}")

    return Corpus(
        name="fortunes",
        licence="BSD-3-Clause (the collection); each saying is its author's",
        about="sayings and anecdotes of the Unix fortune program",
        version=archives.version("fortunes"),
        passes_on=False,
        read=read,
    )


def _sayings(text: str) -> Iterator[str]:
    """What stands between lines of %, each unwrapped, with its author on a line of its own."""
    for saying in re.split(r"^%\s*$", text, flags=re.MULTILINE):
        saying = re.sub(r".\x08", "", saying).expandtabs().strip("\n")
        said, _, author = re.sub(r"\n\s+(?:-- ?|\[)", "\n\n-- ", saying).partition("\n\n-- ")
        lines = [flow.joined(re.sub(r"^ {2,}", "", part, flags=re.MULTILINE)) for part in flow.paragraphs(said)]
        plain = sum(char.isalpha() or char.isspace() for char in said)
        if lines and len(said) >= 40 and plain >= 0.85 * len(said) and not re.search(r"\ufffd|\S{40}", said):
            yield "\n".join(lines + ([f"-- {' '.join(author.split()).rstrip(']')}"] if author.strip() else []))
