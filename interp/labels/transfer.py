"""Labels as files: JSON lines as `export` writes them, and CSV with the columns feature and label."""

import csv
import datetime
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from interp import places
from interp.types import InterpError, check_feature, unknown

STATUSES = ("proposed", "confirmed", "refuted", "withdrawn")
LONGEST, LONGEST_NAME = 2_000, 200
"""Characters of a label or a note, and of an author's name, at most."""
LONGEST_FILE = 256 * 2**20
"""Bytes of a file of labels; more is none that a person wrote."""
NO_FEATURE = 2**31


@dataclass(frozen=True, kw_only=True)
class Label:
    """One version of one feature's name."""

    feature: int
    text: str
    author: str = ""
    note: str = ""
    status: str = "proposed"
    created: str = ""
    """UTC, ISO 8601."""


NAMES = tuple(field.name for field in fields(Label))


def checked(label: Label, d_sae: int) -> Label:
    """The label as it is kept: stripped, withdrawn when its text is empty. InterpError says what no label has."""
    check_feature(label.feature, d_sae, "this SAE")
    if label.status not in STATUSES:
        raise unknown("label status", label.status, STATUSES)
    if max(len(label.text), len(label.note)) > LONGEST:
        raise InterpError(f"a label or note has at most {LONGEST:,} characters; shorten it.")
    if len(label.author) > LONGEST_NAME:
        raise InterpError(f"an author's name has at most {LONGEST_NAME} characters; shorten it.")
    for name in ("text", "author", "note"):
        if any("\ud800" <= character <= "\udfff" for character in getattr(label, name)):
            raise InterpError(f"the {name} of this label is not text: it holds half of a character (a lone surrogate).")
    text = label.text.strip()
    status = label.status if text else "withdrawn"
    return replace(label, text=text, author=label.author.strip(), note=label.note.strip(), status=status)


def now() -> str:
    """The time, in UTC, as labels keep it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def write_jsonl(labels: list[Label], path: Path) -> None:
    """Write the labels as JSON lines, whole or not at all."""
    with places.whole_file(path) as partial:
        lines = [places.strict_json(asdict(label)) + "\n" for label in labels]
        partial.write_text("".join(lines), encoding="utf-8")


def read_jsonl(path: Path, d_sae: int = NO_FEATURE) -> list[Label]:
    """Labels from a file that `export` wrote; InterpError names the line that is not one."""
    return [label for _, label in _numbered(path, d_sae, _json_rows(path))]


def read_file(path: Path, d_sae: int) -> list[Label]:
    """The labels in a .jsonl or .csv file, one a feature; InterpError names the line that is none."""
    if not path.is_file():
        raise InterpError(f"there is no file {path}; give labels as .jsonl (as `interp labels export` writes) or .csv.")
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    lines: dict[int, int] = {}
    labels = []
    for number, label in _numbered(path, d_sae, _no_empty(path, rows)):
        if label.feature in lines:
            raise InterpError(
                f"{path}, line {number}: feature {label.feature} has a label in line {lines[label.feature]} already; keep one."
            )
        lines[label.feature] = number
        labels.append(label)
    return labels


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
                datetime.datetime.fromisoformat(row.get("created") or now())
            except (TypeError, ValueError):
                raise InterpError(f"{path}, line {number}: created is {row['created']!r}, which is no date.") from None
        yield number, row


def _numbered(path: Path, d_sae: int, rows: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Label]]:
    for number, row in rows:
        try:
            yield number, checked(_label(row), d_sae)
        except InterpError as error:
            raise InterpError(f"{path}, line {number}: {error}") from None


def _label(row: Any) -> Label:
    """A label of a mapping, whose values are of the kinds that a label has."""
    if not isinstance(row, Mapping):
        raise InterpError("not a label (it is no JSON object).")
    missing = [name for name in ("feature", "text") if name not in row]
    if missing:
        raise InterpError(f"not a label (it has no {missing[0]}).")
    for name, value in row.items():
        if name not in NAMES:
            raise unknown("field of a label", name, NAMES)
        if not isinstance(value, int if name == "feature" else str) or isinstance(value, bool):
            raise InterpError(f"not a label ({name} is {str(value)[:60]!r}).")
    return Label(**row)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > LONGEST_FILE:
            raise InterpError(f"{path} has {path.stat().st_size:,} bytes, more than any file of labels.")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise places.disk_error(path, error) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
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
    lines = csv.DictReader(_read(path).splitlines(keepends=True), strict=True)
    try:
        columns = [str(name).strip() for name in lines.fieldnames or []]
        names = {"label": "text"} | {name: name for name in NAMES}
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
            given: dict[str, Any] = {names[name]: _cell(told[name]) for name in columns if name in names and told[name]}
            given.setdefault("text", "")
            feature = given.get("feature", "").strip()
            if not feature.isascii() or not feature.isdecimal() or len(feature) > 18:
                raise InterpError(f"{path}, line {lines.line_num}: {feature[:60]!r} is no feature's number.")
            yield lines.line_num, given | {"feature": int(feature)}
    except csv.Error as error:
        raise InterpError(f"{path}, line {lines.line_num}: not readable as CSV ({error}).") from None


def _cell(text: str) -> str:
    """A cell without the apostrophe that keeps a table program from taking it for a formula."""
    return text[1:] if text.startswith("'") and text[1:2] in ("=", "+", "-", "@", "\t", "\r") else text
