"""The measure of meaning: its comparison against a slow twin and chance, and worlds whose classes are known."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from interp.commands import as_json
from interp.commands.indexing import meaning
from interp.evals.contexts import (
    DRAWS,
    LEAST_PAIRS,
    PAIRS,
    PER_DOCUMENT,
    Pool,
    _differences,
    nearness,
    pairs,
)
from interp.evals.meaning import CLASSES, RARE, Firings, class_of, measure_meaning
from interp.models.sentence import sentence_encoder
from interp.predicates import Clean, Predicate, Text, Vocabulary, explain
from interp.predicates.windows import passage, windows
from interp.types import InterpError
from interp.workbench import Workbench

WAR = [
    "the army won the battle after the long siege of the town",
    "soldiers of the king fought in the war against the invaders",
    "the general led the troops across the river to the enemy camp",
    "cannons and muskets were fired from the walls of the fortress",
    "the cavalry charged and the infantry held the line until night",
]
COOKING = [
    "add the butter and the sugar to the bowl and stir the dough",
    "bake the bread in the oven until the crust is golden and crisp",
    "chop the onions and fry the garlic in the pan with olive oil",
    "the soup needs the salt and a little pepper before it is served",
    "whisk the eggs with the milk and pour the cream over the fruit",
]
WORDS = sorted({f" {word}" for sentence in WAR + COOKING for word in sentence.split()})
VOCABULARY = ["<end>", *WORDS]
ID = {text: number for number, text in enumerate(VOCABULARY)}
BLOCK, DOCUMENTS = 64, 240


@pytest.fixture(scope="module")
def text() -> Text:
    """Documents of four sentences each, of war (even) or cooking (odd); a third is held out."""
    draw = np.random.default_rng(0)
    token = np.zeros((DOCUMENTS, BLOCK), dtype=np.int64)
    for d in range(DOCUMENTS):
        said = " ".join(draw.permutation(COOKING if d % 2 else WAR)).split()
        token[d, 1:] = [ID[f" {word}"] for word in (said * 2)[: BLOCK - 1]]
    document = np.repeat(np.arange(DOCUMENTS), BLOCK)
    split = ["heldout" if d % 6 > 3 else "train" for d in range(DOCUMENTS)]
    columns = {"source": ["s"] * DOCUMENTS, "topic": [""] * DOCUMENTS}
    kept = (token != 0).reshape(-1)
    return Text(token.reshape(-1), document, kept, BLOCK, 0, Vocabulary(VOCABULARY), split, columns)


@pytest.fixture(scope="module")
def held(text):
    return np.flatnonzero(text.kept_N & text.heldout_D[text.document_N])


@pytest.fixture(scope="module")
def seen(text, held):
    return windows(text, held, VOCABULARY, sentence_encoder().encode)


def every(text, true_N, share=1.0, seed=1):
    """(positions, values) where something holds, or at a drawn share of them."""
    draw = np.random.default_rng(seed)
    position = np.flatnonzero(true_N & text.kept_N)
    position = position[draw.random(len(position)) < share].astype(np.uint32)
    return position, draw.uniform(5, 10, len(position)).astype(np.float32)


# ---- contexts ----


def test_a_position_has_the_window_whose_middle_is_nearest_in_its_document(text, held, seen):
    window = seen.at(held)
    for position, middle in zip(held[::7], seen.middle_W[window][::7], strict=True):
        own = seen.middle_W[text.document_N[seen.middle_W] == text.document_N[position]]
        assert abs(middle - position) == np.abs(own - position).min() <= 3
        assert text.document_N[middle] == text.document_N[position]


def test_a_passage_is_the_text_around_within_the_document(text):
    first, middle, last = 1, BLOCK // 2, BLOCK - 1
    said = [VOCABULARY[token] for token in text.token_N[:BLOCK]]
    assert passage(text, first, VOCABULARY) == "".join(said[1:10]).strip()
    assert passage(text, middle, VOCABULARY) == "".join(said[middle - 8 : middle + 9]).strip()
    assert passage(text, last, VOCABULARY) == "".join(said[last - 8 :]).strip()


def test_a_control_is_the_same_token_elsewhere_out_of_reach_of_every_firing(text, held):
    war = text.document_N % 2 == 0
    position, _ = every(text, war & (text.token_N == ID[" the"]), 0.5)
    firing = position[text.heldout_D[text.document_N[position]]]
    found = pairs(firing, position, Pool(text, held), np.random.default_rng(0))
    assert len(found) == PAIRS
    assert len(set(text.document_N[found.firing_K])) == PAIRS  # as many documents as can be
    few = pairs(firing[text.document_N[firing] < 40], position, Pool(text, held), np.random.default_rng(0))
    assert np.bincount(text.document_N[few.firing_K]).max() == PER_DOCUMENT
    assert len(few) < PAIRS
    assert found.same_token_K.all()
    assert (text.token_N[found.control_K] == ID[" the"]).all()
    assert (text.document_N[found.control_K] != text.document_N[found.firing_K]).all()
    assert text.heldout_D[text.document_N[found.control_K]].all()
    assert np.abs(found.control_K[:, None] - position.astype(np.int64)).min() > 16
    assert set(found.firing_K) <= set(firing.tolist())


def test_where_the_token_always_fires_the_control_is_another_of_its_language_and_source(text, held):
    position, _ = every(text, text.token_N == ID[" oven"])
    firing = position[text.heldout_D[text.document_N[position]]]
    found = pairs(firing, position, Pool(text, held), np.random.default_rng(0))
    assert len(found) > LEAST_PAIRS
    assert not found.same_token_K.any()


def test_differences_of_cosines_are_those_of_a_slow_loop():
    draw = np.random.default_rng(0)
    both = draw.normal(size=(5, 2, 3))
    swapped = draw.random((4, 5)) < 0.5
    document = np.array([0, 0, 1, 2, 2])
    made = _differences(np.einsum("iae,jbe->iajb", both, both), swapped, document)
    for d in range(4):
        called = [both[i, int(swapped[d, i])] for i in range(5)]
        other = [both[i, 1 - int(swapped[d, i])] for i in range(5)]
        for i in range(5):
            rest = [called[j] for j in range(5) if document[j] != document[i]]
            slow = np.mean([called[i] @ r for r in rest]) - np.mean([other[i] @ r for r in rest])
            assert made[d, i] == pytest.approx(slow)


def test_contexts_that_are_alike_win_and_exchangeable_ones_are_seldom_believed():
    draw = np.random.default_rng(0)

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    shared = draw.normal(size=16)
    alone = np.arange(20)
    alike = nearness(unit(draw.normal(size=(20, 16)) + 2 * shared), unit(draw.normal(size=(20, 16))), alone, draw)
    assert alike.wins > 0.95
    assert alike.p == 1 / (DRAWS + 1)
    assert alike.difference > 0.3
    for document in (np.arange(16), np.arange(16) // 2):
        # What two of one document share makes neither nearer to the others.
        own = draw.normal(size=(200, 16, 2, 16)) + 2 * draw.normal(size=(200, 16, 2, 16))[:, document]
        p = [nearness(unit(one[:, 0]), unit(one[:, 1]), document, draw).p for one in own]
        assert 0.4 < np.mean(p) < 0.6
        assert np.mean(np.array(p) <= 0.05) < 0.1


# ---- whole features ----


def test_planted_features_are_of_their_classes(text):
    war = text.document_N % 2 == 0
    is_the, draw = text.token_N == ID[" the"], np.random.default_rng(3)
    following = np.append(text.token_N[1:], 0)
    noise = np.zeros(len(war), dtype=bool)
    noise[draw.choice(np.flatnonzero(text.kept_N), 400, replace=False)] = True
    words = "soldiers fought led muskets fired siege camp butter bake onions garlic soup salt eggs milk golden"
    listed = [ID[f" {word}"] for word in words.split()]
    planted = {
        "token": every(text, is_the),
        "context": every(text, war & is_the, 0.4),  # neither the token nor what stands beside it says which
        "next-token": every(text, following == ID[" oven"]),
        "class": every(text, np.isin(text.token_N, listed)),
        "unexplained": every(text, noise),
    }
    fired = list(planted.values())
    rare = every(text, is_the)
    fired.append((rare[0][: RARE - 1], rare[1][: RARE - 1]))
    cleans = [explain(*one, text) for one in fired]
    count = np.array([len(position) for position, _ in fired])

    def measured(seed):
        return measure_meaning(text, fired.__getitem__, cleans, count, VOCABULARY, sentence_encoder().encode, seed=seed)

    made = measured(0)
    got = dict(zip(planted, made.table["class"], strict=False))
    assert got == {name: name for name in planted} | {"next-token": got["next-token"]}
    assert got["next-token"] in ("next-token", "token", "context")  # the word before `oven` is always the same
    assert (made.features, made.rare) == (5, 1)
    assert list(made.shares) == list(CLASSES)
    assert sum(share for share, _, _ in made.shares.values()) == pytest.approx(1)
    assert made.by_meaning[0] == pytest.approx(sum(made.shares[name][0] for name in ("class", "context", "next-token")))
    assert sum(made.weighted.values()) == pytest.approx(1)
    row = made.table.iloc[1]
    assert row["wins"] > 0.9
    assert row["q"] <= 0.05
    assert min(row["wins_bands"]) > 0.7
    token = made.table.iloc[0]
    assert (token["explained"], token["holds_bands"]) == (1, [1] * 5)
    pd.testing.assert_frame_equal(made.table, measured(0).table)
    assert not made.table["p"].equals(measured(1).table["p"])
    json.dumps(as_json(made))


def test_a_text_without_held_out_documents_is_refused(text):
    from dataclasses import replace

    whole = replace(text, split_D=["train"] * DOCUMENTS)
    with pytest.raises(InterpError, match="no position of the index's held-out documents counts"):
        measure_meaning(
            whole, lambda f: every(text, text.kept_N), [None], np.ones(1), VOCABULARY, sentence_encoder().encode
        )


def known(kind="token", recall=0.9, high=1.0, **said):
    said = said or {"here": (1,)}
    rest = {"level": 0.0, "explained": 1.0, "share": 1.0, "n": 9, "precision": 0.9, "interval": (0.5, high)}
    return Clean(predicate=Predicate(kind=kind, **said), recall=recall, **rest)


@pytest.mark.parametrize(
    ("row", "clean", "expected"),
    [
        ({}, known(), "token"),
        ({"inside": 0.8}, known(), "piece"),
        ({}, known("piece", inside=True, here=(1,)), "piece"),
        ({}, known("ngram", before=(2,), here=(1,)), "token"),
        ({}, known("after", before=(2,)), "token"),
        ({}, known("words"), "class"),
        ({"inside": 0.8}, known("words"), "piece"),
        ({}, known("class", here="digit"), "class"),
        ({}, known("next", next=(3,)), "next-token"),
        ({}, known("near", near=(3,)), "context"),
        ({}, known("topic", value="x"), "context"),
        ({"wins": 0.9, "q": 0.01}, known(), "token"),  # the token decides, whatever its contexts
        ({"wins": 0.9, "q": 0.01}, known(recall=0.3), "context"),
        ({"wins": 0.9, "q": 0.2}, known(recall=0.3), "token"),
        ({"wins": 0.6, "q": 0.01}, known(recall=0.3), "token"),
        ({"wins": 0.9, "q": 0.01}, None, "context"),
        ({"wins": 0.6}, None, "unexplained"),
        ({"wins": math.nan}, None, "unexplained"),
        ({"explained": 0.09}, known(), "unexplained"),
        ({}, known(high=0.8), "unexplained"),
        ({"fires": RARE - 1}, known(), "unexplained"),
    ],
)
def test_a_class_is_the_first_that_fits(row, clean, expected):
    usual = {"fires": 100, "explained": 0.9, "inside": 0.1, "wins": 0.5, "q": 1.0}
    assert class_of(usual | row, clean) == expected


def test_strong_firings_are_those_above_the_level_or_the_upper_half():
    position, value = np.arange(5), np.array([5.0, 4, 3, 2, 1])
    assert Firings(position, value, None).strong.tolist() == [0, 1, 2]
    level = Clean(**vars(known()) | {"level": 2.0})
    assert Firings(position, value, level).strong.tolist() == [0, 1, 2]
    assert Firings(position[:0], value[:0], None).strong.tolist() == []


# ---- asked for ----


def test_an_sae_is_measured_by_script_and_command_and_an_index_of_examples_says_why_not(checkpoint, wb, tmp_path):
    made = wb.meaning(seed=2)
    assert made.features + made.rare == 64
    assert made.seed == 2
    written = meaning(str(checkpoint), table=str(tmp_path / "made.csv"), seed=2)
    table = pd.read_csv(tmp_path / "made.csv")
    assert table["class"].tolist() == written.table["class"].tolist() == made.table["class"].tolist()
    assert as_json(written)["shares"].keys() == set(CLASSES)
    published = Workbench.open(wb.publish(tmp_path / "published").folder, labels="sqlite://")
    if published.index.partial:
        with pytest.raises(InterpError, match="keeps examples only, and meaning is measured on all activations"):
            published.meaning()
    else:
        pytest.fail("what is published keeps examples only")


# ---- read by eye ----


def test_readers_agreement_is_cohens_kappa_with_an_interval_around_it(tmp_path, capsys):
    from benchmarks.meaning_reading import agree, kappa, with_interval

    # 50 subjects, of whom 20 twice yes, 15 twice no (the textbook's table): kappa .4
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert kappa(one, other) == pytest.approx(0.4)
    value, low, high = with_interval(one, other)
    assert low < value < high
    assert math.isnan(kappa(["no"], ["no"]))
    head = "feature,named,clean,class\n"
    (tmp_path / "ana.csv").write_text(head + "1,x,yes,token\n2,y,no,unexplained\n3,z,yes,class\n")
    (tmp_path / "ben.csv").write_text(head + "1,x,yes,token\n2,y,no,unexplained\n3,z,yes,token\n")
    pd.DataFrame({"feature": [1, 2, 3], "class": ["token", "unexplained", "class"]}).to_csv(tmp_path / "made.csv")
    agree([tmp_path / "ana.csv", tmp_path / "ben.csv"], tmp_path / "made.csv")
    said = capsys.readouterr().out
    assert "ana, ben: clean: kappa 1.00" in said
    assert "ana, measure: class: kappa 1.00" in said
    assert "ben, measure: class: kappa 0.50" in said
    (tmp_path / "ben.csv").write_text(head + "1,x,yes,word\n")
    with pytest.raises(InterpError, match="feature 1: clean is 'yes' and class 'word'"):
        agree([tmp_path / "ana.csv", tmp_path / "ben.csv"], None)


def test_what_is_read_has_the_examples_and_no_verdict(tmp_path):
    from benchmarks.meaning_reading import draw, drawn
    from interp.index import FeatureIndex
    from tests.conftest import EMBEDDED, ROOT

    folder = ROOT / EMBEDDED / "index"
    index = FeatureIndex.open(folder)
    draw(str(folder), tmp_path, 5, 11)
    written = (tmp_path / "features.md").read_text(encoding="utf-8")
    assert [int(line[3:]) for line in written.splitlines() if line.startswith("## ")] == drawn(index, 5, 11)
    assert drawn(index, 5, 11) != drawn(index, 5, 12)
    first = index.examples(drawn(index, 5, 11)[0], 15)[0]
    peak = first.tokens[first.peak].replace("\n", "↵").replace("`", "ˋ")
    assert f"- {first.value:.1f} `" in written
    assert f"«{peak}»" in written
    assert not any(f"{name}" in written for name in ("unexplained", "next-token", "clean"))
    assert (tmp_path / "reader.csv").read_text().splitlines()[0] == "feature,named,clean,class"
