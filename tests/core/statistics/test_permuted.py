"""Permuting subjects: exact figures, sides without a name, unequal numbers, small p-values."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from tasks.core.statistics.cluster_bootstrap import Resampled
from tasks.core.statistics.differences import Sides, differences
from tasks.core.statistics.permutation import permutation_p
from tasks.core.statistics.recalls import BySubject


def sides(images, hits, in_a):
    """One comparison of people with so many images and hits each."""
    who, in_a = np.arange(len(images)), np.asarray(in_a)
    images, hits = np.asarray(images, dtype=float), np.asarray(hits, dtype=float)
    return [
        BySubject(who[own], np.zeros(own.sum(), dtype=int), images[own], hits[own], 1)
        for own in (in_a, ~in_a)
    ]


def p_of(images, hits, in_a, draws=2000, seed=1):
    return permutation_p(*sides(images, hits, in_a), np.array([0]), draws, seed)[0]


def test_few_people_are_enumerated():
    images = np.full(7, 10)
    hits = np.array([10, 9, 8, 4, 3, 2, 1])
    # Equal numbers: the statistic orders allocations as the gap does.
    gaps = []
    for chosen in combinations(range(7), 3):
        own = np.isin(np.arange(7), chosen)
        gaps.append(abs(hits[own].mean() - hits[~own].mean()))
    tied = np.isclose(gaps, gaps[0])
    expected = np.mean((np.array(gaps) > gaps[0]) & ~tied) + tied.mean() / 2
    assert p_of(images, hits, np.arange(7) < 3) == pytest.approx(max(expected, 1 / 35))


def test_the_p_value_does_not_depend_on_which_side_is_a():
    rng = np.random.default_rng(2)
    images = rng.integers(1, 30, 24)
    hits = rng.binomial(images, 0.7)
    for in_a in (np.arange(24) < 9, np.arange(24) < 12, np.arange(24) % 2 > 0):
        assert p_of(images, hits, in_a) == p_of(images, hits, ~in_a)


def test_the_same_people_on_both_sides_swap():
    hits = np.array([9, 8, 9, 7, 8, 9])
    lost = hits - np.array([3, 2, 4, 1, 2, 3])
    who = np.arange(6)
    ten, column = np.full(6, 10.0), np.zeros(6, dtype=int)
    a, b = (BySubject(who, column, ten, own.astype(float), 1) for own in (hits, lost))
    # Of 64 ways to swap, two are as extreme: all as they are, and all swapped.
    assert permutation_p(a, b, np.array([0]), 2000, 1)[0] == pytest.approx(1 / 64)


def test_one_person_with_half_of_a_side_is_no_finding():
    """43.8 points of gap that hang on one child were called one (p .006) before."""
    images = np.array([56, *[4] * 14, 56, *[4] * 14])
    hits = np.array([8, *[3] * 14, 50, *[3] * 14])
    who = np.repeat(np.arange(30), images)
    correct = np.concatenate([np.arange(n) < x for n, x in zip(images, hits, strict=True)])
    row = compare(who, correct, who < 15)
    assert row["gap"] < -0.3
    assert row["p_value"] > 0.05 and row["ci_low"] < 0 < row["ci_high"]
    assert row["effective_subjects_a"] < 4 < row["subjects_a"]


def test_all_right_against_many_wrong_is_found():
    """The score test of people had p .13 here."""
    images = np.full(20, 8)
    hits = np.array([8] * 10 + [6, 5, 7, 6, 8, 6, 5, 7, 7, 6])
    assert p_of(images, hits, np.arange(20) < 10) < 0.001


def test_small_p_values_go_on_beyond_the_draws_and_are_not_too_small():
    rng = np.random.default_rng(4)
    images = np.full(60, 8)
    for gap in (0.2, 0.3, 0.4):
        skill = np.concatenate([rng.beta(6, 2, 30), rng.beta(6, 2, 30) - gap])
        hits = rng.binomial(images, np.clip(skill, 0, 1))
        few = p_of(images, hits, np.arange(60) < 30, draws=1000)
        many = p_of(images, hits, np.arange(60) < 30, draws=20_000)
        normal = stats.ttest_ind(hits[:30], hits[30:]).pvalue
        if many > 1e-3:
            assert few == pytest.approx(many, rel=1, abs=0.01)
        else:
            assert 0.3 * normal < few < 0.001


def compare(subject, correct, in_a, known=None, confidence=0.95, margin=None, resamples=500):
    known = np.ones(len(subject), dtype=bool) if known is None else known
    sampled = Resampled(pd.Series(subject), resamples, 0)
    a, b = (
        Sides.of(sparse.csr_array(own.astype(float)[:, None]), np.asarray(correct))
        for own in (np.asarray(in_a), ~np.asarray(in_a))
    )
    return differences(sampled, a, b, known, confidence, "groups", None, margin).iloc[0]


def random_table(rng):
    people, columns = rng.integers(4, 40), 12
    subject = rng.integers(0, people, rng.integers(20, 400))
    skill = rng.beta(rng.uniform(0.3, 9), rng.uniform(0.1, 3), people)
    correct = rng.random(len(subject)) < skill[subject]
    if rng.random() < 0.3:  # the same people on both sides
        in_a = rng.random((len(subject), columns)) < 0.5
    else:
        in_a = (rng.random((people, columns)) < rng.uniform(0.2, 0.8))[subject]
    in_a[0], in_a[-1] = True, False
    correct = correct if rng.random() < 0.8 else np.ones(len(subject), dtype=bool)
    return subject, correct, in_a


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_p_and_interval_never_contradict_and_the_gap_is_in_it(seed, confidence):
    rng = np.random.default_rng(seed)
    for _ in range(3):
        subject, correct, in_a = random_table(rng)
        sampled = Resampled(pd.Series(subject), 200, 0)
        known = rng.random(len(subject)) < rng.choice([1.0, 0.9])
        kind = rng.choice(["groups", "models"])
        a, b = (sparse.csr_array(own.astype(float)) for own in (in_a, ~in_a))
        right = correct
        if kind == "models":
            a = b = sparse.csr_array(a + sparse.csr_array(np.eye(len(subject), 12)) > 0).astype(
                float
            )
            right = np.where(rng.random(len(subject)) < 0.2, ~correct, correct)
        table = differences(
            sampled, Sides.of(a, right), Sides.of(b, correct), known, confidence, str(kind)
        )
        assert (table["p_value"].isna() | (table["p_value"] > 0)).all()
        limits = table[table["ci_low"].notna()]
        assert (limits["ci_low"] <= limits["gap"]).all()
        assert (limits["gap"] <= limits["ci_high"]).all()
        assert limits[["ci_low", "ci_high"]].abs().to_numpy().max() <= 1
        tested = limits[limits["p_value"].notna()]
        holds = (tested["ci_low"] <= 0) & (tested["ci_high"] >= 0)
        assert (holds == (tested["p_value"] >= 1 - confidence)).all()


def test_very_many_people_are_tested_without_draws():
    rng = np.random.default_rng(5)
    subject = np.arange(4000) // 2
    correct = rng.random(4000) < np.where(subject < 1000, 0.8, 0.75)
    row = compare(subject, correct, subject < 1000)
    assert "t test" in row["method"]
    assert row["p_value"] == pytest.approx(
        2 * stats.t.sf(abs(row["gap"]) / row["error"], row["df"])
    )


def test_images_of_unknown_subjects_are_left_out_and_counted():
    rng = np.random.default_rng(6)
    subject, in_a = np.repeat(np.arange(40), 5), np.repeat(np.arange(40), 5) < 20
    correct, known = rng.random(200) < 0.7, np.arange(200) % 5 > 0
    row = compare(np.where(known, subject, 1000 + np.arange(200)), correct, in_a, known)
    alone = compare(subject[known], correct[known], in_a[known])
    assert (row["n_a"], row["n_unknown_a"], row["n_unknown_b"]) == (80, 20, 20)
    for name in ("gap", "p_value", "ci_low", "ci_high"):
        assert row[name] == pytest.approx(alone[name], abs=1e-12)
    assert "left out" in row["method"]


def test_nothing_is_tested_where_too_many_are_unknown():
    subject, in_a = np.arange(120) // 3, np.arange(120) < 60
    correct = np.where(in_a, np.arange(120) % 2 > 0, True)
    most = compare(subject, correct, in_a, (np.arange(120) % 60) < 30)
    nobody = compare(subject, correct, in_a, np.arange(120) < 60)
    assert "more than a third" in most["method"] and "not known" in nobody["method"]
    for row in (most, nobody):
        assert row[["p_value", "ci_low", "ci_high"]].isna().all()
    assert (nobody["n_b"], nobody["subjects_b"], nobody["effective_subjects_b"]) == (60, 0, 0)


def test_a_difference_is_small_only_where_that_is_shown():
    subject = np.arange(8000) // 4
    correct = np.random.default_rng(7).random(8000) < 0.9
    many = compare(subject, correct, subject < 1000, margin=0.05)
    few = compare(subject[:400], correct[:400], subject[:400] < 50, margin=0.05)
    assert many["equivalent"] and not few["equivalent"]
    assert few["p_value"] > 0.05  # no gap was found, nor was it shown that there is none
