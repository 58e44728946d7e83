import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp.corpus import CORPORA, Corpus, Document, TokenBlocks, mix, open_corpus, tokenize
from interp.types import InterpError


class Letters:
    """A tokenizer of one token a character, whose separator is 0."""

    separator = 0

    def tokenize(self, text):
        return [ord(c) for c in text]


def corpus(*texts, name="c"):
    docs = [Document(text=text, source=name, title=str(i)) for i, text in enumerate(texts)]
    return Corpus(name=name, licence="", about="", read=lambda: docs)


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
    share = {s: sum(d.split == s for d in docs) / 4000 for s in ("train", "heldout", "labels")}
    assert share["train"] == pytest.approx(205 / 256, abs=0.03)
    assert share["heldout"] == pytest.approx(25 / 256, abs=0.02)
    assert docs[7].split == Document(text="document 7", source="b", title="x").split


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
    doc = next(iter(open_corpus(name).documents()))
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
        ("image.png", b"x", "no text that can be read"),
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
