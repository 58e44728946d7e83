"""The label book of one SAE: a table that is only ever added to, in SQLite or wherever a SQLAlchemy URL points."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import sqlalchemy as sa

from interp import places
from interp.checkpoint.card import Card
from interp.labels.store import TABLE, Store
from interp.labels.transfer import NO_FEATURE, Label, checked, now, read_file, read_jsonl, write_jsonl
from interp.types import InterpError


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
        self.store = Store(url)
        self._read: tuple[int | None, dict[int, Label]] | None = None
        there = read_jsonl(shipped, d_sae or NO_FEATURE) if shipped and shipped.exists() else []
        self._shipped = {label.feature: label for label in there}

    @staticmethod
    def of(folder: Path, *, url: str | None = None) -> "LabelBook":
        """The book of the checkpoint in a folder, of which nothing but its card and configuration is opened."""
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
        current = {feature: _said(label) for feature, label in self._newest().items()}
        fresh = [label for label in labels if current.get(label.feature, _NOTHING) != _said(label)]
        fresh = [label for label in fresh if label.text or label.feature in current]  # nothing to withdraw
        self._add([replace(label, created=label.created or now()) for label in fresh])
        return Imported(added=len(fresh), same=len(labels) - len(fresh))

    def _add(self, labels: Sequence[Label]) -> None:
        if labels:
            with self.store.writing() as db:
                db.execute(TABLE.insert(), [{"sae": self.sae, **asdict(label)} for label in labels])

    def history(self, feature: int) -> list[Label]:
        """All versions, oldest first, the shipped one included."""
        query = TABLE.select().where(TABLE.c.sae == self.sae, TABLE.c.feature == int(feature)).order_by(TABLE.c.id)
        with self.store.reading() as db:
            own = [self._label(row) for row in db.execute(query)] if db is not None else []
        return ([self._shipped[feature]] if feature in self._shipped else []) + own

    def all(self) -> dict[int, Label]:
        """The current label of every feature that has one."""
        return {feature: label for feature, label in self._newest().items() if label.text}

    def _newest(self) -> dict[int, Label]:
        """The newest version of every feature's label, those that were withdrawn included."""
        newest = sa.select(sa.func.max(TABLE.c.id)).where(TABLE.c.sae == self.sae)
        with self.store.reading() as db:
            if db is None:
                return dict(sorted(self._shipped.items()))
            version = db.execute(newest).scalar()  # labels are only ever added, so this names the whole book
            kept = self._read
            if kept is None or kept[0] != version:
                latest = newest.group_by(TABLE.c.feature)
                own = {
                    row.feature: self._label(row) for row in db.execute(TABLE.select().where(TABLE.c.id.in_(latest)))
                }
                kept = self._read = version, dict(sorted((self._shipped | own).items()))
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

    def _label(self, row: sa.Row) -> Label:
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


_NOTHING = ("", "", "", "")


def _said(label: Label) -> tuple[str, str, str, str]:
    return label.text, label.author, label.note, label.status
