"""Parquet files as the project writes and reads them: what is damaged or another program's is told in a sentence."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from interp.types import InterpError

DOCUMENTS = {"document": "whole"} | dict.fromkeys(("source", "title", "topic", "split", "sha256"), "text")
LATER: dict[str, Any] = {"passes_on": True, "chat": False}
"""Columns of a documents table that files of before do not have, with what holds of their documents."""
_KINDS: dict[str, Callable[[pa.DataType], bool]] = {
    "whole": pa.types.is_integer,
    "real": pa.types.is_floating,
    "flag": pa.types.is_boolean,
    "text": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "bytes": lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
    "wholes": lambda kind: pa.types.is_list(kind) and pa.types.is_integer(kind.value_type),
    "reals": lambda kind: pa.types.is_list(kind) and pa.types.is_floating(kind.value_type),
}
"""Kinds of columns: one value a row, or a list."""


def read_documents(path: Path) -> pa.Table:
    """A documents table, with the columns that files of before lack.

    Raises InterpError as `read_parquet` does.
    """
    table = read_parquet(path, DOCUMENTS, others=True)
    for name, usual in LATER.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.array([usual] * len(table), pa.bool_()))
    return table


def read_parquet(path: Path, kinds: Mapping[str, str], *, others: bool = False, nulls: bool = False) -> pa.Table:
    """The columns of a Parquet file, by name each of a kind (see `_KINDS`), and all `others` if asked.

    Raises InterpError, in words of our own, for a file that is missing or damaged, lacks a column of that kind, or has
    rows without one (unless `nulls`).
    """
    check_parquet(path, kinds)
    with decoding(path):
        table = pq.read_table(path, columns=None if others else list(kinds))
    for name in kinds:
        if table[name].null_count and not nulls:
            raise InterpError(f"{path} has rows without {name}; it was changed by another program.")
    return table


def check_parquet(path: Path, kinds: Mapping[str, str]) -> None:
    """Raises InterpError as `read_parquet` does, by the head of the file alone."""
    if not path.exists():
        raise InterpError(f"there is no file {path}.")
    with decoding(path):
        schema = pq.read_schema(path)
    for name, kind in kinds.items():
        if name not in schema.names or not _KINDS[kind](schema.field(name).type):
            raise InterpError(
                f"{path} has no column {name} as this program writes it; it is another program's, or changed."
            )


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Raises InterpError, a sentence, for what a damaged Parquet file makes of reading it."""
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, LookupError):
        raise InterpError(f"{path} cannot be read as a table: it was cut short or changed.") from None
