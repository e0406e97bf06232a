"""Columns with too many groups are refused, and numbers are compared in bins."""

import numpy as np
import pandas as pd
import pytest

from tasks.audit.csv_audit import audit_csv as audit_csv_module
from tasks.audit.csv_audit.audit_csv import audit_csv
from tasks.audit.measures.group_columns import binned, check_group_counts, parse_bins
from tasks.core.errors import DataError, UserError

BANDS = {"child": (0, 10), "adult": (18, 130)}


def test_options_are_read():
    assert parse_bins(["Age_years=10,18", "a=b=0.5"]) == {"age_years": [10, 18], "a=b": [0.5]}


@pytest.mark.parametrize(
    "options", [["age"], ["age="], ["=3"], ["age=x"], ["age=3,3"], ["age=5,1"], ["age=nan"]]
)
def test_other_options_are_one_line(options):
    with pytest.raises(UserError, match=r"^--bins .*(write COLUMN=|must ascend)"):
        parse_bins(options)
    with pytest.raises(UserError, match="has bins already"):
        parse_bins(["a=1", "A=2"])


def test_a_limit_belongs_to_the_bin_above_it():
    bins = binned(pd.Series([9.99, 10, 17.5, 18, np.nan]), [10, 18])
    young, middle, old = "under 10", "10 to under 18", "18 and over"
    assert list(bins) == [young, middle, middle, old, "unknown"]


def check(values, least=5):
    check_group_counts(pd.DataFrame({"inner": values}), {"inner": "score"}, least)


def test_numbers_without_groups_are_refused_and_bins_are_offered():
    values = [f"{value:.3f}" for value in np.linspace(0, 3, 500)]
    with pytest.raises(UserError, match=r"score has 500 values, 0 of .*--bins score=1,2$"):
        check(values)
    with pytest.raises(UserError, match=r"score has 60 values.*\('w0', 'w1', 'w10'\)|'w"):
        check([f"w{index}" for index in range(60)])


def test_groups_that_are_large_enough_are_compared_beside_small_ones():
    large = [f"site {index}" for index in range(40) for _ in range(5)]
    check([*large, *(f"rare {index}" for index in range(30))])
    with pytest.raises(UserError, match="score has 91 values, 40 of them in 5 rows or more"):
        check([*large, *(f"rare {index}" for index in range(51))])
    check(["unknown"] * 100)


def rows(n=60):
    right = ["happiness", "sadness"] * (n // 2)
    return pd.DataFrame(
        {
            "emotion": right,
            "y_pred": right,
            "score": np.linspace(0, 20, n),
        }
    )


def test_bins_are_compared_in_their_order(tmp_path, settings_of, monkeypatch):
    monkeypatch.setattr(audit_csv_module, "write_figures", lambda *_: [])
    rows().to_csv(tmp_path / "a.csv", index=False, sep=";", decimal=",")
    settings = settings_of(by=[], resamples=100, factors=[], standardize_to=[])
    bins = {"score": [5, 10]}
    audit_csv(tmp_path / "a.csv", tmp_path / "out", settings, None, [], BANDS, bins)
    groups = pd.read_csv(tmp_path / "out" / "groups.csv").query("dataset == emotion == 'all'")
    sizes = {"all": 60, "under 5": 15, "5 to under 10": 15, "10 and over": 30}
    assert list(groups["score"]) == list(sizes)
    assert groups.set_index("score")["n"].to_dict() == sizes
    faults = {"scoer": "--bins scoer: .*no such column", "y_pred": "holds no groups"}
    for name, message in faults.items():
        with pytest.raises(UserError, match=message):
            audit_csv(tmp_path / "a.csv", tmp_path / "b", settings, None, [], BANDS, {name: [1]})
    rows().assign(score="much").to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match="score has no number in line 2: 'much'"):
        audit_csv(tmp_path / "a.csv", tmp_path / "b", settings, None, [], BANDS, bins)
