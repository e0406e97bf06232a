"""Intervals and p-values on cohorts whose truth is known, with correlated images of a subject.

A person's skill is drawn from a beta distribution whose intra-class correlation is .3: pictures of
one person are alike as much as that. What holds on paper has to hold for the numbers of people that
studies have.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tasks.core.statistics.cluster_bootstrap import Resampled
from tasks.core.statistics.differences import Sides, differences
from tasks.core.statistics.hypothesis_tests import smallest_shown
from tasks.core.statistics.recalls import recalls

ALIKE = 0.3
COHORTS = 1000


def skills(rng, recall, people):
    """Draw each person's chance of a right answer."""
    strength = (1 - ALIKE) / ALIKE
    return rng.beta(recall * strength, (1 - recall) * strength, people)


def column(which):
    return sparse.csr_array(np.asarray(which, dtype=float)[:, None])


def between_people(rng, recall_a, recall_b, people=30, others=30, images=8):
    """Compare two groups of people; pictures a person vary around `images`."""
    skill = np.concatenate([skills(rng, recall_a, people), skills(rng, recall_b, others)])
    number = rng.integers(images // 2, images + images // 2 + 1, people + others)
    subject = np.repeat(np.arange(people + others), number)
    correct = rng.random(len(subject)) < skill[subject]
    in_a = subject < people
    return subject, correct, column(in_a), column(~in_a)


def few_on_one_side(rng, recall_a, recall_b):
    """Compare many people with as few as `audit.min_subjects` lets be tested."""
    return between_people(rng, recall_a, recall_b, people=100, others=8)


def within_people(rng, recall_a, recall_b, people=30, images=4):
    """Compare two kinds of pictures of the same people, who are good or bad at both."""
    subject = np.repeat(np.arange(people), 2 * images)
    rank = skills(rng, 0.5, people)[subject]
    in_a = np.tile(np.arange(2 * images) < images, people)
    # A skill of mean .5, squeezed towards each recall: the same people stay the better ones.
    skill = np.where(in_a, recall_a, recall_b) + 0.4 * (rank - 0.5)
    return subject, rng.random(len(subject)) < skill, column(in_a), column(~in_a)


def compare(cohort, seed, resamples=600):
    subject, correct, a, b = cohort
    sampled = Resampled(pd.Series(subject), resamples, seed)
    known = np.ones(len(subject), dtype=bool)
    sides = Sides.of(a, correct), Sides.of(b, correct)
    return differences(sampled, *sides, known, 0.95, "groups").iloc[0]


def changed(rng, people=30, images=8, lost=0.1, gained=0.4):
    """Read the same pictures twice: the second model loses some and gains more."""
    subject = np.repeat(np.arange(people), images)
    first = rng.random(len(subject)) < skills(rng, 0.6, people)[subject]
    second_if_right = rng.random(len(subject)) >= skills(rng, lost, people)[subject]
    second_if_wrong = rng.random(len(subject)) < skills(rng, gained, people)[subject]
    return subject, first, np.where(first, second_if_right, second_if_wrong)


def change(subject, first, second, seed, resamples=600):
    sampled = Resampled(pd.Series(subject), resamples, seed)
    every, known = column(np.ones(len(subject))), np.ones(len(subject), dtype=bool)
    sides = Sides.of(every, second), Sides.of(every, first)
    return differences(sampled, *sides, known, 0.95, "models").iloc[0]


def compared_at_once(cohorts, kind):
    """Compare many cohorts at once, each a column with people of its own."""
    parts, at_once = [], 50
    for start in range(0, len(cohorts), at_once):
        subjects, right_a, right_b, a, b = zip(*cohorts[start : start + at_once], strict=True)
        unique_subjects = [
            f"{number}/" + subject.astype(str) for number, subject in enumerate(subjects)
        ]
        sampled = Resampled(pd.Series(np.concatenate(unique_subjects)), 500, 0)
        sides = [
            Sides.of(sparse.csr_array(sparse.block_diag(members)), np.concatenate(right))
            for members, right in ((a, right_a), (b, right_b))
        ]
        known = np.ones(len(sampled.codes), dtype=bool)
        pairs = np.arange(len(subjects))
        parts.append(differences(sampled, *sides, known, 0.95, kind, pairs))
    return pd.concat(parts, ignore_index=True)


def gaps_of(cohort, number, rng, recall_a, recall_b):
    made = [cohort(rng, recall_a, recall_b) for _ in range(number)]
    return compared_at_once([(subject, c, c, a, b) for subject, c, a, b in made], "groups")


def coverage(rows, truth):
    return np.mean([row["ci_low"] <= truth <= row["ci_high"] for row in rows])


@pytest.mark.slow
@pytest.mark.parametrize("cohort", [between_people, within_people])
def test_the_interval_of_a_gap_covers_it(cohort):
    rng = np.random.default_rng(11)
    rows = [compare(cohort(rng, 0.6, 0.75), seed) for seed in range(COHORTS)]
    assert 0.93 <= coverage(rows, -0.15) <= 0.98


@pytest.mark.slow
def test_the_interval_of_a_paired_change_covers_it():
    rng = np.random.default_rng(12)
    rows = [change(*changed(rng), seed) for seed in range(COHORTS)]
    assert 0.93 <= coverage(rows, 0.6 * 0.9 + 0.4 * 0.4 - 0.6) <= 0.98


@pytest.mark.slow
def test_the_interval_of_a_recall_covers_it():
    rng, rows = np.random.default_rng(13), []
    for seed in range(COHORTS):
        subject, correct, members, _ = between_people(rng, 0.7, 0.5)
        sampled = Resampled(pd.Series(subject), 600, seed)
        known = np.ones(len(subject), dtype=bool)
        rows.append(recalls(sampled, members, correct, known, 0.95).iloc[0])
    assert 0.93 <= coverage(rows, 0.7) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("cohort", [between_people, within_people])
def test_false_alarms_of_gaps_are_at_the_nominal_rate(cohort):
    rows = gaps_of(cohort, COHORTS, np.random.default_rng(14), 0.7, 0.7)
    assert 0.03 <= (rows["p_value"] < 0.05).mean() <= 0.07


@pytest.mark.slow
def test_false_alarms_of_changes_are_at_the_nominal_rate():
    rng, cohorts = np.random.default_rng(15), []
    for _ in range(COHORTS):
        subject, first, second = changed(rng, lost=0.2, gained=0.3)  # .6 before and after
        every = column(np.ones(len(subject)))
        cohorts.append((subject, second, first, every, every))
    assert 0.03 <= (compared_at_once(cohorts, "models")["p_value"] < 0.05).mean() <= 0.07


@pytest.mark.slow
def test_few_people_on_one_side_do_not_raise_more_false_alarms():
    """With 8 people against 100 a t test of influences was wrong in .081."""
    rows = gaps_of(few_on_one_side, COHORTS, np.random.default_rng(14), 0.7, 0.7)
    assert 0.03 <= (rows["p_value"] < 0.05).mean() <= 0.07
    rng = np.random.default_rng(11)
    rows = [compare(few_on_one_side(rng, 0.6, 0.75), seed) for seed in range(COHORTS)]
    assert 0.93 <= coverage(rows, -0.15) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("family", [1, 24])
def test_the_smallest_gap_is_found_with_the_promised_power(family):
    rng, gap = np.random.default_rng(16), 0.2
    for _ in range(3):  # the smallest gap depends on the recalls, and these on the gap
        rows = gaps_of(between_people, 200, rng, 0.8 - gap, 0.8)
        error, df = rows["error"].to_numpy(), rows["df"].to_numpy()
        gap = float(np.mean(smallest_shown(error, df, 0.05, 0.8, family)))
    rows = gaps_of(between_people, COHORTS // 2, rng, 0.8 - gap, 0.8)
    assert 0.72 <= (rows["p_value"] < 0.05 / family).mean() <= 0.88
