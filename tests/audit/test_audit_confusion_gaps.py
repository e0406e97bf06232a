"""Confusion gaps: hand counts, a planted one, and cells that always have a row."""

import numpy as np
import pandas as pd
import pytest

from tasks.audit.measures.confusion_gaps import confusion_gaps_table

NAMES = ["anger", "disgust", "neutral"]


def images(seed=0, people=60, per_person=6, planted=0.0):
    """Answers of which 80 % are right; children's disgust is read as anger more often."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), per_person)
    band = np.where(person % 2 == 1, "child", "adult")
    emotion = rng.choice(NAMES, len(person))
    wrong = rng.choice(NAMES, len(person))
    answer = np.where(rng.random(len(person)) < 0.8, emotion, wrong)
    worse = (band == "child") & (emotion == "disgust") & (rng.random(len(person)) < planted)
    return pd.DataFrame(
        {
            "subject_id": [f"person{number}" for number in person],
            "age_band": band,
            "gender": "unknown",
            "emotion": emotion,
            "y_pred": np.where(worse, "anger", answer),
            "model": "base",
            "protocol": "all",
            "dataset": "invented",
        }
    )


@pytest.fixture
def confusions(settings_of):
    def compare(frame, **changes):
        table = confusion_gaps_table(frame, settings_of(**changes))
        return table.set_index(["emotion", "y_pred"])

    return compare


def test_shares_are_the_counts_divided(confusions):
    frame, table = images(), confusions(images())
    assert len(table) == 6  # every wrong answer; gender, unknown for all, makes no group
    for (emotion, answer), row in table.iterrows():
        for side in "ab":
            group = frame["age_band"] == row[f"group_{side}"]
            rows = frame[group & (frame["emotion"] == emotion)]
            assert row[f"n_{side}"] == len(rows)
            assert row[f"share_{side}"] == pytest.approx((rows["y_pred"] == answer).mean())
        assert row["gap"] == pytest.approx(row["share_a"] - row["share_b"])
        assert row["ci_low"] <= row["gap"] <= row["ci_high"]


def test_few_people_are_not_tested_however_many_images_they_have(confusions):
    frame = images(people=20, per_person=60)  # ten people a side
    # Their pictures of an emotion are not equally many: a little fewer effective ones.
    assert confusions(frame, min_subjects=9)["p_adjusted"].notna().all()
    few = confusions(frame, min_subjects=11)
    assert set(few.index) == {("disgust", "anger"), ("anger", "disgust")}  # these always show
    assert few["p_adjusted"].isna().all()
    methods = confusions(frame, min_n=10, min_subjects=8)["method"]
    assert methods.str.contains("at least 10 pictures and 8 people of the emotion").all()


def test_a_planted_confusion_is_found_and_no_other(confusions):
    table = confusions(images(people=120, planted=0.4))
    found = table[table["p_adjusted"] < 0.05]
    assert ("disgust", "anger") in found.index
    assert set(found.index) <= {("disgust", "anger")}
    row = found.iloc[0]
    assert (row["group_a"], row["ci_low"] > 0) == ("adult", False) or row["ci_low"] > 0


def test_disgust_and_anger_always_have_a_row(confusions):
    frame = images()
    frame["y_pred"] = frame["emotion"]  # nobody is misread
    table = confusions(frame)
    assert list(table.index) == [("anger", "disgust"), ("disgust", "anger")]
    assert table["gap"].tolist() == [0, 0] and table["p_adjusted"].isna().all()
    small = confusions(images(), min_n=10_000)
    assert set(small.index) == set(table.index) and small["p_adjusted"].isna().all()


def test_a_side_without_the_emotion_is_reported_and_not_compared(confusions):
    frame = images()
    frame = frame[(frame["age_band"] == "adult") | (frame["emotion"] != "disgust")]
    row = confusions(frame).loc[("disgust", "anger")]
    assert min(row["n_a"], row["n_b"]) == 0 and np.isnan(row["gap"])
    assert "no picture of disgust" in row["method"]


def test_models_that_cannot_answer_an_emotion_do_not_stop_the_others(confusions):
    frame = images()
    frame = frame[(frame["emotion"] == "neutral") & (frame["y_pred"] == "neutral")]
    assert confusions(frame).empty


def test_correction_is_within_a_dimension(confusions):
    frame = images(people=80)
    frame["gender"] = np.where(frame["subject_id"].str[-1].isin(list("01234")), "female", "male")
    single = confusions(frame, by=["age_band"])
    table = confusions(frame, by=["age_band", "gender"])
    both = table[table["dimension"] == "age_band"]
    assert both["p_adjusted"].tolist() == single["p_adjusted"].tolist()
    assert (both["p_adjusted"] >= both["p_value"]).all()


@pytest.mark.slow
def test_no_more_than_a_few_of_100_equal_groups_differ(confusions):
    false = [
        (confusions(images(seed), by=["age_band"], resamples=1000)["p_adjusted"] < 0.05).any()
        for seed in range(300)
    ]
    assert np.mean(false) < 0.08
