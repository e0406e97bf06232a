"""Fairness figures against hand counts and against fairlearn's own functions."""

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from scipy.stats import norm

from tasks.audit.measures.fairness_metrics import fairness_table
from tasks.audit.measures.gaps import gaps_table


def images(rows):
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
    table = fairness(images(COUNTED))
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


def test_equalized_odds_are_fairlearn_s(fairness):
    rng = np.random.default_rng(0)
    frame = images([("female", "fear", "fear", 200), ("male", "fear", "fear", 200)])
    names = ["fear", "neutral", "surprise"]
    frame = frame.assign(emotion=rng.choice(names, 400), y_pred=rng.choice(names, 400))
    table = fairness(frame)
    for emotion in names:
        truth, answer = frame["emotion"] == emotion, frame["y_pred"] == emotion
        expected = equalized_odds_difference(truth, answer, sensitive_features=frame["gender"])
        rows = table.xs(emotion, level="emotion")
        assert set(rows["equalized_odds_difference"]) == {expected}
        assert rows["difference"].max() == expected
    accuracy = frame["emotion"] == frame["y_pred"]
    expected = demographic_parity_difference(
        accuracy, accuracy, sensitive_features=frame["gender"]
    )  # of being read right
    assert table.loc[("recall", "all"), "difference"] == pytest.approx(expected)


def test_small_groups_are_left_out_and_named(fairness):
    few = [("unknown", "fear", "surprise", 50), ("diverse", "fear", "surprise", 4)]
    table = fairness(images(COUNTED + few))
    assert table.loc[("recall", "all"), "left_out_groups"] == "diverse (4)"
    assert table.loc[("recall", "all"), "overall"] == 29 / 40


def test_an_emotion_that_a_group_lacks_is_not_a_rate_of_zero(fairness):
    lacking = [row for row in COUNTED if row[:2] != ("male", "surprise")]
    table = fairness(images([*lacking, ("male", "neutral", "neutral", 10)]))
    row = table.loc[("true_positive_rate", "surprise")]
    assert row["left_out_groups"] == "male (0)"
    assert row[["worst", "best", "difference", "ratio"]].isna().all() and pd.isna(row["n_smallest"])
    assert np.isnan(row["equalized_odds_difference"])
    assert table.loc[("true_positive_rate", "fear"), "difference"] == pytest.approx(0.35)


def test_a_rate_that_is_zero_everywhere_has_no_ratio(fairness):
    right = [("female", "fear", "fear", 9), ("female", "surprise", "surprise", 9)]
    right += [("male", *row[1:]) for row in right]
    row = fairness(images(right)).loc[("false_positive_rate", "fear")]
    assert row["difference"] == 0 and np.isnan(row["ratio"])


def test_a_single_group_is_not_compared(fairness):
    table = fairness(images(COUNTED[:4]))
    assert table["difference"].isna().all() and len(table) == 5


def test_two_groups_have_the_interval_of_their_gap(settings_of):
    rng = np.random.default_rng(3)
    frame = images([("female", "fear", "fear", 120), ("male", "fear", "fear", 120)])
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
    found = row["difference_ci_low"], row["difference_ci_high"]
    assert found == pytest.approx(tuple(limits), abs=0.02)  # another bootstrap interval
    assert row["p_value"] < 0.05 and row["ratio_ci_high"] < 1
    assert row["worst_ci_low"] < row["worst"] < row["worst_ci_high"]
    assert (row["n_worst"], row["subjects_worst"]) == (120, 20)
    assert "picked as the extremes of 2" in row["method"]


def many_groups(seed, recalls, people=12, each=5):
    """Return groups of people whose outcomes are alike, each group with its own recall."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(len(recalls) * people), each)
    group = person // people
    latent = 0.55 * rng.standard_normal(person[-1] + 1)[person]
    latent += np.sqrt(1 - 0.55**2) * rng.standard_normal(len(person))
    right = norm.cdf(latent) < np.array(recalls)[group]
    columns = {"gender": [f"g{number}" for number in group], "subject_id": person.astype(str)}
    answers = {"emotion": "fear", "y_pred": np.where(right, "fear", "surprise")}
    return pd.DataFrame({**columns, **answers, "model": "base", "protocol": "all"})


def test_the_range_of_ten_equal_groups_is_seldom_shown(fairness):
    rows = [fairness(many_groups(seed, [0.8] * 10)).loc[("recall", "all")] for seed in range(12)]
    table = pd.DataFrame(rows)
    assert (table["difference"] > 0.15).mean() > 0.8  # though no two groups differ
    assert (table["difference_ci_low"] > 0).sum() <= 3
    assert (table["difference_shrunken"] < 0.7 * table["difference"]).mean() > 0.7
    assert (table["worst_ci_high"] >= 0.8).sum() >= 10  # the recall of whichever is the worst


def test_one_group_that_is_worse_is_found_among_ten(fairness):
    row = fairness(many_groups(1, [0.85] * 9 + [0.4], people=25)).loc[("recall", "all")]
    assert row["worst_group"] == "g9" and row["difference_ci_low"] > 0.05
    assert row["ratio_ci_high"] < 1 and row["p_value"] < 0.01


def test_p_and_the_interval_of_the_range_never_contradict(fairness):
    tables = [
        fairness(many_groups(seed, np.linspace(0.6, 0.85, 4)), resamples=150) for seed in range(12)
    ]
    rows = pd.concat(tables).dropna(subset=["p_value"]).astype({"p_value": float})
    significant = rows["p_value"] < 0.05
    assert (significant == (rows["difference_ci_low"] > 0)).all()
    assert (significant <= (rows["ratio_ci_high"] < 1)).all()
    assert 0 < significant.sum() < len(rows)


def test_false_answers_are_worst_where_they_are_most_and_have_an_interval(fairness):
    row = fairness(images(COUNTED)).loc[("false_positive_rate", "fear")]
    assert (row["worst_group"], row["n_worst"]) == ("female", 12)
    assert 0 < row["worst_ci_low"] < 3 / 12 < row["worst_ci_high"]
    assert row["difference_ci_low"] <= row["difference"] < row["difference_ci_high"]
