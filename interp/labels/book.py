"""The label book of one SAE: a table that is only ever added to, in SQLite or wherever a SQLAlchemy URL points."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import places
from interp.checkpoint.card import Card
from interp.labels.label import Held, Label, checked, now, revised, said, split_tags
from interp.labels.neuronpedia import Source, explanation_line
from interp.labels.transfer import (
    NO_FEATURE,
    Given,
    read_file,
    read_jsonl,
    write_csv,
    write_jsonl,
)
from interp.types import InterpError, check_feature, unknown

if TYPE_CHECKING:
    import sqlalchemy as sa

    from interp.labels.store import Store

ELSEWHERE = "INTERP_LABELS"
"""The environment variable whose URL moves all labels of a user, to a database that several share."""
FORMS = ("labels", "csv", "neuronpedia")
"""Kinds of files that labels are written as."""
UNSAVED = "unsaved"
"""Stands for the SHA-256 of weights that were never written."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What became of the labels in a file."""

    added: int
    same: int
    """Already the current label, word for word."""


class LabelBook:
    """Labels of the SAE with this hash; `shipped` are those that came with the checkpoint. For any number of threads.

    They lie under INTERP_HOME, or where `url` (else the environment variable INTERP_LABELS) points.
    Raises InterpError, here and wherever it is asked, for a store or a file that is not as it was written.
    """

    def __init__(
        self, sae_sha256: str, d_sae: int, *, url: str | Path | None = None, shipped: Path | None = None
    ) -> None:
        self.sae, self.d_sae = sae_sha256 or UNSAVED, d_sae
        self._store: Store | None = None
        url = url or os.environ.get(ELSEWHERE) or None
        self._file = places.data() / "labels.sqlite" if url is None else None
        if url is not None:
            self._store = _opened(url)
        self._kept: Held | None = None
        there = read_jsonl(shipped, d_sae or NO_FEATURE, sae=sae_sha256) if shipped and shipped.exists() else []
        self.shipped = {label.feature: label for label in there}
        """What came with the checkpoint, by feature: the first version of each."""

    @property
    def store(self) -> "Store":
        """The database; opened when there is something in it to read, or to write."""
        if self._store is None:
            assert self._file is not None
            self._store = _opened(self._file)
        return self._store

    @property
    def _blank(self) -> bool:
        """Whether nothing was ever written, so that no database need be opened: SQLAlchemy takes a fifth of a second."""
        if self._file is None:
            return False
        try:
            os.stat(self._file)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # the store says what is wrong
            pass
        return False

    @staticmethod
    def of(folder: Path, *, url: str | None = None) -> "LabelBook":
        """The book of the checkpoint in a folder, of which nothing but its card and configuration is opened.

        Raises InterpError when these cannot be read.
        """
        card, cfg = Card.read(folder), places.read_json(folder / "cfg.json")
        d_sae = cfg.get("d_sae") if isinstance(cfg, dict) else None
        if not isinstance(d_sae, int) or d_sae < 1:
            raise InterpError(f"{folder}/cfg.json does not say how many features there are (d_sae is {d_sae!r}).")
        return LabelBook(card.sae_sha256, d_sae, url=url, shipped=folder / "labels.jsonl")

    # ---- what is said of one feature ----

    def set(
        self,
        feature: int,
        text: str,
        *,
        author: str = "",
        note: str = "",
        status: str = "proposed",
        tags: Sequence[str] | None = None,
        starred: bool | None = None,
        method: str | None = None,
        predicate: str | None = None,
    ) -> Label:
        """Name the feature, and return its label. An empty text withdraws the name.

        Tags and star that are not given stay; method and predicate stay when the text does, else the method is `person`.
        """
        of_name = {"author": author, "note": note, "status": status, "method": method, "predicate": predicate}
        return self._say(feature, text=text, tags=tags, starred=starred, **of_name)

    def revise(
        self,
        feature: int,
        *,
        author: str | None = None,
        note: str | None = None,
        status: str | None = None,
        tags: Sequence[str] | None = None,
        starred: bool | None = None,
        method: str | None = None,
        predicate: str | None = None,
    ) -> Label:
        """Change what is given and leave the rest, the name too; what holds then comes back.

        Tags and a star a feature may have without a name. Raises InterpError for the rest where there is none.
        """
        of_name = {"author": author, "note": note, "status": status, "method": method, "predicate": predicate}
        return self._say(feature, tags=tags, starred=starred, **of_name)

    def _say(self, feature: int, **given: Any) -> Label:
        feature = check_feature(int(feature), self.d_sae, "this SAE")
        told: Given = {name: value for name, value in given.items() if value is not None}
        if "tags" in told:
            told["tags"] = tuple(told["tags"])

        def say(newest: Mapping[int, Label]) -> list[Label]:
            before = newest.get(feature)
            label = checked(revised(before, {"feature": feature, **told}), self.d_sae)
            if "text" in told:
                return [label]
            if not (label.text or told.keys() <= {"tags", "starred"}):
                raise InterpError(f"feature {feature} has no label, of which {', '.join(told)} could be said; name it.")
            return [] if before is not None and said(before) == said(label) else [label]

        written = self._write(say, [feature])
        return written[0] if written else self.history(feature)[-1]

    def undo(self, feature: int) -> Label:
        """Let hold again what held before the feature's newest revision; that comes back.

        It is one step, and a revision like any other: undone again, what was undone holds again. What came with the
        checkpoint is not undone. Raises InterpError when nothing else was said of the feature.
        """
        feature = check_feature(int(feature), self.d_sae, "this SAE")
        with self.store.writing() as db:
            own = [self._label(row) for row in self.store.versions(db, self.sae, feature)]
            if not own:
                raise InterpError(f"nothing was said of feature {feature} here, so there is nothing to undo.")
            nothing = Label(feature=feature, text="", status="withdrawn")
            before = [self.shipped.get(feature, nothing), *own][-2]
            label = replace(before, created=now())
            self.store.add(db, [self._row(label)])
        return label

    def history(self, feature: int) -> list[Label]:
        """All versions, oldest first, the shipped one included."""
        own: list[Label] = []
        if not self._blank:
            with self.store.reading() as db:
                own = [self._label(row) for row in self.store.versions(db, self.sae, int(feature))] if db else []
        return ([self.shipped[feature]] if feature in self.shipped else []) + own

    def get(self, feature: int) -> Label | None:
        """The current label, or None when the feature has none."""
        versions = self.history(feature)
        return versions[-1] if versions and versions[-1].text else None

    # ---- what is said of many ----

    def all(self) -> Mapping[int, Label]:
        """The current label of every feature that has one; the same mapping until something else is said."""
        return self._now().named

    @property
    def version(self) -> str:
        """A text that changes whenever something is said of a feature, by whichever process."""
        return str(self._now().version)

    def newest(self) -> Mapping[int, Label]:
        """The newest version of every feature's label: those that were withdrawn included, and what has tags or a star only.

        It is the same mapping until something else is said.
        """
        return self._now().newest

    def _now(self) -> Held:
        """What holds now; of a database that was read before, only what was added since is read."""
        kept = self._kept
        found = None if self._blank else self.store.newest(self.sae, kept.version if kept else None)
        if found is None:
            if kept is None or kept.version is not None:
                kept = self._kept = Held.of(None, self.shipped)
        elif kept is None or found.rows or not found.since:
            before = kept.newest if kept is not None and found.since else self.shipped
            own = {row.feature: self._label(row) for row in found.rows}
            kept = self._kept = Held.of(found.version, {**before, **own})
        return kept

    def taken(self) -> Mapping[int, Label]:
        """The newest version of every feature that has, or once had, a name."""
        if self._blank:
            return self.newest()
        with self.store.reading() as db:
            named = self._named(db)
        return {feature: label for feature, label in self.newest().items() if feature in named}

    def _named(self, db: "sa.Connection | None") -> frozenset[int]:
        shipped = frozenset(feature for feature, label in self.shipped.items() if label.text)
        return shipped if db is None else shipped | self.store.named(db, self.sae)

    def add_where_none(self, labels: Sequence[Label]) -> list[int]:
        """Add labels of features that never had a name, all of these or, with an InterpError, none; which they are comes back.

        Whether a feature has one is looked at in the step that writes, so that nobody's label is written over. Tags and a
        star that the feature has already stay.
        """
        added: list[int] = []
        if all(label.feature in self.shipped for label in labels):
            return added
        with self.store.writing() as db:
            taken, newest = {*self._named(db)}, self._newest_of(db, [label.feature for label in labels])
            for label in labels:
                if label.feature not in taken:
                    before = newest.get(label.feature, label)
                    self.store.add(db, [self._row(replace(label, tags=before.tags, starred=before.starred))])
                    taken.add(label.feature)
                    added.append(label.feature)
        return added

    def histories(self) -> dict[int, list[Label]]:
        """All versions of every feature of which something was said, oldest first."""
        if self._blank:
            return {feature: [label] for feature, label in self.shipped.items()}
        with self.store.reading() as db:
            return self._histories(db)

    def add_after(self, say: Callable[[Mapping[int, list[Label]]], list[Label]]) -> list[Label]:
        """Add what follows from all histories, between which and it nobody writes; it comes back."""
        with self.store.writing() as db:
            labels = say(self._histories(db))
            self.store.add(db, [self._row(label) for label in labels])
        return labels

    # ---- in and out of files ----

    def import_file(
        self,
        path: str | Path,
        *,
        author: str | None = None,
        layer: int | None = None,
        check_predicate: Callable[[str], object] = lambda text: None,
    ) -> Imported:
        """Add the labels in a file (see `transfer.read_file`), all of them or, with an InterpError, none.

        `author` stands in for those that the file names. What is the current label already is not added again, and what a
        line does not say stays. Of Neuronpedia's explanations, of which a feature may have several, those that are
        anywhere in its history are not added again, and the last of the file holds. `check_predicate` raises InterpError
        for a predicate that cannot be read.
        """
        given, once = read_file(Path(path), self.d_sae, sae=self.sae, layer=layer, check_predicate=check_predicate)
        given = [each if author is None else each | {"author": author} for each in given]

        def fresh(histories: Mapping[int, list[Label]]) -> list[Label]:
            newest = {feature: versions[-1] for feature, versions in histories.items()}
            added = []
            for each in given:
                feature = each["feature"]
                label = checked(revised(newest.get(feature), each, method="import"), self.d_sae)
                before = [_name(version) for version in histories.get(feature, [])] if once else []
                if _name(label) not in before and not _holds(label, newest.get(feature)):
                    newest[feature] = label
                    added.append(label)
            return added

        added = self.add_after(fresh) if fresh(self.histories()) else []  # a file that says nothing new opens none
        return Imported(added=len(added), same=len(given) - len(added))

    def export(self, path: str | Path, *, form: str = "", source: Source | None = None, named: bool = False) -> int:
        """Write the current labels; how many there were comes back.

        `form` is labels (JSON lines), csv or neuronpedia, which needs a `source`; without, the file's ending tells.
        `named` says in every line which SAE it is of. Raises InterpError for another form.
        """
        path, labels = Path(path), list(self.all().values())
        form = form or ("csv" if path.suffix.lower() == ".csv" else "labels")
        sae = self.sae if named and self.sae != UNSAVED else ""
        if form == "neuronpedia" and source is not None:
            with places.whole_file(path) as partial:
                lines = [explanation_line(label, source) + "\n" for label in labels]
                partial.write_text("".join(lines), encoding="utf-8")
        elif form in ("labels", "csv"):
            (write_csv if form == "csv" else write_jsonl)(labels, path, sae=sae)
        else:
            raise unknown("form of a file of labels", form, FORMS)
        return len(labels)

    # ---- the store ----

    def _write(
        self, say: Callable[[Mapping[int, Label]], list[Label]], features: Sequence[int] | None
    ) -> "list[Label]":
        """Add what follows from the newest revisions of these features (or of all), between which and it nobody writes."""
        with self.store.writing() as db:
            labels = say(self._newest_of(db, features))
            self.store.add(db, [self._row(label) for label in labels])
        return labels

    def _newest_of(self, db: "sa.Connection", features: Sequence[int] | None) -> dict[int, Label]:
        rows = self.store.newest_of(db, self.sae, features)
        return self.shipped | {row.feature: self._label(row) for row in rows}

    def _histories(self, db: "sa.Connection | None") -> dict[int, list[Label]]:
        found = {feature: [label] for feature, label in self.shipped.items()}
        for row in self.store.versions(db, self.sae) if db is not None else []:
            found.setdefault(row.feature, []).append(self._label(row))
        return found

    def _row(self, label: Label) -> dict[str, Any]:
        return {"sae": self.sae, **asdict(label), "tags": " ".join(label.tags)}

    def _label(self, row: Any) -> Label:
        texts = (row.text, row.author, row.note, row.status, row.created, row.tags, row.method, row.predicate)
        number = row.feature
        if (
            not isinstance(number, int)
            or not 0 <= number < (self.d_sae or NO_FEATURE)
            or not all(isinstance(text, str) for text in texts)
        ):
            raise InterpError(
                f"{self.store.place} holds a label that is none (row {row.id}, feature {str(number)[:40]!r}); it was "
                "changed by another program. Put a good copy in its place, or delete that row."
            )
        text, author, note, status, created, tags, method, predicate = texts
        return Label(
            feature=number,
            text=text,
            author=author,
            note=note,
            status=status,
            created=created,
            tags=split_tags(tags),
            starred=bool(row.starred),
            method=method,
            predicate=predicate,
        )


def _opened(where: str | Path) -> "Store":
    from interp.labels.store import Store

    return Store(where)


def _name(label: Label) -> tuple[str, str, str]:
    return label.text, label.author, label.method


def _holds(label: Label, before: Label | None) -> bool:
    """Whether a feature of which `before` was said last needs no further revision to say this."""
    if before is None:
        return not label.text and not label.tags and not label.starred  # there is nothing to withdraw
    return said(label) == said(before)
