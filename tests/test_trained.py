"""Each example says whether its document was trained on, and which documents were is kept beside the card."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from interp.checkpoint import Card, load
from interp.checkpoint.trained import NO, UNKNOWN, YES, TrainedOn
from interp.corpus import Corpus, Document, mix, open_corpus, tokenize
from interp.exports import Contents, export
from interp.index import FeatureIndex, IndexConfig, build_index
from interp.recipe import train_checkpoint
from interp.render.words import TRAINED, TRAINED_MEANS
from interp.training import TrainConfig
from interp.types import InterpError
from interp.workbench import Workbench
from tests.conftest import HOOK

DIGESTS = [f"{number:064x}" for number in np.random.default_rng(0).integers(0, 2**62, 500)]
SPREAD = [digest[48:] + digest[:48] for digest in DIGESTS]


def card(split=None, **more):
    known = dict.fromkeys(("name", "model", "model_sha256", "dtype", "attention", "architecture"), "x")
    return Card(**known, hook_name=HOOK, norm_cutoff=1.0, separator=0, context=256, corpus={"split": split}, **more)


def test_what_was_trained_on_comes_back_from_its_file(tmp_path):
    TrainedOn.of(SPREAD[:300]).write(tmp_path)
    again = TrainedOn.read(tmp_path, card())
    assert again.marks(SPREAD, ["train"] * 500) == [YES] * 300 + [NO] * 200
    assert (tmp_path / "trained.parquet").stat().st_size < 300 * 8 + 1000


def test_without_the_file_only_another_split_is_known(tmp_path):
    splits = ["train", "heldout", "labels"]
    assert TrainedOn.read(tmp_path, card("train")).marks(SPREAD[:3], splits) == [UNKNOWN, NO, NO]
    assert TrainedOn.read(tmp_path, card()).marks(SPREAD[:3], splits) == [UNKNOWN] * 3


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "trained.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    with pytest.raises(InterpError, match=r"trained\.parquet cannot be read"):
        TrainedOn.read(tmp_path, card())


@pytest.fixture(scope="module")
def trained(tiny, store, text_folder, tmp_path_factory):
    """An SAE whose training held out the last blocks of its text, with an index over all of the text's documents."""
    folder = tmp_path_factory.mktemp("trained") / "tiny"
    train_checkpoint(store, HOOK, folder, d_sae=32, k=4, epochs=1, batch=256, config=TrainConfig(lr=5e-3))
    wb = Workbench.open(folder, labels="sqlite://")
    wb.build_index(open_corpus(text_folder), 16_384, beside=True)
    return wb


def test_documents_of_the_training_blocks_were_trained_on_and_no_others(trained, store):
    blocks = store.blocks
    first, stop = trained.card.recipe["held_out"]["blocks"]
    assert 0 < first < stop == len(blocks.tokens_NT)
    read = {blocks.documents["sha256"][row].as_py() for row in blocks.document_NT[:first].unique().tolist()}
    documents = FeatureIndex.open(trained.folder / "index").documents
    assert {
        digest for digest, mark in zip(documents["sha256"], documents["trained_on"], strict=True) if mark == YES
    } == (read & set(documents["sha256"]))
    assert set(documents["trained_on"]) == {YES, NO}


def test_pages_exports_and_examples_say_it(trained, tmp_path):
    index = trained.index
    feature = int(index.features["fires"].idxmax())
    page = trained.feature(feature)
    by_title = dict(zip(index.documents["title"], index.documents["trained_on"], strict=True))
    assert {example.trained_on for example in page.examples} <= {YES, NO}
    assert all(example.trained_on == by_title[example.title] for example in page.examples)
    assert "<th>trained on</th>" in page._repr_html_()
    contents = Contents(sae=trained.sae, card=trained.card, index=index, labels={})
    export(contents, "html", tmp_path / "html", [feature])
    assert "<th>trained on</th>" in (tmp_path / "html" / f"feature-{feature}.html").read_text()
    export(contents, "parquet", tmp_path / "parquet", [feature])
    told = pq.read_table(tmp_path / "parquet" / "examples.parquet")["trained_on"].to_pylist()
    assert told == [example.trained_on for example in index.examples(feature)]


def test_the_card_hashes_the_list_and_it_travels(trained, tmp_path):
    from interp.checkpoint import pack, unpack

    assert "trained.parquet" in trained.card.files
    pack(trained.folder, tmp_path / "a.interp.tar")
    unpack(tmp_path / "a.interp.tar", tmp_path / "b")
    assert (tmp_path / "b" / "trained.parquet").read_bytes() == (trained.folder / "trained.parquet").read_bytes()


def test_an_index_without_the_column_says_unknown(trained, tiny, store, tmp_path):
    build_index(load(trained.folder), store, tiny, tmp_path, IndexConfig(), norm_cutoff=trained.card.norm_cutoff)
    assert set(FeatureIndex.open(tmp_path).documents["trained_on"]) == {UNKNOWN}


def corpus(name, *texts, passes_on=True):
    docs = [Document(text=text, source=name, title=str(i)) for i, text in enumerate(texts)]
    return Corpus(name=name, licence="", about="", read=lambda: docs, passes_on=passes_on)


def test_each_document_of_a_mixture_says_whether_it_may_be_passed_on(tiny, tmp_path):
    ours = corpus("ours", *(f"our text number {i}" for i in range(40)))
    theirs = corpus("theirs", *(f"their text number {i}" for i in range(40)), passes_on=False)
    inner = mix([(ours, 1.0), (theirs.filter(min_chars=3), 1.0)])
    assert not inner.passes_on
    for whole in (inner, mix([(inner, 1.0), (corpus("more", "one more text"), 1.0)]), inner.where("split", "train")):
        blocks = tokenize(whole, tiny, 100_000)
        rows = blocks.documents.to_pylist()
        assert {row["source"] for row in rows} >= {"ours", "theirs"}
        assert all(row["passes_on"] == (row["source"] != "theirs") for row in rows)
    assert not any(tokenize(theirs, tiny, 1000).documents["passes_on"].to_pylist())


def test_the_command_line_says_it(trained):
    from typer.testing import CliRunner

    from interp.cli.app import app

    feature = int(trained.index.features["fires"].idxmax())
    shown = CliRunner().invoke(app, ["feature", str(trained.folder), str(feature), "--json"])
    assert shown.exit_code == 0, shown.output
    assert {example["trained_on"] for example in json.loads(shown.output)["examples"]} <= {YES, NO}


def test_the_page_marks_each_example_and_explains_the_mark(trained, monkeypatch):
    monkeypatch.setenv("INTERP_FOLDERS", str(trained.folder.parent))
    from tests.test_ui import run, sheet

    feature = int(trained.index.features["fires"].idxmax())
    shown = sheet(run("feature", sae=str(trained.folder), feature=str(feature)))
    marked = {kind for kind, said in TRAINED.items() if f'title="{TRAINED_MEANS[kind]}">{said}</span>' in shown}
    assert marked == {example.trained_on for example in trained.index.examples(feature)}
