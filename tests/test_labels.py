"""Labels: many writers lose nothing, no store is begun anew in place of another, files of labels are taken whole or not."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from interp import places
from interp.labels import Label, LabelBook
from interp.labels.store import BUSY_SECONDS, Store
from interp.types import InterpError
from tests.conftest import EMBEDDED, ROOT
from tests.test_cli import call

WRITER = """
import os, sys, time
from pathlib import Path
from interp.labels import LabelBook
gate, number, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
(gate / f"ready-{number}").touch()
while not (gate / "go").exists():
    time.sleep(0.002)
book = LabelBook("sha", 1000, url=f"sqlite:///{gate / 'home' / 'labels.sqlite'}")
for each in range(count):
    book.set(number, f"label {each}", author=str(number))
"""


def start(code, *arguments, **more):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.PIPE, text=True, cwd=ROOT, **more
    )


def written_at_once(gate, processes, count):
    """Let so many processes write so many labels each, all beginning together; the label book afterwards."""
    gate.mkdir(exist_ok=True)
    running = [start(WRITER, gate, number, count) for number in range(processes)]
    while len(list(gate.glob("ready-*"))) < processes:
        time.sleep(0.02)
    (gate / "go").touch()
    for process in running:
        error = process.communicate(timeout=300)[1]
        assert process.returncode == 0, error
    return LabelBook("sha", 1000, url=f"sqlite:///{gate / 'home' / 'labels.sqlite'}")


def test_processes_that_begin_a_store_together_lose_nothing(tmp_path):
    book = written_at_once(tmp_path / "gate", 8, 25)
    for number in range(8):
        assert [label.text for label in book.history(number)] == [f"label {each}" for each in range(25)]
    assert [path.name for path in (tmp_path / "gate" / "home").glob("*.partial*")] == []


@pytest.mark.slow
@pytest.mark.alone
def test_sixty_processes_lose_nothing(tmp_path):
    book = written_at_once(tmp_path / "gate", 60, 10)
    assert sum(len(book.history(number)) for number in range(60)) == 600


def test_threads_share_a_book(tmp_path):
    for url in (f"sqlite:///{tmp_path}/l.sqlite", "sqlite://"):
        book, failed = LabelBook("sha", 100, url=url), []

        def write(number, book=book, failed=failed):
            try:
                for each in range(20):
                    book.set(number, f"{each}")
                    assert book.all()[number].text == f"{each}"
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not failed
        assert [len(book.history(number)) for number in range(12)] == [20] * 12


@contextlib.contextmanager
def holder(path, kind):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"BEGIN {kind}")
    try:
        yield db
    finally:
        db.close()


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_writer_waits_for_another_and_a_reader_waits_for_nobody(tmp_path, monkeypatch, kind):
    url = f"sqlite:///{tmp_path}/l.sqlite"
    LabelBook("sha", 10, url=url).set(1, "cats")
    monkeypatch.setattr("interp.labels.store.BUSY_SECONDS", 0.3)
    book = LabelBook("sha", 10, url=url)
    with holder(tmp_path / "l.sqlite", kind):
        assert book.get(1).text == "cats"
        with pytest.raises(
            InterpError, match="another process has held the labels in .*l.sqlite for 0 s; nothing was ch"
        ):
            book.set(1, "dogs")
    monkeypatch.setattr("interp.labels.store.BUSY_SECONDS", BUSY_SECONDS)
    book = LabelBook("sha", 10, url=url)
    db = sqlite3.connect(tmp_path / "l.sqlite", isolation_level=None, check_same_thread=False)
    db.execute(f"BEGIN {kind}")
    later = threading.Timer(0.5, lambda: db.execute("COMMIT"))
    later.start()
    book.set(1, "dogs")  # as soon as the other is done
    later.join()
    db.close()
    assert [label.text for label in book.history(1)] == ["cats", "dogs"]


def test_a_store_of_an_earlier_version_opens_and_gets_a_write_ahead_log(tmp_path):
    path = tmp_path / "l.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:  # as SQLAlchemy made it
        db.executescript(
            "CREATE TABLE labels (id INTEGER NOT NULL PRIMARY KEY, sae VARCHAR(64) NOT NULL, feature INTEGER NOT NULL, "
            "text VARCHAR(2000) NOT NULL, author VARCHAR(200) NOT NULL, note VARCHAR(2000) NOT NULL, "
            "status VARCHAR(20) NOT NULL, created VARCHAR(40) NOT NULL);"
            "INSERT INTO labels VALUES (1, 'sha', 3, 'cats', '', '', 'proposed', '2026-01-01T00:00:00+00:00');"
        )
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    book = LabelBook("sha", 10, url=f"sqlite:///{path}")
    assert book.get(3).text == "cats"
    book.set(3, "dogs")
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def truncated(path):
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def foreign(path):
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE recipes (name TEXT); INSERT INTO recipes VALUES ('soup');")


def changed(statement):
    def change(path):
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.executescript(statement)

    return change


DAMAGE = {
    "emptied": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a database, whatever its name says\n" * 50),
    "zeros": lambda path: path.write_bytes(bytes(16_384)),
    "cut in half": truncated,
    "cut after its head": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "overwritten inside": lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 8192),
    "another program's": foreign,
    "without its table": changed("DROP TABLE labels"),
    "without a column": changed("ALTER TABLE labels DROP COLUMN note"),
    "of wrong kinds": changed("UPDATE labels SET feature = 'three'"),
    "out of range": changed("UPDATE labels SET feature = 99"),
    "a blob": changed("UPDATE labels SET text = x'ff00'"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_store_that_is_damaged_or_foreign_is_named_and_left_as_it_is(tmp_path, how):
    path = tmp_path / "labels.sqlite"
    book = LabelBook("sha", 10, url=f"sqlite:///{path}")
    book.set(3, "cats")
    book.store._engine.dispose()
    DAMAGE[how](path)
    before = path.read_bytes() if path.is_file() else b""
    row = how in ("of wrong kinds", "out of range", "a blob")  # found by whoever reads it
    for ask in (lambda b: b.all(), lambda b: b.history(3), lambda b: b.set(4, "dogs"))[: 1 if row else 3]:
        with pytest.raises(InterpError, match="labels.sqlite") as told:
            ask(LabelBook("sha", 10, url=f"sqlite:///{path}"))
        assert "sqlite3." not in str(told.value)
        assert "SQL" not in str(told.value).replace("SQLite", "")
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_log_without_its_file_is_not_begun_over(tmp_path):
    (tmp_path / "l.sqlite-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(100))
    with pytest.raises(InterpError, match="l.sqlite is gone and its write-ahead log l.sqlite-wal is still there"):
        LabelBook("sha", 10, url=f"sqlite:///{tmp_path}/l.sqlite").set(1, "x")


def test_a_store_in_a_place_nobody_can_write_is_read_and_says_why_it_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "l.sqlite"
    made = LabelBook("sha", 10, url=f"sqlite:///{path}")
    made.set(3, "cats")
    made.store._engine.dispose()
    real = os.access
    monkeypatch.setattr("os.access", lambda file, mode: mode != os.W_OK and real(file, mode))  # root may write anywhere
    book = LabelBook("sha", 10, url=f"sqlite:///{path}")
    assert book.get(3).text == "cats"
    with pytest.raises(InterpError, match="labels cannot be written to .*l.sqlite"):
        book.set(3, "dogs")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "labels.sqlite") == ["l.sqlite"]


def test_where_there_can_be_no_folder_labels_are_empty_and_writing_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    book = LabelBook("sha", 10, url=f"sqlite:///{tmp_path}/file/data/l.sqlite")
    assert book.all() == {}
    assert book.history(1) == []
    with pytest.raises(InterpError, match="cannot write in .*file/data"):
        book.set(1, "x")


def test_a_url_that_is_none_is_a_sentence():
    for url in ("nonsense", "postgresql+nodriver://me:secret@host/db"):
        with pytest.raises(InterpError, match="cannot be opened") as told:
            Store(url)
        assert "secret" not in str(told.value)


# ---- files of labels ----


def book_in(tmp_path):
    return LabelBook("sha", 10, url=f"sqlite:///{tmp_path}/l.sqlite")


def test_labels_come_back_as_they_were_exported_with_their_authors_and_dates(tmp_path):
    book = book_in(tmp_path)
    book.set(3, "chats «noirs»", author="a", note="seen", status="confirmed")
    book.set(4, "line\u2028separator")
    book.set(5, "gone")
    book.set(5, "")
    assert book.export(tmp_path / "labels.jsonl") == 2
    other = LabelBook("other", 10, url=f"sqlite:///{tmp_path}/l.sqlite")
    assert other.import_file(tmp_path / "labels.jsonl").added == 2
    assert other.all() == book.all()
    again = other.import_file(tmp_path / "labels.jsonl")
    assert (again.added, again.same) == (0, 2)
    assert len(other.history(3)) == 1
    other.set(3, "dogs")
    assert other.import_file(tmp_path / "labels.jsonl", author="b").added == 2  # another author's word is a version
    assert [(label.text, label.author) for label in other.history(3)] == [
        ("chats «noirs»", "a"), ("dogs", ""), ("chats «noirs»", "b"),
    ]  # fmt: skip


def test_a_table_of_labels_is_taken_in_whatever_program_wrote_it(tmp_path):
    path = tmp_path / "names.csv"
    path.write_text('feature,label,density\r\n3,"cats, and dogs",0.1\r\n4,\'=sum,0.2\r\n', encoding="utf-8-sig")
    book = book_in(tmp_path)
    assert book.import_file(path, author="me").added == 2
    assert {f: (label.text, label.author) for f, label in book.all().items()} == {
        3: ("cats, and dogs", "me"),
        4: ("=sum", "me"),
    }
    path.write_text("feature,text,status\n3,,withdrawn\n9,,withdrawn\n")
    assert book.import_file(path).added == 1  # nothing to take away from feature 9
    assert set(book.all()) == {4}
    assert [label.status for label in book.history(3)] == ["proposed", "withdrawn"]
    path.write_text("feature,label,automatic\n1,fires on ‘x’,True\n2,birds,False\n")
    assert book.import_file(path).added == 1  # descriptions that the program made are nobody's labels
    assert book.get(1) is None


BAD = {
    "an unknown feature": ("a.csv", "feature,label\n1,a\n10,b\n", "line 3: no feature 10"),
    "no number": ("a.csv", "feature,label\n1,a\nx,b\n", "line 3: 'x' is no feature's number"),
    "a float": ("a.csv", "feature,label\n1.0,a\n", "line 2: '1.0' is no feature's number"),
    "twice": ("a.csv", "feature,label\n1,a\n1,b\n", "line 3: feature 1 has a label in line 2 already"),
    "no columns": ("a.csv", "1,a\n", "give it the columns feature and label"),
    "semicolons": ("a.csv", "feature;label\n1;a\n", "with commas"),
    "a cell too many": ("a.csv", "feature,label\n1,a,b\n", "line 2: it has not as many cells"),
    "a cell too few": ("a.csv", "feature,label\n1\n", "line 2: it has not as many cells"),
    "an open quote": ("a.csv", 'feature,label\n1,"a\n', "not readable as CSV"),
    "an empty label": ("a.csv", "feature,label\n1,\n", "line 2: the label is empty"),
    "an unknown status": ("a.csv", "feature,label,status\n1,a,sure\n", "line 2: no label status 'sure'"),
    "no date": ("a.csv", "feature,label,created\n1,a,yesterday\n", "line 2: created is 'yesterday'"),
    "an empty file": ("a.csv", "", "has the columns none"),
    "Latin-1": ("a.csv", b"feature,label\n1,caf\xe9\n", "line 2: not UTF-8"),
    "no JSON": ("a.jsonl", '{"feature": 1, "text": "a"}\n{"feature"', "line 2: not a label"),
    "no object": ("a.jsonl", "[1]\n", "line 1: not a label"),
    "no text": ("a.jsonl", '{"feature": 1}\n', "line 1: not a label \\(it has no text"),
    "a wrong kind": ("a.jsonl", '{"feature": "1", "text": "a"}\n', "line 1: not a label \\(feature is '1'"),
    "a boolean": ("a.jsonl", '{"feature": true, "text": "a"}\n', "line 1: not a label \\(feature is 'True'"),
    "null": ("a.jsonl", '{"feature": 1, "text": null}\n', "line 1: not a label \\(text is 'None'"),
    "another field": ("a.jsonl", '{"feature": 1, "text": "a", "txt": "b"}\n', "line 1: no field of a label 'txt'"),
    "half a character": ("a.jsonl", '{"feature": 1, "text": "\\ud800"}\n', "line 1: the text of this label is not text"),
    "too long": ("a.jsonl", json.dumps({"feature": 1, "text": "x" * 3000}), "line 1: a label or note has at most 2,000"),
    "deep": ("a.jsonl", "[" * 100_000, "line 1: not a label"),
    "an empty text": ("a.jsonl", '{"feature": 1, "text": " "}\n', "line 1: the label is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_line_that_is_no_label_is_named_and_nothing_is_written(tmp_path, case):
    name, content, message = BAD[case]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    book = book_in(tmp_path)
    with pytest.raises(InterpError, match=message):
        book.import_file(tmp_path / name)
    assert not (tmp_path / "l.sqlite").exists()


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(InterpError, match="there is no file .*none.csv"):
        book_in(tmp_path).import_file(tmp_path / "none.csv")


def test_labels_go_in_and_out_by_the_command_line(monkeypatch, capsys, checkpoint, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    (tmp_path / "names.csv").write_text("feature,label\n1,cats\n2,dogs\n")
    code, out, _ = call(monkeypatch, capsys, "labels", "import", checkpoint, tmp_path / "names.csv", "--author", "me")
    assert (code, out.split(" from ")[0]) == (0, "2 labels added")
    code, out, _ = call(monkeypatch, capsys, "labels", "export", checkpoint, tmp_path / "out.jsonl")
    assert code == 0
    assert [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ["cats", "dogs"]
    (tmp_path / "names.csv").write_text("feature,label\n3,mice\n64,birds\n")
    code, _, err = call(monkeypatch, capsys, "labels", "import", checkpoint, tmp_path / "names.csv")
    assert code == 2
    assert "line 3: no feature 64 in this SAE, which has features 0 to 63" in err
    assert set(LabelBook.of(checkpoint).all()) == {1, 2}
    for words in (("labels", "import", "--help"), ("labels", "export", "--help")):
        code, out, _ = call(monkeypatch, capsys, *words)
        assert code == 0
        assert "Example:" in out


def test_one_label_takes_a_moment_and_little_memory(tmp_path):
    """Less of the processor than twenty million additions by the same process, for how fast a machine is changes by the hour."""
    code = (
        "import re, sys, time; from interp import cli; sys.argv = ['interp', 'label', sys.argv[1], '1', 'x']\n"
        "try:\n    cli.main()\nfinally:\n"
        "    peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
        "    took, total = time.process_time(), 0\n"
        "    for i in range(20_000_000): total += i\n"
        "    print(took / (time.process_time() - took), peak, 'torch' in sys.modules, file=sys.stderr)"
    )
    shares = []
    for home in ("a", "b", "c"):
        more = os.environ | {"INTERP_HOME": str(tmp_path / home)}
        call = [sys.executable, "-c", code, str(ROOT / EMBEDDED)]
        share, mib, torch = subprocess.run(call, env=more, capture_output=True, text=True, check=True).stderr.split()
        assert torch == "False"
        assert float(mib) < 200
        shares.append(float(share))
    assert min(shares) < 1


def test_shipped_labels_are_of_this_sae(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({"feature": 10, "text": "x"}) + "\n")
    with pytest.raises(InterpError, match=r"labels.jsonl, line 1: no feature 10 in this SAE"):
        LabelBook("sha", 10, url="sqlite://", shipped=path)
    path.write_text("\n" + json.dumps({"feature": 1, "text": "x"}) + "\n")
    book = LabelBook("sha", 10, url="sqlite://", shipped=path)
    assert book.all() == {1: Label(feature=1, text="x")}
    book.set(1, "")
    assert book.all() == {}


def test_nothing_is_made_by_reading(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    assert LabelBook("sha", 10).all() == {}
    assert not places.data().exists()
