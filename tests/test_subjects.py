"""What contexts are about, by sentence vectors: as a claim, and as a name. With the real encoder."""

import numpy as np
import pytest

from interp.evals.contexts import Pool, pairs
from interp.labels.propose.contexts import candidates, subject
from interp.models.sentence import sentence_encoder
from interp.predicates import Text, Vocabulary, read_claim
from interp.predicates.windows import SIDE, STRIDE, middles
from interp.types import InterpError

TOPICS = {
    "medicine": [
        "",
        "doctor",
        "patient",
        "hospital",
        "surgery",
        "nurse",
        "disease",
        "medicine",
        "cancer",
        "infection",
        "clinic",
    ][1:],
    "sailing": ["", "ship", "sailor", "ocean", "harbour", "captain", "anchor", "voyage", "vessel", "storm", "crew"][1:],
    "cooking": ["", "kitchen", "recipe", "butter", "flour", "oven", "bread", "soup", "onion", "sugar", "sauce"][1:],
    "law": ["", "court", "judge", "lawyer", "trial", "jury", "verdict", "crime", "prison", "sentence", "appeal"][1:],
}
FILL = [" the", " of", " and", " was", " with", " to", " in", " it"]
WORDS = ["<end>", *FILL, *(f" {word}" for words in TOPICS.values() for word in words)]
ID = {word: number for number, word in enumerate(WORDS)}
BLOCK, DOCUMENTS = 64, 120


@pytest.fixture(scope="module")
def text() -> Text:
    """Documents about one of four things each, half of their words of it."""
    draw, names = np.random.default_rng(0), list(TOPICS)
    token = np.zeros((DOCUMENTS, BLOCK), dtype=np.int64)
    for d in range(DOCUMENTS):
        own = [f" {word}" for word in TOPICS[names[d % 4]]]
        token[d, 1:] = [ID[str(draw.choice(own if draw.random() < 0.5 else FILL))] for _ in range(BLOCK - 1)]
    flat = token.reshape(-1)
    columns = {"source": ["a"] * DOCUMENTS, "topic": [f"t{d % 3}" for d in range(DOCUMENTS)]}
    made = Text(
        flat,
        np.repeat(np.arange(DOCUMENTS), BLOCK),
        flat != 0,
        BLOCK,
        0,
        Vocabulary(WORDS),
        ["train"] * DOCUMENTS,
        columns,
    )
    return made.read_by(sentence_encoder().encode)


def test_a_context_is_about_what_its_words_are(text):
    kept = np.flatnonzero(text.kept_N)
    holds = read_claim('about:"the sea and its ships"').holds(text.around(kept))
    by_topic = [holds[text.document_N[kept] % 4 == number].mean() for number in range(4)]
    assert by_topic[1] > 0.25
    assert max(by_topic[0], *by_topic[2:]) < 0.05
    assert 0.05 < holds.mean() < 0.15  # a tenth, by what near is


def test_where_the_rest_of_a_claim_leaves_nothing_open_nothing_is_read(text):
    fresh = text.read_by(text.encode)  # of which no context was read yet
    around = fresh.around(np.flatnonzero(fresh.kept_N)[:50])
    assert not read_claim("token:/no such word/ about:ships").holds(around).any()


def test_contexts_are_read_only_where_the_rest_of_a_claim_leaves_it_open(text):
    read = []
    counting = text.read_by(lambda passages: (read.append(len(passages)), text.encode(passages))[1])
    kept = counting.around(np.flatnonzero(text.kept_N))
    joined = read_claim("about:ships token:/^ judge$/").holds(kept)
    apart = [read_claim(part).holds(kept) for part in ("about:ships", "token:/^ judge$/")]
    assert (joined == apart[0] & apart[1]).all()
    either = read_claim("about:ships or token:/^ judge$/").holds(kept)
    assert (either == apart[0] | apart[1]).all()
    judges = int((text.token_N == ID[" judge"]).sum())
    windows = [count for count in read[1:] if count > 1]  # after the sample; a phrase is one
    assert windows[0] <= judges < windows[1]
    assert len(windows) == 2  # none is read twice


def test_windows_lie_in_a_row_and_a_position_is_at_most_half_a_step_from_its_own(text):
    kept = np.flatnonzero(text.kept_N)
    middle = middles(text, kept)
    assert np.abs(middle - kept).max() <= STRIDE // 2
    assert (middle // BLOCK == kept // BLOCK).all()
    assert len(np.unique(middle)) == DOCUMENTS * BLOCK // STRIDE
    assert SIDE >= STRIDE


def test_a_feature_of_many_words_of_one_subject_is_named_by_it(text):
    """It fires on a common word, in texts about ships only."""
    of, sea = text.token_N == ID[" of"], text.document_N % 4 == 1
    every = np.flatnonzero(of & sea)
    compared = pairs(every, every, Pool(text, np.flatnonzero(text.kept_N)), np.random.default_rng(0))
    assert compared.same_token_K.all()
    found = subject(compared, text)
    assert found.auroc > 0.9
    holds = read_claim(found.claim).holds(text.around(np.flatnonzero(text.kept_N)))
    here = sea[np.flatnonzero(text.kept_N)]
    assert holds[here].mean() > 5 * holds[~here].mean()
    assert {"ship", "ocean", "vessel"} & set(candidates(compared.firing_K, text))


def test_a_feature_of_no_subject_has_no_name(text):
    draw = np.random.default_rng(3)
    every = np.sort(draw.choice(np.flatnonzero(text.token_N == ID[" of"]), 60, replace=False))
    compared = pairs(every, every, Pool(text, np.flatnonzero(text.kept_N)), draw)
    assert subject(compared, text) is None


def test_without_an_encoder_it_is_said(text):
    bare = text.read_by(None)
    with pytest.raises(InterpError, match="sentence encoder, which is not at hand"):
        read_claim("about:ships").holds(bare.around(np.array([1])))
