"""Labels as files: JSON lines, CSV with the columns feature and label, and Neuronpedia's explanations (`neuronpedia.py`).

A line gives what it names and leaves the rest as it is, so that a table of two columns takes no tag away. JSON lines and
CSV hold all of a label and come back as they were; a line may say which SAE it is of (`sae`, the SHA-256 of its weights).
"""

import csv
import datetime
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from interp import places
from interp.labels.label import NAMES, Label, checked, split_tags
from interp.labels.neuronpedia import check_source, is_explanation, label_fields
from interp.render.html import FORMULA, NUMBER
from interp.types import InterpError, unknown

LONGEST_FILE = 256 * 2**20
"""Bytes of a file of labels; more is none that a person wrote."""
NO_FEATURE = 2**31
COLUMNS = ("feature", "label", *(name for name in NAMES if name not in ("feature", "text")))
"""Of a table of labels."""
_BLANK = {field.name: field.default for field in fields(Label)}
_LATE = ("tags", "starred", "method", "predicate")
"""What labels of before did not have; a line of JSON names it only where there is something to say."""
Given = dict[str, Any]
"""What a line says, by the fields of `Label`, and `sae` where it says that."""


def write_jsonl(labels: Sequence[Label], path: Path, *, sae: str = "") -> None:
    """Write the labels as JSON lines, whole or not at all; with the SAE that they are of, where it is given."""
    with places.whole_file(path) as partial:
        lines = [json_line(label, sae=sae) + "\n" for label in labels]
        partial.write_text("".join(lines), encoding="utf-8")


def json_line(label: Label, *, sae: str = "") -> str:
    """One label as a line of JSON."""
    said = {name: getattr(label, name) for name in NAMES}
    kept = {name: value for name, value in said.items() if name not in _LATE or value != _BLANK[name]}
    return places.strict_json(kept | ({"sae": sae} if sae else {}))


def write_csv(labels: Sequence[Label], path: Path, *, sae: str = "") -> None:
    """Write the labels as a table, whole or not at all; no cell of it is a formula to a spreadsheet."""
    with places.whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *(["sae"] if sae else [])])
        for label in labels:
            writer.writerow([*map(_guarded, table_row(label).values()), *([sae] if sae else [])])


def table_row(label: Label) -> dict[str, Any]:
    """The label as a row of a table, by COLUMNS: tags side by side, the star as yes or nothing."""
    shown = {"tags": " ".join(label.tags), "starred": "yes" if label.starred else ""}
    return {name: shown.get(name, getattr(label, "text" if name == "label" else name)) for name in COLUMNS}


def read_jsonl(path: Path, d_sae: int = NO_FEATURE, *, sae: str = "") -> list[Label]:
    """Labels from a file that `export` wrote; InterpError names the line that is not one, or is one of another SAE."""
    found = []
    for number, given, label in _numbered(path, d_sae, _json_rows(path)):
        with in_line(path, number):
            _check_sae(given, sae)
        found.append(label)
    return found


def read_file(
    path: Path,
    d_sae: int,
    *,
    sae: str = "",
    layer: int | None = None,
    check_predicate: Callable[[str], object] = lambda text: None,
) -> tuple[list[Given], bool]:
    """(what the lines of a .jsonl or .csv file say (.gz too), whether they are Neuronpedia's).

    There is one line a feature; of Neuronpedia's there may be several, and those without a description are passed over.
    `sae` is the SHA-256 of this SAE's weights, `layer` the layer that it reads; `check_predicate` raises InterpError for
    one that cannot be read. Raises InterpError, which names the line, for one that is no label of this SAE.
    """
    if not path.is_file():
        raise InterpError(f"there is no file {path}; give labels as .jsonl (as `interp labels export` writes) or .csv.")
    rows, several = _rows(path, layer)
    lines: dict[int, int] = {}
    found = []
    for number, given, _ in _numbered(path, d_sae, _no_empty(path, rows)):
        feature = given["feature"]
        if feature in lines and not several:
            raise InterpError(
                f"{path}, line {number}: feature {feature} has a label in line {lines[feature]} already; keep one."
            )
        lines[feature] = number
        with in_line(path, number):
            _check_sae(given, sae)
            if given.get("predicate"):
                check_predicate(given["predicate"])
        found.append(given)
    return found, several


def _rows(path: Path, layer: int | None) -> tuple[Iterator[tuple[int, Any]], bool]:
    """(the lines of a file, whether they are Neuronpedia's explanations)."""
    if path.name.lower().removesuffix(".gz").endswith(".csv"):
        return _csv_rows(path), False
    rows = _json_rows(path)
    first = list(itertools.islice(rows, 1))
    rows = itertools.chain(first, rows)
    if not (first and is_explanation(first[0][1])):
        return rows, False
    return _explanations(path, rows, layer), True


def _explanations(path: Path, rows: Iterator[tuple[int, Any]], layer: int | None) -> Iterator[tuple[int, Any]]:
    first: tuple[str, str] | None = None
    for number, row in rows:
        with in_line(path, number):
            first = check_source(row, first, layer)
            given = label_fields(row)
        if given is not None:
            yield number, given


def _check_sae(given: Given, sae: str) -> None:
    """Take from a line which SAE it is of; InterpError when that is another one."""
    other = given.pop("sae", "")
    if sae and other and other != sae:
        raise InterpError(
            f"this is a label of another SAE ({other[:12]}…), and these are labels of {sae[:12]}…; `interp labels "
            "transfer` carries labels from one SAE to another."
        )


@contextmanager
def in_line(path: Path, number: int) -> Iterator[None]:
    """An InterpError of the block says in which line of the file."""
    try:
        yield
    except InterpError as error:
        raise InterpError(f"{path}, line {number}: {error}") from None


def _no_empty(path: Path, rows: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """The rows; InterpError for one without a text that does not say that it withdraws one, or with a date that is none."""
    for number, row in rows:
        if isinstance(row, dict):
            if row.get("status") != "withdrawn" and isinstance(row.get("text"), str) and not row["text"].strip():
                raise InterpError(
                    f"{path}, line {number}: the label is empty; leave the line out, or give it the status withdrawn to "
                    "take the label away."
                )
            try:
                date = row.get("created") or "2000-01-01"
                datetime.datetime.fromisoformat(date if len(date) <= 40 else "")
            except (TypeError, ValueError):
                raise InterpError(f"{path}, line {number}: created is {row['created']!r}, which is no date.") from None
        yield number, row


def _numbered(path: Path, d_sae: int, rows: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Given, Label]]:
    for number, row in rows:
        with in_line(path, number):
            given, label = _given(row, d_sae)
        yield number, given, label


def _given(row: Any, d_sae: int) -> tuple[Given, Label]:
    """What a mapping says, when its values are of the kinds that a label has, and the label that they make."""
    if not isinstance(row, Mapping):
        raise InterpError("not a label (it is no JSON object).")
    missing = [name for name in ("feature", "text") if name not in row]
    if missing:
        raise InterpError(f"not a label (it has no {missing[0]}).")
    given = dict(row)
    for name, value in row.items():
        if name not in NAMES and name != "sae":
            raise unknown("field of a label", name, NAMES)
        if name == "tags" and isinstance(value, list) and all(isinstance(tag, str) for tag in value):
            given[name] = tuple(value)
        elif not isinstance(value, _KINDS.get(name, str)) or (isinstance(value, bool) and name != "starred"):
            raise InterpError(f"not a label ({name} is {str(value)[:60]!r}).")
    return given, checked(Label(**{name: value for name, value in given.items() if name != "sae"}), d_sae)


_KINDS: dict[str, type] = {"feature": int, "starred": bool, "tags": tuple}


def _read(path: Path) -> str:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            raw = file.read(LONGEST_FILE + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InterpError(f"{path} is no whole gzip file ({error}); fetch it again.") from None
    except OSError as error:
        raise places.disk_error(path, error) from None
    if len(raw) > LONGEST_FILE:
        raise InterpError(f"{path} has more than {LONGEST_FILE:,} bytes, more than any file of labels.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InterpError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8.") from None


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_read(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InterpError(f"{path}, line {number}: not a label ({error}).") from None


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows by column; `label` is the text. Columns that no label has are passed over, and so are automatic names."""
    lines = csv.DictReader(io.StringIO(_read(path), newline=""), strict=True)
    try:
        columns = [str(name).strip() for name in lines.fieldnames or []]
        names = {"label": "text", "sae": "sae"} | {name: name for name in NAMES}
        if "feature" not in columns or not {"label", "text"} & set(columns):
            there = ", ".join(columns) or "none"
            raise InterpError(
                f"{path} has the columns {there[:200]}; give it the columns feature and label, with commas."
            )
        for row in lines:
            told = {name.strip(): value for name, value in row.items() if isinstance(name, str)}
            if None in row or None in told.values():
                raise InterpError(f"{path}, line {lines.line_num}: it has not as many cells as there are columns.")
            if told.get("automatic", "").strip().lower() == "true":
                continue
            cells = {names[name]: _cell(told[name]) for name in columns if name in names and told[name]}
            with in_line(path, lines.line_num):
                given = _of_cells(cells)
            yield lines.line_num, given
    except csv.Error as error:
        raise InterpError(f"{path}, line {lines.line_num}: not readable as CSV ({error}).") from None


def _of_cells(cells: Mapping[str, str]) -> Given:
    """What the cells of a row say; one that is empty says nothing."""
    given: Given = {"text": "", **cells}
    feature = cells.get("feature", "").strip()
    if not feature.isascii() or not feature.isdecimal() or len(feature) > 18:
        raise InterpError(f"{feature[:60]!r} is no feature's number.")
    given["feature"] = int(feature)
    if "tags" in cells:
        given["tags"] = list(split_tags(cells["tags"]))
    if "starred" in cells:
        starred = cells["starred"].strip().lower()
        if starred not in ("yes", "no", "true", "false"):
            raise InterpError(f"starred is {starred[:60]!r}, which is neither yes nor no.")
        given["starred"] = starred in ("yes", "true")
    return given


def _guarded(cell: object) -> object:
    """The cell, behind an apostrophe where a table program would take it for a formula; `_cell` gives it back as it was."""
    if isinstance(cell, str) and cell.lstrip("'")[:1] in FORMULA and not NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _cell(text: str) -> str:
    """A cell without the apostrophe that keeps a table program from taking it for a formula."""
    return text[1:] if text.startswith("'") and text.lstrip("'")[:1] in FORMULA else text
