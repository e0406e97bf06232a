"""Intervals of shares that count people: effective subjects, unknown ones, each counted once."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tasks.core.statistics.clusters import People
from tasks.core.statistics.recalls import recalls, wilson


def of_one_group(subject, correct, known=None):
    known = np.ones(len(subject), dtype=bool) if known is None else known
    every = sparse.csr_array(np.ones((len(subject), 1)))
    return recalls(People(pd.Series(subject)), every, np.asarray(correct), known, 0.95).iloc[0]


def test_one_person_with_half_of_the_images_leaves_few_effective_subjects():
    subject = np.concatenate([np.zeros(60, dtype=int), np.arange(1, 31).repeat(2)])
    row = of_one_group(subject, np.arange(120) % 3 > 0)
    assert row["subjects"] == 31
    assert row["effective_subjects"] == pytest.approx(120**2 / (60**2 + 30 * 2**2))


def test_the_recall_per_subject_counts_each_person_once():
    subject = np.concatenate([np.zeros(60, dtype=int), np.arange(1, 13)])
    correct = np.concatenate([np.ones(60, dtype=bool), np.arange(12) % 2 == 0])
    row = of_one_group(subject, correct)
    assert row["recall"] == pytest.approx(66 / 72)
    assert row["recall_per_subject"] == pytest.approx((1 + 6) / 13)
    assert row["per_subject_ci_low"] < 7 / 13 < row["per_subject_ci_high"]


def test_an_interval_is_never_wider_than_that_of_as_many_alike_people():
    rng = np.random.default_rng(3)
    for _ in range(50):
        subject = rng.integers(0, rng.integers(1, 12), rng.integers(1, 60))
        row = of_one_group(subject, rng.random(len(subject)) < rng.random())
        people = max(row["effective_subjects"], 1)
        low, high = wilson(np.array([row["recall"] * people]), np.array([people]), 0.95)
        assert low[0] - 1e-12 <= row["ci_low"] <= row["recall"] <= row["ci_high"]
        assert row["ci_high"] <= high[0] + 1e-12


def test_unknown_images_count_in_the_share_and_not_as_people():
    subject = np.arange(40) // 4
    correct = np.arange(40) % 4 < 2 + (subject % 2)
    known = np.arange(40) < 20
    row = of_one_group(np.where(known, subject, 100 + np.arange(40)), correct, known)
    assert (row["n"], row["n_unknown"], row["subjects"]) == (40, 20, 5)
    assert row["recall"] == pytest.approx(correct.mean())
    every = of_one_group(subject, correct)
    assert row["ci_high"] - row["ci_low"] > every["ci_high"] - every["ci_low"]
    assert "whose subject is known" in row["method"]


def test_nobody_known_is_one_person():
    row = of_one_group(np.arange(40), np.arange(40) < 30, np.zeros(40, dtype=bool))
    low, high = wilson(np.array([0.75]), np.array([1]), 0.95)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((low[0], high[0]))
    assert row["subjects"] == 0 and np.isnan(row["recall_per_subject"])
