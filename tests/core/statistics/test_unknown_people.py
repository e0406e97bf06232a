"""Figures whose people are not known have no limits, and say so."""

import numpy as np
import pandas as pd
import pytest

from tasks.core.statistics.clusters import known_subjects, without_verdicts


def judged(unknown, of=10):
    known = np.arange(of) >= unknown
    return pd.DataFrame({"model": "m", "protocol": "all", "subject_known": known})


def figures():
    row = {"model": "m", "protocol": "all", "recall": 0.5, "ci_low": 0.4, "ci_high": 0.6}
    return pd.DataFrame([row | {"p_value": 0.01, "from_others_p_adjusted": 0.02, "method": "t"}])


@pytest.mark.parametrize(("unknown", "sure"), [(0, True), (3, True), (4, False), (10, False)])
def test_limits_and_p_values_stand_where_two_thirds_are_known(unknown, sure):
    row = without_verdicts(figures(), judged(unknown)).iloc[0]
    limits = row[["ci_low", "ci_high", "p_value", "from_others_p_adjusted"]]
    assert limits.notna().all() if sure else limits.isna().all()
    assert row["recall"] == 0.5
    assert row["method"] == "t" if not unknown else row["method"].startswith("t; ")


def test_only_known_subjects_count_unless_nobody_is_known():
    assert len(known_subjects(judged(3))) == 7
    assert len(known_subjects(judged(10))) == 10
    assert len(known_subjects(judged(4).drop(columns="subject_known"))) == 10
