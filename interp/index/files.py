"""The files of an index, each checked when it is first read: tables of features, tokens, documents and vocabulary.

Axes    N position, F feature, V vocabulary.
"""

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from interp.checkpoint.trained import UNKNOWN
from interp.corpus.tables import decoding, read_documents, read_parquet
from interp.index import meanings
from interp.index.clean import KINDS as CLEAN_KINDS
from interp.index.clean import indexed_text
from interp.index.folders import Preference, find_preferences, items_of
from interp.index.format import (
    NEEDED,
    OPTIONAL,
    TRAINED_ON,
    quoted,
)
from interp.index.pictures import NAME as PICTURES
from interp.index.pictures import read_pictures
from interp.index.text import Tokens
from interp.lenses.said import Said
from interp.predicates import Text
from interp.predicates.written import Written, write
from interp.processors import threads
from interp.render.look import NO_PLACE
from interp.types import InterpError

FEATURES = {
    **dict.fromkeys(("feature", "fires", "documents", "stored"), "whole"),
    **dict.fromkeys(("max", "mean", "density", "token_entropy"), "real"),
    **dict.fromkeys(("quantiles", "coactive_lift", "promoted_logits", "suppressed_logits", "nearest_cosine"), "reals"),
    **dict.fromkeys(("histogram", "top_tokens", "top_token_counts", "coactive", "coactive_count"), "wholes"),
    **dict.fromkeys(("promoted", "suppressed", "nearest", "neuron_layers", "neurons", "logit_histogram"), "wholes"),
    **dict.fromkeys(("band_edges", "neuron_cosines"), "reals"),
    **dict.fromkeys(("total", "logit_std"), "real"),
    **dict.fromkeys(("near", "coactive_of"), "whole"),
}
"""Columns of features.parquet that are read here."""


@dataclass
class IndexFiles:
    """What lies in an index's folder; `FeatureIndex` answers questions about it."""

    folder: Path
    meta: dict[str, Any]
    path: Callable[[str], Path] = field(repr=False)
    """From a file's name to its path, its SHA-256 compared at first."""
    said: Said | None = field(default=None, repr=False)
    """What lenses that were judged say of the features; handed over by whoever opened the SAE."""
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def partial(self) -> bool:
        """Whether only the windows of the examples are kept."""
        return self.meta["keep"] != "all"

    @property
    def d_sae(self) -> int:
        return int(self.meta["d_sae"])

    @cached_property
    def _db(self) -> list[Any]:
        """A connection, in a list that is emptied when the index goes and when Python ends: DuckDB reports what it finds
        then, on the console. (No annotation names its class, which checkers of types would keep as well.)"""
        kept = [duckdb.connect(config={"threads": threads()})]
        weakref.finalize(self, kept.clear)
        return kept

    def sql(self, query: str, parameters: list[Any] | None = None) -> pd.DataFrame:
        """A query over the index's files, each named by `{features}`, `{activations}` and so on.

        Raises InterpError when a file is not the one that was written, or cannot be read.
        """
        there = [name for name in (*NEEDED, *OPTIONAL) if f"{name}.parquet" in self.meta["files"]]
        used = {name: self._scan(name) for name in there if "{" + name + "}" in query}
        with self._lock:
            try:
                return self._db[0].execute(query.format(**used), parameters or []).df()
            except (
                duckdb.IOException,
                duckdb.BinderException,
                duckdb.InvalidInputException,
                duckdb.ConversionException,
            ):
                names = ", ".join(f"{name}.parquet" for name in there if "{" + name + "}" in query)
                raise InterpError(
                    f"{names} in {self.folder} cannot be read: not as this program writes it; build the index anew."
                ) from None

    def _scan(self, name: str) -> str:
        """A file as a table of SQL; a row of a file of positions has its number as `position`."""
        path = quoted(self.path(f"{name}.parquet"))
        if name not in ("tokens", "counted") or self.meta["format"] < 3:
            return f"read_parquet({path})"
        return (
            f"(SELECT * EXCLUDE file_row_number, file_row_number::UINTEGER AS position "
            f"FROM read_parquet({path}, file_row_number=true))"
        )

    def verify(self) -> None:
        """Compare every file's hash; InterpError names the first that differs."""
        for name in self.meta["files"]:
            self.path(name)

    @cached_property
    def has_clean_levels(self) -> bool:
        """Whether this index says what features mean from which activation on: one built before that was measured does not."""
        with decoding(path := self.path("features.parquet")):
            return CLEAN_KINDS.keys() <= set(pq.read_schema(path).names)

    @cached_property
    def features(self) -> pd.DataFrame:
        """A row a feature: density, mean, max, quantiles, histogram, top tokens, logits, neighbours; and where
        `has_clean_levels`, the columns of `index.clean.CLEAN`."""
        table = self._table("features", FEATURES | (CLEAN_KINDS if self.has_clean_levels else {}), others=True)
        if len(table) != self.d_sae or (table["feature"].to_numpy() != np.arange(self.d_sae)).any():
            raise self._other("features", f"its rows are not the features 0 to {self.d_sae - 1}")
        return table.to_pandas().set_index("feature", drop=False)

    def _table(self, name: str, kinds: dict[str, str], *, others: bool = False) -> pa.Table:
        """See `corpus.read_parquet`."""
        return read_parquet(self.path(f"{name}.parquet"), kinds, others=others)

    def _other(self, name: str, why: str) -> InterpError:
        return InterpError(
            f"{self.folder / name}.parquet does not belong to this index: {why}; fetch it again, or build it anew."
        )

    @cached_property
    def vocabulary(self) -> list[str]:
        return list(self._table("vocabulary", {"text": "text"})["text"].to_pylist())

    @property
    def kind(self) -> str:
        """What was indexed: `text`, `pictures` or `sound`."""
        if self.vocabulary[:1] != [NO_PLACE]:
            return "text"
        from interp.models.families.media import (
            kind_of,
        )  # and all of models with it, which few readers of an index need

        return kind_of(self.vocabulary)

    @cached_property
    def vocabulary_bytes(self) -> list[bytes]:
        return list(self._table("vocabulary", {"bytes": "bytes"})["bytes"].to_pylist())

    def _of_positions(self, name: str) -> np.ndarray:
        """A column with a row for each position: of the text, or of what counts (in the second format of one file)."""
        file = "counted" if name in ("kept", "active") and "counted.parquet" in self.meta["files"] else "tokens"
        column = np.asarray(self._table(file, {name: "flag" if name == "kept" else "whole"})[name].to_numpy())
        return self._each_position(file, column)

    def _each_position(self, file: str, column: np.ndarray) -> np.ndarray:
        if len(column) != self.meta["positions"]:
            raise self._other(file, f"it has {len(column):,} rows for {self.meta['positions']:,} positions")
        return column

    def _below(self, name: str, column: np.ndarray, count: int, what: str) -> np.ndarray:
        """The column, whose values are numbers of `count` things; InterpError when one is not."""
        if len(column) and not (column.min() >= 0 and column.max() < count):
            raise self._other(name, f"it speaks of more than the {count:,} {what}")
        return column

    @property
    def tokens(self) -> np.ndarray:
        """Token id at every position; the separator where it is not known (`missing`)."""
        return self.read_text.token_N

    @property
    def missing(self) -> np.ndarray:
        """True at positions whose token is not known on this machine: the index may not pass on their documents."""
        return self.read_text.missing_N

    @property
    def unread(self) -> str:
        """What documents have no text here, why, and what would bring it, as sentences; empty when all have."""
        return " ".join(self.read_text.why.values())

    @property
    def read_text(self) -> Tokens:
        """The tokens; those that the index may not pass on are looked for on this machine, once for all threads."""
        with self._lock:
            return self._read_text

    @cached_property
    def _read_text(self) -> Tokens:
        token_N, hidden_N = self.stored_tokens
        if not hidden_N.any():
            return Tokens(token_N, hidden_N)
        from interp.index.withheld import Laid, fill  # which opens a tokenizer, and transformers with it

        return fill(Laid(self.meta, self.documents_table, self.document_at), token_N, hidden_N)

    @cached_property
    def stored_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """(token id, whether it is kept back) at every position, as the file has them; the separator where it is kept back."""
        column = read_parquet(self.path("tokens.parquet"), {"token": "whole"}, nulls=True)["token"]
        hidden_N = self._each_position("tokens", column.is_null().to_numpy())
        token_N = column.fill_null(self.separator).to_numpy()
        return self._below("tokens", token_N, len(self.vocabulary), "tokens of the vocabulary"), hidden_N

    @cached_property
    def document_at(self) -> np.ndarray:
        """Row of `documents` of every position."""
        return self._below("tokens", self._of_positions("document"), len(self.documents), "documents")

    @cached_property
    def kept(self) -> np.ndarray:
        """True where a position counts: a document's own token that is no sink."""
        return self._of_positions("kept")

    @cached_property
    def offsets(self) -> np.ndarray:
        """Position p owns entries offsets[p] to offsets[p + 1] of `codes`."""
        return np.concatenate([[0], np.cumsum(self._of_positions("active"), dtype=np.int64)])

    @cached_property
    def documents(self) -> pd.DataFrame:
        return self.documents_table.to_pandas()

    @cached_property
    def documents_table(self) -> pa.Table:
        """A row a document, with the columns that indexes of before lack (see `read_documents`)."""
        table = read_documents(self.path("documents.parquet"))
        if TRAINED_ON not in table.column_names:
            table = table.append_column(TRAINED_ON, pa.array([UNKNOWN] * len(table), pa.string()))
        return table

    @cached_property
    def pictures(self) -> dict[int, bytes]:
        """Small copies of pictures, by their row of `documents` (see `index.pictures`); most indexes have none."""
        return read_pictures(self.path(PICTURES)) if PICTURES in self.meta["files"] else {}

    @cached_property
    def token_counts(self) -> np.ndarray:
        """How often each token id stands at a position that counts, in documents without text too."""
        if "token_counts.parquet" not in self.meta["files"]:
            return np.bincount(self.tokens[self.kept], minlength=len(self.vocabulary))
        counts_V = self._table("token_counts", {"count": "whole"})["count"].to_numpy().astype(np.int64)
        if len(counts_V) != len(self.vocabulary):
            raise self._other("token_counts", f"it has {len(counts_V):,} rows for {len(self.vocabulary):,} tokens")
        return counts_V

    @cached_property
    def _examples(self) -> pd.DataFrame:
        kinds = dict.fromkeys(("feature", "band", "rank", "position"), "whole") | {"value": "real"}
        table = self._table("examples", kinds)
        self._below("examples", table["position"].to_numpy(), int(self.meta["positions"]), "positions")
        self._below("examples", table["feature"].to_numpy(), self.d_sae, "features")
        return table.to_pandas()

    @cached_property
    def example_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """(where each feature's examples begin, and the last one's end; position of every example, the strongest first)."""
        feature_E, position_E = (self._examples[name].to_numpy() for name in ("feature", "position"))
        return np.searchsorted(feature_E.astype(np.int64), np.arange(self.d_sae + 1)), position_E

    @cached_property
    def preferences(self) -> Mapping[int, Preference]:
        """The folder that each feature prefers, where there are enough pictures or clips to say so (`index/folders.py`)."""
        titles = self.documents["title"].astype(str).tolist()
        return find_preferences(titles, items_of(self.example_rows, self.document_at)) if self.kind != "text" else {}

    @property
    def strongest(self) -> tuple[np.ndarray, np.ndarray]:
        """(feature, position) of every feature's strongest examples."""
        top = self._examples[self._examples["band"] == 0]
        return top["feature"].to_numpy(), top["position"].to_numpy()

    @cached_property
    def passages(self) -> Text:
        """The text as predicates look at it: what stands around each position, and how often; where it is not on this
        machine, no position counts."""
        columns = self.tokens, self.document_at, self.kept & ~self.missing, self.documents_table
        return indexed_text(
            *columns, self.vocabulary, block=self.block, separator=self.separator, write=lambda: self.written
        )

    @cached_property
    def written(self) -> Written:
        """The documents' text, and which position wrote which bytes."""
        return write(self.tokens, self.document_at, self.vocabulary_bytes, self.separator)

    @cached_property
    def meanings(self) -> Float[Tensor, "F E"] | None:
        """A unit sentence vector for each feature's automatic description; None where no encoder was at hand."""
        if "meanings.safetensors" not in self.meta["files"]:
            return None
        return meanings.restore(self._tensors("meanings", rows=self.d_sae))

    @cached_property
    def unembedding(self) -> Float[Tensor, "D V"] | None:
        """What each token's logit reads from the residual stream (see `weights.centred_unembedding`), if it is kept."""
        if "unembedding.safetensors" not in self.meta["files"]:
            return None
        return self._tensors("unembedding")["unembedding"]

    def _tensors(self, name: str, rows: int = 0) -> dict[str, Tensor]:
        """The tensors of a file, among them a matrix of its own name, all with so many rows."""
        path = self.path(f"{name}.safetensors")
        try:
            tensors = load_file(path)
            shape = tuple(tensors[name].shape)
        except (OSError, SafetensorError, KeyError):
            raise InterpError(f"{path} cannot be read: it was cut short or changed; build the index anew.") from None
        if len(shape) != 2 or (rows and any(len(tensor) != rows for tensor in tensors.values())):
            raise InterpError(f"{path} has the shape {shape}, which is none of this index; build it anew.")
        return tensors

    @property
    def separator(self) -> int:
        return int(self.meta["separator"])

    @property
    def block(self) -> int:
        return int(self.meta["block"])
