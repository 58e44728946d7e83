"""What is taken of an archive, and how much."""

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

from interp.corpus.archives import members, version
from interp.corpus.documents import Document
from interp.corpus.sources.cleaning import decoded


@dataclass(frozen=True, kw_only=True)
class Package:
    """Which files of an archive are taken."""

    archive: str
    files: tuple[str, ...]
    """Globs of paths below the folders that are left out of titles."""
    licence: str
    strip: int = 1
    """How many folders at the beginning of each path are left out."""
    without: tuple[str, ...] = ()
    cpp: bool = False
    """Whether its .h files are C++."""
    most: int = 2_500_000
    """Characters that are taken at most, so that no project outweighs the others; which documents, their hashes decide."""
    topic: str = ""
    """What its documents are about; the archive's name where nothing is said."""


def files(package: Package, unwanted: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """(path without its first folders, text) of the files that the package is taken for, unpacked where they end in .gz, in order of their paths."""
    for path, content in members(package.archive, *(f"*/{glob}" for glob in package.files)):
        inner = "/".join(path.split("/")[package.strip :])
        wanted = any(fnmatch(inner, glob) for glob in package.files)
        if wanted and not any(fnmatch(f"/{inner}", glob) for glob in (*unwanted, *package.without)):
            packed = inner.endswith(".gz")
            text = decoded(gzip.decompress(content) if packed else content)
            if text is not None:
                yield inner.removesuffix(".gz"), text


def at_most(characters: int, documents: Iterable[Document]) -> Iterator[Document]:
    """As many documents as are no more characters together, drawn by their hashes, in the order in which they came."""
    documents, room, drawn = list(documents), characters, set()
    for doc in sorted(documents, key=lambda doc: doc.digest):
        room -= len(doc.text)
        if room < 0:
            break
        drawn.add(doc.digest)
    return (doc for doc in documents if doc.digest in drawn)


def licences(packages: tuple[Package, ...]) -> str:
    """Each archive's licence, in the order of the packages."""
    return "; ".join(dict.fromkeys(f"{version(one.archive)}: {one.licence}" for one in packages))


def versions(packages: tuple[Package, ...]) -> str:
    """Name and version of each archive."""
    return ", ".join(dict.fromkeys(version(one.archive) for one in packages))
