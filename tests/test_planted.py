"""What is measured in a planted world is what was built into the dictionary: the truth, nothing, absorption, splitting."""

import numpy as np
import pytest
import torch

from interp.evals.planted import Truth, measure_planted
from interp.sae import SAE
from interp.sae.rows import random_rows
from interp.types import InterpError

PARENTS, CHILDREN = 3, 2
FEATURES = PARENTS * (1 + CHILDREN)
PARENT = np.array([-1] * PARENTS + [parent for parent in range(PARENTS) for _ in range(CHILDREN)])
"""Features 0 to 2 are parents; 3 and 4 are children of 0, and so on."""


@pytest.fixture(scope="module")
def truth():
    """Orthogonal features of strength 1; a parent is on in a third of the rows, and then half of the time with one child."""
    draw = torch.Generator().manual_seed(0)
    on = torch.zeros(3_000, FEATURES, dtype=torch.bool)
    for parent in range(PARENTS):
        on[:, parent] = torch.rand(3_000, generator=draw) < 1 / 3
        which = torch.randint(2 * CHILDREN, (3_000,), generator=draw)  # half of these numbers are no child
        for child in range(CHILDREN):
            on[:, PARENTS + parent * CHILDREN + child] = on[:, parent] & (which == child)
    directions = torch.linalg.qr(torch.randn(12, 12, generator=draw)).Q[:FEATURES]
    return Truth(directions, PARENT, on.float() @ directions, on)


def made(encoder, decoder):
    """A dictionary of these rows, without biases, with a threshold of a half."""
    zeros = torch.zeros(decoder.shape[1])
    threshold = torch.full((len(decoder),), 0.5)
    return SAE(
        W_enc=encoder.T.contiguous(), b_enc=torch.zeros(len(decoder)), W_dec=decoder, b_dec=zeros, threshold=threshold
    )


def absorbing(truth, share=1.0):
    """Children's rows hold so much of their parent, whose own latent is off where a child is on; reconstruction of the whole is exact
    all the same."""
    v, encoder, decoder = truth.direction_PD, truth.direction_PD.clone(), truth.direction_PD.clone()
    for child in range(PARENTS, FEATURES):
        encoder[PARENT[child]] -= v[child]
        decoder[child] += share * v[PARENT[child]]
    return made(encoder, decoder)


def test_the_truth_itself_is_found_whole(truth):
    found = measure_planted(made(truth.direction_PD, truth.direction_PD), truth)
    for name in ("mcc", "mcc_above_floor", "precision", "recall", "f1", "uniqueness", "parents_found"):
        assert found[name].value == pytest.approx(1, abs=1e-5), name
    for name in ("absorbed", "silent", "silent_alone", "split", "fvu", "dead_share"):
        assert found[name].value == pytest.approx(0, abs=1e-5), name
    assert found["l0"].value == pytest.approx(found["planted_l0"].value)


def test_order_and_length_of_rows_change_nothing(truth):
    order = torch.randperm(FEATURES, generator=torch.Generator().manual_seed(1))
    sae = absorbing(truth, share=0.8)  # at 1 a child's row is as near to its parent as to itself
    own = measure_planted(sae, truth)
    moved = made(sae.W_enc.T[order], sae.W_dec[order] * 3)
    other = measure_planted(moved, truth)
    for name in ("mcc", "precision", "recall", "f1", "uniqueness", "absorbed", "silent", "split", "parents_found"):
        assert other[name].value == pytest.approx(own[name].value, abs=1e-6), name


def test_a_dictionary_that_absorbs_is_told_from_one_that_does_not_though_both_reconstruct_all(truth):
    found = measure_planted(absorbing(truth), truth)
    assert found["fvu"].value == pytest.approx(0, abs=1e-5)
    assert found["absorbed"].value == found["silent"].value == 1
    assert found["silent_alone"].value == 0
    assert found["parents_found"].value == 1
    assert found["split"].value == 1  # the parent's latent and its children's together tell it, none alone
    assert found["f1"].value < 0.95


def test_a_parent_that_is_silent_for_no_child_that_carries_it_is_not_absorbed(truth):
    """The parent's latent misses positions with a child, and nothing stands for it: silent, not absorbed."""
    encoder = truth.direction_PD.clone()
    for child in range(PARENTS, FEATURES):
        encoder[PARENT[child]] -= truth.direction_PD[child]
    found = measure_planted(made(encoder, truth.direction_PD), truth)
    assert found["silent"].value == 1
    assert found["absorbed"].value == 0
    assert found["fvu"].value > 0.1


def test_absorption_counts_positions_not_parents(truth):
    """Only the first child of each parent absorbs it."""
    v, encoder, decoder = truth.direction_PD, truth.direction_PD.clone(), truth.direction_PD.clone()
    firsts = range(PARENTS, FEATURES, CHILDREN)
    for child in firsts:
        encoder[PARENT[child]] -= v[child]
        decoder[child] += v[PARENT[child]]
    found = measure_planted(made(encoder, decoder), truth)
    with_first = truth.on_NP[:, list(firsts)].sum() / truth.on_NP[:, PARENTS:].sum()
    assert found["absorbed"].value == pytest.approx(float(with_first), abs=1e-6)
    low, high = found["absorbed"].interval
    assert low <= found["absorbed"].value <= high


def test_random_rows_find_nothing_above_the_floor(truth):
    rows = random_rows(FEATURES, 12, seed=99)
    found = measure_planted(made(rows, rows), truth)
    assert abs(found["mcc_above_floor"].value) < 0.25
    assert found["mcc"].value > 0.3  # what the floor is for
    assert found["f1"].value < 0.6


def test_where_no_parent_is_found_absorption_is_not_said(truth):
    """An untrained dictionary would seem free of it."""
    beside = torch.linalg.qr(truth.direction_PD.T, mode="complete").Q.T[FEATURES:]  # orthogonal to all that was planted
    found = measure_planted(made(beside, beside), truth)
    assert found["parents_found"].value == 0
    assert found["absorbed"].value is None
    assert found["split"].value is None
    assert found["absorbed"].note == "no parent was found, so none can be silent or split"


def test_without_a_hierarchy_there_is_nothing_to_absorb(truth):
    flat = Truth(truth.direction_PD, np.full(FEATURES, -1), truth.rows_ND, truth.on_NP)
    names = {figure.name for figure in measure_planted(absorbing(flat), flat).figures}
    assert "mcc" in names
    assert "absorbed" not in names


def test_detection_is_saelens_own(truth):
    from sae_lens.synthetic import compute_classification_metrics, feature_uniqueness

    rows = random_rows(20, 12, seed=3)
    sae = made(rows, rows * 2)
    found = measure_planted(sae, truth)
    theirs = compute_classification_metrics(
        sae.encode(truth.rows_ND), truth.on_NP.float(), sae.W_dec, truth.direction_PD
    )
    assert found["precision"].value == pytest.approx(theirs.precision, abs=1e-5)
    assert found["recall"].value == pytest.approx(theirs.recall, abs=1e-5)
    assert found["f1"].value == pytest.approx(theirs.f1_score, abs=1e-5)
    assert found["uniqueness"].value == pytest.approx(feature_uniqueness(sae.W_dec, truth.direction_PD))


def test_another_width_and_silent_rows_are_refused(truth):
    rows = random_rows(4, 5, seed=0)
    with pytest.raises(InterpError, match="reads rows of width 5, and the planted directions have 12"):
        measure_planted(made(rows, rows), truth)
    silent = Truth(truth.direction_PD, PARENT, truth.rows_ND, torch.zeros_like(truth.on_NP))
    with pytest.raises(InterpError, match="no planted feature is on"):
        measure_planted(made(truth.direction_PD, truth.direction_PD), silent)
