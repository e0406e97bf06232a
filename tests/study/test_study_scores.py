"""Scores, intervals, the one-standard-error rule and halving."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from study_world import TRAIN, World, settings

from tasks.core.errors import DataError
from tasks.study import results
from tasks.study.plan import progress
from tasks.study.results import (
    Score,
    accuracy_score,
    mean_recall_score,
    people_of,
    read_results,
    score_of,
)
from tasks.study.selection_rule import choose, rungs_of, survivors
from tasks.study.settings import Params


def images(emotions, people, known=True):
    ids = [str(number) for number in range(len(emotions))]
    columns = {"emotion": emotions, "subject_id": people, "subject_known": known, "image_id": ids}
    return pd.DataFrame(columns)


def scored(mean, se, parameters=10):
    by_seed, method = (mean,), "made up"
    ends = (mean - 2 * se, mean + 2 * se)
    return Score(mean, se, se, 0.0, *ends, by_seed, 30, 100, parameters, method)


def test_mean_recall_weighs_emotions_alike_and_accuracy_images():
    table = images(["fear"] * 8 + ["anger"] * 2, list("abcdefghij"))
    right = np.array([[True] * 8 + [False] * 2, [True] * 6 + [False] * 4]).T
    score = mean_recall_score(table, right, settings())
    assert score.by_seed == pytest.approx((0.5, 0.375)) and score.mean == pytest.approx(0.4375)
    assert accuracy_score(table, right, settings()).mean == pytest.approx(0.7)
    assert score.ci_low < score.mean < score.ci_high


def test_people_and_seeds_are_both_in_the_standard_error():
    rng = np.random.default_rng(3)
    table = images(["fear", "anger"] * 60, np.repeat(np.arange(20), 6))
    alike = np.repeat(rng.random((120, 1)) < 0.6, 3, axis=1)
    same = mean_recall_score(table, alike, settings())
    assert same.seeds_se == 0 and same.se == same.people_se > 0
    apart = rng.random((120, 3)) < np.array([0.4, 0.6, 0.8])
    differ = mean_recall_score(table, apart, settings())
    assert differ.se == pytest.approx(np.hypot(differ.people_se, differ.seeds_se))
    assert differ.seeds_se == pytest.approx(np.std(differ.by_seed, ddof=1) / np.sqrt(3))
    one = mean_recall_score(table, alike[:, :1], settings())
    assert np.isnan(one.seeds_se) and "people alone" in one.method


def test_the_error_of_people_is_that_of_the_draws_however_many_at_once(monkeypatch):
    rng = np.random.default_rng(4)
    table = images(
        np.array(["fear", "anger", "sadness"])[rng.integers(3, size=120)],
        rng.integers(25, size=120),
    )
    right = rng.random((120, 3)) < 0.6
    found = mean_recall_score(table, right, settings())
    belongs = np.eye(25)[people_of(table)]
    cells = np.eye(3)[np.unique(table["emotion"], return_inverse=True)[1]]
    drawn = np.random.default_rng(6).multinomial(25, np.full(25, 1 / 25), size=400) @ belongs.T
    shares = drawn @ (cells * right.mean(axis=1)[:, None]) / (drawn @ cells)
    expected = shares.mean(axis=1).std(ddof=1) * np.sqrt(25 / 24)
    assert found.people_se == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(results, "_DRAWN_AT_ONCE", 70)
    assert mean_recall_score(table, right, settings()).people_se == pytest.approx(expected, 1e-9)


def test_many_images_of_unknown_people_need_little_memory():
    table = images(["fear", "anger"] * 10_000, "", known=False)
    right = np.random.default_rng(5).random((20_000, 1)) < 0.7
    tracemalloc.start()
    try:
        score = accuracy_score(table, right, settings(resamples=100))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert score.people == 20_000
    assert score.people_se == pytest.approx(np.sqrt(0.7 * 0.3 / 20_000), rel=0.3)
    assert most < 80e6


def test_images_of_one_person_are_not_independent():
    rng = np.random.default_rng(4)
    of_person = rng.random(20) < 0.5
    right = np.repeat(of_person, 6)[:, None]
    clustered = mean_recall_score(
        images(["fear"] * 120, np.repeat(range(20), 6)), right, settings()
    )
    unknown = mean_recall_score(
        images(["fear"] * 120, np.repeat(range(20), 6), known=False), right, settings()
    )
    assert clustered.people == 20 and unknown.people == 120
    assert clustered.people_se > 2 * unknown.people_se


def test_all_right_is_not_without_doubt():
    table = images(["fear"] * 12, np.repeat(range(6), 2))
    score = mean_recall_score(table, np.ones((12, 3), dtype=bool), settings())
    assert score.mean == 1 and 0.5 < score.ci_low < 0.8 and score.se > 0


def test_the_smaller_network_within_one_standard_error_is_preferred():
    scores = {"large": scored(0.70, 0.03, 50), "small": scored(0.68, 0.02, 5)}
    choice = choose(scores, "multi_seed", "")
    assert (choice.name, choice.best) == ("small", "large") and "10\u202f%" in choice.why
    far = {**scores, "small": scored(0.66, 0.2, 5)}  # the smaller one's error does not matter
    assert choose(far, "multi_seed", "").name == "large"
    assert choose(scores, "published", "").name == "large"


def test_of_one_size_what_was_used_before_stays_and_then_the_higher_mean_wins():
    scores = {
        "a": scored(0.69, 0.02),
        "b": scored(0.70, 0.02),
        "c": scored(0.695, 0.02),
    }
    assert choose(scores, "multi_seed", "a").name == "a"
    assert choose(scores, "multi_seed", "").name == "b"
    assert choose({**scores, "a": scored(0.67, 0.02)}, "multi_seed", "a").name == "b"


def test_one_arm_in_three_survives_and_at_least_one():
    scores = {"a": 0.1, "b": 0.5, "c": 0.5, "d": 0.2, "e": 0.3, "f": 0.4, "g": 0.1}
    assert survivors(scores, 3) == ["b", "c"]
    assert survivors({"a": 0.5, "b": 0.5, "c": 0.5}, 3) == ["a"]  # equal scores: the first wins
    assert survivors({"a": 0.0}, 3) == ["a"]
    assert survivors(scores, 2) == ["b", "c", "f"]


def test_rungs_multiply_until_the_last_which_has_all_seeds():
    rungs = [(rung.until, rung.seeds) for rung in rungs_of(settings(epochs=30))]
    assert rungs == [(3, (1,)), (9, (1,)), (27, (1,)), (30, (1, 2, 3))]
    assert [rung.until for rung in rungs_of(settings(halving=None))] == [12]
    assert [rung.seeds for rung in rungs_of(settings(protocol="published"))] == [(1,)]


def test_seeds_that_saw_other_images_are_refused():
    runs = progress(settings(halving=None), TRAIN, {}).wanted[:2]
    one, other = (World({}).result(run) for run in runs)
    with pytest.raises(DataError, match="validated on other pictures"):
        score_of([one, replace(other, validation=other.validation[1:])], settings())


def test_torn_results_are_one_line(tmp_path):
    (tmp_path / "a-s1-e2").mkdir()
    (tmp_path / "a-s1-e2" / "result.json").write_text("{")
    with pytest.raises(DataError, match="a-s1-e2: is no finished run"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rates": {}}, "learning_rates has none for adam"),
        ({"seeds": [1, 1]}, "names something twice"),
        (
            {"halving": {"min_epochs": 2, "reduction_factor": 3, "first_seeds": 4}},
            "more than there are",
        ),
        ({"learning_rates": {**settings().learning_rates, "adam": [0.1, 0.1]}}, "rate of adam"),
        ({"backbones": []}, "at least 1 item"),
        (
            {"init_by_backbone": {"lenet": "random"}},
            "init_by_backbone names lenet, which backbones does not",
        ),
    ],
)
def test_impossible_settings_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        Params.model_validate({**settings().model_dump(), **changed})
