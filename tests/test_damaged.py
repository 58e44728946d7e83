"""Damaged and foreign files: each is read after all, or answered with one sentence of our own; never a traceback.

What is damaged is described anew (its hashes, and the hash of the description), so that it is read and not only refused
for its hash.
"""

import contextlib
import itertools
import json
import shutil
import sqlite3
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp import cli, places
from interp.activations import ActivationStore
from interp.index.format import own_sha256
from interp.labels import LabelBook
from interp.search.meanings import Meanings, write_meanings
from interp.types import InterpError
from interp.workbench import Workbench
from tests.conftest import HOOK
from tests.test_labels import DAMAGE

ODD = [None, True, -1, 2**63, 0.5, float("nan"), "", "../x", [], [1], {}, {"a": 1}]
FOREIGN_WORDS = (
    "Traceback",
    "sqlalchemy",
    "sqlite3.",
    "pyarrow",
    "Arrow",
    "duckdb",
    "KeyError",
    "TypeError",
    "object at 0x",
)


@pytest.fixture
def own(checkpoint, tmp_path, monkeypatch):
    """A checkpoint of the test's own, and a home."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    return Path(shutil.copytree(checkpoint, tmp_path / "sae"))


def describe(index: Path, **changed) -> None:
    """index.json of the files as they are now, its own hash as well."""
    meta = places.read_json(index / "index.json") | changed
    del meta["sha256"]
    if "files" not in changed:
        meta["files"] = {name: places.sha256_file(index / name) for name in meta["files"] if (index / name).is_file()}
    (index / "index.json").write_text(json.dumps(meta | {"sha256": own_sha256(meta)}))


def told(monkeypatch, capsys, *arguments) -> str:
    """What the command line says on standard error; anything but success or one sentence with exit code 2 fails."""
    monkeypatch.setattr(sys, "argv", ["interp", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert (ended.value.code or 0) in (0, 2), err
    if ended.value.code:
        assert err.count("interp: ") == 1
    for word in FOREIGN_WORDS:
        assert word not in err, err
    return err if ended.value.code else ""


COMMANDS = [("feature", 3), ("search", "token:/a/"), ("search", "like:3 density:0.001..1 topic:t1")]


def asked(monkeypatch, capsys, sae) -> list[str]:
    return [told(monkeypatch, capsys, name, sae, *rest) for name, *rest in COMMANDS]


KEYS = (
    "format",
    "sae_sha256",
    "model_sha256",
    "hook_name",
    "norm_cutoff",
    "keep",
    "d_sae",
    "separator",
    "block",
    "positions",
    "files",
)


@pytest.mark.parametrize("key", KEYS)
def test_a_description_of_an_index_with_a_value_of_another_kind(own, monkeypatch, capsys, key):
    """12 values a key, 132 in all."""
    raw = (own / "index" / "index.json").read_text()
    for value in ODD:
        (own / "index" / "index.json").write_text(raw)
        describe(own / "index", **{key: value})
        told(monkeypatch, capsys, "feature", own, 3)
        told(monkeypatch, capsys, "library", own.parent)
    (own / "index" / "index.json").write_text(raw)
    assert asked(monkeypatch, capsys, own) == ["", "", ""]


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"3", b'"x"', b"{}", b"{", b"\xff\xfe", b"[" * 99_999])
def test_a_description_that_is_none(own, monkeypatch, capsys, raw):
    for name in ("index/index.json", "index/commit.json", "card.json", "cfg.json"):
        before = (own / name).read_bytes() if (own / name).exists() else None
        (own / name).write_bytes(raw)
        assert told(monkeypatch, capsys, "feature", own, 3)
        told(monkeypatch, capsys, "library", own.parent)
        told(monkeypatch, capsys, "label", own, 3)
        (own / name).write_bytes(before) if before is not None else (own / name).unlink()


def emptied(path):
    path.write_bytes(b"")


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


def spoilt(path):
    raw = bytearray(path.read_bytes())
    raw[4 : len(raw) // 2] = bytes(len(raw) // 2 - 4)
    path.write_bytes(bytes(raw))


def without_rows(path):
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def twice(path):
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table]), path)


def foreign(path):
    pq.write_table(pa.table({"name": ["soup"], "feature": ["one"]}), path)


TABLES = ("features", "activations", "positions", "pairs", "examples", "tokens", "documents", "vocabulary", "neurons")
WAYS = (emptied, halved, zeroed, spoilt, without_rows, twice, foreign)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_an_index_that_is_damaged(own, monkeypatch, capsys, name):
    """7 ways, and each column missing, of text, and of nulls: some 190 in all."""
    path, index = own / "index" / f"{name}.parquet", own / "index"
    raw, described = path.read_bytes(), (index / "index.json").read_bytes()
    table = pq.read_table(path)
    changes = [lambda way=way: way(path) for way in WAYS]
    for column in table.column_names:
        at = table.column_names.index(column)
        other = pa.array([["x"]] * len(table)) if column == "text" else pa.array(["x"] * len(table))
        changes.append(lambda column=column: pq.write_table(table.drop_columns([column]), path))
        changes.append(
            lambda at=at, column=column, other=other: pq.write_table(table.set_column(at, column, other), path)
        )
    for change in changes:
        change()
        describe(index)
        asked(monkeypatch, capsys, own)
        path.write_bytes(raw)
        (index / "index.json").write_bytes(described)
    halved(path)  # and undescribed: the hash says so
    assert any(asked(monkeypatch, capsys, own)) or name == "neurons"


@pytest.mark.parametrize("name", ["meanings", "unembedding"])
def test_vectors_of_an_index_that_are_damaged(own, monkeypatch, capsys, name):
    path, index = own / "index" / f"{name}.safetensors", own / "index"
    raw = path.read_bytes()
    for way in (emptied, halved, zeroed, spoilt):
        way(path)
        describe(index)
        told(monkeypatch, capsys, "search", own, "text:France")
        told(monkeypatch, capsys, "search", own, 'promotes:" Paris"')
        path.write_bytes(raw)


def test_a_store_whose_description_is_damaged(store, tmp_path):
    """Each value of the manifest replaced by 12 others, some 250 in all; then the files beside it."""
    folder = Path(shutil.copytree(store.folder, tmp_path / "store"))
    manifest = json.loads((folder / "manifest.json").read_text())
    spots = [(manifest, key) for key in manifest] + [(manifest["recipe"], key) for key in manifest["recipe"]]
    spots += [(shard, key) for shard in manifest["shards"][:1] for key in shard]

    def read():
        with contextlib.suppress(InterpError):
            opened = ActivationStore.open(folder)
            opened.norm_cutoff(HOOK)
            next(iter(opened.batches(HOOK, 256)))

    for (part, key), value in itertools.product(spots, ODD):
        before = part[key]
        part[key] = value
        (folder / "manifest.json").write_text(json.dumps(manifest))
        read()
        part[key] = before
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for name in ("tokens.parquet", "documents.parquet"):
        raw = (folder / name).read_bytes()
        table = pq.read_table(folder / name)
        drops = [lambda p, c=column, t=table: pq.write_table(t.drop_columns([c]), p) for column in table.column_names]
        for way in (*WAYS, *drops):
            way(folder / name)
            read()
            (folder / name).write_bytes(raw)
        halved(folder / name)
        with pytest.raises(InterpError, match=f"{name} cannot be read as a table"):
            ActivationStore.open(folder).blocks  # noqa: B018
        (folder / name).write_bytes(raw)
    assert ActivationStore.open(folder).norm_cutoff(HOOK) == store.norm_cutoff(HOOK)


def test_saved_searches_and_presets_that_are_damaged(own, monkeypatch, capsys, tmp_path):
    told(monkeypatch, capsys, "search", own, "density:0.001..1", "--save", "mine")
    wb = Workbench.open(own)
    from interp.steering import Clamp

    wb.save_preset("mine", [Clamp(feature=3, strength=2.0)])
    for path, ask in (
        (next((tmp_path / "home").rglob("searches/*/mine.json")), ("search", own, "--rerun", "mine")),
        (next((tmp_path / "home").rglob("presets/*/mine.json")), ("presets", own)),
    ):
        raw = path.read_text()
        for key, value in itertools.product(json.loads(raw), ODD):
            path.write_text(json.dumps(json.loads(raw) | {key: value}))
            told(monkeypatch, capsys, *ask)
        for other in ("", "[]", "null", "{", '{"edits": [{"kind": "Clamp", "feature": [], "strength": {}}]}'):
            path.write_text(other)
            assert told(monkeypatch, capsys, *ask)
        path.write_text(raw)
        assert told(monkeypatch, capsys, *ask) == ""


@pytest.mark.parametrize("how", DAMAGE)
def test_labels_that_are_damaged_are_named_by_every_command_that_reads_them(own, monkeypatch, capsys, how):
    book = LabelBook.of(own)
    book.set(3, "cats")
    book.store._engine.dispose()  # which empties the write-ahead log into the file
    path = places.data() / "labels.sqlite"
    DAMAGE[how](path)
    if how == "out of range":  # of this SAE's 64 features
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE labels SET feature = 64")
    for command in (("feature", own, 3), ("search", own, "text:cats"), ("label", own, 3), ("library", own.parent)):
        err = told(monkeypatch, capsys, *command)
        assert "labels.sqlite" in err or (
            how in ("of wrong kinds", "out of range") and command[0] in ("feature", "label")
        )


@pytest.mark.parametrize("way", [emptied, halved, zeroed, lambda path: path.write_text("not a database" * 99)])
def test_a_damaged_cache_of_meanings_is_made_anew(tmp_path, way):
    import torch

    def encode(texts):
        return torch.ones(len(texts), 4) / 2

    path = tmp_path / "meanings.sqlite"
    Meanings(encode, path)(["a", "b"])
    way(path)
    assert Meanings(encode, path)(["a", "b"]).tolist() == [[0.5] * 4] * 2
    assert Meanings(lambda texts: pytest.fail("made anew"), path)(["a", "b"]).tolist() == [[0.5] * 4] * 2


@pytest.mark.parametrize("way", [lambda path: None, emptied, halved, zeroed, lambda path: path.write_bytes(b"{}" * 99)])
def test_meanings_that_came_with_a_checkpoint_are_read_and_damaged_ones_made_anew(tmp_path, way):
    import torch

    made: list[str] = []

    def encode(texts):
        made.extend(texts)
        return torch.tensor([[1.0, 0.0] if text == "a" else [0.6, 0.8] for text in texts])

    path = tmp_path / "label_meanings.safetensors"
    write_meanings(["a", "b", "a"], encode, path)
    way(path)
    made.clear()
    read = Meanings(encode, tmp_path / "meanings.sqlite", path)(["b", "c", "a"])
    torch.testing.assert_close(read, torch.tensor([[0.6, 0.8], [0.6, 0.8], [1.0, 0.0]]), atol=0.005, rtol=0)
    assert made == (["c"] if read[0, 0] != torch.tensor(0.6) else ["b", "c", "a"])  # whole ones are rounded to a byte


def test_a_damaged_state_of_a_run_is_a_sentence(store, tmp_path):
    from interp.recipe import train_checkpoint

    run = tmp_path / "sae" / ".run"
    run.mkdir(parents=True)
    for raw in (b"", b"x" * 999, bytes(4096)):
        (run / "state.safetensors").write_bytes(raw)
        with pytest.raises(InterpError, match="state.safetensors cannot be read"):
            train_checkpoint(store, HOOK, tmp_path / "sae", d_sae=16, k=2, batch=256)


def test_shipped_labels_that_are_damaged(own, monkeypatch, capsys):
    for raw in (
        b"[]\n",
        b"\xff\xfe\n",
        b'{"feature": 999, "text": "x"}\n',
        b'{"feature": "3", "text": "x"}\n',
        b"{\n",
        b"null\n",
    ):
        (own / "labels.jsonl").write_bytes(raw)
        for command in (("feature", own, 3), ("label", own, 3), ("search", own, "")):
            assert "labels.jsonl, line 1" in told(monkeypatch, capsys, *command)
        told(monkeypatch, capsys, "library", own.parent)
    (own / "labels.jsonl").write_bytes(b'{"feature": 3, "text": "x"}\n' * 2)
    assert asked(monkeypatch, capsys, own) == ["", "", ""]
    assert LabelBook.of(own).all()[3].text == "x"


# ---- a home that cannot be written ----


@pytest.fixture
def no_home(checkpoint, tmp_path, monkeypatch):
    """INTERP_HOME below a file: nothing can be made there, not even by root."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "file" / "home"))
    return checkpoint


def test_reading_goes_on_without_a_home_that_can_be_written(no_home, tiny_folder, monkeypatch, capsys):
    for command in (
        ("feature", no_home, 3),
        ("search", no_home, "token:/a/"),
        ("search", no_home, "text:France"),
        ("library", no_home.parent),
        ("label", no_home, 3),
        ("presets", no_home),
        ("spectrum", no_home, "The capital of France"),
        ("hooks", tiny_folder),
        ("verify", no_home, "--files-only"),
    ):
        assert told(monkeypatch, capsys, *command) == "", command


def test_writing_says_why_it_cannot(no_home, text_folder, monkeypatch, capsys):
    for command in (
        ("label", no_home, 3, "cats"),
        ("search", no_home, "token:/a/", "--save", "mine"),
        ("steer", no_home, "A", "--clamp", "3=1", "--tokens", "1", "--save-preset", "mine"),
        ("index", no_home, "--corpus", text_folder, "--tokens", "512"),
    ):
        err = told(monkeypatch, capsys, *command)
        assert "file/home" in err, command
        assert "Not a directory" in err, command


def test_the_embedded_model_says_where_it_cannot_be_converted(tmp_path, monkeypatch):
    from interp.models.embedded import smollm2_folder

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "file"))
    with pytest.raises(InterpError, match=r"cannot write in .*file/cache/models \(Not a directory\)"):
        smollm2_folder()
