"""Two label books of one SAE made one: nothing of either side is lost, and where they differ it is shown before it is done."""

import json

import pytest

from interp.labels import LabelBook
from interp.labels.merging import merge
from interp.types import InterpError
from tests.test_cli import call


def books(tmp_path, shipped=None):
    """Two people's books of one SAE, and where they are."""
    places = [tmp_path / "ours.sqlite", tmp_path / "theirs.sqlite"]
    return [LabelBook("sha", 10, url=f"sqlite:///{place}", shipped=shipped) for place in places], places


def texts(book, feature):
    return [label.text for label in book.history(feature)]


def outcomes(done):
    return {each.feature: each.outcome for each in done.labels}


def test_what_only_they_said_is_added_and_what_both_said_is_kept_on_both_sides(tmp_path):
    (ours, theirs), (_, there) = books(tmp_path)
    ours.set(0, "ours only")
    ours.set(1, "the same", author="a")
    theirs.set(1, "the same", author="a")
    theirs.set(2, "first")
    theirs.set(2, "second", tags=["x"])
    ours.set(3, "cats", note="looked", author="a")
    theirs.set(3, "felines", author="b")
    shown = merge(ours, str(there))
    assert outcomes(shown) == {1: "there already", 2: "added", 3: "conflict"}
    assert (shown.written, texts(ours, 2), texts(ours, 3)) == (0, [], ["cats"])
    (conflict,) = [each for each in shown.labels if each.outcome == "conflict"]
    assert (conflict.ours.text, conflict.theirs.text, conflict.holds.text) == ("cats", "felines", "cats")
    assert (
        conflict.why
        == "text: 'cats' here, 'felines' there; author: 'a' here, 'b' there; note: 'looked' here, none there"
    )
    before = {feature: theirs.history(feature) for feature in range(4)}
    done = merge(ours, str(there), write=True)
    assert outcomes(done) == outcomes(shown)
    assert done.written == 4
    assert (texts(ours, 2), ours.get(2).tags) == (["first", "second"], ("x",))
    assert texts(ours, 3) == ["cats", "felines", "cats"]
    assert (ours.get(3).note, ours.history(3)[1]) == ("looked", theirs.get(3))
    assert {feature: theirs.history(feature) for feature in range(4)} == before
    assert ours.undo(3).text == "felines"  # the other side holds by one step


def test_merged_again_nothing_is_added_and_the_other_side_then_only_goes_on(tmp_path):
    (ours, theirs), (here, there) = books(tmp_path)
    ours.set(3, "cats")
    theirs.set(3, "felines")
    ours.set(4, "dogs")
    assert merge(ours, str(there), write=True).written == 2
    assert merge(ours, str(there), write=True).written == 0
    back = merge(theirs, str(here), write=True)
    assert outcomes(back) == {3: "newer", 4: "added"}
    assert theirs.get(3).text == "cats"
    for one, other in ((ours, there), (theirs, here)):
        again = merge(one, str(other), write=True)
        assert (again.written, set(outcomes(again).values())) == (0, {"there already"})
    theirs.set(3, "felids")
    assert outcomes(merge(ours, str(there), write=True))[3] == "newer"
    assert ours.get(3).text == "felids"


def test_in_a_conflict_theirs_holds_where_that_is_asked_for(tmp_path):
    (ours, theirs), (_, there) = books(tmp_path)
    ours.set(3, "cats")
    theirs.set(3, "felines")
    done = merge(ours, str(there), write=True, prefer_theirs=True)
    assert (outcomes(done), texts(ours, 3)) == ({3: "conflict"}, ["cats", "felines"])


def test_both_sides_began_with_what_came_with_the_checkpoint(tmp_path):
    shipped = tmp_path / "labels.jsonl"
    shipped.write_text('{"feature": 3, "text": "shipped"}\n{"feature": 4, "text": "shipped too"}\n')
    (ours, theirs), (_, there) = books(tmp_path, shipped)
    theirs.set(3, "felines")
    ours.set(4, "dogs")
    assert outcomes(merge(ours, str(there), write=True)) == {3: "newer", 4: "there already"}
    assert (ours.get(3).text, ours.get(4).text) == ("felines", "dogs")


def test_stars_tags_and_withdrawals_are_said_too(tmp_path):
    (ours, theirs), (_, there) = books(tmp_path)
    theirs.revise(2, starred=True)
    ours.set(3, "cats", tags=["x"])
    theirs.add_after(lambda _: ours.history(3))
    theirs.set(3, "")
    assert outcomes(merge(ours, str(there), write=True)) == {2: "added", 3: "newer"}
    assert ours.newest()[2].starred
    assert (ours.get(3), ours.newest()[3].tags) == (None, ("x",))


@pytest.mark.parametrize("name", ["names.csv", "names.jsonl", "folder"])
def test_a_file_is_another_side_too_and_what_it_does_not_say_is_no_difference(tmp_path, name):
    (ours, _), _ = books(tmp_path)
    ours.set(1, "cats", author="me", tags=["x"], status="confirmed")
    ours.set(2, "dogs")
    path = tmp_path / name
    if name == "names.csv":
        path.write_text("feature,label\n1,cats\n2,hounds\n3,birds\n")
    else:
        if name == "folder":
            path.mkdir()
        rows = [{"feature": 1, "text": "cats"}, {"feature": 2, "text": "hounds"}, {"feature": 3, "text": "birds"}]
        (path / "labels.jsonl" if name == "folder" else path).write_text("\n".join(map(json.dumps, rows)))
    done = merge(ours, str(path), write=True)
    assert outcomes(done) == {1: "there already", 2: "conflict", 3: "added"}
    assert texts(ours, 2) == ["dogs", "hounds", "dogs"]
    assert all(label.created for label in ours.history(2))
    assert ours.get(3).method == "import"
    assert set(outcomes(merge(ours, str(path), write=True)).values()) == {"there already"}


def test_another_side_that_is_none_is_a_sentence_and_nothing_is_written(tmp_path):
    (ours, theirs), (_, there) = books(tmp_path)
    ours.set(3, "cats")
    LabelBook("another", 10, url=f"sqlite:///{there}").set(3, "felines")
    with pytest.raises(
        InterpError, match=r"theirs.sqlite has no labels of this SAE \(sha…\): those in it are of another…"
    ):
        merge(ours, str(there), write=True)
    (tmp_path / "x.csv").write_text("feature,label\n3,felines\n10,birds\n")
    with pytest.raises(InterpError, match="x.csv, line 3: no feature 10"):
        merge(ours, str(tmp_path / "x.csv"), write=True)
    with pytest.raises(InterpError, match="there is no file .*none.csv"):
        merge(ours, str(tmp_path / "none.csv"), write=True)
    there.write_bytes(there.read_bytes()[:3000])
    with pytest.raises(InterpError, match="theirs.sqlite is not a label store"):
        merge(ours, str(there), write=True)
    theirs.store._engine.dispose()
    assert texts(ours, 3) == ["cats"]


def test_merging_is_shown_and_then_done_on_the_command_line(monkeypatch, capsys, checkpoint, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "theirs"))
    LabelBook.of(checkpoint).set(3, "felines", author="b")
    LabelBook.of(checkpoint).set(4, "birds", author="b")
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "ours"))
    LabelBook.of(checkpoint).set(3, "cats", author="a")
    args = ("labels", "merge", checkpoint, tmp_path / "theirs" / "data" / "labels.sqlite")
    code, out, err = call(monkeypatch, capsys, *args)
    assert (code, err) == (0, "")
    assert "text: 'cats' here, 'felines' there" in out
    assert "labels.sqlite: 1 added, 1 conflict" in out
    assert "nothing was written; with --write, both sides are kept" in out
    assert set(LabelBook.of(checkpoint).all()) == {3}
    code, out, _ = call(monkeypatch, capsys, *args, "--write")
    assert (code, "3 revisions written" in out) == (0, True)
    assert texts(LabelBook.of(checkpoint), 3) == ["cats", "felines", "cats"]
    code, out, _ = call(monkeypatch, capsys, *args, "--json")
    assert [each["outcome"] for each in json.loads(out)["labels"]] == ["there already"] * 2
