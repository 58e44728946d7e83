"""A part of the evidence: a table, a row a feature, of one question that was asked of all features.

A part is made by a module of its own, which knows its columns, and kept as a file of its own; `card.join` puts the parts side
by side. What it was made of (weights, text, seeds) stands in the metadata of its schema, as JSON.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interp.corpus.tables import decoding, read_parquet
from interp.types import InterpError

META = b"interp.part"
Columns = Mapping[str, tuple[pa.DataType, str]]
"""By name: type, and unit and meaning. A figure that could not be had is null."""
Row = Mapping[str, Any]
"""Of one feature: what every column of the joined evidence holds, by its name there."""
REAL, COUNT = pa.float32(), pa.uint32()


@dataclass(frozen=True)
class Said:
    """A sentence about a feature."""

    text: str
    shown: bool = True
    """False of what could not be shown, failed or is not known, which is said before the rest."""


@runtime_checkable
class Record(Protocol):
    """What a part tells of one feature: figures by name, and sentences."""

    def said(self) -> Sequence[Said]:
        """In plain words."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One question that was asked of all features."""

    name: str
    prefix: str
    """Of its columns in evidence.parquet."""
    file: str
    columns: Columns
    """With `feature`, which the joined table has once."""
    question: str
    """As the end of a sentence: "what features cause beyond their controls"."""
    how: str
    """Which command makes it, a sentence without its full stop."""
    read: Callable[[Path], pa.Table]
    """Raises InterpError when the file is missing, damaged, another program's or of another format."""
    about: Callable[[pa.Table], Mapping[str, Any]]
    """What a table was made of; `sae_sha256` is the weights'."""
    record: Callable[[Row], Record] | None = None
    """Without, another part's record tells of it."""
    summary: Callable[[pa.Table], str] | None = None
    """A sentence about all features of the joined evidence."""

    @property
    def own(self) -> dict[str, str]:
        """The names of its columns in evidence.parquet, by their names in its own table."""
        return {name: f"{self.prefix}_{name}" for name in self.columns if name != "feature"}


def make_part(
    name: str, format_: int, columns: Columns, values: Mapping[str, Any], about: Mapping[str, Any]
) -> pa.Table:
    """A part's table, of an array or list for each column; numbers that are not finite are null.

    `about` says what it was made of: `sae_sha256` (of the card), text, seeds.
    """
    fields = [pa.field(column, kind, metadata={"about": words}) for column, (kind, words) in columns.items()]
    arrays = [_array(values[column], kind) for column, (kind, _) in columns.items()]
    meta = {META: json.dumps({"part": name, "format": format_, **about}, ensure_ascii=False).encode()}
    return pa.table(arrays, schema=pa.schema(fields, metadata=meta))


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_floating(kind):
        real = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        return pa.array(np.where(np.isfinite(real), real, np.nan), from_pandas=True).cast(kind, safe=False)
    return pa.array(list(values), kind)


def about_part(table: pa.Table, name: str = "the table") -> dict[str, Any]:
    """What a part was made of; InterpError when it does not say."""
    try:
        return dict(json.loads((table.schema.metadata or {})[META]))
    except (KeyError, ValueError, TypeError):
        raise InterpError(f"{name} does not say what it was made of; it is no part of the evidence.") from None


def write_part(table: pa.Table, path: Path) -> None:
    with decoding(path):
        pq.write_table(table, path, compression="zstd", compression_level=9)


def read_part(path: Path, name: str, format_: int, columns: Columns) -> pa.Table:
    """A part's table from its file.

    Raises InterpError when it is missing, damaged, no such part, or of another format.
    """
    table = read_parquet(path, {"feature": "whole"}, others=True)
    about = about_part(table, str(path))
    if (about.get("part"), about.get("format")) != (name, format_):
        raise InterpError(
            f"{path} holds the part {about.get('part')} in format {about.get('format')}, and the part {name} in format "
            f"{format_} was looked for; make it anew."
        )
    check_columns(table.schema, columns, path)
    return table


def check_columns(schema: pa.Schema, columns: Columns, path: Path, *, lacking: bool = False) -> None:
    """Raises InterpError when a column is not there (unless `lacking`), or is of another type."""
    for name, (kind, _) in columns.items():
        if name not in schema.names and lacking:
            continue
        if name not in schema.names or schema.field(name).type != kind:
            raise InterpError(
                f"{path} has no column {name} as this program writes it; it is another program's, or changed."
            )
