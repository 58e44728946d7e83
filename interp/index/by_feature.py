"""A build's second pass: DuckDB's external sort, and every statistic from the sorted rows as they stream by.

Axes    N position, F feature, M activation, G feature of a stretch of rows.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp.index import weights
from interp.index.clean import CLEAN, clean_columns, count_clean, spread_clean
from interp.index.coactive import coactive_columns
from interp.index.format import (
    EXAMPLES,
    EXAMPLES_ENCODING,
    PAIRS,
    ROWS_PER_GROUP,
    STATISTICS,
    activation_writer,
    code_type,
    quoted,
)
from interp.index.parts import Build, halves
from interp.index.read import FeatureIndex
from interp.index.stats import Activations, FeatureStatistics, Near, measure, whole_features
from interp.predicates import Text
from interp.progress import bar
from interp.types import InterpError

SORTED_BYTES = 16
"""What a row of a sort takes of DuckDB's memory."""


def write_by_feature(run: Build, text: dict[str, pa.Array], said: Text, near: Near) -> dict[str, pa.Array]:
    """activations.parquet, pairs.parquet and examples.parquet; the columns of features.parquet come back.

    `said` is the same text as predicates look at it; `near` says what an index of examples keeps."""
    token_N, document_N = text["token"].to_numpy(), text["document"].to_numpy()
    offset_N = np.concatenate([[0], np.cumsum(text["active"].to_numpy(), dtype=np.int64)])
    kept, total = int(np.sum(text["kept"].to_numpy(zero_copy_only=False))), int(offset_N[-1])
    codes = np.memmap(run.codes, dtype=code_type(run.sae.d_sae), mode="r") if total else np.zeros(0, np.uint16)
    keep_all, chunks = run.config.keep == "all", []

    def work(rows: Activations) -> tuple[Activations, FeatureStatistics, dict[str, Any]]:
        statistics = measure(rows, token_N, document_N, near)
        more = coactive_columns(rows, statistics.columns, codes, offset_N, run.fires_F, kept)
        count_G = statistics.columns["fires"]
        more |= clean_columns(rows, np.cumsum(count_G) - count_G, said)
        clean_P, more["top_token_clean"] = count_clean(rows, np.array(more["clean_level"]), statistics, token_N)
        pairs = statistics.pairs.append_column("clean", pa.array(clean_P))
        statistics = replace(statistics, pairs=pairs)
        return rows, statistics, more | (_exact(run.before, run.first, rows, statistics.columns) if run.before else {})

    with (
        activation_writer(run.made / "activations.parquet") as activations,
        pq.ParquetWriter(run.made / "examples.parquet", EXAMPLES, compression="zstd", **EXAMPLES_ENCODING) as examples,
        pq.ParquetWriter(run.made / "pairs.parquet", PAIRS, compression="zstd") as pairs,
        bar("index: statistics", total, "activations") as step,
    ):
        for rows, statistics, more in _ahead(work, whole_features(_sorted(run)), run.config.threads):
            chunks.append(statistics.columns | more)
            examples.write_table(statistics.examples.cast(EXAMPLES))
            pairs.write_table(statistics.pairs.cast(PAIRS), row_group_size=ROWS_PER_GROUP)
            activations.write_table(_stored(rows, statistics, keep_all), row_group_size=ROWS_PER_GROUP)
            step(len(rows))
    if not keep_all:
        (run.made / "pairs.parquet").unlink()
    columns = {name: _spread(chunks, name, run.sae.d_sae, kind) for name, kind in STATISTICS.items()}
    total_F, fires_F = columns["total"].to_numpy(), columns["fires"].to_numpy()
    return {
        "feature": pa.array(np.arange(run.sae.d_sae, dtype=np.uint32)),
        **columns,
        **spread_clean(chunks, run.sae.d_sae),
        "top_token_clean": _spread(chunks, "top_token_clean", run.sae.d_sae, CLEAN["top_token_clean"]),
        "stored": columns["fires" if keep_all else "near"],
        "density": pa.array(fires_F / max(kept, 1)),
        "mean": pa.array((total_F / np.maximum(fires_F, 1)).astype(np.float32)),
    }


def _ahead(work: Callable[[Any], Any], items: Iterator[Any], at_once: int) -> Iterator[Any]:
    """Results in order, so many at a time in threads (what they call lets go of the interpreter)."""
    with ThreadPoolExecutor(at_once) as pool:
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _exact(before: FeatureIndex, first: int, rows: Activations, columns: dict[str, Any]) -> dict[str, Any]:
    """Total and maximum without the rounding of the rows that were stored before (positions below `first`)."""
    new_M = np.where(rows.position_M >= first, rows.value_M, np.float32(0))
    start_G = np.cumsum(columns["fires"]) - columns["fires"]
    old = before.features.loc[columns["feature"]]
    return {
        "total": old["total"].to_numpy() + np.add.reduceat(new_M.astype(np.float64), start_G),
        "max": np.maximum(old["max"].to_numpy(), np.maximum.reduceat(new_M, start_G)),
    }


def _stored(rows: Activations, statistics: FeatureStatistics, keep_all: bool) -> pa.Table:
    kept = slice(None) if keep_all else statistics.near_M
    value = pa.array(halves(rows.value_M[kept]))
    return pa.table({"feature": rows.feature_M[kept], "position": rows.position_M[kept], "value": value})


def _sorted(run: Build) -> Iterator[pa.RecordBatch]:
    """Every activation by (feature, position), in DuckDB's share of the memory.

    So many features at a time that their rows fit it: a sort that spills takes three times as long.
    """
    source = f"SELECT feature, position, value FROM read_parquet({quoted(run.work / 'part-*.parquet')})"
    if run.before:
        old = quoted(run.before.path("activations.parquet"))
        source += f" UNION ALL SELECT feature, position, value::FLOAT FROM read_parquet({old})"
    with duckdb.connect() as db:
        db.execute(f"SET memory_limit='{run.sort_gib}GiB'; SET threads={run.config.threads}")
        db.execute(f"SET temp_directory={quoted(run.work)}")
        for low, high in _ranges(run.fires_F, int(run.sort_gib * 2**30 / SORTED_BYTES)):
            yield from _stretch(db, source, low, high)


def _stretch(db: duckdb.DuckDBPyConnection, source: str, low: int, high: int) -> Iterator[pa.RecordBatch]:
    """The rows of features low to high, in order; half of them at a time where the memory does not hold them, for what reading
    takes beside sorting depends on how the files were written."""
    rows: Any = db.sql(f"FROM ({source}) WHERE feature BETWEEN {low} AND {high} ORDER BY feature, position")
    try:
        batches = rows.to_arrow_reader(1 << 19)
    except duckdb.OutOfMemoryException as error:
        if low == high:
            raise InterpError(
                f"the rows of feature {low} do not fit the memory that sorting has; allow the build more (--memory)."
            ) from error
        middle = (low + high) // 2
        yield from _stretch(db, source, low, middle)
        yield from _stretch(db, source, middle + 1, high)
        return
    yield from batches


def _ranges(fires_F: np.ndarray, at_once: int) -> Iterator[tuple[int, int]]:
    """(first, last) feature of stretches that fire at most `at_once` times, or are one feature."""
    low, held = 0, 0
    for feature, fires in enumerate(fires_F.tolist()):
        if held and held + fires > at_once:
            yield low, feature - 1
            low, held = feature, 0
        held += fires
    yield low, len(fires_F) - 1


def _spread(chunks: list[dict[str, Any]], name: str, d_sae: int, kind: pa.DataType) -> pa.Array:
    """A statistic with a row for every feature; those that never fire get 0, or a list as long as the others' or empty."""
    if not pa.types.is_list(kind):
        column = np.zeros(d_sae, dtype=kind.to_pandas_dtype())
        for chunk in chunks:
            column[chunk["feature"]] = chunk[name]
        return pa.array(column)
    parts = [chunk[name] for chunk in chunks]
    if parts and not isinstance(parts[0], tuple):  # every feature has as many
        matrix = np.zeros((d_sae, parts[0].shape[1]), dtype=kind.value_type.to_pandas_dtype())
        for chunk, part in zip(chunks, parts, strict=True):
            matrix[chunk["feature"]] = part
        return weights.lists(matrix, kind.value_type)
    length = np.zeros(d_sae, dtype=np.int32)
    for chunk, (lengths, _) in zip(chunks, parts, strict=True):
        length[chunk["feature"]] = lengths
    flat = np.concatenate([np.zeros(0), *(values for _, values in parts)])
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(flat.astype(kind.value_type.to_pandas_dtype()), kind.value_type))
