"""The label book of one SAE: a table that is only ever added to, in SQLite or wherever a SQLAlchemy URL points."""

import datetime
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa

from interp import places
from interp.types import InterpError, check_feature, unknown

STATUSES = ("proposed", "confirmed", "refuted", "withdrawn")
LONGEST = 2_000

_schema = sa.MetaData()
_labels = sa.Table(
    "labels",
    _schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sae", sa.String(64), nullable=False, index=True),
    sa.Column("feature", sa.Integer, nullable=False, index=True),
    sa.Column("text", sa.String(LONGEST), nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("note", sa.String(LONGEST), nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("created", sa.String(40), nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Label:
    """One version of one feature's name."""

    feature: int
    text: str
    author: str = ""
    note: str = ""
    status: str = "proposed"
    created: str = ""
    """UTC, ISO 8601."""


class LabelBook:
    """Labels of the SAE with this hash; `shipped` are those that came with the checkpoint."""

    def __init__(self, sae_sha256: str, d_sae: int, *, url: str | None = None, shipped: Path | None = None) -> None:
        self.sae, self.d_sae = sae_sha256 or "unsaved", d_sae
        if url is None:
            path = places.data() / "labels.sqlite"
            path.parent.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{path}"
        try:
            self.engine = sa.create_engine(url)
            _schema.create_all(self.engine)
        except sa.exc.SQLAlchemyError as error:
            raise InterpError(f"the label store {url.split('@')[-1]} cannot be opened: {error}.") from error
        self._read: tuple[int | None, dict[int, Label]] | None = None
        self._shipped = {label.feature: label for label in read_jsonl(shipped)} if shipped and shipped.exists() else {}

    def set(self, feature: int, text: str, *, author: str = "", note: str = "", status: str = "proposed") -> Label:
        """Add a new version of the feature's label, and return it. An empty text withdraws the label."""
        check_feature(feature, self.d_sae, "this SAE")
        if status not in STATUSES:
            raise unknown("label status", status, STATUSES)
        if max(len(text), len(note)) > LONGEST:
            raise InterpError(f"a label or note has at most {LONGEST:,} characters; shorten it.")
        text = text.strip()
        label = Label(
            feature=int(feature),
            text=text,
            author=author.strip(),
            note=note.strip(),
            status=status if text else "withdrawn",
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        )
        with self.engine.begin() as db:
            db.execute(_labels.insert().values(sae=self.sae, **asdict(label)))
        return label

    def history(self, feature: int) -> list[Label]:
        """All versions, oldest first, the shipped one included."""
        query = (
            _labels.select().where(_labels.c.sae == self.sae, _labels.c.feature == int(feature)).order_by(_labels.c.id)
        )
        with self.engine.connect() as db:
            own = [_label(row) for row in db.execute(query)]
        return ([self._shipped[feature]] if feature in self._shipped else []) + own

    def all(self) -> dict[int, Label]:
        """The current label of every feature that has one."""
        newest = sa.select(sa.func.max(_labels.c.id)).where(_labels.c.sae == self.sae)
        with self.engine.connect() as db:
            version = db.execute(newest).scalar()  # labels are only ever added, so this names the whole book
            if self._read is None or self._read[0] != version:
                latest = newest.group_by(_labels.c.feature)
                own = {row.feature: _label(row) for row in db.execute(_labels.select().where(_labels.c.id.in_(latest)))}
                both = sorted((self._shipped | own).items())
                self._read = version, {f: label for f, label in both if label.text}
        return dict(self._read[1])

    def get(self, feature: int) -> Label | None:
        """The current label, or None when the feature has none."""
        versions = self.history(feature)
        return versions[-1] if versions and versions[-1].text else None

    def export(self, path: str | Path) -> int:
        """Write the current labels as JSON lines; how many there were comes back."""
        labels = self.all().values()
        with places.whole_file(Path(path)) as partial:
            partial.write_text(
                "".join(json.dumps(asdict(label), ensure_ascii=False) + "\n" for label in labels), encoding="utf-8"
            )
        return len(labels)


def _label(row: sa.Row) -> Label:
    return Label(
        feature=row.feature, text=row.text, author=row.author, note=row.note, status=row.status, created=row.created
    )


def read_jsonl(path: Path) -> list[Label]:
    """Labels from a file that `export` wrote; InterpError names the line that is not one."""
    labels = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            labels.append(Label(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            raise InterpError(f"{path}, line {number}: not a label ({error}).") from None
    return labels
