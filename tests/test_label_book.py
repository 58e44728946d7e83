"""The label book: tags, stars, methods and predicates; undo; and tables of before, which are read and widened and lose nothing."""

import contextlib
import json
import os
import shutil
import sqlite3

import pytest

from interp.commands import labelling
from interp.labels import Label, LabelBook
from interp.labels.label import LONGEST_TAG, MOST_TAGS
from interp.types import InterpError
from tests.conftest import ROOT
from tests.test_cli import call
from tests.test_labels import changed, written_at_once

BEFORE = ROOT / "tests" / "fixtures" / "before" / "made" / "home" / "data" / "labels.sqlite"
NEW = {"tags", "starred", "method", "predicate"}


def book_in(folder, **more):
    return LabelBook("sha", 10, url=f"sqlite:///{folder}/l.sqlite", **more)


def texts(book, feature):
    return [label.text for label in book.history(feature)]


# ---- tags, star, method, predicate ----


def test_tags_and_star_are_the_features_and_method_and_predicate_the_names(tmp_path):
    book = book_in(tmp_path)
    book.set(3, "cats", method="llm:some-model", predicate='token:" cat"', tags=["animal", "noun"], starred=True)
    renamed = book.set(3, "dogs", author="me")
    assert (renamed.tags, renamed.starred) == (("animal", "noun"), True)
    assert (renamed.method, renamed.predicate) == ("person", "")
    confirmed = book.revise(3, status="confirmed", predicate='token:" dog"')
    assert (confirmed.text, confirmed.author, confirmed.method, confirmed.predicate) == (
        "dogs", "me", "person", 'token:" dog"',
    )  # fmt: skip
    again = book.set(3, "dogs", status="refuted")  # the same name goes on claiming the same
    assert (again.predicate, again.status, again.author) == ('token:" dog"', "refuted", "")
    withdrawn = book.set(3, "")
    assert (withdrawn.status, withdrawn.method, withdrawn.predicate) == ("withdrawn", "", "")
    assert (withdrawn.tags, withdrawn.starred) == (("animal", "noun"), True)
    assert len(book.history(3)) == 5
    assert book.history(3) == LabelBook("sha", 10, url=f"sqlite:///{tmp_path}/l.sqlite").history(3)


def test_what_changes_nothing_is_no_revision(tmp_path):
    book = book_in(tmp_path)
    book.set(3, "cats", tags=["animal"])
    assert book.revise(3, tags=["animal"], starred=False) == book.get(3)
    assert len(book.history(3)) == 1


def test_a_feature_may_have_a_star_and_tags_without_a_name(tmp_path):
    book = book_in(tmp_path)
    book.revise(3, starred=True, tags=["look"])
    assert (book.get(3), book.all()) == (None, {})
    assert book.newest()[3].starred
    for name, value in {"status": "confirmed", "note": "x", "author": "me", "predicate": "max:1.."}.items():
        with pytest.raises(InterpError, match=f"feature 3 has no label, of which {name} could be said; name it"):
            book.revise(3, **{name: value})
    named = book.set(3, "cats")
    assert (named.starred, named.tags, named.status) == (True, ("look",), "proposed")


def test_a_starred_feature_is_free_for_a_name_and_one_that_had_a_name_is_not(tmp_path):
    shipped = tmp_path / "labels.jsonl"
    shipped.write_text('{"feature": 7, "text": "shipped"}\n')
    book = book_in(tmp_path, shipped=shipped)
    book.revise(3, starred=True, tags=["look"])
    book.set(4, "dogs")
    book.set(4, "")
    assert set(book.taken()) == {4, 7}
    carried = [Label(feature=f, text=f"name {f}") for f in (2, 3, 4, 7)]
    assert book.add_where_none(carried) == [2, 3]
    assert (book.get(3).text, book.get(3).starred, book.get(3).tags) == ("name 3", True, ("look",))
    assert book.get(4) is None


BAD = {
    "two words": ({"tags": ["two words"]}, "'two words' is no tag"),
    "a comma": ({"tags": ["a,b"]}, "is no tag"),
    "nothing": ({"tags": [""]}, "'' is no tag"),
    "an escape": ({"tags": ["a\x1b[31m"]}, "is no tag"),
    "a quote": ({"tags": ['"a']}, "is no tag"),
    "a long tag": ({"tags": ["x" * (LONGEST_TAG + 1)]}, "is no tag: one is a word of at most 40 characters"),
    "many tags": ({"tags": [f"t{i}" for i in range(MOST_TAGS + 1)]}, "at most 20 tags, and these are 21"),
    "a long text": ({"text": "x" * 10_000}, "at most 2,000 characters"),
    "a long predicate": ({"predicate": "x" * 10_000}, "a predicate has at most 2,000 characters"),
    "a method of two lines": ({"method": "llm\nGPT"}, "a method is one line"),
    "a long method": ({"method": "x" * 10_000}, "a method is one line of at most 200"),
    "number 0": ({"text": "a\0b"}, "the text of this label holds a character of number 0"),
    "half a character": ({"predicate": "\ud800"}, "the predicate of this label is not text"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_no_label_has_is_refused_and_what_was_there_stays(tmp_path, case):
    given, message = BAD[case]
    book = book_in(tmp_path)
    book.set(3, "cats", tags=["animal"])
    with pytest.raises(InterpError, match=message):
        book.set(3, **({"text": "dogs"} | given))
    assert texts(book, 3) == ["cats"]
    assert book.get(3).tags == ("animal",)


def test_a_tag_that_comes_twice_in_either_case_is_kept_once_and_html_is_text(tmp_path):
    book = book_in(tmp_path)
    book.set(3, "<b>cats</b>", tags=["Code", "code", "<i>"], method="<script>")
    assert book.get(3).tags == ("Code", "<i>")
    assert (book.get(3).text, book.get(3).method) == ("<b>cats</b>", "<script>")


# ---- undo ----


def test_undo_is_one_step_and_undone_again_brings_back_what_was_undone(tmp_path):
    book = book_in(tmp_path)
    book.set(3, "cats", author="a", note="seen", tags=["animal"])
    book.set(3, "dogs", author="b", status="confirmed", starred=True, predicate="max:1..")
    before, last = book.history(3)
    undone = book.undo(3)
    assert undone == Label(**{**vars(before), "created": undone.created})
    assert undone.created > before.created
    again = book.undo(3)
    assert again == Label(**{**vars(last), "created": again.created})
    assert texts(book, 3) == ["cats", "dogs", "cats", "dogs"]
    assert book.get(3) == again


def test_undoing_the_first_name_leaves_none_and_undoing_that_brings_it_back(tmp_path):
    book = book_in(tmp_path)
    book.set(3, "cats", starred=True)
    assert (book.undo(3).text, book.get(3), book.newest()[3].starred) == ("", None, False)
    assert book.undo(3).text == "cats"
    assert book.newest()[3].starred


def test_what_came_with_the_checkpoint_is_gone_back_to_and_not_undone(tmp_path):
    shipped = tmp_path / "labels.jsonl"
    shipped.write_text('{"feature": 3, "text": "shipped", "author": "them"}\n')
    book = book_in(tmp_path, shipped=shipped)
    for feature in (3, 4):
        with pytest.raises(
            InterpError, match=f"nothing was said of feature {feature} here, so there is nothing to undo"
        ):
            book.undo(feature)
    book.set(3, "mine")
    assert (book.undo(3).text, book.get(3).author) == ("shipped", "them")
    with pytest.raises(InterpError, match="no feature 10"):
        book.undo(10)


# ---- tables of before ----


@pytest.fixture
def old(tmp_path):
    """A file of an earlier version, with labels of feature 3, 5 and 14 of one SAE; its path and that SAE."""
    path = tmp_path / "l.sqlite"
    shutil.copy(BEFORE, path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        ((sae,),) = db.execute("SELECT DISTINCT sae FROM labels")
    assert not columns(path) & NEW
    return path, sae


def columns(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return {row[1] for row in db.execute("PRAGMA table_info(labels)")}


def test_a_table_of_before_is_read_as_it_is_and_widened_by_who_writes(old):
    path, sae = old
    book = LabelBook(sae, 32, url=f"sqlite:///{path}")
    then = {feature: book.history(feature) for feature in (3, 5, 14)}
    assert [label.text for label in then[5]] == ["first thought", "second thought"]
    assert {(label.tags, label.starred, label.method) for each in then.values() for label in each} == {((), False, "")}
    assert set(book.all()) == {3, 5, 14}
    assert not columns(path) & NEW  # by reading nothing is changed
    reader = LabelBook(sae, 32, url=f"sqlite:///{path}")
    assert reader.get(3).tags == ()
    book.revise(3, tags=["new"])
    assert columns(path) >= NEW
    assert reader.newest()[3].tags == ("new",)
    assert {feature: book.history(feature)[: len(each)] for feature, each in then.items()} == then


def test_a_program_of_before_goes_on_writing_into_a_widened_table(old):
    path, sae = old
    book = LabelBook(sae, 32, url=f"sqlite:///{path}")
    book.set(3, "cats", tags=["animal"])
    changed(
        "INSERT INTO labels (sae, feature, text, author, note, status, created) "
        f"VALUES ('{sae}', 3, 'of before', '', '', 'proposed', '2026-01-01')"
    )(path)
    label = book.get(3)
    assert (label.text, label.tags, label.starred, label.method, label.predicate) == ("of before", (), False, "", "")


def test_processes_that_widen_a_table_of_before_together_lose_nothing(old, tmp_path):
    path, sae = old
    (tmp_path / "gate" / "home").mkdir(parents=True)
    path = shutil.move(path, tmp_path / "gate" / "home" / "labels.sqlite")
    book = written_at_once(tmp_path / "gate", 8, 10)
    for number in range(8):
        assert texts(book, number) == [f"label {each}" for each in range(10)]
    assert columns(path) >= NEW
    assert set(LabelBook(sae, 32, url=f"sqlite:///{path}").all()) == {3, 5, 14}


def test_a_write_that_fails_does_not_widen_a_table_either(old, monkeypatch):
    path, sae = old
    book, before = LabelBook(sae, 32, url=f"sqlite:///{path}"), path.read_bytes()
    with pytest.raises(InterpError, match="at most 2,000"):
        book.set(3, "x" * 3000)
    assert not columns(path) & NEW
    assert book.get(3).tags == ()  # with the columns that there are
    book.store._engine.dispose()
    real = os.access
    monkeypatch.setattr("os.access", lambda file, mode: mode != os.W_OK and real(file, mode))  # root may write anywhere
    locked = LabelBook(sae, 32, url=f"sqlite:///{path}")
    assert set(locked.all()) == {3, 5, 14}
    for write in (lambda: locked.set(3, "x"), lambda: locked.undo(3), lambda: locked.revise(3, starred=True)):
        with pytest.raises(InterpError, match="labels cannot be written to .*l.sqlite"):
            write()
    assert path.read_bytes() == before


def test_a_file_of_labels_of_before_is_the_same_bytes_and_new_things_come_back(tmp_path):
    path, out = tmp_path / "labels.jsonl", tmp_path / "out.jsonl"
    line = '{"feature": 3, "text": "cats", "author": "a", "note": "", "status": "proposed", "created": "2026-01-01T00:00:00"}'
    path.write_text(f"{line}\n")
    LabelBook("sha", 10, url="sqlite://", shipped=path).export(out)
    assert out.read_text() == f"{line}\n"
    book = book_in(tmp_path)
    book.set(3, "cats", tags=["a", "b"], starred=True, method="llm:x", predicate="max:1..")
    book.export(out)
    told = json.loads(out.read_text())
    assert (told["tags"], told["starred"], told["method"], told["predicate"]) == (["a", "b"], True, "llm:x", "max:1..")
    assert LabelBook("sha", 10, url="sqlite://", shipped=out).all() == book.all()


# ---- search, the command line ----


def test_tags_and_stars_are_searched(checkpoint, tmp_path):
    from interp.workbench import Workbench

    wb = Workbench.open(checkpoint, labels=f"sqlite:///{tmp_path}/l.sqlite")
    wb.labels.set(3, "cats", tags=["Animal", "noun"])
    wb.labels.revise(5, starred=True, tags=["animal"])
    assert [hit.feature for hit in wb.search("tag:ANIMAL sort:feature")] == [3, 5]
    assert [hit.feature for hit in wb.search("tag:noun not starred:yes")] == [3]
    (hit,) = wb.search("starred:yes")
    assert (hit.feature, hit.automatic, hit.why) == (5, True, {"starred": "has a star"})
    assert wb.search("starred:no").total == wb.sae.d_sae - 1
    assert wb.search("tag:nothing").total == 0
    wb.labels.undo(5)
    assert wb.search("starred:yes").total == 0
    for name, found in (
        ("a zebra", [3]),
        ("cats", []),
        ("zebras", []),
    ):  # what features are called is kept between searches
        wb.labels.set(3, name)
        assert [hit.feature for hit in wb.search('text:"Zebra"')] == found
        assert 3 in [hit.feature for hit in wb.search(f'text:"{name}"')]
    wb.labels.set(3, "")
    assert wb.search('text:"zebras"').total == 0
    with pytest.raises(InterpError, match="starred:maybe is neither yes nor no"):
        wb.search("starred:maybe")


def test_what_holds_is_read_once_and_then_only_what_was_added(tmp_path, monkeypatch):
    book, other = book_in(tmp_path), book_in(tmp_path)
    for feature in range(8):
        book.set(feature, f"name {feature}")
    first = book.all()
    assert book.all() is first
    with pytest.raises(TypeError):
        first[3] = first[4]
    read = []
    monkeypatch.setattr(book, "_label", lambda row: read.append(row.feature) or LabelBook._label(book, row))
    other.set(9, "of another process")
    other.set(3, "")
    other.revise(4, tags=["x"])
    assert set(book.all()) == {0, 1, 2, 4, 5, 6, 7, 9}
    assert read == [9, 3, 4]
    assert book.newest() == book_in(tmp_path).newest()
    assert list(book.newest()) == sorted(book.newest())
    shutil.copy(BEFORE, tmp_path / "other.sqlite")  # another database in its place
    for each in (book, other):
        each.store._engine.dispose()
    os.replace(tmp_path / "other.sqlite", tmp_path / "l.sqlite")
    for name in ("l.sqlite-wal", "l.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    assert book.all() == {}


def test_a_feature_is_named_marked_and_taken_back_on_the_command_line(monkeypatch, capsys, checkpoint, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))

    def said(*words):
        code, out, err = call(monkeypatch, capsys, *words)
        assert code == 0, err
        return out

    out = said("label", checkpoint, 3, "--star", "--tag", "look")
    assert "★" in out
    assert "look" in out
    out = said("label", checkpoint, 3, "cats", "--author", "me", "--predicate", 'token:" cat"')
    assert out.splitlines()[0].split() == [
        "feature", "label", "author", "note", "status", "created", "tags", "star", "method", "predicate",
    ]  # fmt: skip
    out = said("label", checkpoint, 3, "--status", "confirmed", "--no-star", "--tag", "", "--json")
    last = json.loads(out)[-1]
    assert (last["text"], last["author"], last["status"], last["starred"], last["tags"]) == (
        "cats", "me", "confirmed", False, [],
    )  # fmt: skip
    assert last["predicate"] == 'token:" cat"'
    assert said("label", checkpoint, 3) == said("label", checkpoint, 3)
    last = json.loads(said("labels", "undo", checkpoint, 3, "--json"))[-1]
    assert (last["status"], last["starred"], last["tags"]) == ("proposed", True, ["look"])
    for predicate, why in {
        "token:/(/ (": "is no search",
        "sort:max": "claims nothing",
        "tokn:x": "did you mean token",
    }.items():
        code, _, err = call(monkeypatch, capsys, "label", checkpoint, 3, "dogs", "--predicate", predicate)
        assert code == 2
        assert why in err
    assert LabelBook.of(checkpoint).get(3).text == "cats"


def test_a_predicate_in_a_file_is_a_search_or_its_line_is_named(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    path = tmp_path / "names.csv"
    path.write_text("feature,label,predicate\n1,cats,max:1..\n2,dogs,tokn:x\n")
    with pytest.raises(
        InterpError, match=r"names.csv, line 3: the predicate 'tokn:x' is no search: .*did you mean token"
    ):
        labelling.import_labels(str(checkpoint), path)
    assert LabelBook.of(checkpoint).all() == {}
    path.write_text("feature,label,predicate,tags,starred\n1,cats,max:1..,a b,yes\n2,dogs,,,\n")
    assert labelling.import_labels(str(checkpoint), path).added == 2
    book = LabelBook.of(checkpoint)
    assert (book.get(1).predicate, book.get(1).tags, book.get(1).starred) == ("max:1..", ("a", "b"), True)
    assert (book.get(1).method, book.get(2).starred) == ("import", False)
    path.write_text("feature,label\n1,cats\n")
    assert labelling.import_labels(str(checkpoint), path).added == 0  # what a line does not say stays
    assert LabelBook.of(checkpoint).get(1).tags == ("a", "b")
