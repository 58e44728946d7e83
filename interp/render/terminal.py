"""What reaches a terminal: every string that this project prints passes `printable` on its way.

A title, label, token, file name or error may hold control characters, which recolour a terminal, retitle it, write over
what stands there or fill its clipboard, and marks that turn the order of reading round. None of them may act: each is
written as its escape, so that it is seen. JSON keeps the same characters, written as JSON writes them.
"""

import io
import json
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from rich.console import Console

UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks of direction
    "\u2028\u2029\ufff9-\ufffb\U000e0000-\U000e007f"  # line separators, annotations, tags
    "\ud800-\udfff]"  # half characters, which no encoding writes
)
GAP = 2
"""Spaces between the columns of a table."""
LEAST = 24
"""Cells that a column which may be shortened keeps, before whole columns give way."""


def printable(text: object) -> str:
    """The text with every character that would act on a terminal, or that none can show, written as its escape."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def printable_json(text: str) -> str:
    """JSON that means the same and in which no such character stands as it is."""
    return UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def console(*, stderr: bool = False) -> "Console":
    """A console that takes strings as they are: no markup, no emoji names, no colours of its own, lines never cut."""
    from rich.console import Console  # here, for data are printed without it

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def tell(message: object, *, style: str = "") -> None:
    """One line on standard output, for people."""
    if style:
        console().print(printable(message), style=style)
    else:
        write(f"{message}\n")


def say(message: object) -> None:
    """One line on standard error, so that standard output stays data."""
    sys.stderr.write(printable(message) + "\n")
    sys.stderr.flush()


def write(text: str) -> None:
    """Text on standard output as it is made, without a line's end; control characters are escaped here too."""
    sys.stdout.write(printable(text))
    sys.stdout.flush()


def write_json(text: str) -> None:
    """A JSON document on standard output; where that is no UTF-8, every other character is escaped as well."""
    safe = printable_json(text)
    if not (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf"):
        safe = re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], safe)
    sys.stdout.write(safe + "\n")


def never_fail_on_a_character() -> None:
    """Let standard output and error write what their encoding has no character for as its escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


# ---- tables ----


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    title: str = "",
    *,
    shorten: Sequence[str] = (),
    drop: Sequence[str] = (),
    wide: bool = False,
) -> None:
    """Rows under their heads, on standard output.

    In a file, a pipe or with `wide`, a row is one line and its cells are whole. On a terminal, cells are folded between
    words; where columns are named that may be shortened or dropped, a row is one line there too (`one_line`).
    """
    there = console()
    cells = [[_cell(value) for value in row] for row in rows]
    if title:
        tell(title)
    if not narrow(wide):
        _print(there, _lines(head, cells))
        return
    if shorten:
        kept, lines = one_line(head, cells, there.width, shorten=shorten, drop=drop)
        _print(there, lines)
        gone = [name for name in head if name not in kept]
        if gone or any("…" in line for line in lines):
            tell(f"(--wide shows {', '.join(gone)}{' and ' * bool(gone)}every cell whole)")
        return
    from rich.measure import Measurement
    from rich.table import Column, Table

    made = Table(*(Column(name, overflow="fold") for name in head), box=None, pad_edge=False, header_style="bold")
    for row in cells:
        made.add_row(*row)
    if Measurement.get(there, there.options, made).minimum > there.width:  # folding would cut a name
        _print(there, _lines(head, cells))
    else:
        there.print(made, soft_wrap=False)


def narrow(wide: bool = False) -> bool:
    """Whether lines are to keep to a terminal's width: not in a file or a pipe, nor where `wide` was asked."""
    return not wide and console().is_terminal


def one_line(
    head: Sequence[str], cells: list[list[str]], width: int, *, shorten: Sequence[str], drop: Sequence[str]
) -> tuple[list[str], list[str]]:
    """(names of the columns that are kept, lines of at most `width` cells): columns of `drop` go first, in that order,
    until those of `shorten` have LEAST cells each.

    A line is longer than `width` only where a path's last name alone is: names in paths are never cut.
    """
    names = list(head)
    columns = {name: [row[at] for row in cells] for at, name in enumerate(names)}
    natural = {name: max(map(cell_len, (name, *column))) for name, column in columns.items()}
    least = natural | {
        name: max(cell_len(shortened(text, LEAST)) for text in (name, *columns[name]))
        for name in shorten
        if name in columns
    }

    def free() -> int:
        return width - sum(least[name] for name in names) - GAP * (len(names) - 1)

    for name in drop:
        if free() < 0 and name in names:
            names.remove(name)
    given, left = least.copy(), max(free(), 0)
    for name in sorted((n for n in shorten if n in names), key=lambda n: natural[n] - least[n], reverse=True):
        # What one column needs less, the others get.
        share = min(left, natural[name] - least[name])
        given[name], left = least[name] + share, left - share
    kept = [[shortened(columns[name][row], given[name]) for name in names] for row in range(len(cells))]
    return names, _lines(names, kept)


def shortened(text: str, cells: int) -> str:
    """The text in so many cells: its middle is left out; of a path, whole names in the middle, but never the last."""
    if cell_len(text) <= cells:
        return text
    if "/" in text and " " not in text:
        *before, last = text.split("/")
        fits = [f"{'/'.join([*before[:count], '…'])}/{last}" for count in range(len(before))]
        return max((path for path in fits if cell_len(path) <= cells), key=cell_len, default=fits[0])
    tail = (cells - 1) // 3
    end = set_cell_size(text[::-1], tail).rstrip()[::-1]
    return set_cell_size(text, cells - 1 - tail).rstrip() + "…" + end


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return printable(text.replace("\n", "↵").replace("\t", "⇥"))


def _lines(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """The head and a line a row, in columns."""
    rows = [list(head), *map(list, cells)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    pairs = [zip(row, widths, strict=True) for row in rows]
    return [(" " * GAP).join(text + " " * (width - cell_len(text)) for text, width in row).rstrip() for row in pairs]


def _print(there: "Console", lines: Sequence[str]) -> None:
    there.print(lines[0], style="bold")
    for line in lines[1:]:
        there.print(line)
