"""Two label books of one SAE made one: both sides are kept, and where they differ, that is shown.

Of every feature the two histories are compared, revision by revision, H ours and T theirs, each with the newest last:

1. What is said last is the same, or T's last is somewhere in H: there is nothing to take (we may have gone on from it).
2. H is empty: all of T is added.
3. Our last is somewhere in T: they went on from where we stand, and what they said since is added.
4. Else both went on, each by itself: a conflict. All of theirs that H has not is added, and then ours once more, so that
   ours holds and theirs is the revision before it, which `undo` makes hold; or ours is not added, and theirs holds.

After that, each side finds nothing to take from the other, or only what the other went on to say. A file holds the last
revisions only, so that it shows a conflict where a book would show that somebody went on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from interp.labels.book import LabelBook
from interp.labels.label import NAMES, Label, checked, now, revised, said
from interp.labels.transfer import read_file
from interp.types import InterpError

Outcome = Literal["there already", "added", "newer", "conflict"]
History = Sequence[Label]


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What becomes of what the other side says of one feature."""

    feature: int
    outcome: Outcome
    ours: Label | None
    """What holds here."""
    theirs: Label
    """What holds there."""
    holds: Label
    """What holds here afterwards."""
    why: str


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What becomes of another book's labels in ours."""

    other: str
    labels: list[Merged]
    written: int = 0
    """Revisions that were added."""


@dataclass(frozen=True)
class _Planned:
    merged: Merged
    add: list[Label]
    """Revisions to be added, in order."""


def merge(
    book: LabelBook,
    other: str,
    *,
    write: bool = False,
    prefer_theirs: bool = False,
    layer: int | None = None,
    check_predicate: Callable[[str], object] = lambda text: None,
) -> Merge:
    """What becomes of each feature of which another book (see `read_other`) says something; nothing is written unless `write`.

    All of it is written in one step, from what holds at that moment. In a conflict ours holds, or with `prefer_theirs`
    theirs; both are in the history. Raises InterpError when the other cannot be read, or the book not be written.
    """
    theirs = read_other(other, book, layer=layer, check_predicate=check_predicate)
    planned: list[_Planned] = []

    def plan(ours: Mapping[int, History]) -> list[Label]:
        planned[:] = [_plan(ours.get(feature, []), there, prefer_theirs) for feature, there in sorted(theirs.items())]
        added = [label for each in planned for label in each.add]
        return [checked(replace(label, created=label.created or now()), book.d_sae) for label in added]

    written = len(book.add_after(plan)) if plan(book.histories()) and write else 0
    return Merge(other=_shown_place(other), labels=[each.merged for each in planned], written=written)


def _plan(ours: History, theirs: History, prefer_theirs: bool) -> _Planned:
    last = theirs[-1]
    missing = [label for label in theirs if not _has(ours, label)]
    if not ours:
        return _planned("added", None, last, list(theirs), "nothing was said of it here")
    here = ours[-1]
    if said(here) == said(last):
        return _planned("there already", here, last, [], "both say the same")
    if last not in missing:
        return _planned("there already", here, last, [], "it was said here, and something else since")
    if _has(theirs, here):
        at = max(i for i, label in enumerate(theirs) if _same(label, here))
        since = [label for label in theirs[at + 1 :] if not _has(ours, label)]
        return _planned("newer", here, last, since, "they went on from what is said here")
    again = [] if prefer_theirs else [replace(here, created=now())]
    return _planned("conflict", here, last, [*missing, *again], _difference(here, last))


def _planned(outcome: Outcome, ours: Label | None, theirs: Label, add: list[Label], why: str) -> _Planned:
    holds = add[-1] if add else ours
    assert holds is not None
    merged = Merged(feature=theirs.feature, outcome=outcome, ours=ours, theirs=theirs, holds=holds, why=why)
    return _Planned(merged, add)


def _same(one: Label, other: Label) -> bool:
    """Whether two are one revision: they say the same, at the same time where both say when."""
    return said(one) == said(other) and (one.created == other.created or not (one.created and other.created))


def _has(history: History, label: Label) -> bool:
    return any(_same(each, label) for each in history)


def _difference(ours: Label, theirs: Label) -> str:
    names = [name for name in NAMES if name != "created" and getattr(ours, name) != getattr(theirs, name)]
    return "; ".join(f"{name}: {_shown(ours, name)} here, {_shown(theirs, name)} there" for name in names)


def _shown(label: Label, name: str) -> str:
    value = getattr(label, name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = " ".join(value) if isinstance(value, tuple) else value
    return repr(text if len(text) <= 60 else f"{text[:59]}…") if text else "none"


# ---- the other side ----


def read_other(
    where: str, book: LabelBook, *, layer: int | None, check_predicate: Callable[[str], object]
) -> dict[int, list[Label]]:
    """What another book says of this SAE's features, by feature, oldest first: a database's file or URL, a file of labels
    (.jsonl, .csv, Neuronpedia's), or a checkpoint's folder, whose labels.jsonl is read.

    Raises InterpError when there is nothing, or nothing of this SAE.
    """
    path = Path(where)
    if "://" in where or _is_database(path):
        other = LabelBook(book.sae, book.d_sae, url=where if "://" in where else path)
        there = other.store.saes()
        if book.sae not in there:
            of = (
                f"those in it are of {', '.join(f'{sae[:12]}…' for sae in sorted(there)[:4])}"
                if there
                else "it is empty"
            )
            raise InterpError(
                f"{other.store.place} has no labels of this SAE ({book.sae[:12]}…): {of}. `interp labels transfer` carries "
                "labels from one SAE to another."
            )
        other.shipped = book.shipped  # both began with what came with the checkpoint
        return other.histories()
    file = path / "labels.jsonl" if path.is_dir() else path
    given, _ = read_file(file, book.d_sae, sae=book.sae, layer=layer, check_predicate=check_predicate)
    here, histories = book.newest(), dict[int, list[Label]]()
    for each in given:  # what a line does not say is no difference
        label = revised(here.get(each["feature"]), {"created": ""} | each, method="import")
        histories.setdefault(label.feature, []).append(checked(label, book.d_sae))
    return histories


def _shown_place(where: str) -> str:
    """The other side without what gives its user away."""
    if "://" not in where:
        return where
    from interp.labels.store import hidden

    return hidden(where)


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False
