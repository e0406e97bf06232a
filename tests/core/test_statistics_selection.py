"""An incumbent gives way to what is better beyond its error; the best one's figure is corrected."""

import numpy as np
import pandas as pd
import pytest

from tasks.core.statistics.selection import WorstScores, choose_over_incumbent, worst_scores

SUBJECTS, IMAGES = 12, 10


def scores_of(*shares, groups=None, seed=0):
    """Score models that read these shares of each subject's images, subject by subject."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(SUBJECTS), IMAGES)
    hard = rng.random(len(subject))  # the same images are hard for every model
    correct = np.column_stack([hard < np.repeat(share, IMAGES) for share in map(per, shares)])
    if groups is None:
        groups = np.ones((len(subject), 1), dtype=bool)
    classes = np.tile(["anger", "neutral"], len(subject) // 2)
    return worst_scores(correct, classes, groups, pd.Series(subject), 500, 1), correct, classes


def per(share):
    return np.broadcast_to(share, SUBJECTS)


def test_observed_scores_are_the_mean_recall_of_the_worst_group():
    young = np.repeat(np.arange(SUBJECTS) < 4, IMAGES)
    groups = np.column_stack([young, ~young])
    mixed = np.where(np.arange(SUBJECTS) < 4, 0.3, 0.9)
    scores, correct, classes = scores_of(0.6, mixed, groups=groups)
    for place, right in enumerate(correct.T):
        expected = min(
            np.mean([right[group & (classes == name)].mean() for name in np.unique(classes)])
            for group in groups.T
        )
        assert scores.observed[place] == pytest.approx(expected)
    assert 480 < len(scores.draws) <= 500
    assert scores.subjects == 4  # of the groups that are the worst, the one with the fewest


def test_a_clear_advantage_replaces_the_incumbent_and_one_within_the_error_does_not():
    clear, _, _ = scores_of(0.4, 0.9)
    assert choose_over_incumbent(clear, 2).chosen == 1
    rng = np.random.default_rng(5)
    uneven = np.clip(0.6 + rng.normal(0.03, 0.2, SUBJECTS), 0, 1)
    near, _, _ = scores_of(0.6, uneven)
    choice = choose_over_incumbent(near, 2)
    assert near.observed[1] > near.observed[0]  # the highest alone would replace it
    assert choice.chosen == 0 and choice.optimism == 0 and not choice.as_good.any()
    assert choice.threshold[1] == pytest.approx(2 * choice.se[1]) and choice.se[1] > 0


def test_of_equals_the_first_is_chosen_and_a_better_one_before_it():
    scores, _, _ = scores_of(0.3, 0.6, 0.9, 0.9)
    choice = choose_over_incumbent(scores, 2)
    assert list(choice.clears) == [False, True, True, True]
    assert list(choice.as_good) == [False, False, True, True]
    assert choice.chosen == 2


@pytest.mark.parametrize("subjects", [0, 1])
def test_one_subject_tells_no_error_so_that_the_incumbent_stays(subjects):
    scores = WorstScores(np.array([0.1, 0.9]), np.tile([0.1, 0.9], (50, 1)), subjects)
    choice = choose_over_incumbent(scores, 2)
    assert choice.chosen == 0 and np.isnan(choice.se).all()


def test_draws_without_a_group_are_left_out():
    alone = np.repeat(np.arange(SUBJECTS) == 0, IMAGES)  # one subject, missing in a third of draws
    scores, _, _ = scores_of(0.5, 0.6, groups=np.column_stack([alone, ~alone]))
    assert 200 < len(scores.draws) < 450 and np.isfinite(scores.draws).all()


def test_the_best_of_equal_models_is_corrected_downwards_and_a_lone_candidate_is_not():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.03, (2000, 6))
    noise[:, 0] -= 0.3
    many = WorstScores(np.array([0.3, 0.6, 0.61, 0.62, 0.63, 0.64]), 0.6 + noise, 20)
    few = WorstScores(many.observed[:2], many.draws[:, :2], 20)
    assert 0.005 < choose_over_incumbent(many, 2).optimism < 0.06
    assert choose_over_incumbent(few, 2).optimism == 0
    apart = WorstScores(np.array([0.3, 0.4, 0.41, 0.42, 0.43, 0.9]), 0.6 + noise, 20)
    assert choose_over_incumbent(apart, 2).optimism == pytest.approx(0, abs=0.002)


def test_an_epoch_chosen_by_luck_is_judged_by_those_as_good():
    draws = 0.5 + np.random.default_rng(1).normal(0, 0.05, (2000, 2))
    scores = WorstScores(np.array([0.5, 0.6]), draws, 20)
    choice = choose_over_incumbent(scores, 0, [[], [0.2, 0.56, 0.58, 0.6]])
    assert choice.corrected[1] == pytest.approx(np.mean([0.56, 0.58, 0.6]))  # .2 is another matter
    assert choice.chosen == 1 and choice.figure == pytest.approx(choice.corrected[1])
