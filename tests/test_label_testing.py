"""Labels tried in worlds where the true one is known, and each figure against a slow, obvious twin."""

import math

import numpy as np
import pytest

from interp.labels.testing import LEAST, Fired, Ground, Label, f1, measured, try_labels, verdict
from interp.predicates import Text, Vocabulary, read_claim
from interp.types import InterpError

WORDS = [f" w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(60)]
VOCABULARY = ["<end>", *WORDS]
BLOCK, DOCUMENTS = 64, 300


@pytest.fixture(scope="module")
def text() -> Text:
    """Documents of one block each of random words; a third tests labels."""
    draw = np.random.default_rng(0)
    token = np.zeros((DOCUMENTS, BLOCK), dtype=np.int64)
    token[:, 1:] = draw.integers(1, len(VOCABULARY), (DOCUMENTS, BLOCK - 1))
    split = ["labels" if d % 3 == 1 else "final" if d % 30 == 2 else "train" for d in range(DOCUMENTS)]
    columns = {"source": ["a"] * DOCUMENTS, "topic": [""] * DOCUMENTS}
    flat = token.reshape(-1)
    return Text(
        flat, np.repeat(np.arange(DOCUMENTS), BLOCK), flat != 0, BLOCK, 0, Vocabulary(VOCABULARY), split, columns
    )


@pytest.fixture(scope="module")
def ground(text) -> Ground:
    return Ground(text)


def planted(text: Text, feature: int, share: float = 0.9, noise: float = 0.002):
    """A feature that fires on its word nearly always, strongly, and weakly here and there."""
    draw = np.random.default_rng([7, feature])
    own = (text.token_N == feature + 1) & (draw.random(len(text.token_N)) < share)
    stray = (draw.random(len(text.token_N)) < noise) & text.kept_N & ~own
    value = np.where(own, draw.uniform(5, 10, len(own)), draw.uniform(0.5, 2, len(own))).astype(np.float32)
    position = np.flatnonzero(own | stray)
    return position.astype(np.uint32), value[position]


def claim(word: str):
    return read_claim(f"token:/^{word}$/")


# ---- each figure ----


def test_figures_are_those_that_counting_gives(text, ground):
    fired = Fired.of(3, planted(text, 3), 3.0, ground)
    holds_P = ground.holds(claim(WORDS[3]))
    found = measured(fired, holds_P, ground)
    fires = {int(ground.position_P[place]) for place in fired.place_M}
    true = {int(p) for p in ground.position_P if text.token_N[p] == 4}
    both = len(fires & true)
    assert found["precision"][0] == pytest.approx(both / len(fires)) == 1
    assert found["recall"][0] == pytest.approx(both / len(true))
    assert (
        found["f1"][0]
        == pytest.approx(2 * both / (len(fires) + len(true)))
        == pytest.approx(f1(fired, holds_P, len(true)))
    )
    assert found["documents"] == len({p // BLOCK for p in fires})
    low, high = found["f1"][1:]
    assert low < found["f1"][0] < high
    assert all(band[0] == pytest.approx(1, abs=0.01) for band in found["bands"])


def test_the_interval_is_that_of_documents_drawn_anew(text, ground):
    fired = Fired.of(5, planted(text, 5, share=0.5), 3.0, ground)
    holds_P = ground.holds(claim(WORDS[5]))
    _, low, high = measured(fired, holds_P, ground)["recall"]
    draw, drawn = np.random.default_rng(1), []
    hit = [holds_P[fired.place_M][ground.document_P[fired.place_M] == d].sum() for d in range(ground.documents)]
    true = [holds_P[ground.document_P == d].sum() for d in range(ground.documents)]
    for _ in range(1_000):
        some = draw.integers(0, ground.documents, ground.documents)
        drawn.append(sum(hit[d] for d in some) / sum(true[d] for d in some))
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))), abs=0.02)


def test_silent_positions_that_are_hard_are_of_the_same_tokens_and_of_nearest_features(text, ground):
    """A feature that fires on half of a word's places is well told from silence, not from the word's other places."""
    fired = Fired.of(9, planted(text, 9, share=0.5, noise=0), 0.0, ground)
    holds_P = ground.holds(claim(WORDS[9]))
    found = measured(fired, holds_P, ground)
    assert found["random"][0] > 0.97
    assert found["hard"][0] == pytest.approx(0.5, abs=0.02)
    near = ground.places(*planted(text, 10, noise=0), 0.0)[0]
    assert 0.5 < measured(fired, holds_P, ground, [near])["hard"][0] < 0.98
    assert found["fuzzing"][0] > 0.97


def test_weak_firings_of_something_else_show_in_the_bands(text, ground):
    fired = Fired.of(2, planted(text, 2, noise=0.02), 0.0, ground)
    bands = [band[0] for band in measured(fired, ground.holds(claim(WORDS[2])), ground)["bands"]]
    assert bands[0] > 0.97
    assert bands[-1] < 0.6


# ---- verdicts ----


def test_true_labels_are_confirmed_and_shuffled_ones_never(text, ground):
    features = range(len(WORDS))
    fires = {f: planted(text, f) for f in features}
    true = try_labels([Label(feature=f, claim=claim(WORDS[f]), level=3.0) for f in features], ground, fires.__getitem__)
    assert [row["verdict"] for row in true].count("confirmed") >= 0.9 * len(WORDS)
    assert all(row["null_shuffled"] < 0.2 for row in true)
    wrong = [Label(feature=f, claim=claim(WORDS[(f + 17) % len(WORDS)]), level=3.0) for f in features]
    tried = try_labels(wrong, ground, fires.__getitem__)
    assert {row["verdict"] for row in tried} <= {"refuted", "undecided"}
    assert min(row["q"] for row in tried) > 0.1


def test_the_same_draws_give_the_same_rows(text, ground):
    labels = [Label(feature=f, claim=claim(WORDS[f])) for f in range(4)]
    one, other = (try_labels(labels, Ground(text), lambda f: planted(text, f)) for _ in range(2))
    assert repr(one) == repr(other)


def test_a_feature_that_hardly_fires_is_not_judged(text, ground):
    position, value = planted(text, 1)
    few = position[:LEAST], value[:LEAST]
    rows = try_labels([Label(feature=1, claim=claim(WORDS[1]))], ground, lambda _: few)
    assert rows[0]["verdict"] == "too few"
    none = try_labels([Label(feature=1, claim=claim(WORDS[1]))], ground, lambda _: (position[:0], value[:0]))
    assert math.isnan(none[0]["precision"][0])
    assert none[0]["p"] == 1


@pytest.mark.parametrize(
    ("f1", "q", "said"),
    [((0.9, 0.8, 1.0), 0.05, "confirmed"), ((0.9, 0.8, 1.0), 0.2, "undecided"), ((0.5, 0.2, 0.8), 0.05, "undecided"),
     ((0.1, 0.0, 0.2), 0.9, "refuted")],
)  # fmt: skip
def test_a_verdict_asks_for_the_interval_and_for_q(f1, q, said):
    row = {"fires": 50, "documents": 20, "f1": f1, "q": q, "null_shuffled": 0.3, "null_matched": 0.25}
    assert verdict(row) == said
    assert verdict(row | {"documents": 4}) == "too few"
    assert verdict(row | {"null_matched": math.nan}) == "undecided"


def test_no_text_of_the_split_is_said(text):
    with pytest.raises(InterpError, match="no text of the split heldout"):
        _ = Ground(text, split="heldout").position_P
    assert len(Ground(text, split="final").position_P)
