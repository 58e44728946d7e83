"""Twenty processes write into one label book, an SQLite file or a PostgreSQL database, and no revision is lost.

INTERP_TEST_SECONDS=30 lets them write that long.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa

from interp.labels import Label, LabelBook
from interp.labels.store import Store
from interp.types import InterpError
from tests.writers import check_all_kept, write_for

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def test_twenty_processes_lose_no_revision_in_a_file(tmp_path):
    url = f"sqlite:///{tmp_path}/labels.sqlite"
    check_all_kept(url, write_for(tmp_path, url))


# ---- PostgreSQL ----


def binaries():
    """The folder of PostgreSQL's programs; None where it is not installed."""
    found = [path for path in (shutil.which("postgres"), *Path("/usr/lib/postgresql").glob("*/bin/postgres")) if path]
    return Path(found[0]).resolve().parent if found else None


class Server:
    """A PostgreSQL server of the test's own, which listens on a socket in its folder only."""

    def __init__(self, folder):
        self.folder, self.data = folder, folder / "data"
        # The server refuses to run as root; Debian's package makes a user for it.
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self.user:
            shutil.chown(folder, "postgres", "postgres")
        self.call("initdb", "-D", self.data, "-U", "me", "-A", "trust", "-E", "UTF8", "--locale=C")

    def call(self, program, *arguments):
        call = [binaries() / program, *arguments]
        done = subprocess.run(
            call,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            **self.user,
        )
        assert done.returncode == 0, done.stdout.decode()

    def start(self):
        listen = f"-k {self.folder} -c listen_addresses= -c max_connections=60"
        self.call("pg_ctl", "-D", self.data, "-w", "-t", "120", "-l", self.folder / "log", "-o", listen, "start")

    def stop(self):
        self.call("pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop")

    def url(self, database="postgres", user="me"):
        return f"postgresql://{user}@/{database}?host={self.folder}"


@pytest.fixture(scope="module")
def server():
    if binaries() is None:
        pytest.skip("no PostgreSQL server is installed here (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL is installed (pip install 'interp[postgres]')")
    folder = Path(tempfile.mkdtemp(prefix="interp-pg-"))
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(server, request):
    """The URL of an empty database."""
    name = f"d{abs(hash(request.node.name))}"
    with contextlib.closing(connect(server.url())) as db:
        db.execute(sa.text(f"CREATE DATABASE {name}"))
    return server.url(name)


def connect(url):
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def test_twenty_processes_lose_no_revision_in_postgresql(database, tmp_path):
    check_all_kept(database, write_for(tmp_path, database))


def test_processes_that_begin_a_database_together_make_one_table(database, tmp_path):
    counts = write_for(tmp_path, database, processes=4, seconds=0.2)
    check_all_kept(database, counts)


def test_a_book_in_postgresql_is_a_book(database, tmp_path, monkeypatch):
    book = LabelBook("sha", 10, url=database)
    assert (book.all(), book.history(3), book.store.saes()) == ({}, [], set())
    with contextlib.closing(connect(database)) as db:
        assert not sa.inspect(db).has_table("labels")  # by reading nothing is made
    book.set(
        3, "chats «noirs» <b>", author="a", tags=["x", "y"], starred=True, predicate='token:/^ ?"$/', method="llm:m"
    )
    book.set(3, "dogs")
    assert book.undo(3).text == "chats «noirs» <b>"
    proposed = Label(feature=4, text="yes", method="predicate", created="2026-01-01T00:00:00+00:00")
    assert book.add_where_none([Label(feature=3, text="no"), proposed]) == [4]
    book.revise(5, starred=True)
    assert set(book.all()) == {3, 4}
    again = LabelBook("sha", 10, url=database.replace("postgresql:", "postgresql+psycopg:"))
    assert again.histories() == book.histories()
    for bad in ("a\0b", "x" * 2_001):
        with pytest.raises(InterpError, match="of this label|at most"):
            book.set(3, bad)
    book.export(tmp_path / "out.jsonl")
    monkeypatch.setenv("INTERP_LABELS", database)
    other = LabelBook("other", 10)
    assert other.all() == {}
    assert other.import_file(tmp_path / "out.jsonl").added == 2
    assert other.all() == book.all()
    assert book.store.saes() == {"sha", "other"}


def test_a_table_of_before_is_read_and_widened(database):
    with contextlib.closing(connect(database)) as db:
        db.execute(
            sa.text(
                "CREATE TABLE labels (id SERIAL PRIMARY KEY, sae VARCHAR(64) NOT NULL, feature INTEGER NOT NULL, text "
                "VARCHAR(2000) NOT NULL, author VARCHAR(200) NOT NULL, note VARCHAR(2000) NOT NULL, status VARCHAR(20) NOT "
                "NULL, created VARCHAR(40) NOT NULL)"
            )
        )
        old = "INSERT INTO labels (sae, feature, text, author, note, status, created) VALUES ('sha', 3, '{}', '', '', 'proposed', '2026')"
        db.execute(sa.text(old.format("cats")))
        reader = LabelBook("sha", 10, url=database)
        assert reader.all() == {3: Label(feature=3, text="cats", created="2026")}
        LabelBook("sha", 10, url=database).revise(3, tags=["animal"])
        assert reader.get(3).tags == ("animal",)
        assert reader.newest()[3].tags == ("animal",)
        db.execute(sa.text(old.format("by a program of before")))
        assert (reader.get(3).text, reader.get(3).tags) == ("by a program of before", ())


def test_what_goes_wrong_in_postgresql_is_a_sentence_without_a_password(server, database, monkeypatch):
    LabelBook("sha", 10, url=database).set(3, "cats")
    with contextlib.closing(connect(database)) as db:
        db.execute(sa.text("CREATE ROLE guest LOGIN"))
        db.execute(sa.text("GRANT SELECT ON labels TO guest"))
    guest = LabelBook("sha", 10, url=database.replace("me@", "guest:secret@"))
    assert guest.get(3).text == "cats"
    with pytest.raises(InterpError, match="labels cannot be written to /d.*: its user may not do that there"):
        guest.set(3, "dogs")
    monkeypatch.setattr("interp.labels.store.BUSY_SECONDS", 0.3)
    book = LabelBook("sha", 10, url=database)
    with Store(database).writing():
        assert book.get(3).text == "cats"  # readers wait for nobody
        with pytest.raises(InterpError, match="another process has held the labels in .* nothing was changed"):
            book.set(3, "dogs")
    book.set(3, "dogs")
    gone = LabelBook("sha", 10, url=f"postgresql://me:secret@/none?host={server.folder}/nowhere")
    with pytest.raises(InterpError, match="the label store /none cannot be used") as told:
        gone.all()
    assert "secret" not in str(told.value)


def test_a_server_that_was_restarted_is_found_again(server, database):
    book = LabelBook("sha", 10, url=database)
    book.set(3, "cats")
    server.stop()
    with pytest.raises(InterpError, match="cannot be used"):
        book.set(3, "dogs")
    server.start()
    assert book.get(3).text == "cats"
    book.set(3, "dogs")
    assert [label.text for label in book.history(3)] == ["cats", "dogs"]
