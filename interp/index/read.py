"""Read an index: statistics, examples with their context, and activations, straight from its Parquet files."""

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from interp import places
from interp.index.build import FORMAT, WINDOW, quoted
from interp.render import visible
from interp.types import InterpError, check_feature

NEEDED = (
    "index.json",
    "features.parquet",
    "examples.parquet",
    "activations.parquet",
    "tokens.parquet",
    "documents.parquet",
    "vocabulary.parquet",
)


@dataclass(frozen=True)
class Example:
    """A stretch of text around a position where a feature fires."""

    position: int
    value: float
    band: int
    """0 for the strongest; 1 to 5 for the fifths of the documents the feature fires in, from strong to weak."""
    tokens: list[str]
    values: list[float]
    """The feature's activation at each token; 0 where it is silent."""
    peak: int
    """Which of the tokens `position` is."""
    source: str
    title: str
    split: str


@dataclass
class FeatureIndex:
    """The index in a folder; opened by `FeatureIndex.open`."""

    folder: Path
    meta: dict[str, Any]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @staticmethod
    def open(folder: str | Path) -> "FeatureIndex":
        """The index in a folder that `build_index` wrote; InterpError when it is missing or unfinished."""
        path = Path(folder)
        missing = [name for name in NEEDED if not (path / name).exists()]
        if missing:
            raise InterpError(f"there is no index in {path} ({missing[0]} is missing); `interp index SAE` builds one.")
        meta = places.read_json(path / "index.json")
        if meta.get("format") != FORMAT:
            raise InterpError(
                f"the index in {path} has format {meta.get('format')}, this version reads {FORMAT}; build it again."
            )
        return FeatureIndex(path, meta)

    @property
    def partial(self) -> bool:
        """Whether only the windows of the examples are kept."""
        return self.meta["keep"] != "all"

    @property
    def d_sae(self) -> int:
        return int(self.meta["d_sae"])

    @cached_property
    def _db(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(config={"threads": 2})

    def sql(self, query: str, parameters: list[Any] | None = None) -> pd.DataFrame:
        """A query over the index's files, each named by `{features}`, `{activations}` and so on."""
        files = {name.partition(".")[0]: f"read_parquet({quoted(self.folder / name)})" for name in NEEDED[1:]}
        with self._lock:
            return self._db.execute(query.format(**files), parameters or []).df()

    @cached_property
    def features(self) -> pd.DataFrame:
        """A row a feature: density, mean, max, quantiles, histogram, top tokens, logits, neighbours."""
        return pq.read_table(self.folder / "features.parquet").to_pandas().set_index("feature", drop=False)

    @cached_property
    def vocabulary(self) -> list[str]:
        return list(pq.read_table(self.folder / "vocabulary.parquet")["text"].to_pylist())

    @cached_property
    def tokens(self) -> np.ndarray:
        """Token id at every position."""
        return pq.read_table(self.folder / "tokens.parquet", columns=["token"])["token"].to_numpy()

    @cached_property
    def _documents_at(self) -> np.ndarray:
        return pq.read_table(self.folder / "tokens.parquet", columns=["document"])["document"].to_numpy()

    @cached_property
    def documents(self) -> pd.DataFrame:
        return pq.read_table(self.folder / "documents.parquet").to_pandas()

    @cached_property
    def token_counts(self) -> np.ndarray:
        """How often each token id stands at a position that counts (separators and sinks count nearly never)."""
        return np.bincount(self.tokens, minlength=len(self.vocabulary))

    def row(self, feature: int) -> dict[str, Any]:
        check_feature(feature, self.d_sae, str(self.folder))
        return dict(self.features.loc[feature])

    def text(self, tokens: Any) -> list[str]:
        return [self.vocabulary[int(token)] for token in tokens]

    def describe(self, feature: int) -> str:
        """The automatic, untested description: the tokens a feature fires on most, and those it promotes."""
        return self.descriptions[check_feature(feature, self.d_sae, str(self.folder))]

    @cached_property
    def descriptions(self) -> list[str]:
        """The automatic description of every feature."""
        columns = (self.features[name] for name in ("fires", "top_tokens", "promoted"))
        return [self._description(*row) for row in zip(*columns, strict=True)]

    def _description(self, fires: int, top_tokens: Any, promoted: Any) -> str:
        if not fires:
            return "never fires in the index"
        on, says = _distinct(self.text(top_tokens), 4), _distinct(self.text(promoted), 3)
        return f"fires on {', '.join(on)}" + (f"; promotes {', '.join(says)}" if says else "")

    def examples(self, feature: int, window: int = WINDOW) -> list[Example]:
        """The feature's examples, strongest first, then by band."""
        check_feature(feature, self.d_sae, str(self.folder))
        found = self.sql("SELECT * FROM {examples} WHERE feature = ? ORDER BY band, rank", [feature])
        fired = self.sql("SELECT position, value FROM {activations} WHERE feature = ?", [feature])
        at = dict(zip(fired["position"].tolist(), fired["value"].astype(float).tolist(), strict=True))
        return [self._example(row, at, min(window, WINDOW)) for row in found.itertuples()]

    def _example(self, row: Any, at: dict[int, float], window: int) -> Example:
        position = int(row.position)
        low, high = self._stretch(position, window)
        document = self.documents.iloc[int(self._documents_at[position])]
        return Example(
            position=position,
            value=float(row.value),
            band=int(row.band),
            tokens=self.text(self.tokens[low:high]),
            values=[at.get(p, 0.0) for p in range(low, high)],
            peak=position - low,
            source=str(document["source"]),
            title=str(document["title"]),
            split=str(document["split"]),
        )

    def _stretch(self, position: int, window: int) -> tuple[int, int]:
        """Positions around one, within its block and document."""
        start = position // self.block * self.block
        low, high = max(start + 1, position - window), min(start + self.block, position + window + 1)
        owner = self._documents_at[position]
        while low < position and self._documents_at[low] != owner:
            low += 1
        while high - 1 > position and self._documents_at[high - 1] != owner:
            high -= 1
        if low < position and int(self.tokens[low]) == self.separator:
            low += 1
        return low, high

    @cached_property
    def separator(self) -> int:
        meta = pq.read_schema(self.folder / "tokens.parquet").metadata or {}
        return int(meta[b"separator"])

    @cached_property
    def block(self) -> int:
        meta = pq.read_schema(self.folder / "tokens.parquet").metadata or {}
        return int(meta[b"block"])


def _distinct(tokens: list[str], count: int) -> list[str]:
    """The first few tokens that differ by more than case and spaces, each in quotes."""
    kept: dict[str, str] = {}
    for token in tokens:
        kept.setdefault(token.strip().lower() or token, f"‘{visible(token.strip(' ') or token)}’")
    return list(kept.values())[:count]
