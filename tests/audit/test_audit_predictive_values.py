"""How often an answer is right, by group."""

import numpy as np
import pandas as pd
import pytest

from tasks.audit.measures.predictive_values import predictive_values_table


def judged(counts):
    """Make images from `(group, label, answer) -> number`; each is of a subject of its own."""
    rows = [
        {"age_band": band, "emotion": label, "y_pred": answer}
        for (band, label, answer), number in counts.items()
        for _ in range(number)
    ]
    frame = pd.DataFrame(rows).assign(model="m", protocol="all", subject_known=True)
    frame["subject_id"] = np.arange(len(frame)).astype(str)
    return frame.assign(correct=frame["emotion"] == frame["y_pred"])


COUNTS = {
    ("child", "anger", "anger"): 8,
    ("child", "anger", "fear"): 2,
    ("child", "fear", "anger"): 20,
    ("child", "fear", "fear"): 80,
    ("adult", "anger", "anger"): 40,
    ("adult", "anger", "fear"): 10,
    ("adult", "fear", "anger"): 10,
    ("adult", "fear", "fear"): 40,
}


@pytest.fixture
def table(settings_of):
    made = predictive_values_table(judged(COUNTS), settings_of(by=["age_band"]))
    return made.set_index(["group", "emotion"])


def test_counts_and_shares_are_those_of_the_answers(table):
    row = table.loc[("child", "anger")]
    assert (row["n_predicted"], row["correct"], row["n_emotion"]) == (28, 8, 10)
    assert row["ppv"] == pytest.approx(8 / 28)
    assert row["fdr"] == pytest.approx(20 / 28)
    assert row["prevalence"] == pytest.approx(10 / 110)
    assert row["difference"] == pytest.approx(8 / 28 - 40 / 50)
    assert row["difference_high"] < 0


def test_at_equal_prevalence_groups_with_the_same_rates_are_alike(table):
    """Both groups are read alike (recall .8, false alarms .2); only the mix of labels differs."""
    equal = table["ppv_equal_prevalence"]
    assert equal[("child", "anger")] == pytest.approx(0.8)
    assert equal[("adult", "anger")] == pytest.approx(0.8)


def test_every_share_lies_in_its_interval(table):
    for value, low, high in (
        ("ppv", "ci_low", "ci_high"),
        ("fdr", "fdr_ci_low", "fdr_ci_high"),
        ("ppv_equal_prevalence", "equal_ci_low", "equal_ci_high"),
    ):
        assert table[value].between(table[low], table[high]).all()


def test_images_of_one_subject_count_as_one_subject(settings_of):
    frame = judged(COUNTS)
    few = frame.assign(subject_id=(np.arange(len(frame)) % 12).astype(str))
    wide, narrow = (
        predictive_values_table(f, settings_of(by=["age_band"])).query("dimension == 'all'")
        for f in (few.assign(subject_known=few["subject_id"] != "0"), frame)
    )
    assert (wide["n_unknown"] > 0).all()
    assert wide["effective_subjects"].max() <= 11 < narrow["effective_subjects"].min()
