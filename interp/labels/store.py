"""The database that labels lie in: an SQLite file that appears whole, or wherever a SQLAlchemy URL points.

Nothing is made or opened before it is asked for. A file of SQLite's is written with a write-ahead log, so that readers
and a writer never wait for each other; writers wait for each other, BUSY_SECONDS at most. A file that is damaged, empty
or another program's is never begun anew, and one that may only be read is read.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool, StaticPool

from interp import places
from interp.labels.transfer import LONGEST, LONGEST_NAME
from interp.render.terminal import say
from interp.types import InterpError

BUSY_SECONDS = 20.0
"""How long a reader or writer waits for another process before it gives up."""

_schema = sa.MetaData()
TABLE = sa.Table(
    "labels",
    _schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sae", sa.String(64), nullable=False, index=True),
    sa.Column("feature", sa.Integer, nullable=False, index=True),
    sa.Column("text", sa.String(LONGEST), nullable=False),
    sa.Column("author", sa.String(LONGEST_NAME), nullable=False),
    sa.Column("note", sa.String(LONGEST), nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("created", sa.String(40), nullable=False),
)
_UNLIKE = {sqlite3.SQLITE_CORRUPT: "it is damaged", sqlite3.SQLITE_NOTADB: "it is no SQLite file"}


@dataclass(frozen=True)
class Newest:
    """The newest rows of an SAE's features."""

    version: int | None
    """The last row's number; rows are only ever added, so that it names them all."""
    rows: list[Any] | None
    """None when the version is the one that the caller knows."""


class Store:
    """Connections to one database of labels, for any number of threads; InterpError says what is wrong with it."""

    def __init__(self, where: str | Path) -> None:
        """At a SQLAlchemy URL, or in an SQLite file."""
        self.file: Path | None = None
        self._turn = threading.RLock()
        """Of a database in memory, which has one connection, and of whoever makes the tables."""
        self._made = False
        try:
            given = sa.make_url(where) if isinstance(where, str) else None
            if given is None:
                self.file = Path(where)
            elif given.get_backend_name() == "sqlite" and given.database not in (None, "", ":memory:"):
                self.file = Path(str(given.database))
            if self.file is not None:
                self._engine = sa.create_engine(
                    "sqlite://", creator=self._connect, poolclass=QueuePool, max_overflow=-1
                )
            elif given is not None and given.get_backend_name() == "sqlite":
                lone = {"check_same_thread": False}
                self._engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args=lone)
            else:
                self._engine = sa.create_engine(str(where))
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            raise InterpError(
                f"the label store {_hidden(str(where))} cannot be opened: {_first_line(error)}."
            ) from None
        self.place = str(self.file or _hidden(str(where)))

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add the rows, all of them or none."""
        with self.writing() as db:
            db.execute(TABLE.insert(), rows)

    def add_where_none(self, rows: list[dict[str, Any]]) -> list[int]:
        """Add rows of features that have none of that SAE's yet, all of these or none; the features come back."""
        names = [column.name for column in TABLE.columns if column.name != "id"]
        added = []
        with self.writing() as db:
            for row in rows:
                there = sa.exists().where(TABLE.c.sae == row["sae"], TABLE.c.feature == row["feature"])
                given = sa.select(*(sa.literal(row[name], TABLE.c[name].type) for name in names)).where(~there)
                if db.execute(TABLE.insert().from_select(names, given)).rowcount:
                    added.append(int(row["feature"]))
        return added

    def versions(self, sae: str, feature: int) -> list[Any]:
        """All rows of a feature, oldest first."""
        query = TABLE.select().where(TABLE.c.sae == sae, TABLE.c.feature == feature).order_by(TABLE.c.id)
        with self.reading() as db:
            return list(db.execute(query)) if db is not None else []

    def newest(self, sae: str, known: int | None) -> Newest | None:
        """The newest row of every feature, unless their version is the known one; None when nothing was ever written."""
        newest = sa.select(sa.func.max(TABLE.c.id)).where(TABLE.c.sae == sae)
        with self.reading() as db:
            if db is None:
                return None
            version = db.execute(newest).scalar()
            if version is not None and version == known:
                return Newest(version, None)
            latest = newest.group_by(TABLE.c.feature)
            return Newest(version, list(db.execute(TABLE.select().where(TABLE.c.id.in_(latest)))))

    @contextmanager
    def reading(self) -> Iterator[sa.Connection | None]:
        """A connection to read with; None when nothing was ever written."""
        if self.file is not None and not self._there(self.file):
            yield None
            return
        with self._told(), self._alone():
            self._make()
            with self._engine.connect() as db:
                yield db

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A connection in a transaction, which is kept whole when the block ends without an error."""
        if self.file is not None:
            self._begin(self.file)
        with self._told(), self._alone():
            self._make()
            with self._engine.begin() as db:
                yield db

    @staticmethod
    def _there(file: Path) -> bool:
        try:
            return os.stat(file) is not None
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            say(f"labels are left out: {places.disk_error(file, error)}")
            return False

    def _begin(self, file: Path) -> None:
        """Make the file, with its table, when there is none; it appears whole."""
        try:
            if file.exists():
                return
            places.check_writable(file.parent)
        except OSError as error:
            raise places.disk_error(file, error) from None
        with places.only_one(file.parent, "a label", wait=BUSY_SECONDS):
            if file.exists():
                return
            log = file.with_name(f"{file.name}-wal")
            if log.exists() and log.stat().st_size:
                raise InterpError(
                    f"{file} is gone and its write-ahead log {log.name} is still there; put the file back beside it, "
                    "or move the log away to begin anew."
                )
            with self._told(), places.whole_file(file) as partial:
                db = sqlite3.connect(partial)
                try:
                    db.execute("PRAGMA journal_mode=WAL")
                    for statement in _statements():
                        db.execute(str(statement.compile(dialect=self._engine.dialect)))
                    db.commit()
                finally:
                    db.close()

    def _make(self) -> None:
        """Make the table of a database that is no file of our own, once."""
        if self.file is None and not self._made:
            with self._turn:
                if not self._made:
                    with self._engine.begin() as db:
                        for statement in _statements():
                            db.execute(statement)
                    self._made = True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if isinstance(self._engine.pool, StaticPool):
            with self._turn:
                yield
        else:
            yield

    def _connect(self) -> sqlite3.Connection:
        """A connection to the file, which is looked at first: nothing is ever begun anew in its place."""
        assert self.file is not None
        file = self.file.absolute()
        if not file.stat().st_size:
            raise _unlike(file, "it is empty")
        mode = "mode=rw"
        if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
            log = file.with_name(f"{file.name}-wal")
            # Where nobody can write, a file without a log cannot change either; SQLite would want to make one.
            mode = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
        uri = f"{file.as_uri()}?{mode}"
        db = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)
        try:
            columns = {row[1] for row in db.execute("PRAGMA table_info(labels)")}
            if not columns >= {column.name for column in TABLE.columns}:
                raise _unlike(file, "it has no table of labels")
            if mode == "mode=rw" and db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                _log_ahead(db)
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong inside, in a sentence."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise self._sentence(error.orig or error) from None
        except (sqlite3.Error, sa.exc.SQLAlchemyError) as error:
            raise self._sentence(error) from None
        except OSError as error:
            raise places.disk_error(Path(self.place), error) from None

    def _sentence(self, error: BaseException) -> InterpError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _UNLIKE and self.file is not None:
            return _unlike(self.file, _UNLIKE[code])
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return InterpError(
                f"another process has held the labels in {self.place} for {BUSY_SECONDS:.0f} s; nothing was changed. "
                "End that process, or try again when it is done."
            )
        if code == sqlite3.SQLITE_FULL:
            return InterpError(f"the disk is full, so nothing was written to {self.place}; free some room.")
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
            return InterpError(
                f"labels cannot be written to {self.place}: the file or its folder is not writable, or out of room; "
                "set INTERP_HOME to a folder of your own."
            )
        return InterpError(f"the label store {self.place} cannot be used: {_first_line(error)}.")


def _statements() -> list[sa.schema.ExecutableDDLElement]:
    """What makes the table and its indexes where they are not there."""
    return [
        sa.schema.CreateTable(TABLE, if_not_exists=True),
        *(
            sa.schema.CreateIndex(index, if_not_exists=True)
            for index in sorted(TABLE.indexes, key=lambda i: str(i.name))
        ),
    ]


def _log_ahead(db: sqlite3.Connection) -> None:
    """Switch a file of an earlier version to a write-ahead log; not now when somebody else is at work in it."""
    db.execute("PRAGMA busy_timeout=0")
    try:
        db.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError:
        pass
    finally:
        db.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000:.0f}")


def _unlike(file: Path, why: str) -> InterpError:
    return InterpError(
        f"{file} is not a label store as this program writes them: {why}. Nothing was changed. Put a good copy in its "
        "place, or move it away and labels begin anew."
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _hidden(url: str) -> str:
    """The URL without what comes before an @: a user's name and password."""
    return url.rpartition("@")[2]
