"""Columns of features.parquet that say what a feature means, and from which activation on (see `predicates.level`).

An index that was built before there were any has none of them; it opens as it did.

Axes    N position, F feature, M activation, D document.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from interp.index.stats import Activations, FeatureStatistics
from interp.predicates import Clean, Predicate, Text, Vocabulary, explain
from interp.predicates.written import Written
from interp.types import InterpError

_ONE_EACH = {
    "predicate": pa.string(),
    "clean_level": pa.float32(),
    "clean_recall": pa.float32(),
    "clean_explained": pa.float32(),
    "clean_share": pa.float32(),
    "clean_n": pa.uint32(),
    "clean_precision": pa.float32(),
    "clean_low": pa.float32(),
    "clean_high": pa.float32(),
}
CLEAN: dict[str, pa.DataType] = _ONE_EACH | {"top_token_clean": pa.list_(pa.uint32())}
"""`predicate` is JSON (`Predicate.from_json`), "" where no predicate explains the feature; its level is nan then. The other
columns are the fields of `Clean`; `clean_low` and `clean_high` are its `interval`. `top_token_clean` counts, for each of
`top_tokens`, the firings above the level (all, where there is none)."""
KINDS = {"predicate": "text", "clean_n": "whole", "top_token_clean": "wholes"} | {
    name: "real" for name, kind in CLEAN.items() if pa.types.is_floating(kind)
}
"""The columns for `corpus.read_parquet`."""


def indexed_text(
    token_N: np.ndarray,
    document_N: np.ndarray,
    kept_N: np.ndarray,
    documents: pa.Table,
    vocabulary: list[str],
    *,
    block: int,
    separator: int,
    write: Callable[[], Written] | None = None,
) -> Text:
    """The text of an index as predicates look at it, its counts made."""
    columns = {name: documents[name].to_pylist() for name in ("source", "topic", "title")}
    split_D = documents["split"].to_pylist()
    text = Text(token_N, document_N, kept_N, block, separator, Vocabulary(vocabulary), split_D, columns, write=write)
    text.prepare()
    return text


def clean_columns(rows: Activations, start_G: np.ndarray, text: Text) -> dict[str, list[Any]]:
    """The columns for the features whose rows begin at `start_G`."""
    stop_G = np.append(start_G[1:], len(rows))
    found = [
        explain(rows.position_M[start:stop], rows.value_M[start:stop], text)
        for start, stop in zip(start_G, stop_G, strict=True)
    ]
    return {name: [_value(name, one) for one in found] for name in _ONE_EACH}


def count_clean(
    rows: Activations, level_G: np.ndarray, statistics: FeatureStatistics, token_N: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """How often each feature fires on each token above its level (nan: all its firings count): by row of
    `statistics.pairs`, and as the list column of `top_tokens`."""
    feature_G, count_G = (statistics.columns[name] for name in ("feature", "fires"))
    local_P = np.searchsorted(feature_G, statistics.pairs["feature"].to_numpy())
    key_P = (local_P << 32) | statistics.pairs["token"].to_numpy()
    leveled_G = ~np.isnan(level_G)
    local_M = np.repeat(np.arange(len(count_G)), count_G)
    above = np.flatnonzero(rows.value_M > level_G[local_M])  # nothing is above nan
    key_M = (local_M[above] << 32) | token_N[rows.position_M[above]].astype(np.int64)
    clean_P = np.bincount(np.searchsorted(key_P, key_M), minlength=len(key_P))
    clean_P = np.where(leveled_G[local_P], clean_P, statistics.pairs["count"].to_numpy())
    lengths, token_T = statistics.columns["top_tokens"]
    key_T = (np.repeat(np.arange(len(lengths)), lengths) << 32) | token_T.astype(np.int64)
    return clean_P, (lengths, clean_P[np.searchsorted(key_P, key_T)])


def _value(name: str, one: Clean | None) -> Any:
    if name == "predicate":
        return one.predicate.to_json() if one else ""
    if name in ("clean_low", "clean_high"):
        return one.interval[name == "clean_high"] if one else name == "clean_high"
    if one is None:
        return math.nan if name in ("clean_level", "clean_precision") else 0
    return getattr(one, name.removeprefix("clean_"))


def spread_clean(chunks: list[dict[str, Any]], d_sae: int) -> dict[str, pa.Array]:
    """The columns of all features; those that never fire have no predicate."""
    columns = {}
    for name, kind in _ONE_EACH.items():
        column = [_value(name, None)] * d_sae
        for chunk in chunks:
            for feature, value in zip(chunk["feature"].tolist(), chunk[name], strict=True):
                column[feature] = value
        columns[name] = pa.array(column, kind)
    return columns


def clean_of(row: Mapping[str, Any]) -> Clean | None:
    """What a row of features.parquet says of its feature; None where it has no level.

    Raises InterpError when it is not as `clean_columns` writes it.
    """
    if not row["predicate"]:
        return None
    level = float(row["clean_level"])
    if not level >= 0:
        raise InterpError(f"feature {row['feature']} has a predicate and no level; build the index anew.")
    return Clean(
        predicate=Predicate.from_json(row["predicate"]),
        level=level,
        recall=float(row["clean_recall"]),
        explained=float(row["clean_explained"]),
        share=float(row["clean_share"]),
        n=int(row["clean_n"]),
        precision=float(row["clean_precision"]),
        interval=(float(row["clean_low"]), float(row["clean_high"])),
    )
