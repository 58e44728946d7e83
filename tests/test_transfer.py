"""Labels carried from one SAE to another: to the same features, to no others, over nobody's label, all or none."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from interp.checkpoint import Card, load, save
from interp.codes import read_blocks
from interp.commands import as_json
from interp.corpus import open_corpus
from interp.index.chosen import block_activations, block_counted, choose_blocks
from interp.labels import Label, LabelBook
from interp.labels.carrying import carry, plan
from interp.labels.matching import ALIKE, FEW, Side, match_features
from interp.sae import SAE
from interp.types import InterpError
from interp.workbench import Workbench
from tests.conftest import HOOK, ROOT
from tests.test_cli import call

TEXT = 8_192


def write(sae: SAE, folder: Path, checkpoint: Path, text: Path | None = None, **more) -> Path:
    """A checkpoint of another SAE on the model of `checkpoint`, with a full index of a text beside it."""
    save(sae, folder, replace(Card.read(checkpoint), name=folder.name, **more))
    if text is not None:
        Workbench.open(folder, labels="sqlite://").build_index(open_corpus(text), TEXT, beside=True)
    return folder


def permuted(sae: SAE, noise: float = 0.03, seed: int = 0) -> tuple[SAE, np.ndarray]:
    """(the same features in another order, each moved a little; where each went)."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(sae.d_sae, generator=draw)

    def moved(rows):
        return (
            rows
            + noise * rows.norm(dim=1, keepdim=True) * torch.randn(rows.shape, generator=draw) / rows.shape[1] ** 0.5
        )

    made = SAE(
        W_enc=moved(sae.W_enc.T[order]).T,
        b_enc=sae.b_enc[order],
        W_dec=moved(sae.W_dec[order]),
        b_dec=sae.b_dec,
        threshold=sae.threshold[order],
        reads=sae.reads,
    )
    return made, torch.argsort(order).numpy()


def unrelated(sae: SAE, seed: int = 1) -> SAE:
    """As many features along random directions, with thresholds at which they fire about as often."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(sae.d_sae, sae.d_in, generator=draw), dim=1)
    return SAE(
        W_enc=rows.T,
        b_enc=torch.zeros(sae.d_sae),
        W_dec=rows,
        b_dec=sae.b_dec,
        threshold=torch.full((sae.d_sae,), 2.0),
        reads=sae.reads,
    )


def split(sae: SAE, feature: int, x_ND: torch.Tensor) -> SAE:
    """The same features and one more: two take the place of one, each where the rows lie on its side of a plane."""
    rows = x_ND[sae.encode_feature(x_ND, feature) > 0]
    away = torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh[0]
    height = (rows - rows.mean(0)) @ away
    steep = 10 * float(sae.encode_feature(rows, feature).mean() / height.abs().mean())
    W_enc, b_enc, W_dec = sae.W_enc.clone(), sae.b_enc.clone(), sae.W_dec
    extra, shift = steep * away, steep * float((rows.mean(0) - sae.b_dec) @ away)
    W_enc = torch.cat([W_enc, (W_enc[:, feature] - extra)[:, None]], 1)
    b_enc = torch.cat([b_enc, b_enc[[feature]] + shift])
    W_enc[:, feature] += extra
    b_enc[feature] -= shift
    return SAE(
        W_enc=W_enc,
        b_enc=b_enc,
        W_dec=torch.cat([W_dec, W_dec[[feature]]]),
        b_dec=sae.b_dec,
        threshold=torch.cat([sae.threshold, sae.threshold[[feature]]]),
        reads=sae.reads,
    )


@pytest.fixture(scope="module")
def others(checkpoint, text_folder, tmp_path_factory):
    """(folder of other SAEs on the tiny model, where each feature of `checkpoint` went in the permuted ones)."""
    sae, folder = load(checkpoint), tmp_path_factory.mktemp("others")
    same, went = permuted(sae)
    write(same, folder / "permuted", checkpoint, text_folder)
    write(same, folder / "bare", checkpoint)
    write(unrelated(sae), folder / "unrelated", checkpoint)
    return folder, went


@pytest.fixture
def labels(tmp_path):
    return f"sqlite:///{tmp_path}/labels.sqlite"


@pytest.fixture
def old(checkpoint, labels):
    """The tiny SAE, every feature of which has a label."""
    bench = Workbench.open(checkpoint, labels=labels)
    for feature in range(bench.sae.d_sae):
        bench.labels.set(feature, f"name {feature}", author="me", note="seen", status="confirmed")
    return bench


def fires(bench):
    return bench.index.features["fires"].to_numpy().astype(np.int64)


# ---- real SAEs ----


@pytest.mark.parametrize(
    ("name", "text"), [("permuted", "that both indexes were made of"), ("bare", "of the index of t")]
)
def test_every_label_lands_on_its_feature_wherever_that_went(old, others, labels, name, text):
    """By two full indexes of one text, and by reading the old one's text with both."""
    folder, went = others
    new = Workbench.open(folder / name, labels=labels)
    done = old.transfer_labels(new)
    assert text in done.text
    assert done.positions == np.count_nonzero(old.index.kept)
    assert [each.match.match for each in done.labels] == went.tolist()
    often = fires(old) >= 4 * FEW
    assert often.sum() > 30
    assert {each.outcome for each in done.labels if often[each.match.feature]} == {"carried"}
    for each in done.labels:
        if fires(old)[each.match.feature] < FEW:
            assert each.outcome == "doubtful"
            assert "too little to judge by" in each.why
    assert (done.written, new.labels.all()) == (0, {})  # shown, and not done


def test_what_was_shown_is_what_is_written_and_says_where_it_came_from(old, others, labels):
    folder, went = others
    new = Workbench.open(folder / "permuted", labels=labels)
    shown, done = old.transfer_labels(new), old.transfer_labels(new, write=True)
    assert as_json(done) == as_json(replace(shown, written=done.written))  # nan is not itself
    carried = [each for each in shown.labels if each.outcome == "carried"]
    assert len(new.labels.all()) == done.written == len(carried)
    feature = int(fires(old).argmax())
    (label,) = new.labels.history(int(went[feature]))
    assert (label.text, label.author, label.status) == (f"name {feature}", "me", "proposed")
    first, second = label.note.splitlines()
    match = next(each.match for each in carried if each.match.feature == feature)
    assert first == "seen"
    assert f"Carried over from feature {feature} of the SAE {old.card.sae_sha256}" in second
    assert f"decoder cosine {match.cosine:.3f}" in second
    assert f"firing correlation {match.correlation:.3f}" in second
    assert "There it was confirmed, given 2" in second
    again = old.transfer_labels(new, write=True, doubtful=True)  # those that are there already stay as they are
    assert [each.outcome for each in again.labels if each.match.feature == feature] == ["there already"]
    assert len(new.labels.history(int(went[feature]))) == 1
    rare = [each for each in shown.labels if each.outcome == "doubtful"]
    assert again.written == len(rare) > 0
    assert "The match was doubtful" in new.labels.get(rare[0].match.match).note
    assert len(old.labels.history(feature)) == 1


def test_nothing_is_carried_to_features_that_have_nothing_to_do_with_it(old, others, labels):
    new = Workbench.open(others[0] / "unrelated", labels=labels)
    done = old.transfer_labels(new, write=True)
    outcomes = [each.outcome for each in done.labels]
    assert "carried" not in outcomes
    assert outcomes.count("no match") >= 0.9 * len(outcomes)
    assert (done.written, new.labels.all()) == (0, {})


def test_a_feature_that_a_wider_sae_has_split_is_doubtful_and_the_others_are_carried(
    old, checkpoint, labels, tmp_path, tiny
):
    tokens = torch.from_numpy(old.index.tokens.astype(np.int64)).reshape(-1, old.index.block)
    reads = read_blocks(tiny, [HOOK], tokens, separator=old.card.separator)
    x = torch.cat([read.x[HOOK].flatten(0, 1)[read.real_BT.flatten()] for read in reads])
    feature, other = np.argsort(-fires(old))[:2].tolist()
    wider = Workbench.open(write(split(old.sae, feature, x), tmp_path / "wider", checkpoint), labels=labels)
    done = old.transfer_labels(wider, write=True)
    ((halved,), (whole,)) = ([each for each in done.labels if each.match.feature == f] for f in (feature, other))
    assert halved.match.match in (feature, old.sae.d_sae)
    assert halved.match.cosine > 0.99  # by the decoder alone it would be carried
    assert halved.match.of_old < ALIKE
    assert (halved.outcome, whole.outcome) == ("doubtful", "carried")
    assert "it may have been split" in halved.why
    assert wider.labels.get(feature) is wider.labels.get(old.sae.d_sae) is None
    assert wider.labels.get(other).text == f"name {other}"


def test_a_text_can_be_named_and_another_hook_point_is_warned_of(
    old, others, checkpoint, labels, tmp_path, text_folder, capsys
):
    new = Workbench.open(others[0] / "bare", labels=labels)
    done = old.transfer_labels(new, corpus=str(text_folder), tokens=1024)
    assert (done.text, done.notes) == (str(text_folder), [])
    assert 900 < done.positions < 1024
    elsewhere = replace_hook(load(others[0] / "bare"), "blocks.0.hook_resid_post")
    folder = write(elsewhere, tmp_path / "elsewhere", checkpoint, hook_name="blocks.0.hook_resid_post")
    capsys.readouterr()
    done = old.transfer_labels(Workbench.open(folder, labels=labels), tokens=1024)
    assert len(done.notes) == 1
    assert "tiny is of blocks.1.hook_resid_post and elsewhere of blocks.0.hook_resid_post" in done.notes[0]
    assert f"warning: {done.notes[0]}" in capsys.readouterr().err
    # Row by row the same decoder, and it reads another place: the decoder alone carries nothing.
    assert max(each.match.cosine for each in done.labels) > 0.99
    assert sum(each.outcome == "carried" for each in done.labels) < 8


def replace_hook(sae: SAE, name: str) -> SAE:
    sae.set_hooks(name)
    return sae


def test_labels_there_are_never_written_over_nor_those_that_were_taken_away(old, others, labels):
    folder, went = others
    new = Workbench.open(folder / "permuted", labels=labels)
    first, second, third = np.argsort(-fires(old))[:3].tolist()
    new.labels.set(int(went[first]), "another name", author="you")
    new.labels.set(int(went[second]), "wrong")
    new.labels.set(int(went[second]), "")
    done = old.transfer_labels(new, write=True, doubtful=True)
    why = {each.match.feature: (each.outcome, each.why) for each in done.labels}
    assert why[first] == ("conflict", f"feature {went[first]} is called 'another name' by you; it stays")
    assert why[second] == ("conflict", f"feature {went[second]} had a label that was withdrawn; it stays")
    assert why[third][0] == "carried"
    assert new.labels.get(int(went[first])).text == "another name"
    assert new.labels.get(int(went[second])) is None
    new.labels.set(int(went[third]), "")  # what undoes it
    assert new.labels.get(int(went[third])) is None
    assert old.transfer_labels(new, write=True).written == 0


# ---- numbers that a reader can check ----


def sides(old_rows, new_rows, old_active, new_active):
    """Two dictionaries by their rows and by activations, (positions, features) each; the new one has 200 rows more that
    never fire, for what chance gives is drawn from its rows."""
    more = torch.randn(200, WIDE, generator=torch.Generator().manual_seed(9))
    new_active = np.concatenate([new_active, np.zeros((len(new_active), 200))], axis=1)
    return (
        Side(torch.tensor(old_rows), csr_matrix(old_active.astype(np.float32))),
        Side(torch.cat([torch.tensor(new_rows), more]), csr_matrix(new_active.astype(np.float32))),
    )


WIDE = 32
"""Width at which random rows are far from each other."""


def basis(*terms):
    """A row of WIDE numbers: (index, value) each."""
    row = [0.0] * WIDE
    for index, value in terms:
        row[index] = value
    return row


def bursts(*places, length=4000, size=20):
    """Active in runs of `size` positions that begin at these places, in rising strength."""
    out = np.zeros(length)
    for place in places:
        out[place : place + size] = np.arange(1, size + 1)
    return out


def columns(*features):
    return np.stack(features, axis=1)


def test_cosine_correlation_and_shares_are_what_they_are_by_hand():
    old, new = sides(
        [basis((0, 3.0))],
        [basis((0, 4.0), (1, 3.0)), basis((5, 1.0))],
        columns(bursts(100)),
        columns(bursts(100) + bursts(200), bursts(300)),
    )
    (match,) = match_features(old, new, [0])
    a, b = bursts(100), bursts(100) + bursts(200)
    assert match.match == 0
    assert match.cosine == pytest.approx(0.8)
    assert match.correlation == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert (match.of_old, match.of_new) == (1.0, 0.5)
    assert (match.fires, match.fires_new) == (20, 40)
    assert match.verdict == "doubtful"
    assert match.why.startswith("50% of the new one's activation lies where the old one fires")


def test_where_two_old_features_became_one_the_one_that_is_less_like_it_is_doubtful():
    whole = bursts(40, 100, 160)
    rows = [basis((0, 1.0), (1, 0.2)), basis((0, 1.0), (2, 0.6))]
    old, new = sides(rows, [basis((0, 1.0)), basis((9, 1.0))], columns(whole, whole), columns(whole, bursts(300)))
    best, less = match_features(old, new, [0, 1])
    assert (best.match, best.rival, best.verdict) == (0, 0, "match")
    assert (less.match, less.rival, less.verdict) == (0, 0, "doubtful")
    assert less.why == "the old feature 0 is more like the new one"
    named = {0: Label(feature=0, text="a"), 1: Label(feature=1, text="b")}
    for doubtful in (False, True):  # one name a feature, even where doubtful ones are carried
        planned = plan(named, [best, less], {}, doubtful=doubtful)
        assert [each.outcome for each in planned] == ["carried", "doubtful"]
    assert planned[1].why == "the label of feature 0, which is more like it, goes to 0"


def test_a_feature_that_is_twice_there_does_not_rival_itself():
    whole = bursts(40, 100, 160)
    old, new = sides([basis((0, 1.0))] * 2, [basis((0, 1.0))], columns(whole, whole), columns(whole))
    assert [match.verdict for match in match_features(old, new, [0, 1])] == ["match", "match"]


def test_alike_rows_that_fire_elsewhere_and_alike_firing_along_other_rows_are_no_match():
    first, second = bursts(40, 130), bursts(230, 330)
    old, new = sides([basis((0, 1.0))], [basis((0, 1.0))], columns(first), columns(second))
    (elsewhere,) = match_features(old, new, [0])
    assert elsewhere.cosine == pytest.approx(1.0)
    assert elsewhere.verdict == "no match"
    another = torch.randn(WIDE, generator=torch.Generator().manual_seed(3)).tolist()
    old, new = sides([basis((0, 1.0))], [another], columns(first), columns(first))
    (along_another,) = match_features(old, new, [0])
    assert along_another.verdict == "no match"
    assert "which chance gives too" in along_another.why


def test_of_random_rows_one_in_twenty_is_nearer_than_chance():
    """A direction that all rows share is chance too, however large the cosines that it makes."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 400, WIDE, generator=draw) + 2 * torch.randn(WIDE, generator=draw)
    nothing = csr_matrix((10, 400), dtype=np.float32)
    found = match_features(Side(rows[0], nothing), Side(rows[1], nothing), range(400))
    assert min(match.cosine for match in found) > 0.75
    nearer = sum(match.cosine > match.cosine_chance for match in found)
    assert 5 <= nearer <= 40  # 20 of 400


def test_what_is_no_pair_of_dictionaries_is_a_sentence():
    old, _ = sides([basis((0, 1.0))], [basis((0, 1.0))], columns(bursts(5)), columns(bursts(5)))
    with pytest.raises(InterpError, match="decoder rows of widths 32 and 2 cannot be compared"):
        match_features(old, replace(old, W_dec=torch.ones(1, 2)), [0])
    with pytest.raises(InterpError, match="4,000 and 100 positions are not one text"):
        match_features(old, replace(old, active=csr_matrix((100, 1))), [0])
    with pytest.raises(InterpError, match="no feature 1 in the old SAE"):
        match_features(old, old, [1])


# ---- writing ----


def planned_for(count, into="x"):
    """Plans to carry `count` labels to as many features."""
    named = {
        f: Label(feature=f, text=f"{into} {f}", note="n" * 2000, created="2026-01-02T00:00:00+00:00")
        for f in range(count)
    }
    whole = bursts(40, 100, 160)
    old, new = sides([basis((0, 1.0))], [basis((0, 1.0))], columns(whole), columns(whole))
    (match,) = match_features(old, new, [0])
    return plan(named, [replace(match, feature=f, match=f, rival=f) for f in range(count)], {})


def test_a_name_that_was_given_meanwhile_stays(tmp_path):
    book = LabelBook("new", 10, url=f"sqlite:///{tmp_path}/l.sqlite")
    planned = planned_for(4)
    LabelBook("new", 10, url=f"sqlite:///{tmp_path}/l.sqlite").set(2, "quicker")
    LabelBook("other", 10, url=f"sqlite:///{tmp_path}/l.sqlite").set(3, "of another SAE")
    done = carry(planned, "old", book)
    assert [each.outcome for each in done] == ["carried", "carried", "conflict", "carried"]
    assert {f: label.text for f, label in book.all().items()} == {0: "x 0", 1: "x 1", 2: "quicker", 3: "x 3"}
    note = book.get(0).note
    assert len(note) <= 2000
    assert "n…\nCarried over from feature 0 of the SAE old" in note
    assert note.endswith("There it was proposed, given 2026-01-02.")


def test_labels_that_came_with_the_checkpoint_are_not_written_over(tmp_path):
    shipped = tmp_path / "labels.jsonl"
    shipped.write_text('{"feature": 1, "text": "shipped"}\n')
    book = LabelBook("new", 10, url=f"sqlite:///{tmp_path}/l.sqlite", shipped=shipped)
    assert [each.outcome for each in carry(planned_for(3), "old", book)] == ["carried", "conflict", "carried"]
    assert book.get(1).text == "shipped"


def test_a_store_that_cannot_be_written_gets_none_of_them(tmp_path, monkeypatch):
    book = LabelBook("new", 2, url=f"sqlite:///{tmp_path}/l.sqlite")
    with pytest.raises(InterpError, match="no feature 2 in this SAE"):  # the third of four
        carry(planned_for(4), "old", book)
    assert book.all() == {}


KILLED = """
import os, sys
import sqlalchemy as sa
from interp.labels import LabelBook
from interp.labels.carrying import carry
from tests.test_transfer import planned_for
inserts = 0
def count(connection, cursor, statement, *rest):
    global inserts
    inserts += statement.startswith("INSERT")
    if inserts == 30:
        os.kill(os.getpid(), 9)
book = LabelBook("new", 100, url=sys.argv[1])
sa.event.listen(book.store._engine, "after_cursor_execute", count)
carry(planned_for(60), "old", book)
"""


def test_killed_in_the_middle_none_is_written_and_the_next_attempt_writes_all(tmp_path):
    url = f"sqlite:///{tmp_path}/l.sqlite"
    LabelBook("new", 100, url=url).set(99, "before")
    done = subprocess.run([sys.executable, "-c", KILLED, url], cwd=ROOT, timeout=120)
    assert done.returncode == -9
    book = LabelBook("new", 100, url=url)
    assert {f: label.text for f, label in book.all().items()} == {99: "before"}
    assert {each.outcome for each in carry(planned_for(60), "old", book)} == {"carried"}
    assert len(book.all()) == 61


# ---- the command line ----


@pytest.fixture
def at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))


def test_the_command_line_shows_first_and_writes_when_asked(monkeypatch, capsys, checkpoint, others, at_home):
    folder, went = others
    bench = Workbench.open(checkpoint)
    feature, other = np.argsort(-fires(bench))[:2].tolist()
    rare = int(np.flatnonzero(fires(bench) < FEW)[0])
    for number, text in ((feature, "cats"), (other, "dogs"), (rare, "birds")):
        bench.labels.set(number, text)
    args = ("labels", "transfer", checkpoint, folder / "permuted")
    code, out, _ = call(monkeypatch, capsys, *args)
    assert code == 0
    (row,) = [line for line in out.splitlines() if line.startswith(f"{feature} ")]
    assert row.split()[:3] == [str(feature), str(went[feature]), "cats"]
    assert "carried" in row
    assert "each is the other's best" in row
    assert "of 3 labels 2 carried, 1 doubtful; compared on" in out
    assert "nothing was written; with --write, the carried ones are" in out
    assert Workbench.open(folder / "permuted").labels.all() == {}
    code, out, _ = call(monkeypatch, capsys, *args, "--write", "--json")
    record = json.loads(out)
    assert (code, record["written"], len(record["labels"])) == (0, 2, 3)
    figures = next(each for each in record["labels"] if each["match"]["feature"] == feature)
    assert figures["label"]["text"] == "cats"
    assert figures["match"]["cosine"] > 0.9
    assert figures["match"]["cosine_chance"] < figures["match"]["cosine"]
    assert next(each for each in record["labels"] if each["match"]["feature"] == rare)["outcome"] == "doubtful"
    code, out, _ = call(monkeypatch, capsys, *args, "--write", "--doubtful")
    assert (code, "1 label written; `interp label " in out, "2 there already" in out) == (0, True, True)
    names = {f: label.text for f, label in Workbench.open(folder / "permuted").labels.all().items()}
    assert names == {int(went[feature]): "cats", int(went[other]): "dogs", int(went[rare]): "birds"}


def test_what_cannot_be_carried_is_one_sentence_and_exit_code_2(
    monkeypatch, capsys, checkpoint, others, at_home, tmp_path
):
    folder, _ = others

    def refused(old, new, *options):
        code, out, err = call(monkeypatch, capsys, "labels", "transfer", old, new, *options)
        assert (code, out, err.count("interp: ")) == (2, "", 1)
        return err

    assert "has no labels on this machine, so there is nothing to carry over" in refused(checkpoint, folder / "bare")
    Workbench.open(checkpoint).labels.set(3, "cats")
    assert "are one SAE, which has its labels already" in refused(checkpoint, checkpoint)
    assert "there is no SAE at nowhere" in refused("nowhere", checkpoint)
    assert "nowhere.txt" in refused(checkpoint, folder / "bare", "--corpus", "nowhere.txt")
    other = write(unrelated(load(checkpoint), 7), tmp_path / "other-model", checkpoint, model_sha256="ab" * 32)
    Workbench.open(other).labels.set(3, "cats")
    assert "labels are carried between SAEs of one model only" in refused(other, folder / "bare")
    bare = write(permuted(load(checkpoint), seed=5)[0], tmp_path / "bare-too", checkpoint)
    Workbench.open(bare).labels.set(3, "cats")
    assert "has an index whose text can be read; name a text" in refused(bare, folder / "bare")
    assert "--tokens" in refused(checkpoint, folder / "bare", "--tokens", "1")


# ---- the blocks that are compared on ----


def test_half_of_the_chosen_blocks_hold_the_features_examples_and_the_rest_lie_evenly(wb):
    feature = int(fires(wb).argmax())
    rare = int(np.flatnonzero(fires(wb) == fires(wb)[fires(wb) > 0].min())[0])
    held = set(wb.index.sql(f"SELECT position // {wb.index.block} b FROM {{examples}} WHERE feature = {rare}")["b"])
    for count in (4, 10, 1000):
        blocks = choose_blocks(wb.index, [feature, rare], count)
        assert len(blocks) == len(set(blocks.tolist())) == min(count, len(wb.index.tokens) // wb.index.block)
        assert held & set(blocks.tolist())
        assert (np.diff(blocks) > 0).all()
    assert choose_blocks(wb.index, [], 2).tolist() == [0, len(wb.index.tokens) // wb.index.block - 1]


def test_activations_of_some_blocks_are_those_of_the_index(wb):
    blocks = np.array([1, 4, 7])
    counted_BT = block_counted(wb.index, blocks)
    counted_BT[1, :100] = False  # for the other SAE these do not count
    matrix = block_activations(wb.index, blocks, counted_BT)
    at = (blocks[:, None] * wb.index.block + np.arange(wb.index.block))[counted_BT]
    for feature in np.argsort(-fires(wb))[:5].tolist():
        position, value = wb.index.fired(feature)
        dense = np.zeros(len(wb.index.tokens), dtype=np.float32)
        dense[position] = value
        assert matrix[:, [feature]].toarray().ravel().tolist() == dense[at].tolist()
