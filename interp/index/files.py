"""The files of an index, each checked when it is first read: tables of features, tokens, documents and vocabulary.

Axes    N position, F feature, V vocabulary.
"""

import threading
import weakref
from collections.abc import Callable
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
from interp.index.clean import KINDS as CLEAN_KINDS
from interp.index.clean import indexed_text
from interp.index.format import (
    NEEDED,
    OPTIONAL,
    TRAINED_ON,
    quoted,
)
from interp.index.written import Written, write
from interp.predicates import Text
from interp.processors import threads
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
        used = {n: f"read_parquet({quoted(self.path(f'{n}.parquet'))})" for n in there if "{" + n + "}" in query}
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

    def verify(self) -> None:
        """Compare every file's hash; InterpError names the first that differs."""
        for name in self.meta["files"]:
            self.path(name)

    @cached_property
    def has_clean_levels(self) -> bool:
        """Whether this index says what features mean from which activation on: one built before that was measured does not."""
        with decoding(path := self.path("features.parquet")):
            return "clean_level" in pq.read_schema(path).names

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

    @cached_property
    def vocabulary_bytes(self) -> list[bytes]:
        return list(self._table("vocabulary", {"bytes": "bytes"})["bytes"].to_pylist())

    def _of_positions(self, name: str) -> np.ndarray:
        column = np.asarray(self._table("tokens", {name: "flag" if name == "kept" else "whole"})[name].to_numpy())
        if len(column) != self.meta["positions"]:
            raise self._other("tokens", f"it has {len(column):,} rows for {self.meta['positions']:,} positions")
        return column

    def _below(self, name: str, column: np.ndarray, count: int, what: str) -> np.ndarray:
        """The column, whose values are numbers of `count` things; InterpError when one is not."""
        if len(column) and not (column.min() >= 0 and column.max() < count):
            raise self._other(name, f"it speaks of more than the {count:,} {what}")
        return column

    @cached_property
    def tokens(self) -> np.ndarray:
        """Token id at every position."""
        return self._below("tokens", self._of_positions("token"), len(self.vocabulary), "tokens of the vocabulary")

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
    def token_counts(self) -> np.ndarray:
        """How often each token id stands at a position that counts."""
        return np.bincount(self.tokens[self.kept], minlength=len(self.vocabulary))

    @cached_property
    def passages(self) -> Text:
        """The text as predicates look at it: what stands around each position, and how often."""
        documents = self._table("documents", DOCUMENTS, others=True)
        columns = self.tokens, self.document_at, self.kept
        return indexed_text(*columns, documents, self.vocabulary, block=self.block, separator=self.separator)

    @cached_property
    def written(self) -> Written:
        """The documents' text, and which position wrote which bytes."""
        return write(self.tokens, self.document_at, self.vocabulary_bytes, self.separator)

    @cached_property
    def meanings(self) -> Float[Tensor, "F E"] | None:
        """A unit sentence vector for each feature's automatic description; None where no encoder was at hand."""
        if "meanings.safetensors" not in self.meta["files"]:
            return None
        return self._tensor("meanings").float()

    @cached_property
    def unembedding(self) -> Float[Tensor, "D V"] | None:
        """What each token's logit reads from the residual stream (see `weights.centred_unembedding`), if it is kept."""
        if "unembedding.safetensors" not in self.meta["files"]:
            return None
        return self._tensor("unembedding")

    def _tensor(self, name: str) -> Tensor:
        path = self.path(f"{name}.safetensors")
        try:
            tensor = load_file(path)[name]
        except (OSError, SafetensorError, KeyError):
            raise InterpError(f"{path} cannot be read: it was cut short or changed; build the index anew.") from None
        if tensor.ndim != 2 or (name == "meanings" and len(tensor) != self.d_sae):
            raise InterpError(
                f"{path} has the shape {tuple(tensor.shape)}, which is none of this index; build it anew."
            )
        return tensor

    @property
    def separator(self) -> int:
        return int(self.meta["separator"])

    @property
    def block(self) -> int:
        return int(self.meta["block"])
