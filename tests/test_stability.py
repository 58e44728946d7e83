"""Partners are found whatever order, sign and length rows have; agreement that was inherited is not taken for a finding."""

import itertools
import json

import numpy as np
import pytest
import torch

from interp.checkpoint import load
from interp.evals.figure import Section
from interp.evals.stability import Training, measure_stability
from interp.sae.rows import partners, random_rows, rows_by_chance, unit
from interp.types import InterpError
from tests.test_transfer import permuted, write

FIRES = np.arange(1, 41)


def training(name, rows, start=None):
    return Training(name, rows, rows.T.contiguous(), start)


def other_order(rows, seed=0):
    """The same rows in another order, with other lengths."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=draw)
    return rows[order] * (0.5 + torch.rand(len(rows), 1, generator=draw))


def test_partners_have_the_largest_sum_of_cosines_of_all_pairings():
    one, other = random_rows(5, 4, 0), random_rows(5, 4, 1)
    cosine = (one @ other.T).abs().numpy()
    best = max(sum(cosine[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(5)))
    assert partners(one, other).cosine_M.sum() == pytest.approx(best, rel=1e-6)


def test_mcc_does_not_see_order_sign_or_scale():
    one, other = random_rows(40, 16, 0), random_rows(40, 16, 1)
    sign = torch.where(torch.arange(40) % 3 == 0, -1.0, 1.0)[:, None]
    assert partners(one, other_order(one) * sign).mcc == pytest.approx(1, abs=1e-6)
    assert partners(one, other_order(other) * sign).mcc == pytest.approx(partners(one, other).mcc, abs=1e-6)
    assert partners(other, one).mcc == pytest.approx(partners(one, other).mcc, abs=1e-6)


def test_mcc_is_saelens_own():
    from sae_lens.synthetic import mean_correlation_coefficient

    for rows in (40, 25):  # a smaller dictionary gives as many pairs as it has rows
        one, other = random_rows(rows, 16, 0) * 3, random_rows(40, 16, 1)
        assert partners(one, other).mcc == pytest.approx(mean_correlation_coefficient(one, other), abs=1e-6)


def test_random_dictionaries_have_the_mean_and_covariance_of_the_given_one():
    rows = unit(torch.randn(4_000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 0.2]) + 2)
    made = next(rows_by_chance(rows, 1, 5))
    torch.testing.assert_close(made.mean(0), rows.mean(0), atol=0.08, rtol=0)  # rows are then made of norm 1
    torch.testing.assert_close(made.norm(dim=1), torch.ones(4_000))


def test_the_same_dictionary_from_two_beginnings_has_stabilised():
    rows = random_rows(40, 16, 0)
    own = training("0", rows, random_rows(40, 16, 10))
    found = measure_stability(own, [training("1", other_order(rows), random_rows(40, 16, 11))], FIRES)
    assert found["mcc"].value == pytest.approx(1, abs=1e-6)
    assert found["shared"].value == found["shared_by_all"].value == 1
    assert found["above_floor"].value == pytest.approx(1, abs=1e-5)
    assert found["stabilised"].value == pytest.approx(1, abs=1e-5)
    assert 0.2 < found["start_mcc"].value < 0.7  # chance, in 16 dimensions
    assert found["moved"].value > 0.5


def test_decoders_that_never_moved_have_not_stabilised_however_they_agree():
    one, other = random_rows(40, 16, 0), random_rows(40, 16, 1)
    found = measure_stability(training("0", one, one), [training("1", other, other)], FIRES)
    assert found["stabilised"].value == pytest.approx(0, abs=1e-6)
    assert found["moved"].value == pytest.approx(0, abs=1e-6)
    assert abs(found["above_floor"].value) < 0.2
    assert found["shared"].value < 0.4


def test_what_began_the_same_is_said_to_be_inherited():
    rows, begun = random_rows(40, 16, 0), random_rows(40, 16, 10)
    found = measure_stability(training("0", rows, begun), [training("1", rows, begun)], FIRES)
    assert found["mcc"].value == pytest.approx(1, abs=1e-6)
    assert found["stabilised"].value is None
    assert "inherited, not found" in found["stabilised"].note


def test_a_beginning_that_nobody_knows_is_not_made_up():
    rows = random_rows(40, 16, 0)
    found = measure_stability(training("0", rows), [training("1", rows)], FIRES)
    assert found["stabilised"].value is found["start_mcc"].value is found["moved"].value is None
    assert "not known" in found["stabilised"].note
    assert found["mcc"].value == pytest.approx(1, abs=1e-6)


def test_features_count_by_how_often_they_fire_and_are_shared_by_decoder_and_encoder():
    rows = torch.eye(6)
    other = rows.clone()
    other[0] = torch.nn.functional.normalize(torch.tensor([0.6, 0, 0, 0, 0, 0.8]), dim=0)  # cosine .6: not shared
    encoder = torch.eye(6)
    encoder[:, 1] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])  # its encoder looks elsewhere
    found = measure_stability(
        training("0", rows), [Training("1", other, encoder)], np.array([10.0, 3.0, 1.0, 1.0, 1.0, 4.0])
    )
    assert found["shared"].value == pytest.approx(7 / 20)
    assert found["plain_shared"].value == pytest.approx(4 / 6)
    assert found["mcc"].value == pytest.approx((10 * 0.6 + 10) / 20, abs=1e-6)
    low, high = found["mcc"].interval
    assert low < found["mcc"].value < high


def test_each_other_training_has_its_row_and_the_section_is_json():
    rows = random_rows(40, 16, 0)
    others = [training("1", other_order(rows)), training("2", random_rows(40, 16, 7))]
    found = measure_stability(training("0", rows), others, FIRES)
    assert [row["other"] for row in found.rows] == ["1", "2"]
    assert found.rows[0]["mcc"] > found.rows[1]["mcc"]
    assert found["shared_by_all"].value < found["shared"].value
    assert Section.from_dict(json.loads(json.dumps(found.to_dict()))).figures == found.figures


@pytest.mark.parametrize(
    ("others", "fires", "said"),
    [
        ([], FIRES, "needs at least one more SAE"),
        ([training("1", random_rows(30, 16, 0))], FIRES, "has 30 x 16 decoder weights"),
        ([training("1", random_rows(40, 16, 0))], np.zeros(40), "0 in all, do not weigh the 40 features"),
    ],
)
def test_what_cannot_be_compared_is_refused(others, fires, said):
    with pytest.raises(InterpError, match=said):
        measure_stability(training("0", random_rows(40, 16, 1)), others, fires)


# ---- of checkpoints ----


def test_a_checkpoints_beginning_is_made_again_from_its_card(wb, checkpoint, tmp_path):
    """A copy in another order has the card, and so the beginning, of what it was copied from: all that they share is inherited."""
    made, _ = permuted(load(checkpoint), noise=0.0)
    found = wb.stability([write(made, tmp_path / "permuted", checkpoint)])
    assert found["mcc"].value == pytest.approx(1, abs=1e-5)
    assert found["start_mcc"].value == pytest.approx(1, abs=1e-6)
    assert found["stabilised"].value is None
    assert found["moved"].value > 0.05
    assert found.of["firings"] == int(wb.index.features["fires"].sum())
    with pytest.raises(InterpError, match="is given twice"):
        wb.stability([checkpoint])
