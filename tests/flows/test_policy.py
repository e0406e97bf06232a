"""When training is due: each line of the policy, and a clock that jumps."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from flows.policy import Params, due, untrained_pictures
from tasks.core.paths import Paths

SECTION = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())["retrain"]
POLICY = Params(**{**SECTION, "new_pictures": 20, "new_children": 3, "days": 30})
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def pictures(people: int, each: int, band: str = "adult") -> pd.DataFrame:
    names = [f"arrived/{band}-{index}" for index in range(people) for _ in range(each)]
    return pd.DataFrame({"subject_id": names, "age_band": [band] * len(names)})


@pytest.mark.parametrize(
    ("untrained", "days_ago", "reason"),
    [
        (pictures(5, 4), 1, "20 new pictures (from 20 on)"),
        (pictures(5, 3), 1, ""),
        (pictures(3, 1, "child"), 1, "3 new children (from 3 on)"),
        (pictures(2, 9, "child"), 1, ""),
        (pictures(1, 1), 30, "30 days since the last training and 1 new pictures"),
        (pictures(1, 1), 29.9, ""),
        (pictures(0, 0), 400, ""),
        (pictures(0, 0), None, "no pass has trained yet"),
    ],
)
def test_each_line_of_the_policy(untrained, days_ago, reason):
    last = None if days_ago is None else NOW - timedelta(days=days_ago)
    assert due(untrained, last, NOW, POLICY, None, 0.5) == reason


def test_drift_counts_only_where_the_policy_says_so():
    last = NOW - timedelta(days=1)
    assert due(pictures(1, 1), last, NOW, POLICY, -0.8, 0.5) == ""
    drifting = POLICY.model_copy(update={"on_drift": True})
    assert "differs by 0.80" in due(pictures(1, 1), last, NOW, drifting, -0.8, 0.5)
    assert due(pictures(1, 1), last, NOW, drifting, 0.4, 0.5) == ""
    assert due(pictures(1, 1), last, NOW, drifting, None, 0.5) == ""


def test_a_clock_that_was_set_back_waits_no_longer_than_twice_the_policy():
    a_little, years = NOW + timedelta(hours=2), NOW + timedelta(days=3650)
    assert due(pictures(1, 1), a_little, NOW, POLICY, None, 0.5) == ""
    assert "in the future" in due(pictures(1, 1), years, NOW, POLICY, None, 0.5)
    assert due(pictures(0, 0), years, NOW, POLICY, None, 0.5) == ""
    assert due(pictures(5, 4), years, NOW, POLICY, None, 0.5) == "20 new pictures (from 20 on)"


@pytest.mark.parametrize("author", ["nobody", "<a@b>", "a <b", "a <b>\nc"])
def test_an_author_that_git_would_not_take_is_a_mistake_of_params(author):
    with pytest.raises(ValidationError):
        Params(**{**SECTION, "author": author})


@pytest.mark.parametrize(
    ("key", "value"),
    [("days", float("inf")), ("days", 1e10), ("poll_minutes", 1e12), ("poll_minutes", 1e-9)],
)
def test_a_time_that_no_clock_can_hold_is_a_mistake_of_params(key, value):
    with pytest.raises(ValidationError, match=key):
        Params(**{**SECTION, key: value})


def test_pictures_that_no_training_reads_make_none_due(tmp_path):
    paths = Paths(tmp_path)
    content = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    content["ingest"]["datasets"] = {"clinic": {"adapter": "folder"}}
    paths.params.write_text(yaml.safe_dump(content))
    ledger = SimpleNamespace(
        untrained=lambda: pd.concat(
            [pictures(9, 9).assign(dataset="mine"), pictures(1, 2).assign(dataset="clinic")]
        )
    )
    assert list(untrained_pictures(paths, ledger)["dataset"]) == ["clinic", "clinic"]
