"""What of a file of source code is worth reading: licences cut from its head, generated files and tables of data left out."""

import re
from statistics import fmean

LICENCE = re.compile(r"copyright|licen[cs]e|SPDX-|all rights reserved", re.IGNORECASE)
GENERATED = re.compile(
    r"auto-?generated|automatically generated|@generated|do not (edit|modify)|code generated|file (is|was) generated"
    r"|^\W*generated (by|from|with|using)\b",
    re.IGNORECASE,
)
_COMMENT = re.compile(
    r"\s*(?P<comment>/\*.*?\*/|<!--.*?-->|(?:[ \t]*//[^\n]*\n)+|(?:#(?![ \t]*(?:include|define|if|pragma))[^\n]*\n)+)",
    re.DOTALL,
)
_HEAD = 1_500
"""Characters in which a generated file says so."""


def without_licence(text: str) -> str:
    """The text without those comments at its head that speak of copyright or licence."""
    kept, at = "", 0
    while found := _COMMENT.match(text, at):
        if not LICENCE.search(found["comment"]):
            kept += found[0]
        at = found.end()
    return (kept + text[at:]).lstrip("\n")


def is_generated(text: str) -> bool:
    """Whether a comment at the head of the file says that a program wrote it."""
    return any(
        GENERATED.search(line) for line in text[:_HEAD].splitlines() if line.lstrip()[:1] in {"/", "*", "#", "<"}
    )


def is_minified(text: str) -> bool:
    """Whether some line is longer than anyone writes."""
    return max(map(len, text.splitlines()), default=0) > 1_000


def is_data(text: str, longest: int = 120) -> bool:
    """Whether the text is a table of data rather than written for a reader.

    `longest`: how many characters its lines may have on average.

    Of written code about two thirds of the characters that are no space are letters, and a twentieth digits.
    """
    dense = [char for char in text if not char.isspace()]
    lines = [len(line) for line in text.splitlines() if line.strip()]
    if not dense:
        return True
    letters = sum(map(str.isalpha, dense)) / len(dense)
    digits = sum(map(str.isdigit, dense)) / len(dense)
    quotes = sum(char in "\"'`," for char in dense) / len(dense)
    return letters < 0.5 or digits > 0.12 or quotes > 0.17 or fmean(lines) > longest


def decoded(content: bytes) -> str | None:
    """The text of a file in UTF-8, with line feeds alone between lines; None of any other file."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
