"""Intervals and tests against published figures, against other formulas and by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm
from statsmodels.stats.proportion import proportions_ztest

from tasks.audit.comparisons import (
    design_effect,
    holm,
    mcnemar_exact,
    newcombe_independent,
    newcombe_paired,
    score_test,
)
from tasks.core.intervals import wilson


def wilson_by_hand(count, n, confidence=0.95):
    z = norm.ppf(0.5 + confidence / 2)
    p = count / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


@pytest.mark.parametrize(("count", "n"), [(0, 7), (7, 7), (3, 10), (481, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilson_is_the_formula(count, n, confidence):
    low, high = wilson(np.array([count]), np.array([n]), confidence)
    assert (low[0], high[0]) == pytest.approx(wilson_by_hand(count, n, confidence), abs=1e-12)


def test_newcombe_gives_the_paper_s_figures_and_its_formula():
    # Newcombe (1998), table II: 56/70 against 48/80.
    assert newcombe_independent(56, 70, 48, 80, 0.95) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    (l1, u1), (l2, u2) = wilson_by_hand(9, 10), wilson_by_hand(3, 10)
    low = 0.6 - np.hypot(0.9 - l1, u2 - 0.3)
    high = 0.6 + np.hypot(u1 - 0.9, 0.3 - l2)
    assert newcombe_independent(9, 10, 3, 10, 0.95) == pytest.approx((low, high), abs=1e-12)


def test_paired_interval_gives_published_figures():
    # Newcombe (1998), paired data, method 10: 36, 12, 2, 0 pairs.
    first = newcombe_paired(both=36, lost=2, gained=12, neither=0, confidence=0.95)
    assert first == pytest.approx((0.0569, 0.3404), abs=5e-5)
    # Bentur et al. (2009) in Fagerland et al. (2014): 1, 1, 7, 12 pairs.
    second = newcombe_paired(both=1, lost=1, gained=7, neither=12, confidence=0.95)
    assert second == pytest.approx((0.026, 0.507), abs=5e-4)


def test_paired_interval_turns_with_the_models():
    low, high = newcombe_paired(20, 3, 11, 6, 0.95)
    assert newcombe_paired(20, 11, 3, 6, 0.95) == pytest.approx((-high, -low), abs=1e-12)


def test_paired_interval_covers_the_true_change():
    rng = np.random.default_rng(0)
    shares = (0.5, 0.1, 0.25, 0.15)  # both, lost, gained, neither: a change of 0.15
    tables = rng.multinomial(60, shares, size=400)
    limits = [newcombe_paired(*map(int, row), 0.95) for row in tables]
    covered = np.mean([low <= 0.15 <= high for low, high in limits])
    assert 0.92 <= covered <= 0.99


def test_exact_mcnemar_is_a_fair_coin_on_the_pictures_that_changed():
    assert mcnemar_exact(3, 12) == pytest.approx(binomtest(3, 15, 0.5).pvalue)
    assert mcnemar_exact(0, 0) == 1.0


def test_score_test_is_the_pooled_z_test():
    expected = proportions_ztest([30, 45], [60, 60])[1]
    assert score_test(30, 60, 45, 60) == pytest.approx(expected)
    assert score_test(10, 10, 20, 20) == 1.0


def test_design_effect_grows_with_what_pictures_of_a_person_share():
    people = np.repeat(np.arange(50), 4)
    alike = np.repeat(np.arange(50) % 2 == 0, 4)
    assert design_effect(alike, people) == pytest.approx(4 * 50 / 49)
    assert design_effect(alike, np.arange(200)) == 1.0
    assert design_effect(np.ones(200, dtype=bool), people) == 1.0


def test_subjects_who_differ_raise_no_false_alarm():
    """With 10 alike pictures a person, a test on pictures would call half of the nulls."""
    rng = np.random.default_rng(1)
    people, alarms = np.repeat(np.arange(30), 10), []
    for _ in range(200):
        outcome = []
        for _side in range(2):
            skill = rng.beta(1, 1, 30).repeat(10)
            correct = rng.random(300) < skill
            effect = design_effect(correct, people)
            outcome += [correct.sum() / effect, 300 / effect]
        alarms.append(score_test(*outcome) < 0.05)
    assert np.mean(alarms) < 0.11


def test_holm_corrects_the_tested_ones_only():
    p_values = pd.Series([0.01, 0.04, 0.0001, 0.03])
    tested = pd.Series([True, True, False, True])
    adjusted = holm(p_values, tested)
    assert adjusted[tested].tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(adjusted[2])
