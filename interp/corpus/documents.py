"""Documents, corpora of them, mixtures, and what a pass over a corpus came upon."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from interp.render.words import counted
from interp.types import InterpError, unknown

FINAL = "final"
"""The split that nothing reads of a packaged corpus unless it is named: text for a last check."""
SPLITS = ("train", "heldout", "labels", FINAL)


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text and where it comes from."""

    text: str
    source: str
    """The corpus's name; of one's own text the file, seen from the folder that was named."""
    title: str
    """What finds the document again in its source: a title, a path, or a row number."""
    topic: str = ""
    turns: tuple[tuple[str, str], ...] = ()
    """Of a conversation its (role, text) pairs, `text` being the same in plain form; a model with a chat template reads them in it."""

    own: bool = False
    """Is it from somebody's own files? Then it is read whichever split it is in, unless one is named."""
    file: Path | None = None
    """Of a picture or a clip of sound where it lies; its text is then the file's name."""
    numbers: bytes = field(default=b"", repr=False)
    """Of an item of numbers its bytes; its text is then where it lies, FILE.npy#NUMBER."""
    passes_on: bool = True
    """May the text be shipped inside an index? Its corpus says so (see `Corpus.passes_on`)."""

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the text, or of a picture's or clip's file, or of an item's numbers."""
        if self.numbers:
            return hashlib.sha256(self.numbers).digest()
        if self.file is not None:
            return hashlib.sha256(self.file.read_bytes()).digest()
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).digest()

    @property
    def split(self) -> str:
        """Which use the text is for: `train`, `heldout` (of training), `labels` (for testing labels), or `final` (for one
        last check).

        By the first byte of the text's SHA-256 (the last two by its second), so that a text is in the same split in
        every corpus.
        """
        return split_of(self.digest)


def split_of(digest: bytes) -> str:
    """The split of a text by its SHA-256 (see `Document.split`)."""
    if digest[0] < 230:
        return "train" if digest[0] < 205 else "heldout"
    return FINAL if digest[1] % 2 else "labels"


@dataclass
class FileReading:
    """What was found in one file so far."""

    field: str = ""
    """The field that was taken for the text; none of a .txt."""
    documents: int = 0
    no_text: int = 0
    """Rows whose text was missing, null or blank; they are skipped."""
    ended: bool = False


@dataclass
class Reading:
    """What a pass over somebody's own text came upon; filled while its documents are read."""

    files: dict[str, FileReading] = field(default_factory=dict)
    """Every file of the text, read or not."""
    handed: Counter[str] = field(default_factory=Counter)
    """Documents of each file that were handed on."""
    how: dict[str, Any] = field(default_factory=dict)
    """How .txt files were parted, and the seed of the order."""
    reserved: int = 0
    """Documents of the split `final` that were passed over."""

    @property
    def empty(self) -> set[str]:
        """Files that were read to their end and hold no text."""
        return {name for name, one in self.files.items() if one.ended and not one.documents}

    @property
    def missed(self) -> list[str]:
        """Files of which no document was handed on, though they may hold some."""
        return [name for name in self.files if name not in self.handed and name not in self.empty]

    @property
    def in_part(self) -> int:
        """Files of which some documents were handed on and others not."""
        whole = (name for name, one in self.files.items() if one.ended and one.documents == self.handed[name])
        return len(self.handed.keys() - set(whole))

    def summary(self) -> dict[str, Any]:
        """For the recipe of what is made from the text; empty when no file was read."""
        if not self.files:
            return {}
        fields = Counter(one.field for name, one in self.files.items() if one.field and name in self.handed)
        return self.how | {
            "files": len(self.files),
            "files_not_reached": len(self.missed),
            "files_read_in_part": self.in_part,
            "rows_without_text": self.no_text,
            "fields": dict(sorted(fields.items())),
        }

    @property
    def no_text(self) -> int:
        """Rows without text, which were skipped."""
        return sum(one.no_text for one in self.files.values())

    def sentence(self) -> str:
        """What the documents come from, what was skipped and what was not reached; empty when no file was read."""
        if not self.files:
            return ""
        missed, parts = self.missed, []
        fields = self.summary()["fields"]
        if set(fields) - {"text"}:
            named = ", ".join(f"`{name}` ({counted(n, 'file')})" for name, n in fields.items())
            parts.append(f"their text is the field {named}")
        if self.no_text:
            parts.append(f"{counted(self.no_text, 'row')} without text skipped")
        if self.empty:
            parts.append(f"{counted(len(self.empty), 'file')} without text")
        some = f" ({', '.join(missed[:3])}{', …' if len(missed) > 3 else ''})" if missed else ""
        parts.append(
            f"{len(missed):,} of {counted(len(self.files), 'file')} not reached{some}, {self.in_part:,} read in part"
        )
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Named documents that can be read again and again."""

    name: str
    licence: str
    about: str
    read: Callable[[], Iterable[Document]] = field(repr=False)
    version: str = ""
    passes_on: bool = True
    """May its text be shipped inside an index? If not, an index that is shared holds only where it is found."""
    mixture: bool = False
    """Whether its documents are those of other corpora, of which each says itself whether it passes on."""
    kind: str = "text"
    """What its documents are: `text`, `pictures`, `sound` or `numbers`."""
    mixed: Callable[[Reading], Iterable[Document]] | None = field(default=None, repr=False)
    """The documents of somebody's own text, of several files in an order drawn from a seed, so that a part is a sample of
    them all; what they come from is written into the reading. None where `read` has an order that will do."""

    def documents(self, split: str | None = None) -> Iterator[Document]:
        """The documents, of one split if asked, file by file and row by row."""
        check_split(split)
        return (doc for doc in self._marked(self.read()) if split is None or doc.split == split)

    def in_mixed_order(self, reading: Reading, split: str | None = None) -> Iterator[Document]:
        """The documents in the order in which they become tokens."""
        check_split(split)
        documents = self._marked(self.mixed(reading) if self.mixed else self.read())
        return (doc for doc in documents if split is None or doc.split == split)

    def _marked(self, documents: Iterable[Document]) -> Iterable[Document]:
        """The documents, each saying whether it passes on; those of a mixture say it already."""
        if self.passes_on or self.mixture:
            return documents
        return (replace(doc, passes_on=False) for doc in documents)

    def without(self, digests: set[str]) -> "Corpus":
        """The same corpus without the texts that have these SHA-256s."""
        return self._where(lambda doc: doc.digest.hex() not in digests)

    def filter(self, *, min_chars: int) -> "Corpus":
        """The same corpus without its texts of fewer than `min_chars` characters."""
        return replace(self._where(lambda doc: len(doc.text) >= min_chars), name=f"{self.name}>={min_chars}")

    def where(self, column: str, value: str) -> "Corpus":
        """The same corpus with only the documents whose title, topic, source or split is `value`.

        Raises InterpError for any other column.
        """
        columns = ("source", "title", "topic", "split")
        if column not in columns:
            raise InterpError(
                f"{self.name} has no column {column!r}. Its columns are {', '.join(columns)}; write #column=value."
            )
        kept = self._where(lambda doc: str(getattr(doc, column)) == value)
        return replace(kept, name=f"{self.name}#{column}={value}")

    def _where(self, keep: Callable[[Document], bool]) -> "Corpus":
        mixed = self.mixed
        return replace(
            self,
            read=lambda: filter(keep, self.read()),
            mixed=None if mixed is None else lambda reading: filter(keep, mixed(reading)),
        )


def check_split(split: str | None) -> None:
    """Raises InterpError for a split that does not exist; None is all of them."""
    if split is not None and split not in SPLITS:
        raise unknown("split", split, SPLITS)


def mix(parts: Sequence[tuple[Corpus, float]], *, seed: int = 0) -> Corpus:
    """The parts interleaved so that their shares of the text stay as given, each in an order drawn from `seed`.

    A part that ends leaves its share to the others. Documents with the same text are kept once.
    """

    def shuffled(corpus: Corpus, reading: Reading) -> Iterable[Document]:
        if corpus.mixed:  # which may be larger than memory
            return corpus.in_mixed_order(reading)
        key = seed.to_bytes(8, "big")
        return sorted(corpus.documents(), key=lambda doc: hashlib.sha256(key + doc.digest).digest())

    def read(reading: Reading) -> Iterator[Document]:
        queues = [(iter(shuffled(corpus, reading)), share) for corpus, share in parts]
        taken = [0.0] * len(queues)
        alive, seen = set(range(len(queues))), set()
        while alive:
            part = min(alive, key=lambda i: taken[i] / queues[i][1])
            doc = next(queues[part][0], None)
            if doc is None:
                alive.discard(part)
            elif doc.digest not in seen:
                seen.add(doc.digest)
                taken[part] += len(doc.text)
                yield doc

    total = sum(share for _, share in parts)
    return Corpus(
        name=" + ".join(f"{corpus.name} {share / total:.0%}" for corpus, share in parts),
        licence="; ".join(dict.fromkeys(f"{corpus.name}: {corpus.licence}" for corpus, _ in parts)),
        about="mixture of " + "; ".join(corpus.about for corpus, _ in parts),
        version="; ".join(dict.fromkeys(f"{c.name}: {c.version}" for c, _ in parts if c.version)),
        passes_on=all(corpus.passes_on for corpus, _ in parts),
        mixture=True,
        read=lambda: read(Reading()),
        mixed=read if any(corpus.mixed for corpus, _ in parts) else None,
    )
