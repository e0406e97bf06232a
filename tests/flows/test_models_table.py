"""`affectgap models`, as a person reads it."""

from datetime import UTC, datetime

import pytest
from rich.console import Console

from flows import registry
from tasks.core.paths import Paths
from tasks.register.records import append_record
from tasks.register.registry import Version


def version(number, aliases, **tags):
    made = datetime(2026, 11, number, 3, tzinfo=UTC)
    return Version(number, f"{number:012x}", "run", aliases, tags, made)


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """What is printed of some versions, a line each, without runs of blanks."""

    def shown(versions):
        monkeypatch.setattr(registry, "versions", lambda paths: versions)
        console = Console(width=150)
        with console.capture() as capture:
            console.print(registry.models_table(Paths(tmp_path)))
        return [" ".join(line.split()) for line in capture.get().splitlines()]

    return shown


def test_before_the_first_model_it_says_that_there_is_none(lines):
    assert "no model is registered yet" in lines([])


def test_newest_first_with_worst_group_new_batches_and_the_last_decision(lines, tmp_path):
    paths = Paths(tmp_path)
    by = {"by": "A. Weber", "worst_group": "child male", "worst_recall": "0.61"}
    append_record(paths, {"action": "promoted", "version": 1, "decision_id": "a", **by})
    why = {"why": "child male: 61 % against 70 %"}
    append_record(paths, {"action": "refused", "version": 2, "decision_id": "b", **why})
    append_record(paths, {"action": "rolled_back", "version": 1, "decision_id": "c"})
    head, *rows = lines(
        [
            version(1, ("champion",), batches="spring"),
            version(2, (), batches="autumn, spring", worst_group="adult male", worst_recall="0.5"),
            version(3, ("challenger",), batches="none"),
        ]
    )
    assert head == "version alias registered weights worst group batches decision"
    third, second, first = rows
    assert third == "3 challenger 2026-11-03 03:00 000000000003 – not judged yet"
    assert second.startswith("2 2026-11-02 03:00 000000000002 adult male 50.0 % +autumn refused")
    assert second.endswith(": child male: 61 % against 70 %")
    assert first.startswith("1 champion") and "+spring rolled back" in first
