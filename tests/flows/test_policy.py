"""When training is due: each line of the policy, and a clock that jumps."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from flows.ledger.ledger import Arrival, Ledger
from flows.retraining.trigger_policy import (
    Params,
    count_children,
    training_reason,
    untrained_images,
)
from tasks.core.paths import Paths
from tasks.core.tables import write_table

SECTION = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())["retrain"]
POLICY = Params(**{**SECTION, "new_images": 20, "new_children": 3, "max_days": 30})
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def images(people: int, each: int, band: str = "adult") -> pd.DataFrame:
    names = [f"arrived/{band}-{index}" for index in range(people) for _ in range(each)]
    return pd.DataFrame({"subject_id": names, "age_band": [band] * len(names), "known": False})


@pytest.mark.parametrize(
    ("untrained", "days_ago", "reason"),
    [
        (images(5, 4), 1, "20 new pictures (from 20 on)"),
        (images(5, 3), 1, ""),
        (images(3, 1, "child"), 1, "3 new children (from 3 on)"),
        (images(2, 9, "child"), 1, ""),
        (images(9, 1, "child").assign(known=True), 1, ""),
        (images(1, 1), 30, "30 days since the last training and 1 new pictures"),
        (images(1, 1), 29.9, ""),
        (images(0, 0), 400, ""),
        (images(0, 0), None, "no pass has trained yet"),
    ],
)
def test_each_line_of_the_policy(untrained, days_ago, reason):
    last = None if days_ago is None else NOW - timedelta(days=days_ago)
    assert training_reason(untrained, last, NOW, POLICY, None, 0.5) == reason


def test_drift_counts_only_where_the_policy_says_so():
    last = NOW - timedelta(days=1)
    assert training_reason(images(1, 1), last, NOW, POLICY, -0.8, 0.5) == ""
    drifting = POLICY.model_copy(update={"on_drift": True})
    assert "differs by 0.80" in training_reason(images(1, 1), last, NOW, drifting, -0.8, 0.5)
    assert training_reason(images(1, 1), last, NOW, drifting, 0.4, 0.5) == ""
    assert training_reason(images(1, 1), last, NOW, drifting, None, 0.5) == ""


def test_a_clock_that_was_set_back_waits_no_longer_than_twice_the_policy():
    a_little, years = NOW + timedelta(hours=2), NOW + timedelta(days=3650)
    assert training_reason(images(1, 1), a_little, NOW, POLICY, None, 0.5) == ""
    assert "in the future" in training_reason(images(1, 1), years, NOW, POLICY, None, 0.5)
    assert training_reason(images(0, 0), years, NOW, POLICY, None, 0.5) == ""
    assert (
        training_reason(images(5, 4), years, NOW, POLICY, None, 0.5)
        == "20 new pictures (from 20 on)"
    )


@pytest.mark.parametrize("author", ["nobody", "<a@b>", "a <b", "a <b>\nc"])
def test_an_author_that_git_would_not_take_is_a_mistake_of_params(author):
    with pytest.raises(ValidationError):
        Params(**{**SECTION, "author": author})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_days", float("inf")),
        ("max_days", 1e10),
        ("poll_minutes", 1e12),
        ("poll_minutes", 1e-9),
    ],
)
def test_a_time_that_no_clock_can_hold_is_a_mistake_of_params(key, value):
    with pytest.raises(ValidationError, match=key):
        Params(**{**SECTION, key: value})


@pytest.fixture
def paths(tmp_path):
    """A project that reads the data sets `clinic` and `drawn`."""
    paths = Paths(tmp_path)
    content = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    content["ingest"]["datasets"] = {name: {"adapter": "folder"} for name in ("clinic", "drawn")}
    paths.params.write_text(yaml.safe_dump(content))
    return paths


def give(ledger: Ledger, batch: str, people: list[str], dataset="clinic", place="") -> None:
    """Accept a batch: a picture that never came before of each of these children."""
    number = len(ledger.events())
    rows = [
        [f"{name}/{number}", f"{name}{number}", name, name, "anger", "child", "female"]
        for name in people
    ]
    columns = ["path", "sha256", "image_id", "subject_id", "emotion", "age_band", "gender"]
    table = pd.DataFrame(rows, columns=columns)
    arrival = Arrival(batch, dataset, batch, batch, "", len(rows), table)
    ledger.begin(arrival, "accepted", place or f"data/raw/{dataset}/{batch}", [])
    ledger.decide(batch, "accepted")


def withdraw(ledger: Ledger, batch: str) -> None:
    ledger.begin_withdrawal(batch, f"data/quarantine/{batch}", [])
    ledger.decide(batch, "withdrawn")


def split_of(paths: Paths, *rows: tuple[str, str, str]) -> None:
    """Write the split table that a run would leave: `(subject_id, dataset, batch)` rows."""
    write_table(pd.DataFrame(rows, columns=["subject_id", "dataset", "batch"]), paths.split)


def new_children(paths: Paths, ledger: Ledger) -> int:
    return count_children(untrained_images(paths, ledger), POLICY)


def test_images_that_no_training_reads_make_none_due(paths):
    ledger = Ledger(paths.ledger)
    give(ledger, "of-mine", ["mine/a"], dataset="mine")
    assert untrained_images(paths, ledger).empty and new_children(paths, ledger) == 0
    give(ledger, "spring", ["clinic/a"])
    assert list(untrained_images(paths, ledger)["batch"]) == ["spring"]


def test_children_who_come_again_with_new_images_are_no_new_children(paths):
    ledger = Ledger(paths.ledger)
    known = [f"clinic/{number}" for number in range(10)]
    give(ledger, "spring", known)
    assert new_children(paths, ledger) == 10  # before any training
    ledger.mark_trained(["spring"], ledger.start_pass("a test"), "model")
    give(ledger, "summer", known)
    assert len(untrained_images(paths, ledger)) == 10 and new_children(paths, ledger) == 0
    give(ledger, "autumn", [*known, "clinic/new"])
    give(ledger, "winter", ["clinic/new", "drawn/1"])  # twice, and once of another data set
    assert new_children(paths, ledger) == 2


def test_whom_a_training_had_stays_known_when_the_batch_is_withdrawn_or_comes_again(paths):
    ledger = Ledger(paths.ledger)
    give(ledger, "spring", ["clinic/a", "clinic/b"])
    ledger.mark_trained(["spring"], ledger.start_pass("a test"), "model")
    withdraw(ledger, "spring")
    give(ledger, "spring", ["clinic/b", "clinic/c"])
    assert new_children(paths, ledger) == 1
    withdraw(ledger, "spring")  # never trained with, as it came then
    give(ledger, "spring", ["clinic/a", "clinic/c", "clinic/d"])
    assert new_children(paths, ledger) == 2


def test_people_of_no_batch_are_known_from_the_split_and_those_of_a_waiting_one_are_not(paths):
    """A run by hand, or a pass that failed, may have split what no pass trained with."""
    ledger = Ledger(paths.ledger)
    give(ledger, "spring", ["clinic/a", "clinic/b", "drawn/1"])
    give(ledger, "drawn.2", ["drawn/2"], dataset="drawn", place="data/raw/drawn")
    assert new_children(paths, ledger) == 4
    split_of(
        paths,
        ("clinic/a", "clinic", "spring"),
        ("clinic/b", "clinic", "by hand"),
        ("drawn/1", "drawn", ""),
    )
    assert new_children(paths, ledger) == 3  # the whole data set waits for a training too
    ledger.mark_trained(["drawn.2"], ledger.start_pass("a test"), "model")
    assert new_children(paths, ledger) == 1
    paths.split.write_bytes(b"torn")
    assert new_children(paths, ledger) == 3
