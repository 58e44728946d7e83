"""An SAE read sparser than it is, against dense ways to the same."""

import pytest
import torch

from interp.sae import SAE
from interp.sae.dictionary import Dictionary
from interp.sae.sparser import Sparser, level_of
from interp.types import InterpError

D, F, B = 8, 24, 40


def sae(**rule) -> SAE:
    draw = torch.Generator().manual_seed(1)

    def some(*shape):
        return torch.randn(*shape, generator=draw)

    return SAE(W_enc=some(D, F), b_enc=0.1 * some(F), W_dec=some(F, D), b_dec=0.1 * some(D), **rule)


X = torch.randn(B, D, generator=torch.Generator().manual_seed(2))
RELU = {"threshold": torch.zeros(F)}


def strength(one: SAE) -> torch.Tensor:
    return one.encode(X) * one.W_dec.norm(dim=1)


def test_the_k_strongest_of_each_row_pass_with_their_values_and_the_sae_stays_as_it_was():
    one = sae(**RELU)
    before = one.encode(X)
    wanted = torch.zeros_like(before)
    for row, values, found in zip(wanted, strength(one), before, strict=True):
        for at in sorted(range(F), key=lambda i: -float(values[i]))[:3]:
            row[at] = found[at]
    sparse = Sparser(one, k=3)
    torch.testing.assert_close(sparse.active(X).dense(), wanted)
    torch.testing.assert_close(sparse.reconstruct(X), one.decode(wanted))
    assert torch.equal(one.encode(X), before)
    assert isinstance(sparse, Dictionary)


def test_a_topk_sae_of_unit_rows_read_at_a_smaller_k_is_that_topk_sae():
    big, small = sae(k=7), sae(k=2)
    for one in (big, small):
        one.W_dec /= one.W_dec.norm(dim=1, keepdim=True)
    torch.testing.assert_close(Sparser(big, k=2).active(X).dense(), small.encode(X))
    assert torch.equal(Sparser(big, k=7).active(X).dense(), big.active(X).dense())


def test_a_level_is_a_higher_threshold_and_passes_as_many_entries_as_it_was_made_for():
    one = sae(**RELU)
    sparse = Sparser(one)
    level = level_of(sparse.strengths(sparse.active(X)), 3 * B + 5)
    higher = sae(threshold=level / one.W_dec.norm(dim=1) * (1 - 1e-6))
    made = Sparser(one, level=level).active(X)
    torch.testing.assert_close(made.dense(), higher.encode(X))
    assert len(made.values) == 3 * B + 5


def test_scaling_a_feature_between_encoder_and_decoder_changes_nothing():
    one, other = sae(**RELU), sae(**RELU)
    other.W_enc *= 4.0
    other.b_enc *= 4.0
    other.W_dec /= 4.0
    for how in ({"k": 3}, {"level": 2.0}):
        torch.testing.assert_close(Sparser(other, **how).reconstruct(X), Sparser(one, **how).reconstruct(X))


def test_more_entries_than_there_are_cannot_be_asked_for():
    with pytest.raises(InterpError, match="11 entries were asked of 10; ask for a smaller L0"):
        level_of(torch.ones(10), 11)
