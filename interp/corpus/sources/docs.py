"""Technical documentation out of packages: manuals, guides and references as pages, or sections of long pages.

The topic of a document is the project.
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping

from interp.corpus.documents import Corpus, Document
from interp.corpus.sources import markup
from interp.corpus.sources.cleaning import is_data
from interp.corpus.sources.cutting import pieces
from interp.corpus.sources.packages import Package, at_most, files, licences, versions

SHORTEST = 1_000
"""Characters of a document at least."""
UNWANTED = ("*/releases/*", "*/release/*", "*/release_*", "*/changelog*", "*/history/*", "*/announce/*", "*/whatsnew/*")
"""Lists of changes."""

Clean = Callable[[Package], Callable[[str, str], str]]
"""A package → what makes text of a page, given its path and source."""

RST = (
    Package(
        archive="django", files=("docs/*.txt",), licence="BSD-3-Clause", without=("*/flattened-index*",), topic="Django"
    ),
    Package(
        archive="sqlalchemy",
        files=("doc/build/*.rst",),
        licence="MIT",
        without=("*/copyright*", "*/glossary*"),
        topic="SQLAlchemy",
    ),
    Package(
        archive="sympy",
        files=("doc/src/*.rst", "doc/src/*.md"),
        licence="BSD-3-Clause",
        without=("*/literature*", "*/citing*", "*/aboutus*"),
        topic="SymPy",
    ),
    Package(archive="networkx", files=("doc/*.rst",), licence="BSD-3-Clause", topic="NetworkX"),
    Package(archive="scrapy", files=("docs/*.rst",), licence="BSD-3-Clause", without=("*/news*",), topic="Scrapy"),
    Package(
        archive="celery",
        files=("docs/*.rst",),
        licence="CC BY-SA 4.0 (documentation)",
        without=("*/copyright*",),
        topic="Celery",
    ),
    Package(
        archive="pytest",
        files=("doc/en/*.rst",),
        licence="MIT",
        without=("*/license*", "*/plugin_list*"),
        topic="pytest",
    ),
    Package(archive="tornado", files=("docs/*.rst",), licence="Apache-2.0", topic="Tornado"),
)
LINUX = (
    Package(
        archive="linux-doc",
        files=("Documentation/*.rst", "Documentation/*.rst.gz"),
        strip=4,
        licence="GPL-2.0",
        without=("*/translations/*", "*/hwmon/*", "*/userspace-api/media/*", "*/device_drivers/*", "*/devices.rst*"),
        topic="Linux",
        most=5_000_000,
    ),
    Package(
        archive="debian-policy",
        files=("policy.html/_sources/*.txt",),
        strip=4,
        licence="GPL-2.0-or-later",
        without=("*/upgrading-checklist*",),
        topic="Debian policy",
    ),
)
PERL = (
    Package(
        archive="perl-doc",
        files=("pod/*.pod",),
        strip=4,
        licence="Artistic-1.0-Perl OR GPL-1.0-or-later",
        without=(
            "*delta.pod",
            "*/perltoc*",
            "*/perlmodlib*",
            "*/perl[cjkt][npow].pod",
            "*/perluniprops*",
            "*/perlhist*",
            "*/perlgpl*",
            "*/perlartistic*",
        ),
        topic="Perl",
        most=5_000_000,
    ),
)
POSTGRESQL = (
    Package(
        archive="postgresql-doc",
        files=("html/*.html",),
        strip=4,
        licence="PostgreSQL",
        without=(
            "*/release*",
            "*/bookindex*",
            "*/features-*",
            "*/biblio*",
            "*/errcodes*",
            "*/sql-keywords*",
            "*/acronyms*",
            "*/legalnotice*",
        ),
        topic="PostgreSQL",
        most=6_000_000,
    ),
)
RUST = (
    Package(
        archive="rust-src",
        files=("src/doc/*/src/*.md", "compiler/rustc_error_codes/src/*.md"),
        strip=3,
        licence="MIT OR Apache-2.0",
        without=("*/SUMMARY.md", "*/rustc-dev-guide/src/appendix/*", "*/unstable-book/*"),
        topic="Rust",
        most=5_000_000,
    ),
)
GIT = (
    Package(
        archive="git-doc",
        files=("git-doc/*.txt", "git-doc/*.txt.gz"),
        strip=3,
        licence="GPL-2.0",
        without=("*/RelNotes/*",),
        topic="Git",
    ),
)
HANDBOOK = (
    Package(
        archive="debian-handbook",
        files=("html/en-US/*.html",),
        strip=4,
        licence="GPL-2.0-or-later OR CC BY-SA 3.0",
        without=("*/ix*.html", "*/index.html"),
        topic="Debian",
        most=5_000_000,
    ),
)
PYTHON = (
    Package(
        archive="python-docs",
        files=("html/_sources/*.txt",),
        strip=4,
        licence="PSF-2.0",
        without=("*/license*", "*/copyright*"),
        topic="Python",
        most=20_000_000,
    ),
)
NAVIGATION: Mapping[str, tuple[str, ...]] = {
    "postgresql-doc": ("navheader", "navfooter", "toc", "docNavHeader", "indexterm"),
    "debian-handbook": ("#banner", "#title", "docnav", "toc", "list-of-figures", "indexterm"),
}
"""Classes, and ids after #, of what leads from page to page, by archive."""


def page_of(package: Package) -> Callable[[str, str], str]:
    """HTML as text."""
    navigation = NAVIGATION[package.archive]
    return lambda path, text: markup.page(text, navigation)


def rust_book(package: Package) -> Callable[[str, str], str]:
    """Markdown whose listings are put where they are named."""
    listings = Package(
        archive=package.archive,
        files=("src/doc/book/listings/*.rs", "src/doc/book/listings/*.txt"),
        strip=3,
        licence="",
    )
    texts = dict(files(listings))

    def clean(path: str, text: str) -> str:
        return markup.markdown(_INCLUDE.sub(lambda found: _listing(path, found, texts), text))

    return clean


_INCLUDE = re.compile(r"\{\{#(?:rustdoc_)?include ([^}:\s]+)(?::([\w-]+))?[^}]*\}\}")


def _listing(path: str, found: re.Match[str], texts: Mapping[str, str]) -> str:
    """The part between a listing's anchors that is asked for, or all of it; the anchors themselves are cut."""
    lines = texts.get(posixpath.normpath(posixpath.join(posixpath.dirname(path), found[1])), "").splitlines()
    anchor, inside, kept = found[2], not found[2] or found[2].isdigit(), []
    for line in lines:
        mark = re.match(r"\s*// ANCHOR(_END)?: (\S+)", line)
        if mark is None and inside:
            kept.append(line)
        elif mark and mark[2] == anchor:
            inside = not mark[1]
    return "\n".join(kept)


def read_docs(source: str, packages: tuple[Package, ...], clean: Clean) -> Iterator[Document]:
    """Pages without what only steers, long ones in sections; lists of changes and tables left out."""
    seen: set[bytes] = set()
    for package in packages:
        cleaned = clean(package)
        documents: dict[bytes, Document] = {}
        for path, text in files(package, UNWANTED):
            for line, piece in pieces(cleaned(path, text), heading=markup.HEADING):
                title = f"{package.archive}/{path}" + (f":{line}" if line > 1 else "")
                doc = Document(text=piece, source=source, title=title, topic=package.topic or package.archive)
                if len(piece) >= SHORTEST and not is_data(piece, longest=1_500) and doc.digest not in seen:
                    documents[doc.digest] = doc
        seen |= documents.keys()
        yield from at_most(package.most, documents.values())


def plain(clean: Callable[[str], str]) -> Clean:
    """The same for every path and package."""
    return lambda package: lambda path, text: clean(text)


def _docs(source: str, about: str, packages: tuple[Package, ...], clean: Clean) -> Callable[[], Corpus]:
    return lambda: Corpus(
        name=source,
        licence=licences(packages),
        about=about,
        version=versions(packages),
        read=lambda: read_docs(source, packages, clean),
    )


CORPORA: dict[str, Callable[[], Corpus]] = {
    "docs-rst": _docs(
        "docs-rst", "reStructuredText manuals of Django, SQLAlchemy, SymPy, Celery and others", RST, plain(markup.rst)
    ),
    "docs-linux": _docs(
        "docs-linux", "reStructuredText of the Linux kernel and Debian's policy", LINUX, plain(markup.rst)
    ),
    "docs-perl": _docs("docs-perl", "Perl's manual pages in POD", PERL, plain(markup.pod)),
    "docs-postgresql": _docs("docs-postgresql", "PostgreSQL's manual, from HTML", POSTGRESQL, page_of),
    "docs-rust": _docs("docs-rust", "Rust's books and explanations of its errors, in Markdown", RUST, rust_book),
    "docs-git": _docs("docs-git", "Git's manual pages and guides, in AsciiDoc", GIT, plain(markup.asciidoc)),
    "debian-handbook": _docs(
        "debian-handbook", "The Debian Administrator's Handbook in English, from HTML", HANDBOOK, page_of
    ),
    "python-docs": _docs("python-docs", "Python's documentation in reStructuredText", PYTHON, plain(markup.rst)),
}
