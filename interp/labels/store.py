"""The database that labels lie in: an SQLite file that appears whole, or wherever a SQLAlchemy URL points.

Nothing is made or opened before it is asked for. A file of SQLite's is written with a write-ahead log, so that readers
and a writer never wait for each other; writers wait for each other, BUSY_SECONDS at most, and each has the database for
itself from its first look to its last word, so that what it found still holds when it writes. A file that is damaged, empty
or another program's is never begun anew, and one that may only be read is read. A table of an earlier version is read as
it is, and gets its further columns from whoever first writes into it.
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool, StaticPool

from interp import places
from interp.labels.schema import ALL, FIRST, TABLE, columns_of, making, rows
from interp.render.terminal import say
from interp.types import InterpError

BUSY_SECONDS = 20.0
"""How long a reader or writer waits for another process before it gives up."""

MOST_NAMED = 500
"""Features that a query names; databases have a limit."""
WRITER = 0x6C6162656C73
"""What whoever writes into a PostgreSQL database holds there: an advisory lock of this number."""
_SERVER = {
    "55P03": "another process has held the labels in {place} for {seconds:.0f} s; nothing was changed. Try again when it is done.",
    "25006": "labels cannot be written to {place}: that database may only be read.",
    "42501": "labels cannot be written to {place}: its user may not do that there; ask whoever looks after the database.",
    "53100": "the disk of {place} is full, so nothing was written to it.",
}
"""Sentences for what PostgreSQL's errors mean, by SQLSTATE."""
_UNLIKE = {sqlite3.SQLITE_CORRUPT: "it is damaged", sqlite3.SQLITE_NOTADB: "it is no SQLite file"}


@dataclass(frozen=True)
class Newest:
    """The newest rows of an SAE's features."""

    version: tuple[int | None, bool]
    """The last row's number (rows are only ever added, so that it names them all), and whether all columns were there."""
    rows: list[Any]
    """The newest of each feature, or, oldest first, all that came since the version that the caller knows."""
    since: bool
    """Whether it is the latter."""


class Store:
    """Connections to one database of labels, for any number of threads; InterpError says what is wrong with it."""

    def __init__(self, where: str | Path) -> None:
        """At a SQLAlchemy URL, or in an SQLite file."""
        self.file: Path | None = None
        self._turn = threading.RLock()
        """Of a database in memory, which has one connection."""
        self._whole = False
        """Whether the table was once seen with all its columns, which it does not lose."""
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
                assert given is not None
                self._engine = _server(given)
                weakref.finalize(self, self._engine.dispose)  # connections to a server are said goodbye to
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            driver = "; `pip install 'interp[postgres]'` brings it" if "psycopg" in str(error) else ""
            raise InterpError(
                f"the label store {hidden(str(where))} cannot be opened: {_first_line(error)}{driver}."
            ) from None
        self.place = str(self.file or hidden(str(where)))

    def add(self, db: sa.Connection, given: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, in a transaction of `writing`."""
        if given:
            db.execute(TABLE.insert(), list(given))

    def newest_of(self, db: sa.Connection, sae: str, features: Sequence[int] | None = None) -> list[Any]:
        """The newest row of each of these features, or of all (of all too where these are very many)."""
        last = sa.select(sa.func.max(TABLE.c.id)).where(TABLE.c.sae == sae).group_by(TABLE.c.feature)
        if features is not None and len(features) <= MOST_NAMED:
            last = last.where(TABLE.c.feature.in_(features))
        return list(db.execute(rows(self._columns(db)).where(TABLE.c.id.in_(last))))

    def named(self, db: sa.Connection, sae: str) -> frozenset[int]:
        """Features that have, or once had, a name."""
        query = sa.select(TABLE.c.feature).where(TABLE.c.sae == sae, TABLE.c.text != "").distinct()
        return frozenset(db.execute(query).scalars())

    def versions(self, db: sa.Connection, sae: str, feature: int | None = None) -> list[Any]:
        """All rows of a feature, or of all features, oldest first."""
        query = rows(self._columns(db)).where(TABLE.c.sae == sae).order_by(TABLE.c.id)
        return list(db.execute(query if feature is None else query.where(TABLE.c.feature == feature)))

    def saes(self) -> set[str]:
        """SAEs of which something is said in this database."""
        with self.reading() as db:
            return set(db.execute(sa.select(TABLE.c.sae).distinct()).scalars()) if db is not None else set()

    def newest(self, sae: str, known: tuple[int | None, bool] | None) -> Newest | None:
        """The newest row of every feature, or what came since the known version; None when nothing was ever written."""
        with self.reading() as db:
            if db is None:
                return None
            # In this order: a row that is added meanwhile makes the version older than the rows, never newer.
            whole = self._columns(db) >= ALL
            last = db.execute(sa.select(sa.func.max(TABLE.c.id)).where(TABLE.c.sae == sae)).scalar()
            if known is None or known[1] != whole or (known[0] or 0) > (last or 0):
                return Newest((last, whole), self.newest_of(db, sae), since=False)
            if known[0] == last:
                return Newest(known, [], since=True)
            later = rows(self._columns(db)).where(TABLE.c.sae == sae, TABLE.c.id > (known[0] or 0)).order_by(TABLE.c.id)
            return Newest((last, whole), list(db.execute(later)), since=True)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection | None]:
        """A connection to read with; None when nothing was ever written."""
        if self.file is not None and not self._there(self.file):
            yield None
            return
        with self._told(), self._alone(), self._engine.connect() as db:
            present = self._columns(db)
            self._whole = present >= ALL
            yield db if present else None

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A connection in a transaction, which is kept whole when the block ends without an error.

        Nobody else writes until it ends, so that what is read in it holds when it is written. Raises InterpError when
        nothing may be written.
        """
        places.refuse_read_only("labels stay as they are")
        if self.file is not None:
            self._begin(self.file)
        with self._told(), self._alone(), self._engine.begin() as db:
            self._lock(db)
            for statement in making(self._columns(db), db.dialect):
                db.exec_driver_sql(statement)
            yield db

    def _lock(self, db: sa.Connection) -> None:
        """Begin a transaction in which nobody else writes; InterpError, by `_told`, when somebody else does for too long."""
        if db.dialect.name == "sqlite":
            db.exec_driver_sql("BEGIN IMMEDIATE")
        elif db.dialect.name == "postgresql":
            # Else numbers of rows could appear out of order, and whoever read a later one would never see an earlier one.
            db.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_SECONDS * 1000:.0f}ms'")
            db.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER})")

    def _columns(self, db: sa.Connection) -> frozenset[str]:
        """The table's columns, none where there is no table."""
        if self._whole:
            return ALL
        present = columns_of(db)
        if present and not present >= FIRST:
            raise InterpError(f"{self.place} has a table {TABLE.name} that is another program's; nothing was changed.")
        return present

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
                    for statement in making(frozenset(), self._engine.dialect):
                        db.execute(statement)
                    db.commit()
                finally:
                    db.close()

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
            if not columns >= FIRST:
                raise _unlike(file, "it has no table of labels")
            if not columns >= ALL:  # a copy of an earlier version was put here
                self._whole = False
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
        state = getattr(error, "sqlstate", None) or ""
        if state in _SERVER:
            return InterpError(_SERVER[state].format(place=self.place, seconds=BUSY_SECONDS))
        return InterpError(f"the label store {self.place} cannot be used: {_first_line(error)}.")


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


def _server(url: sa.URL) -> sa.Engine:
    """Connections to a database server; PostgreSQL's by psycopg where the URL names no driver."""
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "postgresql":
        return sa.create_engine(url)
    # A later snapshot for each statement: what is read behind the lock is what its last holder wrote.
    return sa.create_engine(url, isolation_level="READ COMMITTED", pool_pre_ping=True)


def hidden(url: str) -> str:
    """The URL without what may hold a user's name and password: what comes before an @, and what comes after a ?."""
    return url.rpartition("@")[2].partition("?")[0]
