"""Audits of many columns and rows: what they compare, and that processes change nothing."""

import numpy as np
import pandas as pd
import pytest

from tasks.audit import audit
from tasks.core.labels import ALL
from tasks.core.tables import RAW


def predictions(columns, n=240):
    rng = np.random.default_rng(2)
    emotions = np.array(["anger", "happiness", "neutral"])
    frame = pd.DataFrame(
        {
            "image_id": [f"i{row}" for row in range(n)],
            "dataset": "drawn",
            "subject_id": [f"s{row % 40}" for row in range(n)],
            "subject_known": True,
            "emotion": emotions[rng.integers(0, 3, n)],
            "split": "test",
            "model": "base",
            "seen_in_training": False,
        }
    )
    wrong = rng.random(n) < 0.3
    frame["y_pred"] = frame["emotion"].where(~wrong, "anger")
    for name in columns:
        frame[name] = np.array(["x", "y"])[rng.integers(0, 2, n)]
    return frame


def test_more_than_six_columns_are_standardized_for_all_emotions_pooled(settings_of):
    names = [f"c{number}" for number in range(7)]

    def mixes(by):
        settings = settings_of(by=by, depth=1, standardize_to=["emotion", "c0", "c1"])
        tables = audit.audit_predictions(predictions(by), settings, None)
        table = tables["standardized"]
        return set(table["emotion"]), set(table["standardized_to"])

    emotions, columns = mixes(names[:6])
    assert {ALL, "anger"} <= emotions and {RAW, "emotion", "c0", "c1"} <= columns
    emotions, columns = mixes(names)
    assert emotions == {ALL}
    assert columns == {RAW, "emotion", "emotion, c0, c1", "emotion, c1", "emotion, c0"}


@pytest.mark.slow
def test_tables_made_in_several_processes_are_those_made_in_one(monkeypatch, settings_of):
    frame, settings = predictions(["age_band", "gender"]), settings_of()
    one = audit.audit_predictions(frame, settings, None)
    monkeypatch.setattr(audit, "_MANY_CELLS", 0)
    several = audit.audit_predictions(frame, settings, None)
    assert list(several) == list(one)
    for name, table in one.items():
        pd.testing.assert_frame_equal(several[name], table)
