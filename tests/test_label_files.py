"""Labels out and in again: JSON lines and CSV hold all of a label, Neuronpedia's explanations what they have room for."""

import csv
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.labels import Label, LabelBook
from interp.labels.label import STATUSES, checked
from interp.labels.neuronpedia import Source
from interp.labels.transfer import read_file, write_csv, write_jsonl
from interp.render.html import FORMULA, NUMBER
from interp.types import InterpError
from tests.test_cli import call
from tests.test_label_book import book_in

SOURCE = Source("tiny", 15, "batchtopk-64")
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
HOSTILE = st.sampled_from(
    ["=1+1", "'=1+1", "''=1", "-1.5", "'-1.5", "\u2028x\x85y", "a\r\nb", '"', ",", "＝1", "'", "<b>"]
)
TAGS = st.lists(st.sampled_from(["a", "B", "=x", "<i>", "日本", "-1"]), unique=True, max_size=3)


LABELS = st.fixed_dictionaries(
    {
        "feature": st.integers(0, 9),
        "text": (WORDS | HOSTILE).filter(str.strip),
        "author": WORDS | HOSTILE,
        "note": WORDS | HOSTILE,
        "status": st.sampled_from(STATUSES[:3]),
        "tags": TAGS,
        "starred": st.booleans(),
        "method": st.sampled_from(["", "person", "llm:a/b (c)", "=x"]),
        "predicate": st.sampled_from(["", 'token:/^ ?"$/ max:1..', "=x"]),
    }
)


@settings(max_examples=200, deadline=None)
@given(said=LABELS)
def test_a_label_comes_back_from_either_form_as_it_was(tmp_path_factory, said):
    folder = tmp_path_factory.getbasetemp()
    label = checked(Label(**(said | {"tags": tuple(said["tags"]), "created": "2026-01-02T03:04:05.678+00:00"})), 10)
    for write, name in ((write_jsonl, "l.jsonl"), (write_csv, "l.csv")):
        write([label], folder / name, sae="ab" * 32)
        (told,), several = read_file(folder / name, 10, sae="ab" * 32)
        assert not several
        assert Label(**told) == label
    with (folder / "l.csv").open(encoding="utf-8", newline="") as file:
        for cell in list(csv.reader(file))[1]:
            assert cell[:1] not in FORMULA or NUMBER.fullmatch(cell)


@pytest.mark.parametrize("name", ["l.jsonl", "l.csv"])
def test_a_book_comes_back_whole_and_only_into_the_book_of_its_sae(tmp_path, name):
    book = book_in(tmp_path)
    book.set(3, "cats", author="a", note="n", status="confirmed", tags=["x", "y"], starred=True, predicate="max:1..")
    book.set(4, "dogs", method="llm:some-model")
    book.revise(5, starred=True)
    assert book.export(tmp_path / name, named=True) == 2
    same = LabelBook("sha", 10, url=f"sqlite:///{tmp_path}/same.sqlite")
    assert same.import_file(tmp_path / name).added == 2
    assert same.all() == book.all()
    assert same.import_file(tmp_path / name).added == 0
    other = LabelBook("another", 10, url=f"sqlite:///{tmp_path}/other.sqlite")
    with pytest.raises(
        InterpError, match=rf"{name}, line \d: this is a label of another SAE \(sha…\), and these are labels of ano"
    ):
        other.import_file(tmp_path / name)
    assert not (tmp_path / "other.sqlite").exists()
    if name == "l.jsonl":  # neither may it ship with another checkpoint
        with pytest.raises(InterpError, match="line 1: this is a label of another SAE"):
            LabelBook("another", 10, shipped=tmp_path / name)


def test_a_compressed_file_is_read_and_a_cut_one_refused(tmp_path):
    path = tmp_path / "names.csv.gz"
    path.write_bytes(gzip.compress(b"feature,label\n3,cats\n"))
    book = book_in(tmp_path)
    assert book.import_file(path).added == 1
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InterpError, match="names.csv.gz is no whole gzip file"):
        book.import_file(path)
    path.write_bytes(b"feature,label\n3,cats\n")
    with pytest.raises(InterpError, match="names.csv.gz is no whole gzip file"):
        book.import_file(path)


# ---- Neuronpedia ----


def explanations(path, *rows, **more):
    """A file as Neuronpedia's bulk export writes it: all its columns, and what rows say of the rest."""
    base = {
        "id": "clx0", "modelId": "tiny", "layer": "15-res-jb", "index": "3", "authorId": "clkht01d4", "description": "cats",
        "embedding": [0.1, 0.2], "typeName": "oai_token-act-pair", "explanationModelName": "gpt-4o-mini", "umap_x": 0.5,
        "umap_y": 0.5, "umap_cluster": 1, "umap_log_feature_sparsity": -2.0,
    }  # fmt: skip
    path.write_text("".join(json.dumps(base | more | row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_explanations_of_neuronpedia_are_taken_in_each_as_a_revision(tmp_path):
    path = explanations(
        tmp_path / "batch-0.jsonl",
        {"index": "3", "description": " cats "},
        {"index": "3", "description": "felines", "typeName": None, "explanationModelName": None},
        {"index": "4", "description": ""},
        {"index": "5", "description": None},
        {"index": "6", "description": "=dogs", "typeName": "np_acts-logits-general", "explanationModelName": None},
    )
    book = book_in(tmp_path)
    book.revise(3, starred=True)
    done = book.import_file(path, layer=15)
    assert (done.added, done.same) == (3, 0)
    first, second = book.history(3)[1:]
    assert (first.text, first.author, first.method) == ("cats", "clkht01d4", "llm:gpt-4o-mini (oai_token-act-pair)")
    assert (second.text, second.method, second.starred) == ("felines", "import", True)
    assert (book.get(6).text, book.get(6).method) == ("=dogs", "np_acts-logits-general")
    assert set(book.all()) == {3, 6}
    book.set(3, "mine")
    again = book.import_file(path)
    assert (again.added, again.same) == (0, 3)
    assert book.get(3).text == "mine"


WRONG = {
    "another layer": ({"layer": "6-res-jb"}, "line 1: an explanation of tiny/6-res-jb, which is of layer 6, and this SAE reads layer 15"),
    "a feature that is not there": ({"index": "10"}, "line 1: no feature 10 in this SAE"),
    "no number": ({"index": "x"}, "line 1: 'x' is no feature's number"),
    "no text": ({"description": 3}, "line 1: not an explanation"),
    "a long text": ({"description": "x" * 10_000}, "line 1: a label or note has at most 2,000"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_explanation_that_is_none_of_this_sae_is_named_and_nothing_written(tmp_path, case):
    row, message = WRONG[case]
    with pytest.raises(InterpError, match=f"batch-0.jsonl, {message}"):
        book_in(tmp_path).import_file(explanations(tmp_path / "batch-0.jsonl", row, {"index": "2"}), layer=15)
    assert not (tmp_path / "l.sqlite").exists()


def test_explanations_of_two_sources_are_not_mixed(tmp_path):
    path = explanations(tmp_path / "b.jsonl", {}, {"layer": "15-res-b"})
    with pytest.raises(
        InterpError, match="b.jsonl, line 2: an explanation of tiny/15-res-b, where the first is of tiny/15-res-jb"
    ):
        book_in(tmp_path).import_file(path)
    path.write_text(path.read_text().splitlines()[0] + '\n{"feature": 1, "text": "x"}\n')
    with pytest.raises(InterpError, match="b.jsonl, line 2: not an explanation of Neuronpedia's"):
        book_in(tmp_path).import_file(path)


def test_names_go_to_neuronpedia_and_come_back_with_how_they_came_about(tmp_path):
    book = book_in(tmp_path)
    book.set(3, "cats", author="me", note="not in it", method="llm:gpt-4o-mini (oai_token-act-pair)")
    book.set(4, "dogs", method="llm:a/b")
    book.set(5, "birds")
    book.set(6, "fish", method="predicate", predicate="max:1..")
    assert book.export(tmp_path / "out.jsonl", form="neuronpedia", source=SOURCE) == 4
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "modelId": "tiny", "layer": "15-batchtopk-64", "index": "3", "authorId": "me", "description": "cats",
        "typeName": "oai_token-act-pair", "explanationModelName": "gpt-4o-mini",
    }  # fmt: skip
    assert [(row["typeName"], row["explanationModelName"]) for row in rows[1:]] == [
        (None, "a/b"), (None, None), ("predicate", None),
    ]  # fmt: skip
    other = LabelBook("sha", 10, url=f"sqlite:///{tmp_path}/other.sqlite")
    assert other.import_file(tmp_path / "out.jsonl", layer=15).added == 4
    kept = [(label.text, label.author, label.method) for label in other.all().values()]
    told = [(label.text, label.author, label.method) for label in book.all().values()]
    assert kept == [(text, author, "import" if method == "person" else method) for text, author, method in told]


def test_each_form_is_written_and_read_on_the_command_line(monkeypatch, capsys, checkpoint, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    LabelBook.of(checkpoint).set(3, "cats", tags=["animal"], method="llm:m")
    for name, options, said in (
        ("a.csv", (), ""),
        ("a.jsonl", (), ""),
        ("np.jsonl", ("--form", "neuronpedia"), "notes, status, dates, tags, stars and predicates are not in it"),
    ):
        monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
        code, out, err = call(monkeypatch, capsys, "labels", "export", checkpoint, tmp_path / name, *options)
        assert (code, err) == (0, "")
        assert out.startswith("1 label in ")
        assert said in out
        monkeypatch.setenv("INTERP_HOME", str(tmp_path / name.replace(".", "-")))
        code, out, err = call(monkeypatch, capsys, "labels", "import", checkpoint, tmp_path / name)
        assert (code, err) == (0, "")
        label = LabelBook.of(checkpoint).get(3)
        assert (label.text, label.method, label.tags) == ("cats", "llm:m", () if said else ("animal",))
    code, _, err = call(monkeypatch, capsys, "labels", "export", checkpoint, tmp_path / "x", "--form", "cvs")
    assert code == 2
    assert "did you mean csv" in err
