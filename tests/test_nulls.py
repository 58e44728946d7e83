"""Nulls keep what they are to keep and break what they are to break; z counts reseed noise, and says when it cannot."""

import numpy as np
import pytest
import torch

from interp.evals.figure import Figure, Section
from interp.evals.nulls import (
    CODES,
    FROZEN,
    RANDOM_MODEL,
    ROWS,
    ShuffledCodes,
    discrimination,
    fair_for,
    separating,
    with_shuffled_rows,
)
from interp.sae import SAE
from interp.sae.metrics import reconstruction
from interp.types import InterpError


@pytest.fixture
def rows():
    return torch.randn(300, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["jumprelu", "topk"])
def sae(request):
    """Twelve features: a basis and its negative, which reconstruct rows almost exactly."""
    both = torch.cat([torch.eye(6), -torch.eye(6)])
    rule = {"k": 6} if request.param == "topk" else {"threshold": torch.full((12,), 0.01)}
    return SAE(W_enc=both.T.contiguous(), b_enc=torch.zeros(12), W_dec=both, b_dec=torch.zeros(6), **rule)


def test_shuffled_codes_keep_density_and_strengths_of_every_feature_and_no_position(sae, rows):
    own, null = sae.active(rows).dense(), ShuffledCodes(sae, seed=3).active(rows).dense()
    assert torch.equal(own.sort(0).values, null.sort(0).values)
    for feature in range(12):
        assert not torch.equal(own[:, feature], null[:, feature])
    assert reconstruction(sae, rows).fvu < 0.01
    shuffled = reconstruction(ShuffledCodes(sae, seed=3), rows)
    assert shuffled.fvu > 1  # worse than the mean
    assert shuffled.l0 == reconstruction(sae, rows).l0


def test_shuffled_codes_are_one_and_the_same_whichever_way_they_are_read(sae, rows):
    null = ShuffledCodes(sae, seed=3)
    dense = null.active(rows).dense()
    assert torch.equal(null.encode(rows.reshape(3, 100, 6)).reshape(300, 12), dense)
    assert torch.equal(null.encode_feature(rows, 5), dense[:, 5])
    torch.testing.assert_close(null.reconstruct(rows), null.decode(dense))
    assert torch.equal(ShuffledCodes(sae, seed=3).active(rows).dense(), dense)
    assert not torch.equal(ShuffledCodes(sae, seed=4).active(rows).dense(), dense)


def test_features_are_moved_independently_of_each_other():
    """Two features that always fire together fire together as often as chance has it afterwards."""
    x = (torch.rand(2_000, 1, generator=torch.Generator().manual_seed(1)) < 0.3).float().expand(-1, 8).contiguous()
    sae = SAE(
        W_enc=torch.eye(8),
        b_enc=torch.zeros(8),
        W_dec=torch.eye(8),
        b_dec=torch.zeros(8),
        threshold=torch.full((8,), 0.5),
    )
    dense = ShuffledCodes(sae).active(x).dense()
    together = (dense.T @ dense / len(x))[~torch.eye(8, dtype=torch.bool)]
    assert float(together.max()) < 0.15  # .3 before, .09 by chance


def test_a_single_row_has_nowhere_to_go(sae, rows):
    assert torch.equal(ShuffledCodes(sae).active(rows[:1]).dense(), sae.active(rows[:1]).dense())


def test_shuffled_rows_keep_codes_and_the_set_of_rows(sae, rows):
    null = with_shuffled_rows(sae, seed=1)
    assert torch.equal(null.active(rows).dense(), sae.active(rows).dense())
    assert sorted(null.W_dec.tolist()) == sorted(sae.W_dec.tolist())
    assert reconstruction(null, rows).fvu > 0.5


# ---- discrimination ----


def sections(fvu, auroc, l0=4.0, cosine=0.5):
    """What was measured of one SAE."""
    made = (
        ("fidelity", "fvu", fvu, "lower"),
        ("fidelity", "l0", l0, ""),
        ("probing", "auroc", auroc, "higher"),
        ("geometry", "cosine", cosine, ""),
    )
    return [
        Section(name=section, title=section, figures=(Figure(name=name, says=name, value=value, n=9, unit="documents", better=better),))
        for section, name, value, better in made
    ]  # fmt: skip


TRAINED = [sections(0.20, 0.91), sections(0.22, 0.90, cosine=0.6), sections(0.21, 0.95, cosine=0.7)]
NULLS = [sections(0.50, 0.90, cosine=1.5), sections(0.53, 0.93, cosine=1.4), sections(0.56, 0.92, cosine=1.6)]


def line(found, figure, null):
    return next(row for row in found.rows if (row["figure"], row["null"]) == (figure, null))


def test_z_is_the_difference_in_units_of_the_pooled_spread_and_positive_where_training_is_better():
    found = discrimination(TRAINED, {FROZEN: NULLS})
    fvu = line(found, "fvu", FROZEN)
    pooled = np.sqrt((2 * np.var([0.20, 0.22, 0.21], ddof=1) + 2 * np.var([0.5, 0.53, 0.56], ddof=1)) / 4)
    assert fvu["z"] == pytest.approx((0.53 - 0.21) / pooled)
    assert fvu["trained_sd"] == pytest.approx(0.01)
    assert (fvu["trained_n"], fvu["null_n"], fvu["separates"]) == (3, 3, True)
    assert line(found, "auroc", FROZEN)["separates"] is False
    assert line(found, "cosine", FROZEN)["z"] < -3  # neither side is better: as it is
    assert line(found, "cosine", FROZEN)["separates"] is True
    assert separating(found) == {"fidelity.fvu": True, "probing.auroc": False, "geometry.cosine": True}
    assert (found["separate"].value, found["separate"].n) == (1, 2)


def test_p_is_students_t_as_scipy_has_it():
    from scipy.stats import ttest_ind

    fvu = line(discrimination(TRAINED, {FROZEN: NULLS}), "fvu", FROZEN)
    expected = ttest_ind([0.20, 0.22, 0.21], [0.5, 0.53, 0.56], alternative="less")
    assert fvu["p"] == pytest.approx(expected.pvalue)


def test_a_null_that_is_better_does_not_separate():
    found = discrimination(NULLS, {FROZEN: TRAINED})
    assert line(found, "fvu", FROZEN)["z"] < -3
    assert line(found, "fvu", FROZEN)["separates"] is False


def test_a_figure_separates_only_where_it_does_so_from_every_null():
    found = discrimination(TRAINED, {FROZEN: NULLS, RANDOM_MODEL: [sections(0.2, 0.5), sections(0.22, 0.52)]})
    assert line(found, "fvu", FROZEN)["separates"] is True
    assert line(found, "fvu", RANDOM_MODEL)["separates"] is False
    assert separating(found)["fidelity.fvu"] is False


def test_one_seed_on_a_side_gives_no_z_and_says_so():
    found = discrimination(TRAINED, {FROZEN: NULLS[:1]})
    fvu = line(found, "fvu", FROZEN)
    assert (fvu["z"], fvu["p"], fvu["q"], fvu["separates"]) == (None, None, None, False)
    assert fvu["note"] == "3 trained and 1 null: z needs 2 seeds of each"
    assert found["separate"].value is None
    assert separating(found) == {}


def test_equal_values_have_no_noise_to_be_measured_by():
    found = discrimination([sections(0.2, 0.9)] * 2, {FROZEN: [sections(0.5, 0.9)] * 2})
    assert line(found, "fvu", FROZEN)["note"] == "no seed differs from another, so there is no noise to measure by"


def test_only_nulls_that_can_differ_are_held_against_a_figure():
    found = discrimination(TRAINED, {FROZEN: NULLS, CODES: NULLS, ROWS: NULLS, RANDOM_MODEL: NULLS})
    against = {
        figure: {row["null"] for row in found.rows if row["figure"] == figure}
        for figure in ("fvu", "l0", "auroc", "cosine")
    }
    assert against == {
        "fvu": {FROZEN, RANDOM_MODEL, CODES, ROWS},
        "l0": set(),
        "auroc": {FROZEN, RANDOM_MODEL, CODES},
        "cosine": {FROZEN, RANDOM_MODEL},
    }
    assert found["searched"].value == sum(map(len, against.values()))
    assert RANDOM_MODEL not in fair_for("fidelity", "delta_ce").nulls


def test_q_is_over_all_comparisons():
    found = discrimination(TRAINED, {FROZEN: NULLS, CODES: NULLS})
    p, q = (np.array([row[name] for row in found.rows]) for name in ("p", "q"))
    assert (q >= p).all()
    assert q.max() == pytest.approx(p.max())


def test_figures_without_a_value_are_left_out():
    missing = [*TRAINED[:2], sections(None, 0.9)]
    assert line(discrimination(missing, {FROZEN: NULLS}), "fvu", FROZEN)["trained_n"] == 2


def test_nothing_to_compare_is_refused():
    with pytest.raises(InterpError, match="nothing to compare"):
        discrimination([], {FROZEN: NULLS})


def test_the_section_can_be_kept_as_json():
    import json

    found = discrimination(TRAINED, {FROZEN: NULLS})
    assert Section.from_dict(json.loads(json.dumps(found.to_dict()))).figures == found.figures
