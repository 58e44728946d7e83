"""Files of rows, one reader a format, and what cannot be read said in a sentence with the file and the line.

A row comes as (number, value): the number is its line in a file of lines, its place from 1 elsewhere; the value is what
the format gives, mostly a dict of the row's fields. Files may be compressed (.gz, .zst); text is UTF-8, with or without
a byte-order mark.
"""

import codecs
import csv
import gzip
import json
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from interp.types import InterpError

Rows = Iterator[tuple[int, Any]]
CHUNK = 1 << 20
COMPRESSED = (".gz", ".zst")
PARQUET_ROWS = 256
_LONG_FIELDS = threading.Lock()


class NotRows(InterpError):
    """A .json file that holds something else than rows, such as settings; a folder of text may have some."""


def kind(path: Path) -> str:
    """The suffix that says how the file is read, in small letters and without that of a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text without its line end) of each line.

    Raises InterpError, with the line, for bytes that are not UTF-8, a NUL, and compressed data that is cut off.
    """
    number = 1
    rest: list[str] = []
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    for raw in _chunks(path):
        try:
            text = decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            line = number + error.object[: error.start].count(b"\n")
            utf16 = error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            raise InterpError(
                f"{path}, line {line} is not UTF-8 text ({error.reason}{'; it begins as UTF-16 does' if utf16 else ''}); "
                "convert the file to UTF-8 first."
            ) from None
        if "\0" in text:
            line = number + text[: text.index("\0")].count("\n")
            raise InterpError(f"{path}, line {line}: a NUL character, which no text has; is the file UTF-16 or binary?")
        *ends, begun = text.split("\n")
        for end in ends:
            yield number, "".join([*rest, end]).removesuffix("\r")
            number, rest = number + 1, []
        rest.append(begun)
    if any(rest):
        yield number, "".join(rest)


def _chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes, decompressed, and b"" at the end."""
    suffix = path.suffix.lower()
    try:
        with _opened(path, suffix) as file:
            while raw := file.read(CHUNK):
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InterpError(f"{path} is no whole gzip file ({error}); it may have been cut off: copy it again.") from None
    except OSError as error:
        if suffix == ".zst" and error.errno is None:
            raise InterpError(f"{path} is no whole zstd file; it may have been cut off: copy it again.") from None
        raise InterpError(f"{path} cannot be read: {error.strerror or error}.") from None
    yield b""


def _opened(path: Path, suffix: str) -> Any:
    if suffix == ".gz":
        return gzip.open(path)
    if suffix == ".zst":  # Arrow's reader notices a cut-off stream, zstandard's does not
        return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    return path.open("rb")


def _jsonl(path: Path, columns: Sequence[str] | None = None) -> Rows:
    for number, line in lines(path):
        if line.strip():
            yield number, _parsed(line, path, number)


def _parsed(text: str, path: Path, number: int, what: str = "each line must be one object") -> Any:
    """The JSON value in a text that begins at a line of the file."""
    try:
        return json.loads(text)
    except RecursionError:
        raise InterpError(f"{path}, line {number}: JSON nested too deeply to be a row of text.") from None
    except json.JSONDecodeError as error:
        raise InterpError(f"{path}, line {number + error.lineno - 1}: not JSON ({error.msg}); {what}.") from None
    except ValueError as error:  # a number of thousands of digits
        raise InterpError(f"{path}, line {number}: not JSON that can be read ({error}).") from None


def _json(path: Path, columns: Sequence[str] | None = None) -> Rows:
    """The items of an array; or, as .jsonl, an object a line, which many .json files are."""
    text = "\n".join(line for _, line in lines(path))
    if not text.strip():
        return
    if text.lstrip().startswith("["):
        yield from enumerate(_parsed(text, path, 1, "the file must be one array of rows"), 1)
        return
    try:
        single = json.loads(text)
    except (ValueError, RecursionError):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield number, _parsed(line, path, number, "a .json file holds one array of rows, or an object a line")
        return
    if not isinstance(single, dict) or not isinstance(single.get("text"), str):
        names = f"with the fields {', '.join(single)}" if isinstance(single, dict) else f"a {type(single).__name__}"
        raise NotRows(
            f"{path} is one JSON value ({names}), not rows; write one array of rows, or an object a line (.jsonl)."
        )
    yield 1, single


def csv_rows(reader: Iterator[Any]) -> Iterator[Any]:
    """What a reader of the csv module gives, whatever the length of its fields.

    The module has one limit for the whole process; it is lifted for each row and then put back.
    """
    while True:
        with _LONG_FIELDS:
            before = csv.field_size_limit(sys.maxsize)
            try:
                row = next(reader, None)
            finally:
                csv.field_size_limit(before)
        if row is None:
            return
        yield row


def _csv(path: Path, columns: Sequence[str] | None = None, delimiter: str = ",") -> Rows:
    """Rows under a head of names; every value is a string."""
    reader = csv.reader((line + "\n" for _, line in lines(path)), delimiter=delimiter, strict=True)
    names: list[str] = []
    number = 1
    try:
        for row in csv_rows(reader):
            if not names:
                names = _head(row, path)
            elif len(row) > len(names):
                raise InterpError(
                    f"{path}, line {number}: {len(row)} fields, where the first line names {len(names)} "
                    f"({', '.join(names)}); put texts that hold a {delimiter!r} between quotes."
                )
            elif row:
                yield number, dict(zip(names, row, strict=False))
            number = reader.line_num + 1
    except csv.Error as error:
        raise InterpError(f"{path}, line {number}: not CSV ({error}).") from None


def _head(row: list[str], path: Path) -> list[str]:
    twice = [name for name in row if row.count(name) > 1]
    if twice:
        raise InterpError(
            f"{path}: two columns have the name {twice[0]!r}; its first line must name every column once."
        )
    if len(row) == 1 and (";" in row[0] or "\t" in row[0]):
        raise InterpError(
            f"{path}: its first line {row[0]!r} is parted by other than commas; write commas (or tabs in a .tsv)."
        )
    return row


def _tsv(path: Path, columns: Sequence[str] | None = None) -> Rows:
    return _csv(path, columns, "\t")


def _parquet(path: Path, columns: Sequence[str] | None = None) -> Rows:
    try:
        file = pq.ParquetFile(path)
        known = [name for name in columns if name in file.schema_arrow.names] if columns is not None else None
        number = 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=known):
            for row in _plain(batch, path, number):
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InterpError(f"{path} is not readable as Parquet: {reason.rstrip('.')}.") from None


def _plain(batch: pa.RecordBatch, path: Path, before: int) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(len(batch)):
            try:
                batch.slice(row, 1).to_pylist()
            except UnicodeDecodeError as error:
                raise InterpError(f"{path}, row {before + row + 1} is not UTF-8 text ({error.reason}).") from None
        raise


READERS: dict[str, Callable[[Path, Sequence[str] | None], Rows]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
"""Formats of rows: a function of the path and of the fields that are wanted (all, if None)."""
