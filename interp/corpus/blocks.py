"""Text to token blocks, with document boundaries and provenance.

A block is 256 positions: the separator, then documents packed one after the other with the separator between them; a
document that does not fit goes on in the next block. For a model that reads texts by themselves (an encoder) each block has
one document, or a part of one that does not fit, between the tokens that it puts around a text, and is filled up with the
separator. Position p of a corpus is offset p % 256 of block p // 256.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp import places
from interp.corpus.documents import FINAL, Corpus, Document, Reading
from interp.corpus.numbers import KIND
from interp.corpus.tables import read_documents, read_parquet
from interp.mask import own_tokens
from interp.render.terminal import say
from interp.render.words import counted
from interp.types import InterpError

BLOCK = 256
FILE = "file"
"""Column of the documents of pictures and sound: where each lies."""


@runtime_checkable
class Tokenizes(Protocol):
    """What a model offers a corpus."""

    @property
    def separator(self) -> int:
        """The token between documents, which is never counted."""

    @property
    def alone(self) -> tuple[int, int] | None:
        """The tokens before and after each text, where the model reads texts by themselves; None where they are packed."""

    @property
    def reads(self) -> str:
        """`text`, `pictures` or `sound`."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of the text alone."""

    def conversation(self, turns: Sequence[tuple[str, str]]) -> list[int] | None:
        """Token ids of (role, text) pairs in the model's own template; None where it has none."""


@runtime_checkable
class ReadsFiles(Tokenizes, Protocol):
    """What a model of pictures or sound offers."""

    def prompt(self, text: str, /) -> list[int]:
        """Numbers of the places of the file of that name (its patches, its frames)."""


@dataclass(frozen=True, eq=False)
class TokenBlocks:
    """Token ids in blocks, the document of each position, and what is known of each document."""

    tokens_NT: Int[Tensor, "N T"]
    document_NT: Int[Tensor, "N T"]
    """Row of `documents` that a position belongs to; at a separator, of the document before it or that it opens."""
    documents: pa.Table
    """Columns document, source, title, topic, split, sha256, passes_on (may its text be shipped) and chat (a
    conversation, whose tokens are those of the model's chat template where it has one); of a user's own text also `reading`,
    in its metadata."""
    separator: int

    @property
    def block(self) -> int:
        """Positions of a block."""
        return int(self.tokens_NT.shape[1])

    @property
    def positions(self) -> int:
        """Positions of all blocks, those that do not count included."""
        return int(self.tokens_NT.numel())

    @property
    def reading(self) -> dict[str, Any]:
        """How a user's own text was read (see `documents.Reading.summary`); empty of packaged corpora."""
        written = (self.documents.schema.metadata or {}).get(b"reading")
        return json.loads(written) if written else {}

    def real_NT(self) -> Bool[Tensor, "N T"]:
        """True where a document's own token stands: not at a block's first position, not at a separator."""
        return own_tokens(self.tokens_NT, self.separator)

    def shuffled(self, seed: int, last: int = 0) -> "TokenBlocks":
        """The same blocks in an order that the seed draws, but for the `last`, which stay where they are."""
        moved = max(len(self.tokens_NT) - last, 0)
        order = torch.arange(len(self.tokens_NT))
        order[:moved] = torch.randperm(moved, generator=torch.Generator().manual_seed(seed))
        return replace(self, tokens_NT=self.tokens_NT[order], document_NT=self.document_NT[order])

    def files(self, some: range) -> list[str] | None:
        """Of some blocks of pictures or sound the files, one each; None of text."""
        if FILE not in self.documents.column_names:
            return None
        rows = self.document_NT[some.start : some.stop, 0].tolist()
        return [str(name) for name in self.documents[FILE].take(rows).to_pylist()]

    def shares(self) -> dict[str, float]:
        """The part of the documents' own tokens that each source has, the largest first."""
        rows = np.bincount(self.document_NT[self.real_NT()].numpy(), minlength=len(self.documents))
        table = self.documents.select(["source"]).append_column("tokens", pa.array(rows))
        found = table.group_by("source").aggregate([("tokens", "sum")]).to_pylist()
        of = {str(row["source"]): row["tokens_sum"] / max(int(rows.sum()), 1) for row in found}
        return dict(sorted(of.items(), key=lambda one: (-one[1], one[0])))

    def sha256(self) -> str:
        """A name for the tokens, whatever their documents are called."""
        return hashlib.sha256(self.tokens_NT.to(torch.int32).contiguous().numpy().tobytes()).hexdigest()

    def items_sha256(self) -> str:
        """Of pictures, sound or numbers, whose tokens only number places: a name for what they are of; "" of text."""
        return items_sha256(self.documents)

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
        """The blocks that `save` wrote; InterpError says what is wrong with a file that is not as it was written."""
        path = folder / "tokens.parquet"
        table = read_parquet(path, {"token": "whole", "document": "whole"})
        documents = read_documents(folder / "documents.parquet")
        try:
            meta = table.schema.metadata or {}
            block, separator = int(meta[b"block"]), int(meta[b"separator"])
        except (KeyError, ValueError):
            raise InterpError(f"{path} does not say how long its blocks are; harvest again with --restart.") from None
        token, document = (table[name].to_numpy().astype(np.int64) for name in ("token", "document"))
        if block < 2 or not len(token) or len(token) % block or document.max() >= len(documents):
            raise InterpError(
                f"{path} does not hold whole blocks of {block} tokens of the {len(documents):,} documents beside it; "
                "harvest again with --restart."
            )
        return TokenBlocks(
            tokens_NT=torch.from_numpy(token).reshape(-1, block),
            document_NT=torch.from_numpy(document).reshape(-1, block),
            documents=documents,
            separator=separator,
        )


def items_sha256(documents: pa.Table) -> str:
    """Of a documents table of files or items, the SHA-256 of theirs, one after the other; "" of text."""
    if FILE not in documents.column_names:
        return ""
    return hashlib.sha256("".join(documents["sha256"].to_pylist()).encode()).hexdigest()


def write_parquet(table: pa.Table, path: Path) -> None:
    """A Parquet file as the project writes it: zstd, statistics, row groups that a reader can skip."""
    pq.write_table(table, path, compression="zstd", compression_level=9, row_group_size=131_072)


def document_tokens(model: Tokenizes, doc: Document) -> list[int]:
    """Token ids of the document as the model is to read it: a conversation in its template, if it has one."""
    ids = model.conversation(doc.turns) if doc.turns else None
    return model.tokenize(doc.text) if ids is None else ids


def tokenize(
    corpus: Corpus, model: Tokenizes, tokens: int, *, split: str | None = None, block: int = BLOCK
) -> TokenBlocks:
    """At least `tokens` positions of the corpus (less only if it ends), in whole blocks, the last one filled up.

    Without a split, of all documents but a packaged corpus's `final`, unless it has no others. Says before what is to be read,
    and after it how many documents and tokens came of it and what was left out. Raises InterpError when the corpus has no
    text in that split.
    """
    if model.reads != corpus.kind:
        raise InterpError(f"the corpus {corpus.name} is {corpus.kind}, and this model reads {model.reads}; name such.")
    reading = Reading()
    if corpus.mixed:
        say(f"{corpus.kind}: {corpus.name}: {corpus.about}.")
    documents_read = readable(corpus, reading, split)
    if isinstance(model, ReadsFiles) and model.reads != "text":
        packed, rows, files = _places(documents_read, model, tokens)
    else:
        pack, files = _alone if model.alone else _packed, []
        packed, rows = pack(documents_read, model, -(-tokens // block), block)
    if not rows:
        raise InterpError(f"the corpus {corpus.name} has no text" + (f" in the split {split!r}." if split else "."))
    names = ("document", "source", "title", "topic", "split", "sha256", "passes_on", "chat")
    documents = pa.table({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})
    if files:
        documents = documents.append_column(FILE, pa.array(files))
    if reading.files:
        documents = documents.replace_schema_metadata({"reading": json.dumps(reading.summary())})
    more = f"; {reading.sentence()}" if reading.files else ""
    more += f"; {counted(reading.reserved, 'document')} of the split final passed over" if reading.reserved else ""
    tokens_NT, document_NT = packed
    what = {"text": ("document", "token"), KIND: ("item", "position")}.get(corpus.kind, ("file", "place"))
    say(f"{corpus.kind}: {counted(len(rows), what[0])}, {counted(tokens_NT.size, what[1])}{more}.")
    return TokenBlocks(
        tokens_NT=torch.from_numpy(tokens_NT),
        document_NT=torch.from_numpy(document_NT),
        documents=documents.set_column(0, "document", documents["document"].cast(pa.uint32())),
        separator=model.separator,
    )


_Packed = tuple[tuple[np.ndarray, np.ndarray], list[tuple[Any, ...]]]
"""(tokens and the document of each, both (N, T)), and a row of the documents table for each document."""


def _packed(documents: Iterable[Document], model: Tokenizes, blocks: int, block: int) -> _Packed:
    """So many blocks of documents, one after the other, each block opened by the separator."""
    wanted = blocks * (block - 1)
    stream, owner = [], []
    rows: list[tuple[Any, ...]] = []
    length = 0
    for doc in documents:
        ids = np.asarray([model.separator, *document_tokens(model, doc)], dtype=np.int64)
        # The block's own prefix separates a document that opens a block.
        ids = ids[1:] if length % (block - 1) == 0 else ids
        stream.append(ids)
        owner.append(np.full(len(ids), len(rows), dtype=np.int64))
        rows.append((len(rows), *_about(doc)))
        length += len(ids)
        if length >= wanted:
            break
    if not rows:
        return (np.zeros((0, block), np.int64), np.zeros((0, block), np.int64)), rows
    blocks = -(-min(length, wanted) // (block - 1))
    short = blocks * (block - 1) - length
    if short > 0:  # the corpus ended inside a block: separators, which are masked, fill it
        stream.append(np.full(short, model.separator, dtype=np.int64))
        owner.append(np.full(short, len(rows) - 1, dtype=np.int64))
    body = np.concatenate(stream)[: blocks * (block - 1)].reshape(blocks, block - 1)
    owners = np.concatenate(owner)[: blocks * (block - 1)].reshape(blocks, block - 1)
    prefix = np.full((blocks, 1), model.separator, dtype=np.int64)
    tokens_NT, document_NT = np.concatenate([prefix, body], 1), np.concatenate([owners[:, :1], owners], 1)
    return (tokens_NT, document_NT), rows[: int(owners[-1, -1]) + 1]


def _alone(documents: Iterable[Document], model: Tokenizes, blocks: int, block: int) -> _Packed:
    """So many blocks, each with one document or a part of one, as a model reads it that reads texts by themselves."""
    assert model.alone is not None
    first, last = model.alone
    tokens_NT, document_NT = np.full((blocks, block), last, np.int64), np.zeros((blocks, block), np.int64)
    rows: list[tuple[Any, ...]] = []
    made = 0
    for doc in documents:
        ids = np.asarray(document_tokens(model, doc), dtype=np.int64)
        for start in range(0, len(ids), block - 2):
            if made < blocks:
                part = ids[start : start + block - 2]
                tokens_NT[made, 0], tokens_NT[made, 1 : len(part) + 1] = first, part
                document_NT[made], made = len(rows), made + 1
        rows.append((len(rows), *_about(doc)))
        if made == blocks:
            break
    return (tokens_NT[:made], document_NT[:made]), rows


def _places(documents: Iterable[Document], model: ReadsFiles, positions: int) -> tuple[Any, list[Any], list[str]]:
    """A block for each picture, clip or item, until there are so many positions; files that cannot be read are told and left out."""
    tokens: list[list[int]] = []
    rows: list[tuple[Any, ...]] = []
    files: list[str] = []
    for doc in documents:
        try:
            places_T = list(model.prompt(doc.text))
        except InterpError as error:
            say(f"left out: {error}")
            continue
        tokens.append(places_T)
        rows.append((len(rows), *_about(doc)))
        files.append(doc.text)
        if len(tokens) * len(places_T) >= positions:
            break
    tokens_NT = np.asarray(tokens, dtype=np.int64).reshape(len(tokens), -1)
    return (tokens_NT, np.repeat(np.arange(len(rows))[:, None], tokens_NT.shape[1], 1)), rows, files


def _about(doc: Document) -> tuple[str | bool, ...]:
    """A row of the documents table, without its number."""
    return doc.source, doc.title, doc.topic, doc.split, doc.digest.hex(), doc.passes_on, bool(doc.turns)


def readable(corpus: Corpus, reading: Reading, split: str | None) -> Iterator[Document]:
    """The documents of the split; without one all but a packaged corpus's `final`, and these only where there are no others."""
    documents = corpus.in_mixed_order(reading, split)
    if split is not None:
        yield from documents
        return
    others = 0
    for doc in documents:
        if doc.split == FINAL and not doc.own:
            reading.reserved += 1
        else:
            others += 1
            yield doc
    if not others and reading.reserved:
        reading.reserved = 0
        yield from corpus.in_mixed_order(reading, FINAL)
