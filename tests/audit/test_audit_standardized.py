"""Gaps at a common mix: recomputed with pandas and a saturated model, and by simulation."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from tasks.audit.measures.gaps import gaps_table
from tasks.audit.measures.standardized_gaps import standardized_table
from tasks.core.tables import RAW


def cohort(seed, gap=0.0, people=40, per_person=10, alike=0.2):
    """Children see fear, which is hard, more often; pictures of a person have alike outcomes."""
    rng = np.random.default_rng(seed)
    parts = []
    for band, fear_share in (("child", 0.75), ("adult", 0.25)):
        person = np.repeat(np.arange(people), per_person)
        fear = rng.random(len(person)) < fear_share
        chance = np.where(fear, 0.4, 0.8) - (gap if band == "child" else 0)
        of_image, of_person = rng.random(len(person)), rng.random(people)[person]
        draw = np.where(rng.random(len(person)) < np.sqrt(alike), of_person, of_image)
        parts.append(
            pd.DataFrame(
                {
                    "subject_id": [f"{band}{number}" for number in person],
                    "age_band": band,
                    "emotion": np.where(fear, "fear", "happiness"),
                    "mouth": np.where(rng.random(len(person)) < 0.3 + 0.3 * fear, "open", "closed"),
                    "face_side_px": rng.normal(100 + 20 * fear, 10),
                    "correct": draw < chance,
                }
            )
        )
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(model="base", protocol="all", dataset="invented")


@pytest.fixture
def gaps(settings_of):
    """Return a function: children minus adults by what the mix is, over all emotions."""

    def compare(frame, resamples=400, **changes):
        settings = settings_of(by=["age_band"], resamples=resamples, **changes)
        table = standardized_table(frame, settings)
        return table[table["emotion"] == "all"].set_index("standardized_to")

    return compare


def test_a_gap_due_to_the_mix_disappears_and_the_raw_gap_remains(gaps):
    table = gaps(cohort(0))
    assert table.loc[RAW, "ci_high"] < 0  # child minus adult
    assert table.loc["emotion", "ci_low"] < 0 < table.loc["emotion", "ci_high"]


def test_a_side_that_is_all_right_has_the_interval_of_the_table_of_gaps(settings_of):
    frame = cohort(2)
    frame["correct"] |= frame["age_band"] == "adult"
    frame["subject_known"] = True
    settings = settings_of(by=["age_band"], resamples=400)
    gap = gaps_table(frame, settings).set_index("emotion").loc["all"]
    raw = standardized_table(frame, settings).set_index(["emotion", "standardized_to"])
    raw = raw.loc[("all", RAW)]
    assert raw["gap"] == pytest.approx(gap["gap"], abs=1e-9)
    for name in ("ci_low", "ci_high"):  # that of gaps.csv needs no draws
        assert raw[name] == pytest.approx(gap[name], abs=0.01)
    assert "each person of a side counted once" in raw["method"]
    assert raw["ci_high"] - raw["gap"] > 0.01  # an interval, though adults do not vary


def test_a_known_gap_is_found_behind_the_mix(gaps):
    table = gaps(cohort(1, gap=0.15, people=600))
    assert table.loc["emotion", "gap"] == pytest.approx(-0.15, abs=0.03)
    assert table.loc[RAW, "gap"] == pytest.approx(-0.15 - 0.2, abs=0.03)


def test_it_is_the_weighted_recall_that_pandas_gives(gaps):
    frame = cohort(2, gap=0.1)
    recalls = frame.pivot_table("correct", ["emotion", "mouth"], "age_band", "mean")
    mix = frame.groupby(["emotion", "mouth"]).size() / len(frame)
    row = gaps(frame, standardize_to=["emotion", "mouth"]).loc["emotion, mouth"]
    assert row["recall_a"] == pytest.approx(mix @ recalls["child"])
    assert row["recall_b"] == pytest.approx(mix @ recalls["adult"])
    assert row["gap"] == pytest.approx(row["recall_a"] - row["recall_b"])


def test_it_is_what_a_saturated_model_predicts_for_the_pooled_images(gaps):
    frame = cohort(3, gap=0.1).assign(right=lambda rows: rows["correct"].astype(int))
    model = smf.logit("right ~ C(age_band) * C(emotion) * C(mouth)", frame).fit(disp=0)
    predicted = [model.predict(frame.assign(age_band=band)).mean() for band in ("child", "adult")]
    row = gaps(frame, standardize_to=["emotion", "mouth"]).loc["emotion, mouth"]
    assert [row["recall_a"], row["recall_b"]] == pytest.approx(predicted, abs=1e-6)


def test_numbers_are_cut_into_thirds_of_all_images(gaps):
    frame = cohort(4)
    third = pd.qcut(frame["face_side_px"], 3, labels=False)
    recalls = frame.assign(third=third).pivot_table("correct", "third", "age_band", "mean")
    mix = third.value_counts(normalize=True).sort_index()
    row = gaps(frame, standardize_to=["face_side_px"]).loc["face_side_px"]
    assert row["gap"] == pytest.approx(mix @ (recalls["child"] - recalls["adult"]))
    assert "thirds: face_side_px" in row["method"]


def test_strata_of_one_side_are_left_out_and_their_share_is_stated(gaps):
    frame = cohort(5)
    child = frame["age_band"] == "child"
    frame["ethnicity"] = np.where(child & (frame.index % 4 != 0), "x", "y")
    row = gaps(frame, standardize_to=["ethnicity"]).loc["ethnicity"]
    shared = frame[frame["ethnicity"] == "y"]
    assert (row["n_a"], row["n_b"]) == (100, 400)
    assert (row["share_a"], row["share_b"]) == (0.25, 1.0)
    recalls = shared.groupby("age_band")["correct"].mean()
    assert row["gap"] == pytest.approx(recalls["child"] - recalls["adult"])
    assert "less than half" in row["method"]
    frame["ethnicity"] = np.where(child, "x", "y")
    apart = gaps(frame, standardize_to=["ethnicity"]).loc["ethnicity"]
    assert apart["share_a"] == 0 and np.isnan(apart["gap"]) and np.isnan(apart["ci_low"])


def test_unknown_values_are_in_no_stratum(gaps):
    frame = cohort(6)
    frame.loc[::2, "mouth"] = None
    frame.loc[1::4, "mouth"] = "unknown"
    row = gaps(frame, standardize_to=["mouth"]).loc["mouth"]
    assert row["n_a"] + row["n_b"] == len(frame) / 4


def test_raw_is_over_the_emotions_that_both_have(gaps):
    frame = cohort(7)
    frame = frame[(frame["age_band"] == "adult") | (frame["emotion"] == "fear")]
    row = gaps(frame).loc[RAW]
    recalls = frame[frame["emotion"] == "fear"].groupby("age_band")["correct"].mean()
    assert row["gap"] == pytest.approx(recalls["child"] - recalls["adult"])
    assert row["share_a"] == 1 and row["share_b"] < 0.5


def test_columns_that_say_nothing_make_no_row(settings_of):
    frame = cohort(8).assign(gaze=None, ethnicity="unknown")
    columns = ["emotion", "age_band", "mouth", "gaze", "ethnicity", "pose"]
    table = standardized_table(frame, settings_of(by=["age_band"], standardize_to=columns))
    assert list(table.loc[table["emotion"] == "all", "standardized_to"]) == [
        RAW,
        "emotion",
        "mouth",
        "emotion, mouth",
    ]
    by_emotion = table[table["emotion"] == "fear"]
    assert list(by_emotion["standardized_to"]) == [RAW, "mouth"]


def test_columns_that_no_image_has_both_of_are_not_taken_together(settings_of):
    """One set records the mouth, another the gaze; both hold women and men."""
    frame = cohort(11)
    rng = np.random.default_rng(11)
    first = rng.random(len(frame)) < 0.5
    frame["gender"] = rng.choice(["female", "male"], len(frame))
    frame["dataset"] = np.where(first, "one", "two")
    frame["gaze"] = np.where(first, "unknown", rng.choice(["away", "direct"], len(frame)))
    frame["mouth"] = frame["mouth"].where(first)
    settings = settings_of(by=["gender"], standardize_to=["emotion", "gaze", "mouth"])
    table = standardized_table(frame, settings).query("dataset == 'all' and emotion == 'all'")
    assert list(table["standardized_to"]) == [RAW, "emotion", "gaze", "mouth", "emotion, gaze"]
    together = table.iloc[-1]
    assert together["n_a"] + together["n_b"] == (~first).sum() and pd.notna(together["ci_low"])
    assert "both groups: mouth." in together["method"]


def test_people_of_unknown_groups_are_not_compared(settings_of):
    frame = cohort(9).assign(gender="unknown")
    assert standardized_table(frame, settings_of(by=["gender"])).empty


def test_the_interval_is_of_people_and_not_of_images(gaps):
    frame = cohort(10, people=30)
    table = gaps(frame, resamples=1000)
    tripled = gaps(pd.concat([frame] * 3, ignore_index=True), resamples=1000)
    width = table["ci_high"] - table["ci_low"]
    assert (tripled["ci_high"] - tripled["ci_low"]).to_numpy() == pytest.approx(width.to_numpy())


@pytest.mark.slow
@pytest.mark.parametrize(("people", "alike"), [(40, 0.2), (15, 0.3)])
def test_the_interval_holds_the_gap_in_95_of_100_cohorts(people, alike, gaps):
    held = 0
    for seed in range(1000):
        frame = cohort(seed, gap=0.1, people=people, per_person=6, alike=alike)
        row = gaps(frame).loc["emotion"]
        held += row["ci_low"] <= -0.1 <= row["ci_high"]
    assert 930 <= held <= 970
