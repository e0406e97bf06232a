"""Calibration: errors computed by hand, models whose calibration is known, and what has none."""

import numpy as np
import pandas as pd
import pytest

from tasks.audit.figures.calibration import calibration_figure
from tasks.audit.measures.calibration import calibration_table, reasons_uncalibrated


def images(seed=0, people=60, per_person=10, child=0.0, adult=0.0):
    """Answers of which confidence less `child` or `adult` are right."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), per_person)
    band = np.where(person % 2 == 1, "child", "adult")
    sure = rng.uniform(0.5, 1, len(person))
    chance = np.clip(sure - np.where(band == "child", child, adult), 0, 1)
    return pd.DataFrame(
        {
            "subject_id": [f"person{number}" for number in person],
            "age_band": band,
            "p_fear": sure,
            "p_neutral": 1 - sure,
            "y_pred": "fear",
            "correct": rng.random(len(person)) < chance,
            "model": "base",
            "protocol": "all",
        }
    )


@pytest.fixture
def calibration(settings_of):
    def measure(frame, **changes):
        return calibration_table(frame, settings_of(**{"by": ["age_band"]} | changes))

    return measure


def summary_row(table, group="all"):
    return table[(table["group"] == group) & (table["bin"] == "all")].iloc[0]


def test_the_error_is_the_mean_distance_over_bins_of_equally_many_images(calibration):
    frame = images(people=50, child=0.2)
    bins = pd.qcut(frame["p_fear"], 5, labels=False)  # of all pictures: groups share the limits
    table = calibration(frame)
    for group in ("child", "adult"):
        binned = frame[frame["age_band"] == group].groupby(bins)
        sizes, sure, right = binned.size(), binned["p_fear"].mean(), binned["correct"].mean()
        row = summary_row(table, group)
        assert row["ece_plain_loss"] == pytest.approx(sizes @ abs(sure - right) / sizes.sum())
        assert row["ece_loss"] < row["ece_plain_loss"]
        assert row["n"] == 250 and row["subjects"] == 25
        rows = table[(table["group"] == group) & (table["bin"] != "all")]
        assert rows["n"].tolist() == sizes.tolist()
        assert rows["accuracy"].to_numpy() == pytest.approx(right.to_numpy())
        assert rows["overconfidence"].to_numpy() == pytest.approx((sure - right).to_numpy())


def test_overconfidence_in_a_group_is_detected(calibration):
    table = calibration(images(people=200, child=0.2))
    child, adult = summary_row(table, "child"), summary_row(table, "adult")
    assert child["overconfidence"] == pytest.approx(0.2, abs=0.04)
    assert child["overconfidence_ci_low"] > 0.1
    assert adult["overconfidence_ci_low"] < 0 < adult["overconfidence_ci_high"]
    assert child["ci_low"] > adult["ci_high"]
    assert child["ci_low"] < child["ece_loss"] < child["ci_high"]


def test_underconfidence_is_an_error_too(calibration):
    row = summary_row(calibration(images(people=200, child=-0.2, adult=-0.2)))
    assert row["overconfidence_ci_high"] < 0 and row["ece_loss"] > 0.1


def test_a_calibrated_model_shows_the_error_that_chance_gives(calibration):
    rows = [summary_row(calibration(images(seed, people=20), resamples=100)) for seed in range(40)]
    names = ("ece_plain_loss", "ece_by_chance", "ece_loss")
    plain, expected, error = (np.mean([row[n] for row in rows]) for n in names)
    assert plain == pytest.approx(expected, rel=0.15)
    assert plain > 0.04 and abs(error) < 0.02  # nothing is wrong


def test_the_error_of_a_calibrated_model_does_not_grow_as_images_get_fewer(calibration):
    for people, per_person in ((11, 2), (100, 5)):
        frames = [images(seed, people, per_person) for seed in range(60)]
        rows = pd.DataFrame([summary_row(calibration(one, by=[], resamples=100)) for one in frames])
        spread = rows["ece_loss"].std() / np.sqrt(len(rows))
        assert abs(rows["ece_loss"].mean()) < 4 * spread
        assert ((rows["ci_low"] <= 0) & (rows["ci_high"] >= 0)).mean() > 0.9


def test_errors_are_significant_exactly_where_the_interval_excludes_0(calibration):
    rows = [summary_row(calibration(images(n, 30, 4, 0.1, 0.1), by=[])) for n in range(30)]
    significant = [row["p_value"] < 0.05 for row in rows]
    assert significant == [row["ci_low"] > 0 or row["ci_high"] < 0 for row in rows]
    assert 0 < sum(significant) < len(rows)


def test_a_group_is_tested_against_the_others(calibration):
    table = calibration(images(people=200, child=0.2))
    child = summary_row(table, "child")
    assert child["ece_from_others"] == pytest.approx(0.2, abs=0.05)
    assert child["from_others_ci_low"] > 0 and child["from_others_p_adjusted"] < 0.01
    even = summary_row(calibration(images(people=200)), "child")
    assert even["from_others_ci_low"] < 0 < even["from_others_ci_high"]
    assert pd.isna(summary_row(table)["from_others_p_value"])  # all pictures have no others


def test_equal_confidences_share_a_bin(calibration):
    frame = images()
    frame["p_fear"] = np.where(frame.index % 4 == 0, 0.5, 1.0)
    table = calibration(frame.assign(p_neutral=1 - frame["p_fear"]))
    bins = table[(table["group"] == "all") & (table["bin"] != "all")]
    assert bins["confidence_mean"].tolist() == [0.5, 1.0]


def test_all_right_answers_keep_a_wide_interval(calibration):
    row = summary_row(calibration(images(people=12).assign(correct=True)))
    assert row["overconfidence_ci_high"] > row["overconfidence"] + 0.1
    assert row["ci_low"] < row["ece_loss"] < row["ci_high"]
    sure = images(people=12).assign(correct=True, p_fear=1.0, p_neutral=0.0)
    row = summary_row(calibration(sure))
    assert row["ece_loss"] == 0 and row["ci_high"] > 0.05


def test_unknown_people_count_in_all_only(calibration):
    frame = images()
    assert set(calibration(frame.assign(age_band="unknown"))["group"]) == {"all"}
    frame.loc[:99, "age_band"] = "unknown"
    table = calibration(frame)
    assert set(table["group"]) == {"all", "child", "adult"}
    assert summary_row(table)["n"] == 600


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"p_fear": None, "p_neutral": None}, "the predictions hold no probabilities"),
        ({"p_neutral": 0.5}, "not to 1"),
        ({"p_fear": 1.5, "p_neutral": -0.5}, "below 0"),
        ({"y_pred": "neutral"}, "for 600 pictures the answer is not the most probable label"),
        ({"y_pred": "anger"}, "for 600 pictures the answer is not the most probable label"),
    ],
)
def test_models_without_probabilities_have_no_row_and_a_reason(calibration, change, says):
    bad = images().assign(model="other", **change)
    assert says in reasons_uncalibrated(bad)["other"]
    table = calibration(pd.concat([images(), bad], ignore_index=True))
    assert set(table["model"]) == {"base"}
    empty = calibration(bad)
    assert empty.empty and list(empty.columns) == list(table.columns)


def test_no_column_at_all_and_some_images_without(calibration):
    frame = images()
    bare = frame.drop(columns=["p_fear", "p_neutral"])
    assert reasons_uncalibrated(bare) == {"base": "the predictions hold no probabilities"}
    assert calibration(bare).empty
    frame.loc[3, ["p_fear", "p_neutral"]] = np.nan
    assert reasons_uncalibrated(frame) == {"base": "some pictures have no probabilities"}
    assert reasons_uncalibrated(images()) == {}


def test_one_answer_that_is_not_the_most_probable_is_enough(calibration):
    frame = images()
    frame.loc[7, "y_pred"] = "neutral"
    twice = pd.concat([frame, frame.assign(protocol="held_out")])  # as the tables have it
    words = "for 1 picture the answer is not the most probable label"
    assert reasons_uncalibrated(frame)["base"] == reasons_uncalibrated(twice)["base"] == words
    frame.loc[7, ["p_fear", "p_neutral"]] = 0.5  # both are the most probable
    assert reasons_uncalibrated(frame) == {}


def test_the_method_states_that_chance_assumes_independent_images(calibration):
    assert calibration(images())["method"].str.contains("if pictures were independent").all()


def test_rounded_probabilities_are_accepted(calibration):
    frame = images()
    frame[["p_fear", "p_neutral"]] = frame[["p_fear", "p_neutral"]].round(2) + 0.004
    assert not calibration(frame).empty


def test_the_figure_is_drawn_with_and_without_probabilities(calibration, tmp_path):
    path = tmp_path / "calibration.png"
    drawn = []
    for frame in (images(child=0.2), images(child=0.2), images().head(0)):
        calibration_figure(calibration(frame), "title", "credit", path, {"base": "why"})
        drawn.append(path.read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]


def test_of_many_groups_the_figure_shows_the_worst_calibrated(calibration, monkeypatch, tmp_path):
    titles = []

    def keep_titles(figure, path, words, *more):
        titles.extend(axis.get_title(loc="left") for axis in figure.axes if axis.get_visible())
        titles.append(words.splitlines()[-1])

    monkeypatch.setattr("tasks.audit.figures.calibration.save", keep_titles)
    frame = images()
    frame["site"] = [f"site {row % 45:02}" for row in range(len(frame))]
    table = calibration(frame, by=["site"])
    table.loc[(table["group"] == "site 07") & (table["bin"] == "all"), "ece_loss"] = 1.0
    calibration_figure(table, "title", "credit", tmp_path / "calibration.png", {})
    assert titles[0] == "all" and "site site 07" in titles and len(titles) == 13
    assert titles[-1] == (
        "shown are the groups with the largest error; 34 others are in calibration.csv"
    )


@pytest.mark.slow
def test_the_interval_holds_the_overconfidence_in_95_of_100_cohorts(calibration):
    held = 0
    for seed in range(1000):
        frame = images(seed, people=40, per_person=5, child=0.1, adult=0.1)
        row = summary_row(calibration(frame, by=[], resamples=300))
        held += row["overconfidence_ci_low"] <= 0.1 <= row["overconfidence_ci_high"]
    assert 930 <= held <= 970
