import csv
import gzip
import json
import random
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from interp.corpus import (
    CORPORA,
    Corpus,
    Document,
    Reading,
    TokenBlocks,
    mix,
    near_duplicates,
    open_corpus,
    read_texts,
    second_set,
    tokenize,
    turns,
)
from interp.corpus.duplicates import duplicates
from interp.corpus.overlap import hashes
from interp.types import InterpError


class Letters:
    """A tokenizer of one token a character, whose separator is 0."""

    separator = 0
    alone, reads = None, "text"

    def tokenize(self, text):
        return [ord(c) for c in text]

    def conversation(self, turns):
        return [ord(c) for role, text in turns for c in f"<{role[0]}{text}>"]


def corpus(*texts, name="c"):
    docs = [Document(text=text, source=name, title=str(i)) for i, text in enumerate(texts)]
    return Corpus(name=name, licence="", about="", read=lambda: docs)


def test_a_conversation_is_read_in_the_models_template_and_named_by_its_text():
    doc = Document(text="user: a\nassistant: b", source="chat", title="1", turns=(("user", "a"), ("assistant", "b")))
    chats = Corpus(name="chat", licence="", about="", read=lambda: [doc])
    blocks = tokenize(chats, Letters(), 8, block=16)
    assert "".join(map(chr, blocks.tokens_NT[0, 1:9].tolist())) == "<ua><ab>"
    assert blocks.documents["sha256"].to_pylist() == [replace(doc, turns=()).digest.hex()]


def test_blocks_start_with_the_separator_and_keep_document_boundaries():
    blocks = tokenize(corpus("abc", "de", "fghijk"), Letters(), 16, block=8)
    text = "".join(chr(t) if t else "|" for t in blocks.tokens_NT.reshape(-1).tolist())
    assert text == "|abc|de||fghijk|"
    owners = blocks.document_NT.reshape(-1).tolist()
    assert [owners[text.index(c)] for c in "adf"] == [0, 1, 2]


def test_a_document_longer_than_a_block_goes_on_in_the_next():
    blocks = tokenize(corpus("abcdefghijklmn"), Letters(), 16, block=8)
    assert "".join(chr(t) if t else "|" for t in blocks.tokens_NT.reshape(-1).tolist()) == "|abcdefg|hijklmn"
    assert blocks.real_NT().sum() == 14


def test_a_text_shorter_than_a_block_is_padded_and_the_padding_is_masked():
    blocks = tokenize(corpus("ab"), Letters(), 8, block=8)
    assert blocks.real_NT().tolist() == [[False, True, True, False, False, False, False, False]]


def test_token_files_come_back_as_they_were(tmp_path):
    blocks = tokenize(corpus("abc", "defg"), Letters(), 8, block=8)
    blocks.save(tmp_path)
    again = TokenBlocks.load(tmp_path)
    assert again.tokens_NT.equal(blocks.tokens_NT)
    assert again.document_NT.equal(blocks.document_NT)
    assert again.sha256() == blocks.sha256()
    assert again.documents.equals(blocks.documents)


def test_the_split_is_the_texts_own_and_the_shares_are_as_stated():
    docs = [Document(text=f"document {i}", source="a", title="") for i in range(4000)]
    share = {s: sum(d.split == s for d in docs) / 4000 for s in ("train", "heldout", "labels", "final")}
    assert share["train"] == pytest.approx(205 / 256, abs=0.03)
    assert share["heldout"] == pytest.approx(25 / 256, abs=0.02)
    assert share["labels"] == pytest.approx(13 / 256, abs=0.02)
    assert share["final"] == pytest.approx(13 / 256, abs=0.02)
    assert docs[7].split == Document(text="document 7", source="b", title="x").split


def test_the_last_split_is_read_by_its_name_only_or_where_there_is_nothing_else(capsys):
    texts = [f"document {i}" for i in range(400)]
    kept = [doc for doc in corpus(*texts).documents() if doc.split == "final"]
    blocks = tokenize(corpus(*texts), Letters(), 10**6, block=8)
    assert len(kept) > 5
    assert len(blocks.documents) == 400 - len(kept)
    assert "final" not in blocks.documents["split"].to_pylist()
    assert f"{len(kept)} documents of the split final passed over" in capsys.readouterr().err
    for named in (tokenize(corpus(*texts), Letters(), 10**6, split="final", block=8),
                  tokenize(corpus(*(doc.text for doc in kept)), Letters(), 10**6, block=8)):  # fmt: skip
        assert set(named.documents["split"].to_pylist()) == {"final"}
        assert len(named.documents) == len(kept)


def test_a_mixture_keeps_shares_and_drops_repeated_texts():
    a = corpus(*[f"a{i:03d}" for i in range(100)], name="a")
    b = corpus(*[f"b{i:03d}" for i in range(100)], "a001", name="b")
    first = [doc.text[0] for doc in mix([(a, 3.0), (b, 1.0)]).documents()][:80]
    assert first.count("a") == 60
    texts = [doc.text for doc in mix([(a, 1.0), (b, 1.0)]).documents()]
    assert len(texts) == len(set(texts)) == 200


def test_files_of_every_kind_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("one text", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n\n"three"\n', encoding="utf-8")
    pq.write_table(pa.table({"id": [1], "body": ["four"]}), tmp_path / "c.parquet")
    assert [doc.text for doc in open_corpus(tmp_path).documents()] == ["one text", "two", "three", "four"]


@pytest.mark.parametrize("name", list(CORPORA))
def test_packaged_corpora_give_documents(name):
    try:
        doc = next(iter(open_corpus(name).documents()))
    except InterpError as error:
        if "interp setup --texts" not in str(error):
            raise
        pytest.skip(str(error))
    assert len(doc.text) > 20
    assert doc.title
    assert doc.source == name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.txt", None, "there is no file or folder"),
        ("empty.txt", b"  \n", "is empty"),
        ("latin.txt", b"caf\xe9", "not UTF-8"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": ', "line 2: not JSON"),
        ("notext.jsonl", b'{"n": 1}', "no field holds text; its fields are n"),
        ("bad.parquet", b"PAR?", "not readable as Parquet"),
        ("archive.bin", b"x", "no text that can be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InterpError, match=message):
        list(open_corpus(path).documents())


def test_an_unknown_name_is_answered_with_the_names_that_exist():
    with pytest.raises(InterpError, match="did you mean wiki-e"):
        open_corpus("wiki-em")


def test_a_corpus_without_text_in_a_split_says_so(tmp_path):
    doc = next(d for d in (Document(text=f"x{i}", source="", title="") for i in range(99)) if d.split == "train")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": doc.text}), encoding="utf-8")
    with pytest.raises(InterpError, match="no text in the split 'labels'"):
        tokenize(open_corpus(tmp_path), Letters(), 8, split="labels")


# ---- which field is the text ----


def rows_file(folder, rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def texts_of(path):
    return [doc.text for doc in open_corpus(str(path)).documents()]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"text": "A body.", "content": "Another body."}, "text"),
        ({"repo_name": "team/tool", "path": "a.py", "content": "def f():\n    return 1\n"}, "content"),
        ({"id": "row-1", "document": "A long body of text about trains."}, "document"),
        ({"title": "A head", "body": "And what stands under it."}, "body"),
        ({"label": 1, "sentence": "It was fine."}, "sentence"),
        ({"key": "0xab12", "score": 0.5, "prose": "Seen by its values: the key is none."}, "prose"),
    ],
)
def test_the_text_of_a_file_is_its_one_field_that_can_be_meant(tmp_path, row, field):
    assert texts_of(rows_file(tmp_path, [row])) == [row[field]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "Say it.", "completion": "It is said."},
            "several fields may hold text; its fields are prompt, completion",
        ),
        ({"question": "Why is it?", "answer": "It just is."}, "rows.jsonl#question"),
        ({"question": "How many are there?", "answer": "42"}, "several fields may hold text"),
        ({"words": "Yes.", "others": "No."}, "several fields may hold text"),
        ({"instruction": "Add them.", "input": "", "output": "They add up."}, "fields are instruction, input, output"),
        ({"url": "https://example.org/1", "label": "spam"}, "no field holds text; its fields are url, label"),
        ({"page": "https://example.org/1"}, "no field holds text"),
        ({"text": ["One.", "Two."], "lang": "en"}, "line 1: `text` holds a list of 2, not a string"),
        ({"text": 12, "label": "spam"}, "line 1: `text` holds the number 12"),
        ({"text": {"en": "Hello there."}}, "an object with the fields en"),
        (
            {"text": None, "body": "Here it is."},
            "`text` is null there and in all of the first 1 rows; .*rows.jsonl#body",
        ),
        ({"input_ids": [5, 6, 7], "doc": "row-1"}, "line 1: `input_ids` holds token ids"),
        ({"prompt_id": "p-1", "messages": [{"role": "user", "content": "Hello there"}]}, "the turns of a chat"),
        ({"prompt": "Hello there", "conversations": [{"from": "human", "value": "Hi"}]}, "the turns of a chat"),
        (["a", "b"], "expected an object with a field `text`, found a list of 2"),
    ],
)
def test_a_field_that_is_not_clear_is_asked_for(tmp_path, row, message):
    with pytest.raises(InterpError, match=message):
        texts_of(rows_file(tmp_path, [row]))


def test_the_field_is_named_after_the_file_in_every_format(tmp_path):
    rows = [
        {"question": "Why?", "answer": "It is so.", "lang": "en"},
        {"question": "Quoi ?", "answer": "Voilà.", "lang": "fr"},
    ]
    rows_file(tmp_path, rows)
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "rows.csv").write_text(
        'question,answer,lang\nWhy?,"It is so.",en\nQuoi ?,Voilà.,fr\n', encoding="utf-8"
    )
    (tmp_path / "rows.tsv").write_text(
        "question\tanswer\tlang\nWhy?\tIt is so.\ten\nQuoi ?\tVoilà.\tfr\n", encoding="utf-8"
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for suffix in ("jsonl", "json", "csv", "tsv", "parquet"):
        assert texts_of(f"{tmp_path}/rows.{suffix}#answer") == ["It is so.", "Voilà."]
        assert texts_of(f"{tmp_path}/rows.{suffix}#answer#lang=fr") == ["Voilà."]
        docs = list(open_corpus(f"{tmp_path}/rows.{suffix}#question@lang").documents())
        assert [(doc.text, doc.topic) for doc in docs] == [("Why?", "en"), ("Quoi ?", "fr")]
    assert texts_of(f"{tmp_path}#answer") == ["It is so.", "Voilà."] * 5
    with pytest.raises(InterpError, match="no field of .*rows.jsonl 'anser': did you mean answer"):
        texts_of(f"{tmp_path}/rows.jsonl#anser")
    with pytest.raises(InterpError, match="no column 'language'. Its columns are question, answer, lang"):
        texts_of(f"{tmp_path}/rows.jsonl#answer@language")
    with pytest.raises(InterpError, match="only #column=value may follow"):
        open_corpus("wiki-en#text")


def test_a_number_sign_in_the_name_of_a_file_is_part_of_the_name(tmp_path):
    (tmp_path / "a#b.txt").write_text("here", encoding="utf-8")
    assert texts_of(tmp_path / "a#b.txt") == ["here"]


def test_rows_without_text_are_skipped_and_counted(tmp_path, capsys):
    pq.write_table(pa.table({"text": ["a b c", None, "d"], "note": ["x y", "x y", "x z"]}), tmp_path / "one.parquet")
    rows_file(
        tmp_path, [{"text": None, "url": "https://example.org"}, {"text": "A body."}, {"url": "u"}, {"text": " "}]
    )
    assert texts_of(tmp_path) == ["a b c", "d", "A body."]
    blocks = tokenize(open_corpus(tmp_path), Letters(), 64, block=8)
    assert blocks.reading["rows_without_text"] == 4
    assert (
        "text: 3 documents, 16 tokens; 4 rows without text skipped; 0 of 2 files not reached, 0 read in part."
        in capsys.readouterr().err
    )


def test_a_text_of_another_kind_further_down_is_refused_with_its_line(tmp_path):
    path = rows_file(tmp_path, [{"text": "fine"}] * 150 + [{"text": 7}])
    with pytest.raises(InterpError, match="line 151: `text` holds the number 7"):
        texts_of(path)


# ---- formats, and what is broken in them ----


def test_compressed_files_and_byte_order_marks_are_read(tmp_path):
    raw = {"a.txt": b"one", "b.jsonl": b'{"text": "two"}', "c.csv": b"text\nthree\n", "d.json": b'["four"]'}
    for name, content in raw.items():
        marked = "\ufeff".encode() + content
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(marked))
        (tmp_path / f"z{name}.zst").write_bytes(zstandard.ZstdCompressor().compress(marked))
        (tmp_path / f"zz{name.upper()}").write_bytes(marked)
    assert texts_of(tmp_path) == ["one", "two", "three", "four"] * 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": "half \\ud83d an emoji"}\n', "line 2: half a character \\(.ud83d"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": "caf\xe9"}\n', "line 2 is not UTF-8"),
        ("a.jsonl", b'{"text": "nul \\u0000"}\n', "line 1: a NUL character"),
        ("a.txt", b"fine\nnul \0 here\n", "line 2: a NUL character"),
        ("a.txt", "fine".encode("utf-16"), "line 1 is not UTF-8 .*begins as UTF-16"),
        ("a.jsonl", b'{"text": "a"}\n' + b"[" * 200_000 + b"\n", "line 2: JSON nested too deeply"),
        ("a.json", b"[" * 200_000, "line 1: JSON nested too deeply"),
        ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}", "line 1: not JSON that can be read"),
        ("a.json", b'[{"text": "a"},\n {"text": }]', "line 2: not JSON"),
        (
            "a.json",
            b'{"name": "settings",\n "text": {"a": 1}}',
            "is one JSON value \\(with the fields name, text\\), not rows",
        ),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 999, mtime=0)[:-20], "no whole gzip file"),
        ("a.jsonl.gz", b"no gzip", "no whole gzip file"),
        ("a.txt.zst", zstandard.ZstdCompressor().compress(bytes(range(32, 127)) * 9999)[:-5], "no whole zstd file"),
        ("a.csv", b'text\nfine\n"and never ends\n', "line 3: not CSV"),
        ("a.csv", b"text,n\nfine, but commas,1\n", "line 2: 3 fields, where the first line names 2"),
        ("a.csv", b"text;n\nfine;1\n", "parted by other than commas"),
        ("a.csv", b"text,text\nfine,1\n", "two columns have the name 'text'"),
        ("a.csv", b"", "is empty"),
    ],
)
def test_broken_text_is_refused_with_file_and_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InterpError, match=message):
        texts_of(tmp_path / name)
    rows_file(tmp_path, [{"text": "of a file that is whole"}], "z.jsonl")
    if "is empty" not in message and "not rows" not in message:  # a folder may hold settings and empty files
        with pytest.raises(InterpError, match=message):
            texts_of(tmp_path)


def test_bytes_that_are_no_text_are_refused_in_parquet_too(tmp_path):
    bad = pa.Array.from_buffers(pa.string(), 2, [*pa.array(["ab", "cd"]).buffers()[:2], pa.py_buffer(b"ab\xff\xfe")])
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    with pytest.raises(InterpError, match="row 2 is not UTF-8"):
        texts_of(tmp_path / "a.parquet")


def test_a_text_longer_than_the_csv_module_likes_is_read_and_its_limit_stays(tmp_path):
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text(f'text\n"{"word " * 100_000}"\n', encoding="utf-8")
    assert len(texts_of(tmp_path / "a.csv")[0]) == 500_000
    next(iter(open_corpus("sae-probes").documents()))
    assert csv.field_size_limit() == before


def test_a_folder_is_read_without_what_is_no_text_in_it(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("inner", encoding="utf-8")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "a.txt").write_text("outer", encoding="utf-8")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "same.txt").symlink_to(tmp_path / "a.txt")
    (tmp_path / ".hidden.txt").write_text("hidden", encoding="utf-8")
    (tmp_path / "README").write_text("read me", encoding="utf-8")
    (tmp_path / "dataset_info.json").write_text('{"splits": {"train": {"rows": 2}}}', encoding="utf-8")
    text = open_corpus(tmp_path)
    assert [(doc.source, doc.text) for doc in text.documents()] == [("a.txt", "outer"), ("sub/a.txt", "inner")]
    assert "3 files" in text.about
    assert "2 of other kinds left out" in text.about


# ---- how a text is parted, and in which order it is read ----


def test_a_long_text_is_parted_at_paragraphs_then_lines_then_words(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("aaaa\n\nbbbb\n\n\ncccc cccc\ncccc\n\ndddddddddddddd\n", encoding="utf-8")
    docs = list(open_corpus(f"{path}#12").documents())
    assert [doc.text for doc in docs] == ["aaaa\n\nbbbb", "cccc cccc", "cccc", "dddddddddddd", "dd"]
    assert [doc.title for doc in docs] == ["a.txt", "a.txt:6", "a.txt:7", "a.txt:9", "a.txt:9"]
    assert texts_of(f"{path}#lines") == ["aaaa", "bbbb", "cccc cccc", "cccc", "dddddddddddddd"]
    assert texts_of(f"{path}#whole") == [path.read_text().removesuffix("\n")]
    assert texts_of(path) == texts_of(f"{path}#paragraphs") == [path.read_text().removesuffix("\n")]
    with pytest.raises(InterpError, match="a .txt has no fields"):
        open_corpus(f"{path}#content")
    with pytest.raises(InterpError, match="at least one character"):
        open_corpus(f"{path}#0")


def test_no_word_is_lost_where_a_text_is_parted(tmp_path):
    draw = random.Random(0)
    words = [draw.choice(["a", "bb\n", "ccc\n\n", "dddd", "eeeee" * 9]) for _ in range(3000)]
    (tmp_path / "a.txt").write_text(" ".join(words), encoding="utf-8")
    pieces = texts_of(f"{tmp_path}/a.txt#40")
    assert max(map(len, pieces)) <= 40
    assert "".join("".join(pieces).split()) == "".join("".join(words).split())


def test_every_file_is_reached_early_and_those_that_are_not_are_counted(tmp_path, capsys):
    for file in range(40):
        rows_file(tmp_path, [{"text": f"{file:02d} {row:03d}"} for row in range(200)], f"{file:02d}.jsonl")
    text = open_corpus(tmp_path)
    blocks = tokenize(text, Letters(), 2048, block=8)
    assert len(set(blocks.documents["source"].to_pylist())) == 40
    assert blocks.documents.equals(tokenize(text, Letters(), 2048, block=8).documents)
    other = tokenize(open_corpus(tmp_path, seed=1), Letters(), 2048, block=8)
    assert set(blocks.documents["title"].to_pylist()) != set(other.documents["title"].to_pylist())
    assert blocks.reading == {
        "seed": 0,
        "files": 40,
        "files_not_reached": 0,
        "files_read_in_part": 40,
        "rows_without_text": 0,
        "fields": {"text": 40},
    }
    few = tokenize(text, Letters(), 64, block=8)
    said = capsys.readouterr().err
    assert f"text: {tmp_path}: 40 files, " in said
    assert "; order drawn with seed 0." in said
    assert few.reading["files_not_reached"] == 40 - len(set(few.documents["source"].to_pylist()))
    assert f"{few.reading['files_not_reached']} of 40 files not reached" in said
    everything = tokenize(text, Letters(), 10**6, block=8)
    assert sorted(everything.documents["title"].to_pylist()) == sorted(doc.title for doc in text.documents())


def test_the_pool_bounds_what_is_held_of_a_large_text(tmp_path, monkeypatch):
    monkeypatch.setattr(turns, "POOL_CHARS", 1000)
    rows = [{"text": f"{row:04d} {'x' * 95}"} for row in range(500)]
    assert [doc.text for doc in open_corpus(rows_file(tmp_path, rows)).in_mixed_order(Reading())] == [
        r["text"] for r in rows
    ]
    (tmp_path / "empty.txt").touch()
    order = [int(doc.text[:4]) for doc in open_corpus(tmp_path).in_mixed_order(Reading())]
    assert sorted(order) == list(range(500))
    assert order != sorted(order)
    assert all(row <= place + 10 for place, row in enumerate(order))


def test_a_mixture_of_ones_own_text_keeps_its_reading(tmp_path):
    rows_file(tmp_path, [{"body": f"Text number {row}."} for row in range(50)])
    both = open_corpus(f"{tmp_path}/rows.jsonl+wiki-en")
    blocks = tokenize(both, Letters(), 1024)
    assert blocks.reading["fields"] == {"body": 1}
    assert set(blocks.documents["source"].to_pylist()) == {"rows.jsonl", "wiki-en"}


def test_how_a_text_was_read_comes_back_from_disk(tmp_path):
    (tmp_path / "a.txt").write_text("abc", encoding="utf-8")
    blocks = tokenize(open_corpus(tmp_path / "a.txt"), Letters(), 8, block=8)
    blocks.save(tmp_path / "store")
    assert TokenBlocks.load(tmp_path / "store").reading == blocks.reading
    assert blocks.reading["txt"] == "paragraphs gathered up to 2,000 characters"
    assert tokenize(corpus("abc"), Letters(), 8, block=8).reading == {}


def test_sets_of_texts_are_read_by_the_same_reader(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    rows_file(tmp_path, [{"id": "r-1", "text": "two\nlines"}, {"id": "r-2", "text": None}])
    assert sorted(read_texts(tmp_path / "a.txt")) == ["one", "two"]
    assert list(read_texts(f"{tmp_path}/a.txt#whole")) == ["one\n\ntwo"]
    assert list(read_texts(tmp_path / "rows.jsonl")) == ["two\nlines"]
    assert second_set("rows.csv#label=good", "bad") == "rows.csv#label=bad"


def test_a_data_set_of_the_hub_goes_through_the_same_reader(tmp_path):
    rows_file(tmp_path, [{"question": "Why?", "answer": "So."}])
    with pytest.raises(InterpError, match="several fields may hold text"):
        texts_of(f"hf:{tmp_path}")
    assert texts_of(f"hf:{tmp_path}#answer") == ["So."]
    with pytest.raises(InterpError, match="cannot read the hub's data set"):
        texts_of(f"hf:{tmp_path}/nothing")


# ---- near-duplicates ----


def test_near_duplicates_are_documents_half_of_whose_13_grams_are_known():
    words = [f"word{i}" for i in range(40)]
    known = [Document(text=" ".join(words[:26]).upper(), source="a", title="")]

    def held(*chosen):
        return Document(text=", ".join(chosen), source="b", title="")

    copied, half, less = held(*words[:26]), held(*words[:27], "x"), held(*words[:14], *map(str, range(20)))
    found = near_duplicates([copied, half, less, held("short")], known)["b"]
    assert (found.documents, found.near, found.short) == (3, 2, 1)
    assert near_duplicates([copied], [])["b"].near == 0


def test_the_hashes_of_13_grams_are_equal_where_the_words_are():
    draw = random.Random(0)
    text = [draw.choice("abcd") for _ in range(3000)]
    grams = [tuple(text[at : at + 13]) for at in range(3000 - 12)]
    found = hashes(" ".join(text))
    assert len(found) == len(grams)
    assert len(set(found.tolist())) == len(set(grams))


WORDS = [f"w{n}" for n in range(400)]


def essay(seed, changed=0, words=300):
    draw = random.Random(seed)
    text = [draw.choice(WORDS) for _ in range(words)]
    for at in draw.sample(range(words), changed):
        text[at] = f"other{at}"
    return " ".join(text)


def test_near_duplicates_of_a_text_are_dropped_and_the_first_of_their_kind_stays():
    names = {
        "a": essay(1),
        "a, three words changed": essay(1, changed=3),
        "a, in capitals and with commas": essay(1).upper().replace(" ", ", "),
        "a, a sixth changed": essay(1, changed=50),
        "b": essay(2),
        "short": "Too few words.",
        "short, again": "Too few words!",
    }
    docs = [Document(text=text, source="s", title=name) for name, text in names.items()]
    dropped = duplicates(docs)
    assert {doc.title for doc in docs if doc.digest.hex() in dropped} == {
        "a, three words changed",
        "a, in capitals and with commas",
    }
    assert {doc.title for doc in docs[::-1] if doc.digest.hex() in duplicates(docs[::-1])} == {
        "a",
        "a, three words changed",
    }


def test_duplicates_agree_with_jaccard_counted_by_hand():
    docs = [
        Document(text=essay(seed, changed), source="s", title=f"{seed} {changed}")
        for seed in range(20)
        for changed in (0, 2, 6, 60)
    ]
    grams = {doc.title: set(hashes(doc.text, 5).tolist()) for doc in docs}
    dropped = duplicates(docs)
    for doc in docs:
        first = grams[f"{doc.title.split()[0]} 0"]
        near = len(first & grams[doc.title]) / len(first | grams[doc.title])
        if abs(near - 0.7) > 0.15 and not doc.title.endswith(" 0"):
            assert (doc.digest.hex() in dropped) == (near > 0.7), (doc.title, near)


def test_shares_count_the_tokens_of_each_source():
    text = mix([(corpus("a" * 30, "aa" * 9, name="x"), 3), (corpus("b" * 20, name="y"), 1)])
    blocks = tokenize(text, Letters(), 64, block=16)
    counted = blocks.tokens_NT[blocks.real_NT()]
    assert list(blocks.shares()) == ["x", "y"]
    assert blocks.shares()["x"] == (counted == ord("a")).double().mean().item()
