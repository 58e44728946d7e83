"""Names of features: given, withdrawn, taken back, and moved in and out of files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from interp.commands.opening import open_book, open_sae
from interp.commands.options import Device, Feature, Option, Sae

if TYPE_CHECKING:
    from interp.labels import Label, LabelBook
    from interp.labels.book import Imported
    from interp.labels.merging import Merge
    from interp.labels.neuronpedia import Source
    from interp.workbench.explaining import ModelNames
    from interp.workbench.labelling import Autolabelled
    from interp.workbench.transferring import Transfer

File = Annotated[Path, Option("File of labels: .csv or .jsonl, or Neuronpedia's explanations.")]


def label(
    sae: Sae,
    number: Feature,
    text: Annotated[
        str | None,
        Option("The label to give; an empty one ('') withdraws the present one. Without: show the labels it had."),
    ] = None,
    *,
    author: Annotated[str | None, Option("Who gives the label.")] = None,
    note: Annotated[str | None, Option("What the label rests on.")] = None,
    status: Annotated[str | None, Option("How sure the label is: proposed, confirmed, refuted or undecided.")] = None,
    tag: Annotated[
        Sequence[str],
        Option("A short word to find the feature by, in place of the tags it has; repeatable, and '' takes them away."),
    ] = (),
    star: Annotated[bool | None, Option("Mark the feature with a star, or take the star away.")] = None,
    method: Annotated[
        str | None, Option("How the label came about, such as predicate or llm:MODEL. Without: person.")
    ] = None,
    predicate: Annotated[
        str | None, Option("What the label claims, as a search (see `interp keys`): 'token:/^ ?Paris$/'.")
    ] = None,
) -> "list[Label]":
    """Name a feature, mark it, or show the names it had.

    Nothing is overwritten: what is given makes a further revision. Tags and the star stay when a feature gets another name,
    and it may have them without one; note, status, method and predicate begin anew with the name. All revisions come back,
    the oldest first. Raises InterpError when there is no such feature or status, and for a predicate that is no search.
    """
    from interp.types import check_feature

    book = open_book(sae)
    check_feature(number, book.d_sae, sae)
    if predicate:
        check_predicate(predicate)
    marks: dict[str, Any] = {"tags": [each for each in tag if each] if tag else None, "starred": star}
    of_name = {"author": author, "note": note, "status": status, "method": method, "predicate": predicate}
    told: dict[str, Any] = {name: value for name, value in (of_name | marks).items() if value is not None}
    if text is not None:
        book.set(number, text, **told)
    elif told:
        book.revise(number, **told)
    return book.history(number)


def undo_label(sae: Sae, number: Feature) -> "list[Label]":
    """Take back the last thing that was said of a feature: name, star, tags and all are as they were before.

    It is one step, and a revision like any other: undone once more, what was taken back holds again. All revisions come
    back, the oldest first. Raises InterpError when nothing was said of the feature on this machine.
    """
    book = open_book(sae)
    book.undo(number)
    return book.history(number)


def check_predicate(text: str) -> None:
    """Raises InterpError for a predicate that cannot be read as a search, or that asks for nothing."""
    from interp.search import parse
    from interp.types import InterpError

    try:
        terms = parse(text).terms
    except InterpError as error:
        raise InterpError(f"the predicate {text[:80]!r} is no search: {error}") from None
    if not terms:
        raise InterpError(
            f"the predicate {text[:80]!r} claims nothing; write it as a search, such as token:/^ ?Paris$/."
        )


def current_label(sae: Sae, number: Feature) -> "Label | None":
    """The label that a feature has now; None where it has none, or it was withdrawn."""
    return open_book(sae).get(number)


def current_marks(sae: Sae, number: Feature) -> "Label | None":
    """What holds of a feature now, its tags and star also where it has no name; None where nothing was ever said of it."""
    return next(reversed(open_book(sae).history(number)), None)


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
    """Add labels from a .csv file with the columns feature and label, a .jsonl file as `interp labels export` writes, or
    Neuronpedia's explanations.

    All of them or none: a line that is no label of this SAE is named, and nothing is written. Columns author, note, status,
    tags, starred, method and predicate are read where they are there, and what a line does not say stays. What is the
    current label already is not added again. Of several explanations of one feature the last holds, and all are in its
    history. Files may be compressed (.gz).
    """
    book, source = _book_and_source(sae)
    return book.import_file(file, author=author, layer=source.layer, check_predicate=check_predicate)


def export_labels(
    sae: Sae,
    file: File,
    *,
    form: Annotated[
        str,
        Option(
            "What to write: labels (JSON lines), csv, or neuronpedia (the explanations of its bulk export, which have no "
            "place for notes, status, dates, tags, stars and predicates). Without: csv where the file ends so, else labels."
        ),
    ] = "",
) -> int:
    """Write the current labels as a file that `interp labels import` reads: JSON lines, CSV or Neuronpedia's explanations.

    JSON lines and CSV hold all of a label, and the SAE that it is of. How many there are comes back. Raises InterpError
    when the file cannot be written.
    """
    book, source = _book_and_source(sae)
    return book.export(file, form=form, source=source, named=True)


def merge_labels(
    sae: Sae,
    other: Annotated[
        str,
        Option(
            "The other side: a database of labels (its file, or a URL such as postgresql://…), a file of labels, or a "
            "checkpoint's folder."
        ),
    ],
    *,
    write: Annotated[bool, Option("Write it. Without: only show what would become of each label.")] = False,
    theirs: Annotated[bool, Option("Where both sides went on, let theirs hold; ours is then in the history.")] = False,
) -> "Merge":
    """Take in what another label book says of the same SAE, keep both sides, and show where they differ; shown before it is done.

    Revisions that this book has not are added to its histories. Where only they went on, what they say holds; where both
    did, that is a conflict: it is shown, ours holds unless --theirs, and theirs is the revision before it, which
    `interp labels undo` makes hold. Merged again, nothing is added.

    Raises InterpError when the other side is not there, or has no labels of this SAE.
    """
    from interp.labels.merging import merge

    book, source = _book_and_source(sae)
    return merge(book, other, write=write, prefer_theirs=theirs, layer=source.layer, check_predicate=check_predicate)


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


def autolabel(
    sae: Sae,
    *,
    features: Annotated[Sequence[int], Option("A feature to label; repeatable. Without: all that fire.")] = (),
    limit: Annotated[int | None, Option("Label the first so many of them only.", low=1)] = None,
    author: Annotated[str, Option("Who the labels are said to be by.")] = "autolabel",
    dry_run: Annotated[bool, Option("Propose and try, and show what would be written, but write nothing.")] = False,
    seed: Annotated[int, Option("Seed of the contexts that are compared, and of the nulls.", low=0)] = 0,
    device: Device = "auto",
) -> "Autolabelled":
    """Name features without a person or a language model, try each name on documents that it was not made from, and write it
    into the label book.

    A label gets a name, a predicate (`at:(…)`), a method (auto:place, auto:word, auto:mined, auto:kind, auto:subject or auto:both), and a status: confirmed
    or refuted where the trial says so, undecided where it does not, proposed where there is too little text. The note has the figures. A label
    that a person gave, changed or took back stays; one of an earlier run gets a further revision. Stopped and called
    again, it goes on where it was; called again when it is done, it only looks at the book.

    Of an index that keeps examples only, names are what predicates say, and nothing is tried. Raises InterpError when
    there is no such feature, no index, or no text of the split that is asked for.
    """
    return open_sae(sae, device).autolabel(features, limit=limit, author=author, dry_run=dry_run, seed=seed)


def explain(
    sae: Sae,
    *,
    llm: Annotated[
        str,
        Option("The language model to ask, as `llm models` lists it; interp/smollm2 runs here and needs no key."),
    ] = "",
    features: Annotated[Sequence[int], Option("A feature to name; repeatable. Without: all that fire.")] = (),
    limit: Annotated[int, Option("Name the first so many of them only.", low=1)] = 100,
    test: Annotated[
        bool,
        Option(
            "Try names that come without a rule: ask the same model, text by text, whether the name fits (some twenty questions a name)."
        ),
    ] = False,
    send_withheld: Annotated[
        bool, Option("Send text that may not be passed on, too. Without: such examples are left out.")
    ] = False,
    at_once: Annotated[int, Option("Questions that are under way together.", low=1, high=64)] = 2,
    timeout: Annotated[float, Option("Seconds without any answer after which it is given up.", low=1)] = 600.0,
    author: Annotated[str, Option("Who the labels are said to be by. Without: the model.")] = "",
    dry_run: Annotated[bool, Option("Say how much would be asked, show the first question, and ask nothing.")] = False,
    seed: Annotated[
        int, Option("Seed of which examples are shown, and of answers where the model takes one.", low=0)
    ] = 0,
    device: Device = "auto",
) -> "ModelNames":
    """Ask a language model for names of features, through the `llm` package, and write them into the label book.

    A question shows where the feature fires strongly, middlingly and weakly and, with a full index, where it is silent although it might fire;
    all from documents that no name is tried on. Every prompt and every answer is kept under INTERP_HOME/data; what was answered is not asked
    again, so that a call that was stopped goes on. An answer without a name is counted and passed over. A name that comes with a rule is
    tried as `interp autolabel` tries its own. A label that a person gave, changed or took back stays.

    Raises InterpError when the package or the model is not here, when the model does not answer, and for `test` with an index
    that keeps examples only.
    """
    return open_sae(sae, device).explain(
        llm,
        features,
        limit=limit,
        test=test,
        send_withheld=send_withheld,
        at_once=at_once,
        timeout=timeout,
        author=author,
        dry_run=dry_run,
        seed=seed,
    )


def in_words(label: "Label") -> str:
    """A label as it is shown: its name, and behind a dash what exactly it claims, where it claims something of positions."""
    from interp.grammar import Term
    from interp.search import parse
    from interp.types import InterpError

    if not label.predicate.startswith("at:("):
        return label.text
    try:
        root = parse(label.predicate).root
        if not isinstance(root, Term) or root.inner is None:
            return label.text
        from interp.predicates.claim import check_claim

        return f"{label.text} — {check_claim(root.inner).sentence}"
    except InterpError:  # of another version, or edited by hand
        return label.text


def _book_and_source(sae: str) -> "tuple[LabelBook, Source]":
    """The labels of a checkpoint, and what Neuronpedia would call it."""
    from interp.checkpoint.card import Card
    from interp.checkpoint.files import resolve
    from interp.labels.neuronpedia import Source

    return open_book(sae), Source.of(Card.read(resolve(sae)))
