"""Corpora of numbers: items that are rows of an array, or of a table, for modules of one's own (`models.own`).

An array in memory is kept as a .npy file under INTERP_HOME, named by the SHA-256 of its numbers, and so is a table: so an item has
a name, FILE.npy#NUMBER, by which it is read again in another process. A .npy file is read where it lies.

What of a text's document holds here too: an item's split comes from the SHA-256 of its numbers, its topic from a column or a list,
and its title is its number, behind its topic where it has one.
"""

import hashlib
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Shaped
from torch import Tensor

from interp import places
from interp.corpus.documents import Corpus, Document, Reading
from interp.render.words import counted
from interp.types import InterpError, unknown

KIND = "numbers"
ARRAY = ".npy"
KEPT = "items"
"""Folder of the cache in which arrays lie."""


def open_array(
    items: Tensor | np.ndarray | Path, name: str = "", seed: int = 0, topics: Iterable[Any] | None = None
) -> Corpus:
    """The items of an array (its first axis), in memory or in a .npy file, in an order drawn with `seed`; each is sorted under
    one of `topics`, where these are given.

    Raises InterpError when it holds no numbers, and when there is not a topic for each item.
    """
    rows: Any = items
    if isinstance(items, Path):
        path, rows = items.resolve(), _loaded(items)
    else:
        if isinstance(items, Tensor):
            whole = items.detach().cpu()
            rows = (whole.float() if whole.dtype == torch.bfloat16 else whole).numpy()
        _check(rows, name or "the array")
        path = _kept(rows)
    called = None if topics is None else [str(getattr(topic, "item", lambda topic=topic: topic)()) for topic in topics]
    if called is not None and len(called) != len(rows):
        raise InterpError(f"there are {len(called):,} topics for {len(rows):,} items; give one for each.")
    source = path.name if isinstance(items, Path) else f"array {path.stem[:8]}"
    return _corpus(path, rows, name or source, source, seed, called)


def numbers_in(path: Path, field: str, topic: str) -> bool:
    """Whether a .parquet file is a table of numbers: all its columns but the topic's, or the one that is named."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False  # who reads it as text says what is wrong with it
    kinds = {each.name: each.type for each in schema if each.name != topic}
    chosen = [kinds[field]] if field in kinds else list(kinds.values()) if not field else []
    return bool(chosen) and all(_numeric(kind) for kind in chosen)


def _numeric(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _numeric(kind.value_type)
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def open_table(path: Path, name: str, field: str, topic: str, seed: int) -> Corpus:
    """The rows of a .parquet file of numbers: a column for each number, or one of lists of them; `topic` is a column's name.

    Raises InterpError when there is no such column, and when the lists are of several lengths.
    """
    table = pq.read_table(path)
    for asked in filter(None, (field, topic)):
        if asked not in table.column_names:
            raise unknown(f"column of {path}", asked, table.column_names)
    columns = [field] if field else [each for each in table.column_names if each != topic]
    parts = [_column(table[each], path, each) for each in columns]
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts, 1)
    topics = [str(value) for value in table[topic].to_pylist()] if topic else None
    _check(rows, str(path))
    return _corpus(_kept(rows), rows, name, path.name, seed, topics)


def _column(column: pa.ChunkedArray, path: Path, name: str) -> np.ndarray:
    """One column as (N, width)."""
    if column.null_count:
        raise InterpError(
            f"{path}: the column {name!r} is empty in {counted(column.null_count, 'row')}; fill these first."
        )
    if not pa.types.is_nested(column.type):
        return np.asarray(column.to_numpy())[:, None]
    try:
        return np.stack([np.asarray(value) for value in column.to_pylist()])
    except ValueError:
        raise InterpError(
            f"{path}: the lists of {name!r} are of several lengths; an item has as many as any."
        ) from None


def _loaded(path: Path) -> np.ndarray:
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = getattr(error, "strerror", None) or "it is no .npy file of such"
        raise InterpError(f"{path} cannot be read as an array of numbers: {why}; write it with numpy.save.") from error
    _check(rows, str(path))
    return np.asarray(rows)


def _check(rows: Any, name: str) -> None:
    """Raises InterpError for what is no array of items."""
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiub" or rows.ndim < 2 or not rows.size:
        what = f"of shape {rows.shape}, {rows.dtype}" if isinstance(rows, np.ndarray) else "another thing"
        raise InterpError(
            f"{name} is {what}; items of numbers are an array whose first axis is the items and others are each one's."
        )


def _kept(rows: Shaped[np.ndarray, "N ..."]) -> Path:
    """The .npy file under INTERP_HOME that holds these numbers, written if it is not there."""
    whole = np.ascontiguousarray(rows)
    digest = hashlib.sha256(f"{whole.dtype.str} {whole.shape}".encode())
    digest.update(whole.data)
    path = places.cache() / KEPT / f"{digest.hexdigest()[:32]}{ARRAY}"
    if not path.exists():
        places.check_writable(path.parent)
        with places.whole_file(path) as partial, partial.open("wb") as file:
            np.save(file, whole, allow_pickle=False)
    return path.resolve()


def _corpus(path: Path, rows: np.ndarray, name: str, source: str, seed: int, topics: list[str] | None) -> Corpus:
    def item(row: int) -> Document:
        topic = topics[row] if topics else ""
        return Document(
            text=f"{path}#{row}",
            source=source,
            title=f"{topic}/{row}" if topic else str(row),
            topic=topic,
            own=True,
            numbers=rows[row].tobytes(),
        )

    def mixed(_: Reading) -> Iterator[Document]:
        order = list(range(len(rows)))
        random.Random(seed).shuffle(order)
        return map(item, order)

    told = path.stat()
    about = f"{counted(len(rows), 'item')} of shape {rows.shape[1:]}, {rows.dtype}"
    return Corpus(
        name=name,
        licence="the user's own",
        about=about,
        version=path.stem if path.parent.name == KEPT else f"{told.st_size}-{told.st_mtime_ns}",
        read=lambda: map(item, range(len(rows))),
        mixed=mixed,
        kind=KIND,
    )
