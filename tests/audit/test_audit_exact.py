"""Counts of random files match a count without the audit."""

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from tasks.audit.csv_audit import audit_csv as audit_csv_module
from tasks.audit.csv_audit.audit_csv import audit_csv
from tasks.core.labels import EMOTIONS

BANDS = {"young": (0, 12), "old": (12, 120)}
WORDS = {"age_band": ["young", "old", "7-9", "ü 60", ""], "gender": ["F", "male", "unknown", ""]}
FURTHER = {"ethnicity": ["a", "b", "all", "NA"], "lamp": ["1", "2", "3"], "mouth": ["open", ""]}
SAME = {
    "F": "female",
    "": "unknown",
    "NA": "unknown",
    "all": "all (recorded)",
}  # what the audit calls these


def random_file(rng):
    """Make rows from random counts of random cells, in random order, with random columns."""
    columns = dict(WORDS)
    for name in rng.permutation(list(FURTHER))[: rng.integers(0, 4)]:
        columns[str(name)] = FURTHER[str(name)]
    emotions = list(rng.choice(EMOTIONS, rng.integers(2, 6), replace=False))
    cells = list(itertools.product(*columns.values(), emotions))
    rows = []
    for index in rng.choice(len(cells), min(len(cells), 12), replace=False):
        *groups, emotion = cells[index]
        for answer in rng.choice(emotions, rng.integers(1, 9)):
            row = dict(zip(columns, groups, strict=True))
            rows.append(row | {"emotion": str(emotion), "y_pred": str(answer)})
    if rng.random() < 0.5:
        people = rng.integers(0, max(len(rows) // 3, 1), len(rows))
        rows = [row | {"subject_id": f"p{who}"} for row, who in zip(rows, people, strict=True)]
    frame = pd.DataFrame(rows).sample(frac=1, random_state=int(rng.integers(1 << 30)))
    return frame[list(rng.permutation(frame.columns))], list(columns)


def counted(frame, dimensions):
    """Count pictures and correct ones of every cell of the cube, one row at a time."""
    n, right = Counter(), Counter()
    for row in frame.to_dict("records"):
        values = [SAME.get(row[name], row[name]) for name in dimensions] + [row["emotion"]]
        for pooled in itertools.product([True, False], repeat=len(values)):
            cell = tuple("all" if p else v for p, v in zip(pooled, values, strict=True))
            n[cell] += 1
            right[cell] += row["y_pred"] == row["emotion"]
    return n, right


@pytest.mark.parametrize("seed", range(4))
def test_any_counts_come_back_exactly(tmp_path, settings_of, monkeypatch, seed):
    monkeypatch.setattr(audit_csv_module, "write_figures", lambda *_: [])  # they take the most time
    frame, dimensions = random_file(np.random.default_rng(seed))
    frame.to_csv(tmp_path / "any.csv", index=False)
    every = {"depth": max(2, len(dimensions)), "resamples": 100}
    settings = settings_of(by=[], factors=[], standardize_to=[], **every)
    audit_csv(tmp_path / "any.csv", tmp_path / "out", settings, None, dimensions, BANDS)
    groups = pd.read_csv(tmp_path / "out" / "groups.csv", keep_default_na=False, dtype="str")
    groups = groups[groups["dataset"] == "all"]
    n, right = counted(frame, dimensions)
    assert len(groups) == len(n)
    for row in groups.to_dict("records"):
        cell = (*(row[name] for name in dimensions), row["emotion"])
        assert (int(row["n"]), int(row["correct"])) == (n[cell], right[cell])
        assert float(row["recall"]) == pytest.approx(right[cell] / n[cell], abs=1e-6)
        assert 0 <= float(row["ci_low"]) <= float(row["ci_high"]) <= 1
