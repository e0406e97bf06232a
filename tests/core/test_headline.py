"""The headline sentence: the right gap, turned the right way, or none."""

import pandas as pd
import pytest

from tasks.core.gap_sentences import (
    gap_sentence,
    largest_gap,
    no_gap_sentence,
    not_shown,
    uncorrected_sentence,
)


def gap(**changed):
    row = {
        "model": "base",
        "protocol": "held_out",
        "dataset": "all",
        "dimension": "age_band",
        "group_a": "adult",
        "group_b": "child",
        "emotion": "all",
        "n_a": 50,
        "correct_a": 45,
        "recall_a": 0.9,
        "subjects_a": 50,
        "n_b": 40,
        "correct_b": 20,
        "recall_b": 0.5,
        "subjects_b": 40,
        "gap": 0.4,
        "ci_low": 0.2,
        "ci_high": 0.55,
        "confidence": 0.95,
        "p_adjusted": 0.001,
        "enough_n": True,
        "mde": 0.25,
        "power": 0.8,
    }
    return row | changed


def table(*rows):
    return pd.DataFrame(rows)


def test_the_sentence_puts_the_worse_read_group_first():
    row = largest_gap(table(gap()), "base", single_emotions=False)
    text = gap_sentence(row, "the base model").replace("\u202f", " ")
    assert text == (
        "The base model reads 50.0 % of the pictures of children correctly (20 of 40) and 90.0 % "
        "of those of adults (45 of 50): a gap of 40.0 percentage points (95 % interval 20.0 to "
        "55.0)."
    )


def test_only_tested_and_shown_gaps_of_the_model_and_protocol_count():
    hidden = [
        gap(gap=0.9, p_adjusted=0.2),
        gap(gap=0.9, enough_n=False, p_adjusted=float("nan")),
        gap(gap=0.9, model="finetuned"),
        gap(gap=0.9, protocol="all"),
        gap(gap=0.9, emotion="fear"),
    ]
    shown = gap(gap=-0.3, dimension="gender", group_a="male", group_b="female")
    row = largest_gap(table(*hidden, gap(gap=0.1), shown), "base", single_emotions=False)
    assert (row["group_a"], row["group_b"], row["gap"]) == ("male", "female", -0.3)
    single = largest_gap(table(*hidden), "base", single_emotions=True)
    assert single["emotion"] == "fear"


def test_none_is_not_called_absence():
    gaps = table(gap(p_adjusted=0.3), gap(p_adjusted=0.9, enough_n=False))
    assert largest_gap(gaps, "base", single_emotions=False) is None
    assert "in 1 comparison." in no_gap_sentence(gaps, "base")
    assert "no evidence that there is none" in no_gap_sentence(gaps, "base")
    assert "No two groups" in no_gap_sentence(gaps[gaps["enough_n"] == 0], "base")


def test_the_smallest_gap_that_could_have_been_shown_is_told():
    rows = [
        gap(p_adjusted=0.3),
        gap(p_adjusted=0.3, mde=0.4),
        gap(p_adjusted=0.3, mde=0.01, enough_n=False),
        gap(p_adjusted=0.3, mde=0.02, dimension="gender"),
    ]
    text = no_gap_sentence(table(*rows), "base", dimension="age_band").replace("\u202f", " ")
    assert "by age band could be shown in 2 comparisons" in text
    assert "is 25.0 to 40.0 percentage points, depending on the comparison (with" in text
    assert "a probability of 80 %)" in text
    alone = no_gap_sentence(table(gap(p_adjusted=0.3)), "base")
    assert "could have been shown is 25.0 percentage points" in alone
    assert "2.0 to 40.0" in no_gap_sentence(table(*rows), "base")
    none = no_gap_sentence(table(gap(mde=1.2), gap(mde=1.4)), "base")
    assert "could have been shown is more than 100 percentage points" in none


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.183, -0.013, "was not shown after correction for all comparisons"),
        (0.01, 0.2, "was not shown after correction for all comparisons"),
        (-0.1, 0.02, "could not be shown"),
        (float("nan"), float("nan"), "could not be shown"),
    ],
)
def test_a_verdict_never_contradicts_the_interval_beside_it(low, high, verdict):
    assert not_shown({"ci_low": low, "ci_high": high}) == verdict


def test_intervals_without_0_are_told_where_no_gap_is_shown():
    apart = {"p_adjusted": 0.3, "ci_low": -0.183, "ci_high": -0.013}
    across = {"p_adjusted": 0.9, "ci_low": -0.1, "ci_high": 0.2}
    rest = "not shown after correction for all comparisons"
    one = no_gap_sentence(table(gap(**apart), gap(**across)), "base")
    assert f"The interval of 1 excludes 0, but this gap was {rest}. That is no evidence" in one
    two = no_gap_sentence(table(gap(**apart), gap(**apart)), "base")
    assert f"The intervals of 2 exclude 0, but these gaps were {rest}." in two
    assert rest not in no_gap_sentence(table(gap(**across)), "base")


def test_an_odds_ratio_s_interval_is_compared_with_1():
    ratios = pd.DataFrame({"ci_low": [0.4, 0.7, float("nan")], "ci_high": [0.9, 1.2, float("nan")]})
    text = uncorrected_sentence(ratios, "odds ratio", 1)
    assert text.startswith(" The interval of 1 excludes 1, but this odds ratio was not shown after")
