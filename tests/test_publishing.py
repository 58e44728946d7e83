"""Publishing in one step: what was indexed, measured and labelled here goes along, and what does not is said."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from interp import places
from interp.checkpoint import Card, pack, unpack
from interp.checkpoint.files import EVIDENCE
from interp.corpus import open_corpus
from interp.evals import record
from interp.evidence.card import Of, evidence_folder, join, write_evidence
from interp.index import FeatureIndex
from interp.index.cut import cut
from interp.labels import LabelBook
from interp.publishing import publish
from interp.types import InterpError
from interp.verification import verify
from interp.workbench import Workbench
from tests.test_cli import call
from tests.test_evidence_search import known, write


@pytest.fixture
def bare(checkpoint, tmp_path, monkeypatch):
    """The checkpoint as training leaves it, its full index under a home of its own: the natural order of work."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    shutil.copytree(checkpoint, tmp_path / "mine", ignore=shutil.ignore_patterns("index"))
    sha = Card.read(tmp_path / "mine").sae_sha256
    shutil.copytree(checkpoint / "index", places.cache() / "indexes" / sha)
    return tmp_path / "mine"


def test_one_step_ships_index_labels_and_metrics_sealed(bare, text_folder, tmp_path):
    wb = Workbench.open(bare)
    wb.evaluate(open_corpus(text_folder), 2_048)
    wb.labels.set(3, "three", author="me")
    before = {path.name: path.read_bytes() for path in bare.iterdir()}
    done = wb.publish(tmp_path / "out", address="hf:me/sae")
    assert {path.name: path.read_bytes() for path in bare.iterdir()} == before
    card = Card.read(tmp_path / "out")
    assert set(card.metrics) == {"held_out"}
    assert {"labels.jsonl", "checks.json", "index/index.json", "sae_weights.safetensors"} <= set(card.files)
    assert "interp pull hf:me/sae" in (tmp_path / "out" / "README.md").read_text()
    assert done.carries[1:] == [
        "card (sealed)", "metrics (held_out)", "index of examples over 8,192 tokens", "1 label", "README.md"
    ]  # fmt: skip
    assert [phrase.partition(":")[0] for phrase in done.left_out] == ["index", "evidence", "report"]
    found = verify(tmp_path / "out")
    assert found.verdict == "verified", found.differs
    assert {claim.status for claim in found.claims if claim.what == "labels"} == {"only hashed"}
    assert found.pin == done.pin == unpacked_pin(tmp_path)
    (tmp_path / "out" / "labels.jsonl").write_text('{"feature": 3, "text": "planted"}\n')
    assert [check.what for check in verify(tmp_path / "out").differs] == ["file labels.jsonl"]


def unpacked_pin(tmp_path):
    pack(tmp_path / "out", tmp_path / "out.tar")
    return unpack(tmp_path / "out.tar", tmp_path / "theirs").pin


def test_evidence_goes_along_sealed_and_that_of_other_weights_does_not(bare, tmp_path):
    wb = Workbench.open(bare)
    write(wb, known(wb.card.sae_sha256))
    made = evidence_folder(wb.card.sae_sha256) / EVIDENCE
    assert any(phrase.startswith("evidence: made on this machine") for phrase in wb.lacks())
    out = tmp_path / "out"
    done = wb.publish(out)
    assert "evidence of its features" in done.carries
    assert (out / EVIDENCE).read_bytes() == made.read_bytes()
    assert EVIDENCE in Card.read(out).files
    found = verify(out)
    assert found.verdict == "verified", found.differs
    (claim,) = [claim for claim in found.claims if claim.what == "evidence"]
    assert claim.status == "only hashed"
    assert claim.said.startswith("of these weights: labels, effects")
    assert found.pin == done.pin == unpacked_pin(tmp_path)
    assert (tmp_path / "theirs" / EVIDENCE).read_bytes() == made.read_bytes()
    assert not any(phrase.startswith("evidence") for phrase in Workbench.open(out).lacks())

    of = Of(name="other", model="tiny", sae_sha256="b" * 64, d_sae=64)
    write_evidence(join(of, known("b" * 64)), out / EVIDENCE)
    wrong = verify(out)
    assert {check.what for check in wrong.differs} == {"file evidence.parquet", "evidence"}
    assert [claim.status for claim in wrong.claims if claim.what == "evidence"] == ["differs"]
    write_evidence(join(of, known("b" * 64)), made)
    with pytest.raises(InterpError, match="is evidence of other weights"):
        wb.publish(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_was_never_made_is_named_with_the_way_to_make_it(bare, tmp_path):
    shutil.rmtree(places.cache() / "indexes")
    left = " | ".join(Workbench.open(bare).publish(tmp_path / "out").left_out)
    assert "index: none was built for these weights; `interp index" in left
    assert "labels: nobody has named a feature here" in left
    assert "metrics: none were measured; `interp evaluate" in left
    assert "evidence: none was made of these weights (`interp evidence" in left
    assert verify(tmp_path / "out").verdict == "verified"


def test_a_checkpoint_whose_files_were_changed_is_not_published(bare, tmp_path):
    (bare / "cfg.json").write_text((bare / "cfg.json").read_text() + " ")
    with pytest.raises(InterpError, match="cfg.json is not the file that card.json names"):
        publish(bare, tmp_path / "out", index=None, labels=LabelBook("x", 64, url="sqlite://"), metrics={})
    assert not (tmp_path / "out").exists()


def test_a_cut_index_is_the_one_that_keeps_examples_would_be(checkpoint, text_folder, tmp_path):
    full = FeatureIndex.open(checkpoint / "index")
    cut(full, tmp_path / "cut")
    shutil.copytree(checkpoint, tmp_path / "sae", ignore=shutil.ignore_patterns("index"))
    wb = Workbench.open(tmp_path / "sae", labels="sqlite://")
    wb.build_index(open_corpus(text_folder), 8_192, keep="examples", beside=True)
    built, made = FeatureIndex.open(tmp_path / "sae" / "index"), FeatureIndex.open(tmp_path / "cut")
    assert made.partial
    assert set(made.meta["files"]) == set(built.meta["files"])
    for name in made.meta["files"]:
        if name.endswith(".parquet"):
            one, two = (pq.read_table(index.path(name)) for index in (made, built))
            assert one.schema.equals(two.schema), name
            assert repr(one.to_pydict()) == repr(two.to_pydict()), name  # a level that is not there is nan in both
    cut(made, tmp_path / "again")  # one that keeps examples is copied
    assert FeatureIndex.open(tmp_path / "again").meta["files"] == made.meta["files"]


def test_evaluations_of_several_texts_have_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    for name, fvu in (("a", 0.1), ("b", 0.2), ("a", 0.3)):
        record.keep("sha", {"fvu": fvu, "text": {"name": name, "split": "heldout"}})
    assert {name: value["fvu"] for name, value in record.kept("sha").items()} == {"held_out": 0.3, "held_out, b": 0.2}
    assert record.kept("other") == {}


def test_publish_and_pack_say_what_goes_along_and_what_does_not(bare, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    Workbench.open(bare).labels.set(3, "three")
    code, out, err = call(monkeypatch, capsys, "pack", "mine", "--into", "a.tar")
    said = " ".join((out + err).split())
    assert code == 0, err
    assert "carries weights, card (not sealed" in said
    assert "not in it: index: the one under INTERP_HOME" in said
    assert "not in it: labels: 1 written on this machine" in said
    assert "not in it: metrics: none were measured" in said
    code, out, err = call(monkeypatch, capsys, "publish", "mine", "--into", "out", "--json")
    assert code == 0, err
    assert set(json.loads(out)) == {"folder", "carries", "left_out", "pin"}
    code, out, err = call(monkeypatch, capsys, "publish", "mine", "--into", "out")
    assert code == 2
    assert "exists already" in err
