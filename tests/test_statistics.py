import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from interp.statistics import (
    DRAWN_AT_ONCE,
    benjamini_hochberg,
    bootstrap,
    bootstrap_means,
    bootstrap_ratio,
    permutation_p,
    sign_flip_p,
    wilson,
)


def test_recorded_intervals_come_out_to_the_last_bit():
    """Written down from the version that made the records which replays are compared with."""
    assert wilson(0, 5) == (0.0, 0.0, 0.43448246865939283)
    assert wilson(7, 9) == (0.7777777777777778, 0.4525889666922117, 0.9367748934594303)
    assert bootstrap(np.array([1.0, 2.0, 4.0, 8.0])) == (3.75, 1.5, 6.5)
    assert bootstrap(np.array([[1.0, 2.0], [4.0, math.nan], [3.0, 9.0]]), seed=3) == (3.8, 1.5, 7.0)


@pytest.mark.parametrize(("hits", "of"), [(0, 5), (8, 10), (13, 1000), (1, 1)])
def test_a_share_has_scipys_wilson_interval(hits, of):
    theirs = stats.binomtest(hits, of).proportion_ci(method="wilson")
    assert wilson(hits, of) == pytest.approx((hits / of, theirs.low, theirs.high), abs=1e-7)


def test_arrays_of_shares_have_the_intervals_of_each_and_none_of_none_says_nothing():
    share, low, high = wilson(np.array([8, 0, 3]), np.array([10, 0, 7]))
    assert [(share[i], low[i], high[i]) for i in (0, 2)] == [wilson(8, 10), wilson(3, 7)]
    assert math.isnan(share[1])
    assert math.isnan(wilson(0, 0)[0])
    assert (low[1], high[1]) == wilson(0, 0)[1:] == (0.0, 1.0)


def test_a_bootstrap_covers_the_mean_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    hits = sum(low <= 0 <= high for _, low, high in (bootstrap(draw.normal(size=(30, 2))) for _ in range(200)))
    assert 175 <= hits <= 200


def test_a_bootstrap_is_scipys_but_for_the_draws_and_leaves_unknown_cells_out():
    values = np.random.default_rng(1).exponential(size=40)
    mean, low, high = bootstrap(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=0).confidence_interval
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((theirs.low, theirs.high), rel=0.03)
    assert bootstrap(np.array([1.0, math.nan, 3.0]))[0] == 2.0
    assert all(math.isnan(x) for x in bootstrap(np.array([math.nan, math.inf])))


def test_a_ratio_of_sums_has_the_interval_of_a_slow_loop(monkeypatch):
    top, bottom = np.array([1.0, 4.0, 2.0, 9.0]), np.array([2.0, 5.0, 1.0, 10.0])
    draw = np.random.default_rng(0)
    chosen = [draw.integers(0, 4, 4) for _ in range(2_000)]
    ratios = [top[rows].sum() / bottom[rows].sum() for rows in chosen]
    slow = tuple(np.percentile(ratios, [2.5, 97.5]))
    assert bootstrap_ratio(top, bottom) == pytest.approx(slow, abs=1e-12)
    whole = bootstrap_ratio(top, bottom)
    monkeypatch.setattr("interp.statistics.DRAWN_AT_ONCE", 12)  # three draws at a time
    assert DRAWN_AT_ONCE > 8_000
    assert bootstrap_ratio(top, bottom) == whole


def test_a_ratio_of_one_unit_or_to_nothing_has_no_interval():
    assert bootstrap_ratio(np.array([1.0]), np.array([2.0])) is None
    assert bootstrap_ratio(np.array([1.0, 2.0]), np.array([0.0, 0.0])) is None


def test_a_permutation_p_counts_the_observed_among_the_draws():
    assert permutation_p(5.0, np.arange(19.0) / 10) == 1 / 20  # beyond all of 19
    assert permutation_p(1.0, np.array([0.0, 1.0, 2.0])) == 3 / 4
    assert permutation_p(np.array([5.0, 0.0]), np.ones((3, 2))).tolist() == [1 / 4, 1.0]


def test_a_permutation_p_is_scipys_over_the_same_shuffles():
    draw = np.random.default_rng(2)
    a, b = draw.normal(0.8, 1, 12), draw.normal(0, 1, 15)

    def apart(x, y, axis):
        return x.mean(axis) - y.mean(axis)

    theirs = stats.permutation_test((a, b), apart, n_resamples=999, alternative="greater", rng=0)
    assert permutation_p(theirs.statistic, theirs.null_distribution) == pytest.approx(theirs.pvalue)


def test_q_values_are_those_of_a_slow_loop_and_an_unknown_p_is_1():
    p = np.array([0.01, 0.04, math.nan, 0.03, 0.5])
    known = np.nan_to_num(p, nan=1.0)
    ranks = {value: sum(known <= value) for value in known}
    slow = [min(5 * other / ranks[other] for other in known if other >= value) for value in known]
    assert benjamini_hochberg(p) == pytest.approx(slow)


def test_importing_statistics_does_not_import_scipy():
    code = "import sys, interp.statistics; assert not [m for m in sys.modules if m.startswith('scipy')]"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("units", [1, 2, 7])
def test_the_sign_flip_test_is_scipys_paired_permutation_test(units):
    difference_FU = np.random.default_rng(units).normal(0.4, 1, (5, units))
    for row, p in zip(difference_FU, sign_flip_p(difference_FU), strict=True):
        theirs = stats.permutation_test(
            (row, np.zeros(units)), lambda a, b: (a - b).mean(), permutation_type="samples", alternative="greater",
            n_resamples=np.inf,
        ) if units > 1 else None  # fmt: skip
        assert p == pytest.approx(theirs.pvalue if theirs else (0.5 if row[0] > 0 else 1.0))


def test_the_sign_flip_test_counts_ties_and_never_gives_nothing(monkeypatch):
    assert sign_flip_p(np.zeros((1, 6))).tolist() == [1.0]
    assert sign_flip_p(np.full((1, 10), 0.1)).tolist() == [2.0**-10]
    drawn = sign_flip_p(np.full((2, 40), 0.1))
    assert drawn.tolist() == [1 / 10_000, 1 / 10_000]
    some = np.random.default_rng(0).normal(0.3, 1, (3, 12))
    exact = sign_flip_p(some)
    monkeypatch.setattr("interp.statistics.DRAWN_AT_ONCE", 1)  # a row at a time
    assert (sign_flip_p(some) == exact).all()
    monkeypatch.setattr("interp.statistics.EXACT_FLIPS", 3)
    assert sign_flip_p(some) == pytest.approx(exact, abs=0.02)


def test_bootstraps_of_many_means_are_those_of_one_and_cover_as_they_say(monkeypatch):
    values = np.random.default_rng(1).exponential(size=(200, 20))
    low, high = bootstrap_means(values)
    for row in (0, 1, 2):
        mean, own_low, own_high = bootstrap(values[row])
        assert low[row] < mean < high[row]
        assert (low[row], high[row]) == pytest.approx((own_low, own_high), rel=0.06)
    assert 0.82 < ((low < 1) & (high > 1)).mean() < 0.98
    monkeypatch.setattr("interp.statistics.DRAWN_AT_ONCE", 2_000)
    assert np.allclose(bootstrap_means(values[:3]), (low[:3], high[:3]), rtol=1e-12)
    assert all(np.isnan(end).all() for end in bootstrap_means(values[:, :1]))
