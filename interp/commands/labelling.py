"""Names of features: given, withdrawn, and moved in and out of files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from interp.commands.opening import open_sae
from interp.commands.options import Device, Feature, Option, Sae

if TYPE_CHECKING:
    from interp.labels import Label, LabelBook
    from interp.labels.book import Imported
    from interp.workbench.transferring import Transfer

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


def transfer_labels(
    old: Annotated[str, Option("Folder of the checkpoint whose labels are carried; the end of its path is enough.")],
    new: Annotated[str, Option("Folder of the checkpoint that is to get them: another one of the same model.")],
    *,
    write: Annotated[bool, Option("Write the labels. Without: only show what would become of each.")] = False,
    doubtful: Annotated[
        bool, Option("Carry labels to doubtful matches too; their notes say what is doubtful.")
    ] = False,
    corpus: Annotated[str, Option("Text to compare the features on. Without: the text of the two indexes.")] = "",
    tokens: Annotated[
        int | None,
        Option(
            "How many tokens to compare on. Without: 65,536 where the model runs, 524,288 of full indexes.", low=256
        ),
    ] = None,
    device: Device = "auto",
) -> "Transfer":
    """Carry labels from one SAE to another of the same model, to the features that are the same; shown before it is done.

    Two features are the same where each is the other's best match by the cosine of their decoder rows and by the
    correlation of their activations on the same text, both beyond chance and at least .7, and where at least 70 % of
    either's activation lies where the other fires. What falls short of that is doubtful, and left unless --doubtful; what
    chance explains is no match. A feature that has a label, or had one, keeps it. The note of a carried label says where it
    came from and how alike the two are; a confirmed label is proposed again.

    Raises InterpError when the two cannot be compared, or there is nothing to carry.
    """
    return open_sae(old, device).transfer_labels(
        open_sae(new, device), write=write, doubtful=doubtful, corpus=corpus, tokens=tokens
    )


def _book(sae: str) -> "LabelBook":
    """The labels of a checkpoint, whose weights and model stay closed."""
    from interp.checkpoint.files import resolve
    from interp.labels import LabelBook

    return LabelBook.of(resolve(sae))
