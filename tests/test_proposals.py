"""Names, claims and levels that are proposed: in a world where what each feature fires on is known. With the real encoder."""

import numpy as np
import pytest

from interp.labels.propose.proposing import Proposer, propose_all
from interp.models.sentence import sentence_encoder
from interp.predicates import explain, read_claim
from tests.test_subjects import DOCUMENTS, ID, TOPICS, text
from tests.test_wordnet import real

assert text  # a fixture


@pytest.fixture(scope="module")
def parted(text):
    """The same documents, one in three of them held out."""
    from dataclasses import replace

    split = ["heldout" if (d // 4) % 3 == 1 else "train" for d in range(DOCUMENTS)]
    return replace(text, split_D=split, encode=None)


@pytest.fixture(scope="module")
def proposer(parted):
    of, sea, law = parted.token_N == ID[" of"], parted.document_N % 4 == 1, parted.document_N % 4 == 3
    draw = np.random.default_rng(0)
    some = {
        0: parted.token_N == ID[" judge"],
        1: np.isin(parted.token_N, [ID[f" {word}"] for word in ("court", "jury")]),
        2: of & sea,
        3: law & (draw.random(len(of)) < 0.4) & parted.kept_N,
        4: np.isin(
            parted.token_N,
            [ID[f" {word}"] for word in TOPICS["cooking"] if word in ("bread", "soup", "onion", "butter", "flour")],
        ),
        5: (draw.random(len(of)) < 0.01) & parted.kept_N,
        6: np.zeros(len(of), dtype=bool),
    }
    fired = {}
    for feature, fires in some.items():
        position = np.flatnonzero(fires & parted.kept_N)
        fired[feature] = position.astype(np.uint32), draw.uniform(3, 9, len(position)).astype(np.float32)
    cleans = {feature: explain(*own, parted) for feature, own in fired.items()}
    return Proposer(parted, fired.__getitem__, cleans.__getitem__, sentence_encoder().encode)


def test_a_word_is_its_own_name(proposer):
    found = proposer.propose(0)
    assert (found.name, found.method, found.f1) == ("‘judge’", "mined", 1)
    assert found.text == "‘judge’ — the token is ‘·judge’"
    assert proposer.propose(1).name in ("‘court’, ‘jury’", "‘jury’, ‘court’")


def test_a_common_word_in_texts_of_one_subject_is_named_by_both(proposer):
    found = proposer.propose(2)
    assert found.method == "both"
    assert found.name.startswith("‘of’ about ")
    assert found.claim.startswith("token:")
    assert " about:" in found.claim
    assert 0.5 < found.f1 < 1
    assert read_claim(found.claim)


def test_what_fires_all_over_texts_of_one_subject_is_named_by_it(proposer):
    found = proposer.propose(3)
    assert found.method == "subject"
    assert found.claim.startswith("about:")


@real
def test_words_of_a_kind_are_named_by_the_kind_or_by_themselves_whichever_is_truer(proposer):
    found = proposer.propose(4)
    assert found.method in ("kind", "mined")
    assert found.f1 > 0.8


def test_what_nothing_explains_has_no_name(proposer):
    assert proposer.propose(5) is None
    assert proposer.propose(6) is None
    assert [one.feature for one in propose_all(proposer, [5, 0, 6])] == [0]
