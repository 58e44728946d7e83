"""Labels without a person: what is proposed, tried and written, in a world where the truth is known, and on a real index."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from interp.commands import COMMANDS, as_json
from interp.commands.labelling import in_words
from interp.corpus import open_corpus
from interp.labels import LabelBook, automatic
from interp.labels.automatic import METHOD, Run, companions, hold_back, write
from interp.labels.label import Label
from interp.labels.testing import Ground, try_labels
from interp.labels.testing import Label as Claimed
from interp.predicates import read_claim
from interp.types import InterpError
from interp.workbench import Workbench
from tests.conftest import ROOT
from tests.named_world import BATCH, FEATURES, World, truth


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def tested(world, tmp_path_factory):
    return world.tried(tmp_path_factory.mktemp("run"))


@pytest.fixture
def book(tmp_path) -> LabelBook:
    return LabelBook("sha", FEATURES, url=f"sqlite:///{tmp_path}/labels.sqlite")


# ---- what is proposed, and whether it is true ----


def test_the_planted_predicate_is_found_for_nine_of_ten(world, tested):
    everywhere = world.text.read_by(world.proposer().text.encode).around(np.flatnonzero(world.text.kept_N))
    same = 0
    for feature in range(FEATURES):
        one = tested.get(feature)
        if one is not None:
            holds = read_claim(one.proposal.claim).holds(everywhere)
            true = truth(feature, world.text)[everywhere.position_P]
            same += (holds & true).sum() >= 0.95 * (holds | true).sum()
    assert same >= 0.9 * FEATURES
    assert sum(one.verdict == "confirmed" for one in tested.values()) >= 0.9 * FEATURES


def test_a_shuffled_claim_is_never_confirmed(world, tested):
    assert {one.figures["shuffled_verdict"] for one in tested.values()} <= {"refuted", "undecided", "too few"}
    claims = [one.proposal for one in tested.values()]
    moved = [
        Claimed(feature=one.feature, claim=read_claim(other.claim), level=one.level)
        for one, other in zip(claims, [*claims[11:], *claims[:11]], strict=True)
    ]
    rows = try_labels(moved, Ground(world.proposer().text), world.fires.__getitem__)
    assert {row["verdict"] for row in rows} <= {"refuted", "undecided", "too few"}
    assert min(row["q"] for row in rows) > 0.1


def test_a_few_features_are_tried_beside_others_that_fire_as_often():
    fires = np.array([0, 1, 2, 50, 51, 52, 1000, 1001] + [60] * 200)
    found = companions([4], fires)
    assert len(found) == automatic.FEWEST
    assert {3, 4, 5} <= set(found)
    assert not {0, 6, 7} & set(found)
    assert companions(range(200), fires) == list(range(200))
    assert companions([], fires) == []


# ---- a run that is killed, and two at once ----


def test_a_killed_run_goes_on_and_meanwhile_no_other_begins(world, tested, tmp_path, monkeypatch):
    monkeypatch.setattr(automatic, "BATCH", BATCH)
    folder = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-m", "tests.named_world", str(folder), "0.5"], cwd=ROOT)
    second = folder / "names-000001.json"
    until = time.monotonic() + 240
    while not second.exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    with pytest.raises(
        InterpError, match=f"another process .number {process.pid}. is at work on .* autolabel was not begun"
    ):
        world.tried(folder)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("names-*.json")}
    assert 2 <= len(before) < FEATURES / BATCH
    (folder / ".names-000009.json.1.2.partial").write_text("half")
    again = world.tried(folder)
    assert {f: one.proposal for f, one in again.items()} == {f: one.proposal for f, one in tested.items()}
    assert as_json(dict(again)) == as_json(dict(tested))
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("names-*.json")}
    assert before.items() <= after.items()
    assert not list(folder.glob(".*.partial"))


def test_what_is_done_is_not_done_again_and_what_is_damaged_is(world, tmp_path, monkeypatch):
    first = world.tried(tmp_path, features=range(12))
    monkeypatch.setattr(automatic, "try_labels", lambda *given: pytest.fail("tried again"))
    proposer = world.proposer()
    monkeypatch.setattr(proposer, "propose_batch", lambda features: pytest.fail("proposed again"))
    assert as_json(dict(world.tried(tmp_path, proposer, range(12)))) == as_json(dict(first))
    monkeypatch.undo()
    (tmp_path / "names-000000.json").write_text('{"3": {"name": 1}}')
    assert as_json(dict(world.tried(tmp_path, features=range(12)))) == as_json(dict(first))


def test_another_index_method_or_seed_is_another_run(tmp_path, monkeypatch):
    one = Run.of(tmp_path, {"sae": "a", "seed": 0})
    assert Run.of(tmp_path, {"seed": 0, "sae": "a"}) == one
    assert Run.of(tmp_path, {"sae": "a", "seed": 1}) != one
    monkeypatch.setattr(automatic, "VERSION", automatic.VERSION + 1)
    assert Run.of(tmp_path, {"sae": "a", "seed": 0}) != one


# ---- the book ----


def test_a_label_says_what_it_claims_and_what_it_rests_on(tested, book):
    write(book, list(tested), tested)
    feature, one = next((f, one) for f, one in tested.items() if one.verdict == "confirmed")
    label = book.get(feature)
    assert (label.text, label.status, label.author) == (one.proposal.name, "confirmed", "autolabel")
    assert label.method == METHOD + one.proposal.method
    assert label.predicate == f"at:({one.proposal.claim})"
    assert label.note.startswith("confirmed: above ")
    assert f"F1 {one.figures['f1'][0]:.2f}" in label.note
    assert in_words(label) == f"{label.text} — {read_claim(one.proposal.claim).sentence}"


def test_a_label_that_a_further_null_holds_back_is_undecided_and_a_persons_stays(tested, book):
    write(book, list(tested), tested)
    sure = [f for f, one in tested.items() if one.verdict == "confirmed"][:3]
    book.revise(sure[1], status="confirmed", author="me")
    book.set(sure[2], "mine", author="me", status="confirmed")
    before = book.get(sure[0])
    assert hold_back(book, [*sure, max(tested) + 1], "no better than noise") == 1
    held = book.get(sure[0])
    assert (held.status, held.text, held.predicate) == ("undecided", before.text, before.predicate)
    assert held.note == f"undecided: no better than noise; {before.note.removeprefix('confirmed: ')}"
    assert held.meant == held.text  # what a run noted is no part of what the label means
    assert [book.get(f).status for f in sure[1:]] == ["confirmed", "confirmed"]
    assert hold_back(book, sure, "no better than noise") == 0
    assert automatic.automatic(book.history(sure[0]))  # so a later run may write it anew


def test_what_people_said_stays(tested, book):
    book.set(0, "mine", author="me")
    book.set(1, "gone", author="me")
    book.set(1, "", author="me")
    book.revise(2, tags=["look"], starred=True)
    first = write(book, range(FEATURES), tested)
    assert (first[0], first[1], first[2]) == ("a person's", "taken back", "written")
    assert book.get(0).text == "mine"
    assert book.get(1) is None
    assert (book.get(2).tags, book.get(2).starred) == (("look",), True)

    book.revise(3, status="refuted", author="me")
    book.revise(4, author="me")
    book.set(5, "better", author="me")
    book.set(6, "")
    book.undo(7)
    book.revise(8, starred=True)
    newer = {f: replace(one, text="on other text") for f, one in tested.items()}
    again = write(book, range(FEATURES), newer)
    assert {again[f] for f in (0, 3, 4, 5)} == {"a person's"}
    assert {again[f] for f in (1, 6, 7)} == {"taken back"}
    assert again[8] == again[9] == "written"
    assert book.get(8).starred
    assert [label.text for label in book.history(5)] == [tested[5].proposal.name, "better"]
    assert len(book.history(9)) == 2
    assert set(write(book, range(FEATURES), newer).values()) == {"the same", "a person's", "taken back"}


def test_a_label_that_nothing_explains_any_more_is_withdrawn_and_may_come_again(tested, book):
    write(book, [10], tested)
    assert write(book, [10], {}) == {10: "withdrawn"}
    assert book.get(10) is None
    assert write(book, [10], {}) == {}
    assert write(book, [10], tested) == {10: "written"}
    assert book.get(10).text == tested[10].proposal.name


def test_nothing_is_written_in_a_trial(tested, book):
    assert set(write(book, range(FEATURES), tested, dry_run=True).values()) == {"written"}
    assert not book.all()


def test_killed_while_it_writes_it_has_whole_batches_and_goes_on(tested, book, monkeypatch):
    monkeypatch.setattr(automatic, "WRITTEN", 8)
    add_after, calls = book.add_after, []

    def until_killed(say):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(say)
        return add_after(say)

    monkeypatch.setattr(book, "add_after", until_killed)
    with pytest.raises(KeyboardInterrupt):
        write(book, range(FEATURES), tested)
    monkeypatch.setattr(book, "add_after", add_after)
    assert len(book.all()) == sum(feature in tested for feature in range(16))
    write(book, range(FEATURES), tested)
    assert book.all().keys() == tested.keys()
    assert {len(history) for history in book.histories().values()} == {1}


def test_a_label_that_claims_nothing_of_positions_is_its_name():
    assert in_words(Label(feature=1, text="rivers", predicate="token:/river/")) == "rivers"
    assert in_words(Label(feature=1, text="rivers", predicate="at:(token:/^ river$/ not language:fr)")) == (
        "rivers — the token is ‘·river’, and the document is not in French"
    )
    assert in_words(Label(feature=1, text="rivers", predicate='at:(is:"no such place")')) == "rivers"


# ---- the command, on a real index ----


def test_the_command_labels_an_index_and_says_what_it_did(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_LABELS", f"sqlite:///{tmp_path}/labels.sqlite")
    call = COMMANDS["autolabel"].call
    trial = call(str(checkpoint), dry_run=True)
    assert not LabelBook.of(checkpoint).all()
    assert trial.asked == len(np.flatnonzero(Workbench.open(checkpoint).index.features["fires"] > 0))
    assert sum(trial.verdicts.values()) == len(trial.labels) > 0
    record = json.loads(json.dumps(as_json(trial)))
    assert record["outcomes"]["written"] == len(trial.labels)
    done = call(str(checkpoint), author="nobody")
    assert len(LabelBook.of(checkpoint).all()) == done.outcomes["written"] == len(trial.labels)
    assert call(str(checkpoint), author="nobody").outcomes["the same"] == len(trial.labels)
    some = call(str(checkpoint), features=[one.feature for one in trial.labels[:3]], limit=2)
    assert [one.feature for one in some.labels] == [one.feature for one in trial.labels[:2]]
    with pytest.raises(InterpError, match="no feature 64"):
        call(str(checkpoint), features=[64])


def test_an_index_of_examples_gives_what_it_has_and_says_what_it_lacks(checkpoint, text_folder, tmp_path):
    copy = tmp_path / "sae"
    shutil.copytree(checkpoint, copy, ignore=shutil.ignore_patterns("index"))
    Workbench.open(copy).build_index(open_corpus(text_folder), 8_192, keep="examples", beside=True)
    wb = Workbench.open(copy, labels=f"sqlite:///{tmp_path}/labels.sqlite")
    found = wb.autolabel()
    assert "keeps examples only" in found.lacks
    assert "`interp index" in found.lacks
    assert found.verdicts in ({}, {"not tried": len(found.labels)})
    assert {wb.labels.get(one.feature).status for one in found.labels} <= {"proposed"}
    assert all("not tried" in wb.labels.get(one.feature).note for one in found.labels)


def test_labels_that_were_tried_stay_where_nothing_can_be_tried(tested, book):
    write(book, list(tested), tested)
    before = book.all()
    bare = {feature: replace(one, figures={}, text="not tried, for a reason") for feature, one in tested.items()}
    outcomes = write(book, list(tested), bare, tried=False)
    assert set(outcomes.values()) == {"tried before"}
    assert set(write(book, list(tested), {}, tried=False).values()) == {"tried before"}
    assert book.all() == before


def test_text_of_each_split_is_asked_for(world, tmp_path):
    for split, missing in (
        ("labels", "labels, on which labels are tested"),
        ("heldout", "heldout, on which labels are chosen"),
    ):
        bare = World.__new__(World)
        bare.__dict__ |= world.__dict__
        bare.text = replace(world.text, split_D=[("train" if s == split else s) for s in world.text.split_D])
        with pytest.raises(InterpError, match=f"no text of the split {missing}"):
            bare.tried(tmp_path / split)
