"""Passes that fail before they train: written down, shown, and not repeated at every look."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from inbox_world import new_project
from requests.exceptions import ConnectionError as NoConnectionError

from flows.daemon import scheduled_flows, status
from flows.ledger.ledger import Ledger
from flows.retraining import retrain, training_flow
from flows.retraining.backoff import Failures
from tasks.core.errors import AffectGapError, BusyError, DataError, ParamsError
from tasks.core.terminal import Console

DVC = "data/raw/arrived: DVC could not track it: unexpected error - 'path'"


class World:
    """A project whose inbox can fail, as can the training; no picture ever arrives."""

    def __init__(self, root: Path) -> None:
        self.paths = new_project(root)
        (root / "dvc.yaml").write_text("stages: {}\n")
        self.paths.raw.mkdir(parents=True)
        self.ledger = Ledger(self.paths.ledger)
        self.looks = 0
        self.inbox_error: BaseException | None = None
        self.training_error: BaseException | None = None

    def take_in(self, paths, say):
        self.looks += 1
        if self.inbox_error is not None:
            raise self.inbox_error
        return []

    def train(self, paths, number, reason, console, quiet):
        if self.training_error is not None:
            raise self.training_error
        return training_flow.CycleResult(7, "f" * 12, "promoted", ["version 7 is put into use"])

    def go(self, now: bool = False, by_schedule: bool = True) -> list[str]:
        console = Console(file=io.StringIO())
        return retrain.retrain(self.paths, console, True, now=now, scheduled=by_schedule)

    def fails(self, **how) -> None:
        with pytest.raises(Exception, match=r"could not|mixed up|denied|no connection"):
            self.go(**how)

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        table = self.ledger.passes()[["state", "trigger", "detail"]]
        return list(table.itertuples(index=False, name=None))

    @property
    def shown(self) -> str:
        lines, whole = status.status_lines(self.paths)
        assert whole
        return "\n".join(lines)


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path / "project")
    monkeypatch.setattr("flows.intake.intake.intake_inbox", world.take_in)
    monkeypatch.setattr("flows.retraining.training_flow.run_training_flow", world.train)
    monkeypatch.setattr("flows.retraining.retrain.complete_promotion", lambda paths: [])
    return world


def test_it_is_in_the_ledger_and_in_status_until_a_pass_gets_past_it(world):
    world.go()
    world.inbox_error = AffectGapError(DVC)
    for _ in range(2):
        world.fails()
    trained = ("trained", "no pass has trained yet", "promoted")
    assert world.rows == [trained, ("failed", "the inbox", DVC)]  # once, not at every look
    line = next(line for line in world.shown.splitlines() if line.startswith("failed"))
    at = Failures(world.paths, before_training=True).last().at
    assert datetime.now(UTC) - at < timedelta(minutes=1)
    assert line == f"failed       {at:%Y-%m-%d %H:%M} UTC (2 times): {DVC}"
    assert "             retried at the next poll" in world.shown.splitlines()
    world.inbox_error = None
    for _ in range(2):
        assert world.go()[0].startswith("training: not due")
    assert len(world.rows) == 2
    assert not any(line.startswith("failed") for line in world.shown.splitlines())


def test_it_is_tried_at_three_looks_then_once_a_day_or_when_data_change(world):
    world.inbox_error = AffectGapError(DVC)
    for _ in range(3):
        world.fails()
    (held,) = world.go()
    again = "retried once a day, when data, params or code change, or by `affectgap retrain`"
    assert held == f"the last pass failed: {DVC}; it is {again}"
    assert world.looks == 3 and f"             {again}" in world.shown.splitlines()
    world.fails(by_schedule=False)  # a person may always try
    failures = Failures(world.paths, before_training=True)
    now = datetime.now(UTC)
    assert failures.held_back(now + timedelta(hours=23))
    assert failures.held_back(now + timedelta(hours=25)) == ""
    (world.paths.raw / "arrived.dvc").write_text("outs:\n- path: arrived\n")
    world.fails()
    assert world.looks == 5


def test_a_new_delivery_is_looked_at_once_it_is_ready(world):
    world.inbox_error = DataError("labels mixed up")  # a mistake: not at three looks
    world.fails()
    assert world.go()[0].startswith("the last pass failed")
    folder = world.paths.inbox / "site-3"
    folder.mkdir()
    (folder / "_READY").touch()
    world.fails()
    assert world.looks == 2 and world.go()[0].startswith("the last pass failed")


def test_an_inbox_that_may_not_be_read_is_one_line(world, monkeypatch, capsys):
    def deny(folder):
        raise PermissionError(13, "Permission denied", str(world.paths.inbox))

    with monkeypatch.context() as during:
        during.setattr("flows.intake.entries.os.listdir", deny)
        during.setattr("flows.intake.intake.intake_inbox", lambda paths, say: deny(paths.inbox))
        during.setattr(scheduled_flows, "_begin", lambda root: world.paths)
        state = scheduled_flows.poll_inbox.fn(str(world.paths.root))
        said = capsys.readouterr().out
        assert said == f"error: {world.paths.inbox}: Permission denied\n" and state.is_failed()
        lines, whole = status.status_lines(world.paths)
        assert not whole and any(line.startswith("inbox        cannot be read") for line in lines)
        assert any(line.startswith("passes       1 ") for line in lines)
    assert world.go() == ["version 7 is put into use"]  # that it can be read again is a change


def test_params_that_are_wrong_are_shown_and_begin_no_pass(world):
    text = world.paths.params.read_text()
    world.paths.params.write_text(text.replace("require_approval: ", "require_approval: may"))
    with pytest.raises(ParamsError, match=r"promote\.require_approval"):
        world.go()
    assert "promote.require_approval" in world.go()[0]
    assert world.rows == [] and "promote.require_approval" in world.shown
    world.paths.params.write_text(text)
    assert world.go() == ["version 7 is put into use"]


def test_a_store_that_is_away_is_asked_at_every_look(world):
    world.inbox_error = AffectGapError("MLflow: no connection")
    world.inbox_error.__cause__ = NoConnectionError()
    for _ in range(5):
        world.fails()
    assert world.looks == 5 and len(world.rows) == 1
    assert "(5 times): MLflow: no connection" in world.shown


def test_it_does_not_make_a_training_be_tried_more_often_or_forgotten(world):
    world.training_error = DataError("labels mixed up")
    world.fails()
    assert world.go()[0].startswith("the last pass failed: labels mixed up")
    world.training_error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.go(now=True, by_schedule=False)
    world.inbox_error = AffectGapError(DVC)
    world.fails()
    assert f"UTC: {DVC}" in world.shown  # the later one
    world.inbox_error = world.training_error = None
    assert world.go()[0].startswith("the last pass failed: labels mixed up")
    assert world.go(by_schedule=False) == ["version 7 is put into use"]
    assert world.rows[-1][:2] == ("trained", retrain.ASKED)  # what was asked for is done


def test_another_command_at_work_is_no_failure(world):
    world.inbox_error = BusyError("another affectgap command is at work here")
    with pytest.raises(BusyError):
        world.go()
    assert world.rows == [] and "failed" not in world.shown


def test_it_is_told_all_the_same_where_it_cannot_be_written_down(world, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    world.inbox_error = AffectGapError(DVC)
    monkeypatch.setattr("flows.retraining.backoff.write_text", full)
    with pytest.raises(AffectGapError, match=r"^data/raw/arrived: DVC could not track it"):
        world.go()  # its own words, not those of the full disk
