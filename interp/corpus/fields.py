"""Which field of a file's rows is its text: `text`, or the one that can be meant, or else a question.

The rule in one sentence: the field `text`, or else the only field of strings that is not, by its name or by all its
values, an id, a URL, a path, a title, a label, a language, a date or a number.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from interp.types import InterpError, unknown

SAMPLE = 100
"""Rows from the head of a file that decide for all of it."""
OTHER = re.compile(
    "ids?|uid|uuid|guid|idx|index|hash|sha|sha1|sha256|md5|urls?|uri|link|href|path|file|filename|title|name|topic|labels?|"
    "category|class|tags?|lang|language|locale|date|time|timestamp|created|updated|licen[cs]e|split|subset|author|user|"
    "username|doi|isbn|version",
    re.IGNORECASE,
)
"""Last words of names under which no text is expected."""
PART = re.compile(
    "answers?|chosen|completion|context|input|instruction|output|prompt|query|question|rejected|response|source|target"
)
"""Names of one side of a pair: text, even where every value is a number or a word with digits."""
MACHINE = re.compile(r"\S*[\d/_@]\S*|\S+[.:]\S+", re.ASCII)
"""A value that is an id, a URL, a path, a number or a date: no space in it, and a digit or a sign of those."""
CHAT = frozenset({"role", "from"})
TOKENS = re.compile(r"(input_?ids|token_?ids|tokens)$", re.IGNORECASE)
LABELS = 20
"""Values from which on a field that has five times fewer different ones is one of labels."""


def as_row(value: Any, where: str) -> dict[str, Any]:
    """The row's fields; a bare string is a row with the field `text`. InterpError for anything else."""
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict):
        raise InterpError(f"{where}: expected an object with a field `text`, found {described(value)}.")
    return value


def choose(
    rows: Sequence[tuple[str, dict[str, Any]]], path: Path | str, asked: str = "", used: Collection[str] = ()
) -> str:
    """The field that holds the text of a file whose first rows are these, each with the words for where it stands; none
    of those that are `used` for something else.

    Raises InterpError, with the fields and how to name one, when that is not clear.
    """
    fields = list(dict.fromkeys(name for _, row in rows for name in row))
    if asked:
        if asked not in fields:
            raise unknown(f"field of {path}", asked, fields)
        return asked
    where = rows[0][0]
    if "text" in fields:
        if all(row.get("text") is None for _, row in rows):
            raise InterpError(
                f"{where}: `text` is null there and in all of the first {len(rows)} rows; {_ask(path, fields, rows)}"
            )
        for where, row in rows:
            if not isinstance(row.get("text", ""), str | None):
                raise wrong_kind(where, "text", row["text"], _ask(path, fields, rows))
        return "text"
    for name in fields:
        values = [row[name] for _, row in rows if row.get(name) is not None]
        if any(_is_chat(value) for value in values):
            raise InterpError(
                f"{where}: `{name}` holds the turns of a chat, and how they become one text is the model's own; write "
                f"each chat as one string in a field `text`. The fields are {', '.join(fields)}."
            )
        if TOKENS.search(name) and any(isinstance(value, list) for value in values):
            raise InterpError(
                f"{where}: `{name}` holds token ids; text is needed, which this model's own tokenizer cuts. "
                f"{_ask(path, fields, rows).capitalize()}"
            )
    meant = [name for name in _strings(fields, rows) if name not in used and not _is_other(name, rows)]
    if len(meant) != 1:
        raise InterpError(
            f"{where}: {'several fields may hold' if meant else 'no field holds'} text; {_ask(path, fields, rows)}"
        )
    return meant[0]


def wrong_kind(where: str, name: str, value: Any, then: str) -> InterpError:
    """The error for a row whose field holds no string; `then` says what to do."""
    return InterpError(f"{where}: `{name}` holds {described(value)}, not a string; {then}")


def described(value: Any) -> str:
    """What kind of value that is, for a sentence."""
    if isinstance(value, bool):
        return f"the value {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {str(value)[:20]}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with the fields {', '.join(map(str, list(value)[:5])) or 'none'}"
    return "bytes" if isinstance(value, bytes) else "null" if value is None else f"a {type(value).__name__}"


def _ask(path: Path | str, fields: Sequence[str], rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The fields there are, and how one of them is named."""
    meant = [name for name in _strings(fields, rows) if not _is_other(name, rows)]
    which = (
        f"name the one that holds the text, such as {path}#{meant[0]}"
        if meant
        else f"if one holds the text, write {path}#FIELD"
    )
    return f"its fields are {', '.join(fields) or 'none'}; {which}."


def _strings(fields: Sequence[str], rows: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Fields whose values are strings or null, and one of them no blank."""
    strings = []
    for name in fields:
        values = [row[name] for _, row in rows if row.get(name) is not None]
        if all(isinstance(value, str) for value in values) and any(value.strip() for value in values):
            strings.append(name)
    return strings


def _is_other(name: str, rows: Sequence[tuple[str, dict[str, Any]]]) -> bool:
    """Whether a field of strings is by its name, or by every value, something else than text."""
    words = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)
    if words and OTHER.fullmatch(words[-1]):
        return True
    if PART.fullmatch(name.lower()):
        return False
    values = [row[name].strip() for _, row in rows if isinstance(row.get(name), str) and row[name].strip()]
    if len(values) >= LABELS and len(set(values)) * 5 <= len(values):
        return True
    return all(value.isascii() and MACHINE.fullmatch(value) is not None for value in values)


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and bool(CHAT & value[0].keys())
