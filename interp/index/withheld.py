"""The tokens of documents that an index may not pass on, read from the texts that are on this machine.

1. The documents without tokens, by the source that they are from: a packaged corpus, or the file or folder of a user's own
   text, where it lies where it lay.
2. Its documents, one after the other; one is wanted when its SHA-256 is a wanted one's.
3. Its text as the model's tokenizer cuts it, put where it stood: separator, tokens, nothing at the first place of a block.
4. All of them together must have the hash that the index has of its text, else none is taken.

This is done once: what was read is kept under INTERP_HOME/cache, with the versions of the texts that were looked through.

Axes    N position, D document.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp import places
from interp.corpus import CORPORA, Corpus, open_corpus
from interp.corpus.blocks import Tokenizes, document_tokens
from interp.corpus.tables import read_parquet
from interp.index.text import Tokens, text_sha256
from interp.models.open import open_text
from interp.render.terminal import say
from interp.render.words import counted
from interp.types import InterpError


@dataclass(frozen=True, eq=False)
class Laid:
    """How the text of an index lies in it."""

    meta: dict[str, Any]
    documents: pa.Table
    document_N: np.ndarray

    @property
    def separator(self) -> int:
        return int(self.meta["separator"])

    @property
    def block(self) -> int:
        return int(self.meta["block"])


def fill(index: Laid, token_N: np.ndarray, hidden_N: np.ndarray) -> Tokens:
    """The index's text, with the hidden tokens as far as they can be read on this machine."""
    if not hidden_N.any():
        return Tokens(token_N, hidden_N)
    path = _kept_at(index)
    token_N, missing_N, looked = _kept(path, token_N, hidden_N)
    if not missing_N.any():
        return Tokens(token_N, missing_N)
    wanted = _by_source(index, missing_N)
    found, why = dict(looked), {}
    try:
        model: Tokenizes = open_text(str(index.meta.get("model", "")), index.separator)
    except InterpError as error:
        why = dict.fromkeys(wanted, f"The model's tokenizer cannot be opened here: {error}")
        return Tokens(token_N, missing_N, why)
    for source, documents in wanted.items():
        why |= _read_source(index, model, source, documents, token_N, missing_N, found)
    if not missing_N.any() and text_sha256(token_N) != index.meta["text_sha256"]:
        token_N[hidden_N], missing_N = index.separator, hidden_N.copy()
        return Tokens(token_N, missing_N, dict.fromkeys(wanted, "The model's tokenizer cuts the text otherwise here."))
    if found != looked:
        _keep(path, token_N, missing_N, found)
    return Tokens(token_N, missing_N, why)


# ---- what was read before ----


def _kept_at(index: Laid) -> Path:
    files = index.meta["files"]
    name = "-".join(str(files[f"{name}.parquet"])[:16] for name in ("tokens", "documents"))
    return places.cache() / "texts" / f"{name}.parquet"


def _kept(path: Path, token_N: np.ndarray, hidden_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """(tokens, which are missing, version of each source that was looked through) from what was read before."""
    try:
        table = read_parquet(path, {"token": "whole", "missing": "flag"})
        token, missing_N = (table[name].to_numpy() for name in ("token", "missing"))
        looked = json.loads((table.schema.metadata or {})[b"looked"])
    except (InterpError, KeyError, ValueError):
        return token_N.copy(), hidden_N.copy(), {}
    if len(token) != len(token_N) or not np.array_equal(token[~hidden_N], token_N[~hidden_N]):
        return token_N.copy(), hidden_N.copy(), {}
    return token.copy(), missing_N.copy(), looked


def _keep(path: Path, token_N: np.ndarray, missing_N: np.ndarray, looked: dict[str, str]) -> None:
    table = pa.table({"token": token_N, "missing": missing_N})
    with places.whole_file(path) as partial:
        pq.write_table(table.replace_schema_metadata({"looked": json.dumps(looked)}), partial, compression="zstd")


# ---- reading ----


def _by_source(index: Laid, missing_N: np.ndarray) -> dict[str, list[int]]:
    """The documents that have no tokens yet, by source."""
    rows = np.unique(index.document_N[missing_N]).tolist()
    by_source: dict[str, list[int]] = {}
    for row, source in zip(rows, index.documents["source"].take(rows).to_pylist(), strict=True):
        by_source.setdefault(str(source), []).append(row)
    return by_source


def _read_source(
    index: Laid,
    model: Tokenizes,
    source: str,
    rows: Sequence[int],
    token_N: np.ndarray,
    missing_N: np.ndarray,
    looked: dict[str, str],
) -> dict[str, str]:
    """Put the tokens of a source's documents where they stood; why some are not there comes back, by source."""
    try:
        corpora = list(_corpora(index, source))
        version = " ".join(f"{corpus.name} {corpus.version}" for corpus in corpora)
        if looked.get(source) != version:
            say(f"text: {counted(len(rows), 'document')} of {source}, which the index may not pass on, are read once.")
            _place(index, model, corpora, rows, token_N, missing_N)
            looked[source] = version
    except InterpError as error:
        return {source: f"The text of {source} is not in this index, which may not pass it on, nor here: {error}"}
    here = len(set(np.unique(index.document_N[missing_N]).tolist()) & set(rows))
    if not here:
        return {}
    return {
        source: f"The text of {here:,} of {counted(len(rows), 'document')} of {source} is not in this index, which may not pass "
        f"it on, and not in {version.strip()} either; the index was built over another version of it."
    }  # fmt: skip


def _corpora(index: Laid, source: str) -> Iterator[Corpus]:
    """The corpora that a source's documents are from; InterpError when none is on this machine."""
    if source in CORPORA:
        yield CORPORA[source]()
        return
    names = dict.fromkeys(str(text["corpus"].get("name", "")) for text in index.meta["texts"])
    refused = []
    for name in names:
        try:
            yield open_corpus(name)
            return
        except InterpError as error:
            refused.append(str(error))
    raise InterpError(f"it is from {' and '.join(names)}. {refused[0] if refused else ''}".strip())


def _place(
    index: Laid,
    model: Tokenizes,
    corpora: Sequence[Corpus],
    rows: Sequence[int],
    token_N: np.ndarray,
    missing_N: np.ndarray,
) -> None:
    digests = index.documents["sha256"].take(list(rows)).to_pylist()
    wanted: dict[str, list[int]] = {}
    for digest, row in zip(digests, rows, strict=True):
        wanted.setdefault(digest, []).append(row)
    first_D, stop_D = spans(index.document_N, len(index.documents))
    ends = set(np.cumsum([text["positions"] for text in index.meta["texts"]]).tolist())
    for corpus in corpora:
        for doc in corpus.documents():
            for row in wanted.pop(doc.digest.hex(), ()):
                place = np.arange(first_D[row], stop_D[row])
                tokens = laid_out(place, document_tokens(model, doc), index, cut=int(stop_D[row]) in ends)
                own = place[missing_N[place]]
                if tokens is not None:
                    token_N[own] = tokens[missing_N[place]]
                    missing_N[own] = False
            if not wanted:
                return


def spans(document_N: np.ndarray, documents: int) -> tuple[np.ndarray, np.ndarray]:
    """(first position, last position + 1) of each document; documents stand in the order of their numbers."""
    numbers = np.arange(documents)
    return np.searchsorted(document_N, numbers), np.searchsorted(document_N, numbers, side="right")


def laid_out(place: np.ndarray, ids: Sequence[int], index: Laid, *, cut: bool) -> np.ndarray | None:
    """The tokens at a document's positions, as `corpus.tokenize` puts them; None when they do not fit there.

    One that the text ends in may be `cut`.
    """
    body = place[place % index.block != 0]
    opens = len(body) and body[0] % index.block == 1  # the block's own separator stands before it
    written = list(ids) if opens else [index.separator, *ids]
    if len(written) > len(body) and not cut:
        return None
    tokens = np.full(len(place), index.separator, dtype=np.int64)
    inside = np.flatnonzero(place % index.block != 0)[: len(written)]
    tokens[inside] = written[: len(inside)]
    return tokens if cut or len(written) == len(body) else None
