"""Intervals and tests that need no draws, against published figures and other libraries."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import sparse, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower

from tasks.core.statistics.cluster_bootstrap import Resampled, share_interval
from tasks.core.statistics.differences import Sides, differences
from tasks.core.statistics.hypothesis_tests import added, corrected, smallest_shown
from tasks.core.statistics.recalls import wilson


def wilson_by_hand(count, n, confidence=0.95):
    z = stats.norm.ppf(0.5 + confidence / 2)
    p = count / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


def compare(subject, correct_a, in_a, correct_b, in_b, kind):
    """Compare two sides; the first people's outcomes may differ from the second's."""
    sampled = Resampled(pd.Series(subject), 100, 0)
    sides = [
        Sides.of(sparse.csr_array(np.asarray(which, dtype=float)[:, None]), np.asarray(correct))
        for which, correct in ((in_a, correct_a), (in_b, correct_b))
    ]
    known = np.ones(len(subject), dtype=bool)
    return differences(sampled, *sides, known, 0.95, kind).iloc[0]


def of_groups(subject, correct, in_a):
    in_a = np.asarray(in_a)
    return compare(subject, correct, in_a, correct, ~in_a, "groups")


@pytest.mark.parametrize(("count", "n"), [(0, 7), (7, 7), (3, 10), (481, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilson_interval_matches_the_formula(count, n, confidence):
    low, high = wilson(np.array([count]), np.array([n]), confidence)
    assert (low[0], high[0]) == pytest.approx(wilson_by_hand(count, n, confidence), abs=1e-12)


def test_intervals_of_two_shares_add_up_to_newcombe_s():
    # Newcombe (1998), table II: 56/70 against 48/80.
    sides = 56 / 70, wilson_by_hand(56, 70), 48 / 80, wilson_by_hand(48, 80)
    assert added(*sides) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def cohort(seed=0, people=24, images=5):
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(people), images)
    return subject, rng.random(len(subject)) < rng.beta(2, 1, people)[subject]


def clustered_ols(correct, in_a, subject):
    """Return statsmodels' difference and its variance, without a small-sample factor."""
    design = sm.add_constant(np.asarray(in_a, dtype=float))
    groups = {"groups": subject, "use_correction": False}
    fit = sm.OLS(np.asarray(correct, dtype=float), design).fit(cov_type="cluster", cov_kwds=groups)
    return fit.params[1], fit.bse[1] ** 2


def test_different_people_are_compared_as_statsmodels_does():
    subject, correct = cohort()
    row = of_groups(subject, correct, subject < 12)
    gap, variance = clustered_ols(correct, subject < 12, subject)
    assert row["gap"] == pytest.approx(gap)
    assert row["error"] ** 2 == pytest.approx(variance * 12 / 11)  # 12 people on each side


def test_the_same_people_are_compared_as_statsmodels_does():
    subject, correct = cohort(1)
    in_a = np.tile([True, True, False, False, False], 24)
    row = of_groups(subject, correct, in_a)
    _, variance = clustered_ols(correct, in_a, subject)
    assert row["error"] ** 2 == pytest.approx(variance * 24 / 23)
    assert row["df"] == pytest.approx(23)


def test_with_one_image_per_person_the_error_is_welch_s():
    rng = np.random.default_rng(2)
    correct, in_a = rng.random(60) < 0.6, np.arange(60) < 22
    row = of_groups(np.arange(60), correct, in_a)
    welch = stats.ttest_ind(correct[in_a].astype(float), correct[~in_a], equal_var=False)
    assert row["gap"] / row["error"] == pytest.approx(welch.statistic)
    assert row["df"] == pytest.approx(welch.df)


def test_a_change_with_one_image_per_person_has_the_error_of_the_paired_t_test():
    rng = np.random.default_rng(3)
    before, after, every = rng.random(40) < 0.5, rng.random(40) < 0.7, np.ones(40, dtype=bool)
    row = compare(np.arange(40), after, every, before, every, "models")
    paired = stats.ttest_rel(after.astype(float), before.astype(float))
    assert row["gap"] / row["error"] == pytest.approx(paired.statistic)


def test_a_side_that_is_all_right_is_tested_like_others():
    subject, correct = cohort(4)
    correct[subject < 12] = True
    row = of_groups(subject, correct, subject < 12)
    assert row["ci_low"] < row["gap"] < row["ci_high"]  # not a side without width
    # Each person of b has errors: no allocation separates the groups more.
    means = correct.reshape(24, 5).mean(axis=1)
    assert row["p_value"] < 0.001 if (means[12:] < 1).all() else row["p_value"] < 0.05


def test_no_change_at_all_still_has_an_interval():
    subject, correct = cohort(5)
    every = np.ones(len(subject), dtype=bool)
    row = compare(subject, correct, every, correct, every, "models")
    assert row["ci_low"] < -0.01 and row["ci_high"] > 0.01
    assert row["p_value"] == 1.0


def test_a_single_person_is_not_tested():
    subject, correct = cohort(6)
    row = of_groups(subject, correct, subject == 0)
    assert np.isnan(row["p_value"])
    assert row["ci_low"] <= row["gap"] <= row["ci_high"]


def test_people_who_are_all_alike_have_wilson_s_interval_by_person():
    # 9 of 14 right for each of two people: nothing varies between them but rounding.
    share, people = np.array([9 / 14]), np.array([2])
    draws = np.full((400, 1), 9 / 14) + np.tile([0.0, 1e-16], 200)[:, None]
    low, high, drawn = share_interval(share, draws, people, 0.95)
    expected = wilson(share * 2, people, 0.95)
    assert not drawn[0]
    assert (low[0], high[0]) == pytest.approx((expected[0][0], expected[1][0]))


@pytest.mark.parametrize(("name", "theirs"), [("holm", "holm"), ("benjamini_hochberg", "fdr_bh")])
def test_only_tested_p_values_are_corrected(name, theirs):
    p_values = pd.Series([0.01, 0.04, 0.0001, 0.03])
    tested = pd.Series([True, True, False, True])
    adjusted = corrected(p_values, tested, name)
    expected = multipletests([0.01, 0.04, 0.03], method=theirs)[1]
    assert adjusted[tested].tolist() == pytest.approx(expected)
    assert np.isnan(adjusted[2])


def test_holm_by_hand():
    adjusted = corrected(pd.Series([0.01, 0.04, 0.03]), pd.Series([True] * 3), "holm")
    assert adjusted.tolist() == pytest.approx([0.03, 0.06, 0.06])


def test_the_smallest_gap_has_the_power_that_statsmodels_computes():
    n, sd = 40, 0.45
    error, df = np.array([sd * np.sqrt(2 / n)]), np.array([2 * n - 2.0])
    for family in (1, 10):
        gap = float(smallest_shown(error, df, 0.05, 0.8, family)[0])
        power = TTestIndPower().power(gap / sd, n, 0.05 / family)
        assert power == pytest.approx(0.8, abs=0.005)
