"""The label book of one SAE: a table that is only ever added to, in SQLite or wherever a SQLAlchemy URL points."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import places
from interp.checkpoint.card import Card
from interp.labels.transfer import NO_FEATURE, Label, checked, now, read_file, read_jsonl, write_jsonl
from interp.types import InterpError

if TYPE_CHECKING:
    from interp.labels.store import Store


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What became of the labels in a file."""

    added: int
    same: int
    """Already the current label, word for word."""


class LabelBook:
    """Labels of the SAE with this hash; `shipped` are those that came with the checkpoint. For any number of threads.

    Raises InterpError, here and wherever it is asked, for a store or a file that is not as it was written.
    """

    def __init__(self, sae_sha256: str, d_sae: int, *, url: str | None = None, shipped: Path | None = None) -> None:
        self.sae, self.d_sae = sae_sha256 or "unsaved", d_sae
        self._store: Store | None = None
        self._file = places.data() / "labels.sqlite" if url is None else None
        if url is not None:
            self._store = _opened(url)
        self._read: tuple[int | None, dict[int, Label]] | None = None
        there = read_jsonl(shipped, d_sae or NO_FEATURE) if shipped and shipped.exists() else []
        self._shipped = {label.feature: label for label in there}

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

    def set(self, feature: int, text: str, *, author: str = "", note: str = "", status: str = "proposed") -> Label:
        """Add a new version of the feature's label, and return it. An empty text withdraws the label."""
        given = Label(feature=int(feature), text=text, author=author, note=note, status=status, created=now())
        label = checked(given, self.d_sae)
        self._add([label])
        return label

    def import_file(self, path: str | Path, *, author: str | None = None) -> Imported:
        """Add the labels in a .jsonl or .csv file (see `transfer`), all of them or, with an InterpError, none.

        `author` stands in for those that the file names. What is the current label already is not added again.
        """
        labels = read_file(Path(path), self.d_sae)
        if author is not None:
            labels = [checked(replace(label, author=author), self.d_sae) for label in labels]
        current = {feature: _said(label) for feature, label in self.newest().items()}
        fresh = [label for label in labels if current.get(label.feature, _NOTHING) != _said(label)]
        fresh = [label for label in fresh if label.text or label.feature in current]  # nothing to withdraw
        self._add([replace(label, created=label.created or now()) for label in fresh])
        return Imported(added=len(fresh), same=len(labels) - len(fresh))

    def _add(self, labels: Sequence[Label]) -> None:
        if labels:
            self.store.add([{"sae": self.sae, **asdict(label)} for label in labels])

    def add_where_none(self, labels: Sequence[Label]) -> list[int]:
        """Add labels of features that never had one, all of these or, with an InterpError, none; which they are comes back.

        Whether a feature has one is looked at in the step that writes, so that nobody's label is written over.
        """
        fresh = [label for label in labels if label.feature not in self._shipped]
        return self.store.add_where_none([{"sae": self.sae, **asdict(label)} for label in fresh]) if fresh else []

    def history(self, feature: int) -> list[Label]:
        """All versions, oldest first, the shipped one included."""
        own = [] if self._blank else [self._label(row) for row in self.store.versions(self.sae, int(feature))]
        return ([self._shipped[feature]] if feature in self._shipped else []) + own

    def all(self) -> dict[int, Label]:
        """The current label of every feature that has one."""
        return {feature: label for feature, label in self.newest().items() if label.text}

    def newest(self) -> dict[int, Label]:
        """The newest version of every feature's label, those that were withdrawn included."""
        kept = self._read
        if self._blank:
            return dict(sorted(self._shipped.items()))
        newest = self.store.newest(self.sae, None if kept is None else kept[0])
        if newest is None:
            return dict(sorted(self._shipped.items()))
        if newest.rows is not None:
            own = {row.feature: self._label(row) for row in newest.rows}
            kept = self._read = newest.version, dict(sorted((self._shipped | own).items()))
        assert kept is not None
        return dict(kept[1])

    def get(self, feature: int) -> Label | None:
        """The current label, or None when the feature has none."""
        versions = self.history(feature)
        return versions[-1] if versions and versions[-1].text else None

    def export(self, path: str | Path) -> int:
        """Write the current labels as JSON lines; how many there were comes back."""
        labels = list(self.all().values())
        write_jsonl(labels, Path(path))
        return len(labels)

    def _label(self, row: Any) -> Label:
        texts = (row.text, row.author, row.note, row.status, row.created)
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
        text, author, note, status, created = texts
        return Label(feature=number, text=text, author=author, note=note, status=status, created=created)


def _opened(where: str | Path) -> "Store":
    from interp.labels.store import Store

    return Store(where)


_NOTHING = ("", "", "", "")


def _said(label: Label) -> tuple[str, str, str, str]:
    return label.text, label.author, label.note, label.status
