import json

import numpy as np
import pytest

from interp.labels import LabelBook
from interp.search import parse
from interp.types import InterpError


def test_a_query_is_read_into_its_conditions():
    query = parse(r'token:/a\/b|c/ density:1e-5..1e-2 promotes:" France" "two words" word sort:max')
    assert [(t.key, t.value, t.regex) for t in query.terms] == [
        ("token", "a/b|c", True),
        ("density", "1e-5..1e-2", False),
        ("promotes", " France", False),
        ("text", "two words", False),
        ("text", "word", False),
    ]
    assert query.sort == "max"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("tokens:/a/", r"no search key \(at character 1\) 'tokens': did you mean token"),
        ('a token:"open', r"cannot be read from character 3"),
        ("density:many", "is no range"),
        ("density:2..1", "is empty"),
        ("token:/(?=a)/", "no regular expression RE2 takes"),
        ("sort:size", "no sort order 'size'"),
        ("like:x", "by its number"),
        ("like:999", "no feature 999"),
        ("status:good", "no label status 'good'"),
        ("dead:perhaps", "neither yes nor no"),
        ('promotes:"qqqqqq"', "no token 'qqqqqq'"),
        ("text:/a/", "takes no /regex/"),
    ],
)
def test_a_mistake_in_a_query_is_answered_with_what_exists(wb, query, message):
    with pytest.raises(InterpError, match=message):
        wb.search(query)


def test_a_token_query_gives_precision_recall_and_f1_over_the_index(wb):
    index = wb.index
    hits = wb.search("token:/^ Paris$/", limit=64)
    token = index.vocabulary.index(" Paris") if " Paris" in index.vocabulary else None
    assert hits
    rows = index.sql("SELECT feature, position FROM {activations}")
    matching = {i for i, text in enumerate(index.vocabulary) if text == " Paris"}
    assert token in matching
    on = np.isin(index.tokens, list(matching))
    for hit in hits[:3]:
        fired = rows["position"][rows["feature"] == hit.feature].to_numpy()
        both = on[fired].sum()
        assert hit.score == pytest.approx(2 * both / (len(fired) + on.sum()), abs=1e-6)
        assert hit.why["token"].startswith("precision")


def test_conditions_narrow_and_ranges_hold(wb):
    every = wb.search("", limit=100)
    assert every.total == 64
    some = wb.search("density:1e-3..1e-1 max:0..1000", limit=100)
    assert 0 < some.total <= 64
    assert all(1e-3 <= hit.density <= 1e-1 for hit in some)
    assert wb.search("dead:yes").total + wb.search("dead:no").total == 64


def test_results_are_sorted_and_ties_go_by_number(wb):
    by_max = [hit.max for hit in wb.search("sort:max", limit=64)]
    assert by_max == sorted(by_max, reverse=True)
    assert [hit.feature for hit in wb.search("", limit=64)] == list(range(64))


def test_fires_finds_what_is_active_on_a_text(wb):
    hits = wb.search('fires:"The capital of France is Paris"', limit=64)
    largest = wb.spectrum("The capital of France is Paris").largest(64)
    assert [hit.score for hit in hits] == sorted((float(v) for v in largest if v > 0), reverse=True)


def test_like_gives_the_nearest_features(wb):
    assert [h.feature for h in wb.search("like:3", limit=3)] == [int(f) for f in wb.index.row(3)["nearest"][:3]]


def test_labels_are_found_by_their_words_and_status(wb):
    wb.labels.set(7, "European capitals", author="me", status="confirmed")
    (hit,) = wb.search('text:"european capitals"')
    assert (hit.feature, hit.label, hit.automatic) == (7, "European capitals", False)
    assert [h.feature for h in wb.search("status:confirmed author:me")] == [7]
    assert [h.feature for h in wb.search("labelled:yes")] == [7]


def test_several_keys_are_joined_by_rank(wb):
    joined = wb.search('token:/capital|Paris/ fires:"The capital of France is Paris"', limit=64)
    assert joined.total > 0
    assert all(set(hit.why) == {"token", "fires"} for hit in joined)
    assert joined[0].score <= 2 / 61


def test_hits_become_a_table_and_escape_what_they_show(wb):
    wb.labels.set(2, "<script>alert(1)</script>")
    hits = wb.search("labelled:yes")
    assert list(hits.to_pandas()["feature"]) == [2]
    assert "<script>" not in hits._repr_html_()
    assert "&lt;script&gt;" in hits._repr_html_()


def test_every_version_of_a_label_is_kept(tmp_path):
    book = LabelBook("sha", 10, url=f"sqlite:///{tmp_path}/l.sqlite")
    book.set(3, "cats", author="a")
    book.set(3, "dogs", author="b", note="looked again", status="confirmed")
    assert [label.text for label in book.history(3)] == ["cats", "dogs"]
    assert book.get(3).author == "b"
    book.set(3, "")
    assert book.get(3) is None
    assert book.all() == {}
    assert len(book.history(3)) == 3
    assert LabelBook("other", 10, url=f"sqlite:///{tmp_path}/l.sqlite").history(3) == []


def test_labels_travel_as_json_lines(tmp_path):
    book = LabelBook("sha", 10, url="sqlite://")
    book.set(3, "chats «noirs»", author="a")
    assert book.export(tmp_path / "labels.jsonl") == 1
    assert json.loads((tmp_path / "labels.jsonl").read_text(encoding="utf-8"))["text"] == "chats «noirs»"
    again = LabelBook("sha", 10, url="sqlite://", shipped=tmp_path / "labels.jsonl")
    assert again.get(3).text == "chats «noirs»"
    (tmp_path / "labels.jsonl").write_text('{"feature": 1}\n')
    with pytest.raises(InterpError, match="line 1: not a label"):
        LabelBook("sha", 10, url="sqlite://", shipped=tmp_path / "labels.jsonl")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.set(10, "x"), "no feature 10"),
        (lambda b: b.set(1, "x", status="sure"), "no label status 'sure'"),
        (lambda b: b.set(1, "x" * 3000), "at most 2,000 characters"),
    ],
)
def test_bad_labels_are_refused(call, message):
    with pytest.raises(InterpError, match=message):
        call(LabelBook("sha", 10, url="sqlite://"))
