"""Fairness figures against hand counts and against fairlearn's own functions."""

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

from tasks.audit.fairness import fairness_table
from tasks.audit.gaps import gaps_table


def pictures(rows):
    """Return predictions of (group, emotion, y_pred, how many)."""
    frame = pd.DataFrame(
        [row[:3] for row in rows for _ in range(row[3])], columns=["gender", "emotion", "y_pred"]
    )
    return frame.assign(model="base", protocol="all")


COUNTED = [
    ("female", "fear", "fear", 6),
    ("female", "fear", "surprise", 2),
    ("female", "surprise", "surprise", 9),
    ("female", "surprise", "fear", 3),
    ("male", "fear", "fear", 4),
    ("male", "fear", "surprise", 6),
    ("male", "surprise", "surprise", 10),
]


@pytest.fixture
def fairness(settings_of):
    def measure(frame, min_n=5, **changes):
        table = fairness_table(frame, settings_of(by=["gender"], min_n=min_n, **changes))
        return table.set_index(["metric", "emotion"])

    return measure


def test_figures_are_the_counts_divided(fairness):
    table = fairness(pictures(COUNTED))
    recall = table.loc[("recall", "all")]
    assert (recall["worst_group"], recall["best_group"]) == ("male", "female")
    assert (recall["worst"], recall["best"]) == (14 / 20, 15 / 20)
    assert recall["difference"] == pytest.approx(1 / 20)
    assert recall["ratio"] == pytest.approx(14 / 15)
    assert recall["overall"] == 29 / 40 and recall["n_smallest"] == 20
    hit = table.loc[("true_positive_rate", "fear")]
    assert (hit["worst"], hit["best"], hit["n_smallest"]) == (4 / 10, 6 / 8, 8)
    false = table.loc[("false_positive_rate", "fear")]
    assert (false["worst_group"], false["worst"], false["best"]) == ("female", 3 / 12, 0.0)
    assert false["overall"] == 3 / 22 and false["n_smallest"] == 10


def test_equalised_odds_are_fairlearn_s(fairness):
    rng = np.random.default_rng(0)
    frame = pictures([("female", "fear", "fear", 200), ("male", "fear", "fear", 200)])
    names = ["fear", "neutral", "surprise"]
    frame = frame.assign(emotion=rng.choice(names, 400), y_pred=rng.choice(names, 400))
    table = fairness(frame)
    for emotion in names:
        truth, answer = frame["emotion"] == emotion, frame["y_pred"] == emotion
        expected = equalized_odds_difference(truth, answer, sensitive_features=frame["gender"])
        rows = table.xs(emotion, level="emotion")
        assert set(rows["equalised_odds_difference"]) == {expected}
        assert rows["difference"].max() == expected
    accuracy = frame["emotion"] == frame["y_pred"]
    expected = demographic_parity_difference(
        accuracy, accuracy, sensitive_features=frame["gender"]
    )  # of being read right
    assert table.loc[("recall", "all"), "difference"] == pytest.approx(expected)


def test_small_groups_are_left_out_and_named(fairness):
    few = [("unknown", "fear", "surprise", 50), ("diverse", "fear", "surprise", 4)]
    table = fairness(pictures(COUNTED + few))
    assert table.loc[("recall", "all"), "left_out_groups"] == "diverse (4)"
    assert table.loc[("recall", "all"), "overall"] == 29 / 40


def test_an_emotion_that_a_group_lacks_is_no_rate_of_nought(fairness):
    lacking = [row for row in COUNTED if row[:2] != ("male", "surprise")]
    table = fairness(pictures([*lacking, ("male", "neutral", "neutral", 10)]))
    row = table.loc[("true_positive_rate", "surprise")]
    assert row["left_out_groups"] == "male (0)"
    assert row[["worst", "best", "difference", "ratio"]].isna().all() and pd.isna(row["n_smallest"])
    assert np.isnan(row["equalised_odds_difference"])
    assert table.loc[("true_positive_rate", "fear"), "difference"] == pytest.approx(0.35)


def test_a_rate_that_is_nought_everywhere_has_no_ratio(fairness):
    right = [("female", "fear", "fear", 9), ("female", "surprise", "surprise", 9)]
    right += [("male", *row[1:]) for row in right]
    row = fairness(pictures(right)).loc[("false_positive_rate", "fear")]
    assert row["difference"] == 0 and np.isnan(row["ratio"])


def test_one_group_alone_is_compared_with_nobody(fairness):
    table = fairness(pictures(COUNTED[:4]))
    assert table["difference"].isna().all() and len(table) == 5


def test_the_difference_has_the_interval_of_the_gap(settings_of):
    rng = np.random.default_rng(3)
    frame = pictures([("female", "fear", "fear", 120), ("male", "fear", "fear", 120)])
    frame["subject_id"] = [f"s{index // 6}" for index in range(240)]
    names = np.where(frame["gender"] == "female", 0.8, 0.5)
    frame["y_pred"] = np.where(rng.random(240) < names, "fear", "surprise")
    frame = frame.assign(subject_known=True, dataset="invented")
    frame["correct"] = frame["y_pred"] == frame["emotion"]
    settings = settings_of(by=["gender"], resamples=500)
    row = fairness_table(frame, settings).set_index("metric").loc["recall"]
    gap = gaps_table(frame, settings).set_index("emotion").loc["all"]
    side = 1 if gap["group_a"] == row["best_group"] else -1
    limits = sorted((side * gap["ci_low"], side * gap["ci_high"]))
    assert (row["difference_ci_low"], row["difference_ci_high"]) == pytest.approx(tuple(limits))
    assert row["worst_ci_low"] < row["worst"] < row["worst_ci_high"]
    assert (row["n_worst"], row["subjects_worst"]) == (120, 20)
    assert "picked as the extremes" in row["method"]


def test_false_answers_are_worst_where_they_are_most_and_have_an_interval(fairness):
    row = fairness(pictures(COUNTED)).loc[("false_positive_rate", "fear")]
    assert (row["worst_group"], row["n_worst"]) == ("female", 12)
    assert 0 < row["worst_ci_low"] < 3 / 12 < row["worst_ci_high"]
    assert row["difference_ci_low"] < row["difference"] < row["difference_ci_high"]
    assert "subjects are not known" in row["method"]
