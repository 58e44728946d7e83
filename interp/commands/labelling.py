"""Names of features: given, withdrawn, and moved in and out of files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from interp.commands.options import Feature, Option, Sae

if TYPE_CHECKING:
    from interp.labels import Label, LabelBook
    from interp.labels.book import Imported

Author = Annotated[str, Option("Who gives the label.")]
File = Annotated[Path, Option("File of labels: .csv or .jsonl.")]


def label(
    sae: Sae,
    number: Feature,
    text: Annotated[
        str | None,
        Option("The label to give; an empty one ('') withdraws the present one. Without: show the labels it had."),
    ] = None,
    *,
    author: Author = "",
    note: Annotated[str, Option("What the label rests on.")] = "",
    status: Annotated[str, Option("How sure the label is: proposed, confirmed or refuted.")] = "proposed",
) -> "list[Label]":
    """Name a feature, or show the names it had.

    All of its labels come back, the newest first. Raises InterpError when there is no such feature or status.
    """
    from interp.types import check_feature

    book = _book(sae)
    check_feature(number, book.d_sae, sae)
    if text is not None:
        book.set(number, text, author=author, note=note, status=status)
    return book.history(number)


def current_label(sae: Sae, number: Feature) -> "Label | None":
    """The label that a feature has now; None where it has none, or it was withdrawn."""
    return _book(sae).get(number)


def statuses() -> tuple[str, ...]:
    """How sure a label can be."""
    from interp.labels import STATUSES

    return tuple(status for status in STATUSES if status != "withdrawn")


def import_labels(
    sae: Sae,
    file: File,
    *,
    author: Annotated[str | None, Option("Who gives the labels, in place of what the file names.")] = None,
) -> "Imported":
    """Add labels from a .csv file with the columns feature and label, or a .jsonl file as `interp labels export` writes.

    All of them or none: a line that is no label of this SAE is named, and nothing is written. Columns author, note and
    status are read where they are there. What is the current label already is not added again.
    """
    return _book(sae).import_file(file, author=author)


def export_labels(sae: Sae, file: File) -> int:
    """Write the current labels, one JSON object a line, as `interp labels import` reads them.

    How many there are comes back. Raises InterpError when the file cannot be written.
    """
    return _book(sae).export(file)


def _book(sae: str) -> "LabelBook":
    """The labels of a checkpoint, whose weights and model stay closed."""
    from interp.checkpoint.files import resolve
    from interp.labels import LabelBook

    return LabelBook.of(resolve(sae))
