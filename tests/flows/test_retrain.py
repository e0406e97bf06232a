"""The pass around the training: when it trains, how it ends, and what the next one makes of it."""

import io
import math
import re
import sqlite3
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException
from sqlalchemy.exc import DatabaseError

from flows import project_commands
from flows.daemon import scheduled_flows, status
from flows.doctor import state_checks
from flows.ledger import sqlite
from flows.ledger.ledger import Arrival, Ledger
from flows.pipeline.dvc_repair import repair
from flows.registry.recovery import complete_promotion
from flows.retraining import full_audit, retrain, training_flow
from flows.retraining.backoff import Failures
from tasks.core.errors import (
    AffectGapError,
    BusyError,
    DataError,
    ModelError,
    ParamsError,
    UserError,
)
from tasks.core.files import alone, write_text
from tasks.core.paths import Paths
from tasks.core.terminal import Console
from tasks.core.text import markdown
from tasks.core.tracking import mlflow_runs
from tasks.register import promotion_log, registry

REPOSITORY = Path(__file__).parents[2]


class World:
    """A project in which training is one function, and arriving another."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        self.paths.raw.mkdir(parents=True)
        (root / "dvc.yaml").write_text("stages: {}\n")
        self.paths.params.write_bytes((REPOSITORY / "params.yaml").read_bytes())
        self.ledger = Ledger(self.paths.ledger)
        self.error: BaseException | None = None
        self.reasons: list[str] = []
        self.advised: list[str] = []
        self.console = Console(file=io.StringIO(), width=200)

    def train(self, paths, number, reason, console, quiet):
        self.reasons.append(reason)
        if self.error is not None:
            raise self.error
        batches = list(self.ledger.untrained()["batch"].unique())
        self.ledger.mark_trained(batches, number, "f" * 12)
        return training_flow.CycleResult(7, "f" * 12, "promoted", ["version 7 is put into use"])

    def arrive(
        self, name: str, people: int, each: int, dataset: str = "arrived", place: str = ""
    ) -> None:
        rows = [
            {
                "path": f"{dataset}/{name}/{person}-{take}.png",
                "sha256": f"{name}{person}{take}",
                "image_id": f"{name}{person}{take}",
                "subject_id": f"{dataset}/{person}",
                "emotion": "anger",
                "age_band": "child",
                "gender": "female",
            }
            for person in range(people)
            for take in range(each)
        ]
        batch = Arrival(name, dataset, name, name, "", len(rows), pd.DataFrame(rows))
        self.ledger.begin(batch, "accepted", place or f"data/raw/{dataset}/{name}", "")
        self.ledger.decide(name, "accepted")

    def leave(self, name: str) -> None:
        self.ledger.begin_withdrawal(name, f"data/quarantine/{name}", [])
        self.ledger.decide(name, "withdrawn")

    def go(self, **how) -> list[str]:
        return retrain.retrain(self.paths, self.console, True, **how)

    @property
    def passes(self) -> list[tuple[str, str]]:
        return [(row.state, row.trigger) for row in self.ledger.passes().itertuples()]


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path)

    def advise(paths, batch):
        world.advised.append(batch)
        for kind in ("md", "csv"):
            write_text(paths.at(f"reports/drift/{batch}.{kind}"), "what was found")
        return -0.7

    monkeypatch.setattr("flows.retraining.training_flow.run_training_flow", world.train)
    monkeypatch.setattr("flows.retraining.retrain.complete_promotion", lambda paths: [])
    monkeypatch.setattr("flows.intake.intake.intake_inbox", lambda paths, say: [])
    monkeypatch.setattr("flows.drift.batch_drift.write_drift_report", advise)
    return world


def test_the_first_pass_trains_and_the_next_waits_for_the_policy(world):
    assert world.go() == ["version 7 is put into use"]
    world.arrive("site-3", people=9, each=2)
    assert world.go() == [
        "training: not due: 18 of 200 new pictures, 9 of 10 new children, 0 of 30 days"
    ]
    world.arrive("site-4", people=10, each=1)
    world.go()
    assert world.reasons == ["no pass has trained yet", "10 new children (from 10 on)"]
    assert [state for state, _ in world.passes] == ["trained", "trained"]
    assert world.advised == ["site-3", "site-4"]
    assert list(world.ledger.batches()["drift"]) == [-0.7, -0.7]
    assert len(world.ledger.untrained()) == 0


@pytest.mark.parametrize(
    ("section", "key"),
    [("retrain", "max_days"), ("promote", "require_approval"), ("drift", "large_effect")],
)
def test_what_only_the_end_of_a_pass_needs_is_read_before_it_begins(world, section, key):
    content = yaml.safe_load(world.paths.params.read_text())
    content[section][key] = "maybe"
    world.paths.params.write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=f"{section}.{key}"):
        world.go(now=True)
    assert world.passes == [] and world.reasons == []


@pytest.mark.parametrize("dataset", ["nowhere", "drawn"])
def test_a_data_set_that_takes_no_batches_is_said_before_a_pass_begins(world, dataset):
    text = world.paths.params.read_text()
    world.paths.params.write_text(text.replace("  dataset: arrived", f"  dataset: {dataset}"))
    said = f"intake.dataset '{dataset}' takes no batches; it must be one of ingest.datasets (arr"
    with pytest.raises(ParamsError, match=re.escape(said)):
        world.go(now=True)
    assert world.passes == [] and world.reasons == []


def test_asked_for_it_trains_whatever_the_policy_says(world):
    world.go()
    world.go(now=True)
    assert world.reasons[1] == retrain.ASKED


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataError("no training data", "at all"), "no training data at all"),
        (
            OSError(5, "Input/output error", "a.png"),
            "OSError: [Errno 5] Input/output error: 'a.png'",
        ),
        (BrokenProcessPool("a process was killed"), "BrokenProcessPool: a process was killed"),
        (MlflowException("no such run"), "MlflowException: no such run"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (DataError("\udcff.png: is gone"), "\\udcff.png: is gone"),  # no text that a file can hold
    ],
    ids=lambda value: type(value).__name__,
)
def test_drift_that_cannot_be_told_stops_nothing(world, monkeypatch, error, told):
    def fail(paths, batch):
        raise error

    monkeypatch.setattr("flows.drift.batch_drift.write_drift_report", fail)
    world.arrive("site-3", people=1, each=1)
    assert world.go() == ["version 7 is put into use"]
    assert f"drift of site-3: not compared ({told})\n" in world.console.file.getvalue()
    page = world.paths.at("reports/drift/site-3.md").read_text()
    assert page.splitlines()[-1] == f"It was not compared: {markdown(told)}."


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_stops_a_pass_stops_its_advice(world, monkeypatch, stop):
    def stopped(paths, batch):
        raise stop

    monkeypatch.setattr("flows.drift.batch_drift.write_drift_report", stopped)
    world.arrive("site-3", people=1, each=1)
    with pytest.raises(stop):
        world.go()
    assert world.reasons == []


def test_a_batch_that_comes_back_is_compared_anew(world, monkeypatch):
    """Also where nothing could be compared before, and the page of then is still there."""

    def advise(paths, batch):
        world.advised.append(batch)
        for kind in ("md", "csv"):
            write_text(paths.at(f"reports/drift/{batch}.{kind}"), "what was given first")

    monkeypatch.setattr("flows.drift.batch_drift.write_drift_report", advise)
    world.go()
    world.arrive("site-3", people=1, each=1)
    for _ in range(2):
        world.go()
    assert world.advised == ["site-3"]
    world.leave("site-3")
    world.arrive("site-3", people=2, each=1)
    world.go()
    assert world.advised == ["site-3", "site-3"]


def test_a_whole_data_set_that_came_twice_is_trained_once_and_not_compared(world):
    text = world.paths.params.read_text()
    text = text.replace("    arrived:", "    mine:", 1)
    world.paths.params.write_text(text.replace("  dataset: arrived", "  dataset: mine"))
    for name in ("mine", "mine.2"):
        world.arrive(name, people=20, each=20, dataset="mine", place="data/raw/mine")
        if name == "mine":
            world.leave(name)
    manifest = pd.DataFrame({"dataset": ["mine", "arrived"], "batch": ["", "site-3"]})
    manifest.to_parquet(world.paths.manifest)
    # An inbox's batch that happens to have its data set's name is none that is whole.
    world.arrive("arrived", people=1, each=1)
    assert training_flow.trained_batches(world.paths, world.ledger) == ["mine.2"]
    world.go()
    assert "mine.2" not in world.advised


def test_a_mistake_is_not_repeated_on_a_schedule_until_something_changes(world):
    world.error = DataError("check: 3 groups are too small", "and more")
    with pytest.raises(DataError):
        world.go(scheduled=True)
    (held,) = world.go(scheduled=True)
    assert held.startswith("the last pass failed: check: 3 groups are too small; it is retried")
    assert world.passes == [("failed", "no pass has trained yet")]
    with pytest.raises(DataError):  # a person may always try
        world.go()
    (world.paths.raw / "arrived.dvc").write_text("outs:\n- path: arrived\n")
    world.error = None
    assert world.go(scheduled=True) == ["version 7 is put into use"]
    assert world.go(scheduled=True)[0].startswith("training: not due")


def test_another_failure_is_tried_three_times(world):
    world.error = AffectGapError("the disk was full")
    for _ in range(3):
        with pytest.raises(AffectGapError):
            world.go(scheduled=True)
    (held,) = world.go(scheduled=True)
    assert held.startswith("the last pass failed: the disk was full; it is retried once a day")
    assert len(world.reasons) == 3


def test_after_three_tries_a_schedule_tries_once_a_day_and_a_new_version_at_once(world):
    failures, now = Failures(world.paths), datetime(2026, 11, 24, tzinfo=UTC)
    for _ in range(3):
        failures.remember(AffectGapError("the disk was full"), "the disk was full", now)
    assert failures.held_back(now + timedelta(hours=23))
    assert failures.held_back(now + timedelta(hours=25)) == ""
    assert failures.held_back(now - timedelta(days=400)) == ""  # the clock was set back
    code = world.paths.at("flows/retraining/retrain.py")
    code.parent.mkdir(parents=True)
    code.write_text("mended")
    assert failures.held_back(now) == ""


@pytest.mark.parametrize(
    "error",
    [DataError("ledger.db: another process has held it"), UserError("no worker answers")],
    ids=["a store", "a worker"],
)
def test_what_looks_like_a_mistake_is_tried_once_a_day_too(world, error):
    """Nothing that a change of data, params or code would tell: the outage passes by itself."""
    failures, now = Failures(world.paths), datetime(2026, 11, 24, tzinfo=UTC)
    failures.remember(error, str(error), now)
    assert "once a day" in failures.held_back(now + timedelta(hours=23))
    assert failures.held_back(now + timedelta(hours=25)) == ""


def test_a_step_is_tried_again_where_a_store_was_away_or_the_ledger_locked(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(sqlite, "_BUSY_S", 0.05)
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.start_pass("a test")

    def ask_mlflow():
        MlflowClient("http://127.0.0.1:9").get_experiment_by_name("x")

    def write():
        with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            ledger.start_pass("another")

    def fail():
        raise DataError("check: 3 groups are too small")

    for action, passes in ((ask_mlflow, True), (write, True), (fail, False)):
        with pytest.raises(Exception) as raised:
            action()
        state = SimpleNamespace(result=lambda raise_on_failure, error=raised.value: error)
        assert training_flow._is_passing(None, None, state) is passes, raised.value


def test_a_schedule_says_in_one_line_that_a_store_is_away(tmp_path, monkeypatch, capsys):
    def fail(*arguments, **more):
        raise MlflowException("API request failed") from RequestException("no route")

    monkeypatch.setattr(scheduled_flows, "_begin", lambda root: Paths(tmp_path))
    monkeypatch.setattr(scheduled_flows, "retrain", fail)
    state = scheduled_flows.poll_inbox.fn(str(tmp_path))
    assert state.is_failed() and "MLflow does not answer (no route)" in state.message
    assert capsys.readouterr().out.startswith("error: mlruns/mlflow.db: MLflow does not answer")


def test_a_failure_that_cannot_be_written_down_is_told_all_the_same(world, monkeypatch):
    def full(ledger, number, state, *more):
        raise AffectGapError("ledger.db: database or disk is full")

    world.error = AffectGapError("crop: no space left")
    with monkeypatch.context() as during:
        during.setattr(Ledger, "end_pass", full)
        with pytest.raises(AffectGapError, match="crop: no space left"):
            world.go()
    assert (
        "could not be closed: ledger.db: database or disk is full" in world.console.file.getvalue()
    )
    world.error = None
    assert world.go() == ["version 7 is put into use"]
    assert [state for state, _ in world.passes] == ["died", "trained"]
    *_, line = status._passes(world.ledger)
    at = world.ledger.passes()["started_at"][0]
    assert f"1  {at[:10]} {at[11:16]} UTC  died" in line


@pytest.mark.parametrize(
    ("stop", "told"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (SystemExit(), AffectGapError),  # as SIGTERM ends it
        (BusyError("another `affectgap run` is at work here"), BusyError),
    ],
)
def test_what_stopped_a_pass_is_not_hidden_where_it_cannot_be_written_down(
    world, monkeypatch, stop, told
):
    def full(ledger, number, state, *more):
        raise DataError("ledger.db: database or disk is full")

    monkeypatch.setattr(Ledger, "end_pass", full)
    world.error = stop
    with pytest.raises(told) as caught:
        world.go()
    assert not isinstance(caught.value, DataError)
    assert "pass 1 could not be closed: ledger.db: " in world.console.file.getvalue()


def test_a_pass_that_met_another_command_is_no_failure(world):
    world.go()
    world.ledger.end_pass(world.ledger.start_pass(retrain.ASKED), "died", "", None)
    world.error = BusyError("/home/x: another `affectgap run` or `affectgap study` is at work here")
    for _ in range(2):  # asked for and not done yet: still to do
        with pytest.raises(BusyError, match="at work here"):
            world.go(scheduled=True)
    assert world.passes[-1] == ("nothing_to_do", retrain.ASKED)
    world.error = None
    assert world.go(scheduled=True) == ["version 7 is put into use"]


def test_a_data_set_that_params_do_not_read_makes_no_training_due(world):
    world.go()
    world.arrive("mine", people=20, each=20, dataset="mine")
    assert world.go()[0].startswith("training: not due: 0 of 200 new pictures")
    assert world.advised == []
    *_, shown = status._untrained(world.paths, world.ledger)
    told = "mine: 400 pictures of 20 people; not read: ingest.datasets has no mine"
    assert shown.strip() == told


def test_status_shows_the_rest_where_a_store_is_damaged(world, monkeypatch):
    def fail(paths):
        raise DatabaseError("SELECT", {}, Exception("file is not a database"))

    monkeypatch.setattr(registry, "champion", fail)
    monkeypatch.setattr(registry, "previous", fail)
    (first, *others), whole = status.status_lines(world.paths)
    assert not whole
    assert first.startswith("in use       cannot be read: DatabaseError: ")
    assert "file is not a database" in first
    assert "passes       none yet" in others
    monkeypatch.setattr(project_commands, "_project", lambda: world.paths)
    with pytest.raises(SystemExit) as left:
        project_commands.status()
    assert left.value.code == 1


def test_a_pass_that_was_asked_for_and_stopped_is_done_again(world):
    world.go()
    world.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.go(now=True)
    assert world.passes[-1] == ("died", retrain.ASKED)
    world.error = None
    world.go()
    world.go()
    assert world.reasons[1:] == [retrain.ASKED, retrain.ASKED]


def test_a_pass_whose_process_is_gone_is_closed_and_said(world, monkeypatch):
    # A container that starts again has another name: of that one nobody knows whether it lives.
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("tasks.core.parallel.process.socket.gethostname", lambda: "container-1")
        world.ledger.start_pass(retrain.ASKED)
    assert world.ledger.close_dead_passes() == []
    world.go()
    assert "closed: pass 1, which died" in world.console.file.getvalue()
    assert world.passes == [("died", retrain.ASKED), ("trained", retrain.ASKED)]


KILLED_IN_A_RUN = """
import os, sys
from pathlib import Path
from tasks.core.tracking import mlflow_runs as tracking
from tasks.core.paths import Paths
with tracking.open_run(Paths(Path(sys.argv[1])), "retrain", {}, "pipeline"):
    os._exit(9)
"""


def test_the_run_of_a_pass_that_died_at_its_very_end_is_closed_though_nothing_is_due(world):
    world.go()
    died = world.ledger.start_pass("200 new pictures")
    command = [sys.executable, "-c", KILLED_IN_A_RUN, str(world.paths.root)]
    assert subprocess.run(command, cwd=REPOSITORY, check=False).returncode == 9
    world.ledger.end_pass(died, "died", "", None)
    assert world.go()[0].startswith("training: not due")
    client, experiment = mlflow_runs.open_store(world.paths)
    assert [run.info.status for run in client.search_runs([experiment])] == ["KILLED"]


def test_a_half_written_lock_of_a_run_at_work_is_left_alone(world, monkeypatch):
    """DVC writes dvc.lock in place: a living one's looks like what a crash left."""
    finished: list[Path] = []
    monkeypatch.setattr(
        "flows.retraining.retrain.complete_promotion", lambda paths: finished.append(paths) or []
    )
    lock = world.paths.at("dvc.lock")
    lock.write_text("schema: '2.0'\nstages: {a")
    with alone(world.paths.at("work/run.lock"), ""):
        assert list(repair(world.paths)) == []
        with pytest.raises(BusyError, match="at work here"):  # not judged unmended
            world.go(now=True)
    assert lock.read_text().endswith("{a") and finished == [] and world.passes == []
    world.go(now=True)
    assert not lock.exists() and finished == [world.paths]
    assert "mended: dvc.lock was torn" in world.console.file.getvalue()
    lock.write_text("")
    (told,) = repair(world.paths)
    assert told == "dvc.lock was torn; it is saved as dvc.lock.torn and rebuilt"


def test_a_second_pass_at_once_is_one_line(world):
    with alone(world.paths.at("work/retrain.lock"), ""), pytest.raises(BusyError) as error:
        world.go()
    assert "another pass is at work here" in str(error.value)
    assert world.reasons == []


def test_a_full_audit_waits_for_a_pass_and_no_pass_begins_meanwhile(world, monkeypatch):
    def audit(paths, version):
        with pytest.raises(BusyError):
            world.go()
        with pytest.raises(UserError, match="at work"):  # nor a run, which replaces what is read
            alone(paths.at("work/run.lock"), "at work").__enter__()
        return ["full audit: done"]

    monkeypatch.setattr(full_audit, "champion", lambda paths: version(1))
    monkeypatch.setattr(full_audit, "changed_stages", lambda root, target: {})
    monkeypatch.setattr(full_audit, "_audit", audit)
    held = [alone(world.paths.at("work/retrain.lock"), "")]
    held[0].__enter__()

    def wait(seconds):
        held.pop().__exit__(None, None, None)

    monkeypatch.setattr(scheduled_flows.time, "sleep", wait)
    lines = scheduled_flows._when_free(lambda: full_audit.full_audit(world.paths), math.inf)
    assert lines == ["full audit: done"] and held == []
    with alone(world.paths.at("work/run.lock"), ""), pytest.raises(BusyError):
        scheduled_flows._when_free(lambda: full_audit.full_audit(world.paths), -math.inf)
    with alone(world.paths.at("work/retrain.lock"), ""), pytest.raises(BusyError):
        scheduled_flows._when_free(lambda: full_audit.full_audit(world.paths), -math.inf)


@pytest.mark.parametrize("lock", ["retrain.lock", "run.lock"])
def test_a_look_that_meets_another_command_waits_for_it_and_takes_in_what_came_since(
    world, monkeypatch, capsys, lock
):
    """An event comes once: with no schedule nobody would look for its batch again."""
    held = [alone(world.paths.at(f"work/{lock}"), "")]
    held[0].__enter__()

    def wait(seconds):
        assert world.reasons == [] and 1 <= seconds <= 60
        if len(held) == 1:
            held.append(None)  # it is still at work at the next look
        else:
            held[0].__exit__(None, None, None)

    def take_in(paths, say):
        with alone(paths.at("work/run.lock"), "another affectgap command is at work here"):
            return []

    monkeypatch.setattr("flows.intake.intake.intake_inbox", take_in)
    monkeypatch.setattr(scheduled_flows, "_begin", lambda root: world.paths)
    monkeypatch.setattr(scheduled_flows.time, "sleep", wait)
    state = scheduled_flows.poll_inbox.fn(str(world.paths.root))
    assert state.is_completed() and state.message == "version 7 is put into use"
    assert world.reasons == ["no pass has trained yet"]
    assert capsys.readouterr().out.count("waits: ") == 1


def test_a_look_that_waited_in_vain_has_another_one_follow(world, monkeypatch):
    asked = []
    number = "12345678-1234-5678-1234-567812345678"
    monkeypatch.setattr(scheduled_flows, "_begin", lambda root: world.paths)
    monkeypatch.setattr(scheduled_flows, "_MAX_WAIT_S", -1)
    monkeypatch.setattr(scheduled_flows, "flow_run", SimpleNamespace(deployment_id=number))
    monkeypatch.setattr("flows.daemon.run_supervisor.trigger_now", asked.append)
    with alone(world.paths.at("work/retrain.lock"), ""):
        state = scheduled_flows.poll_inbox.fn(str(world.paths.root))
    assert state.name == "Busy" and state.message.endswith("another look follows")
    assert asked == [UUID(number)] and world.reasons == []


@pytest.mark.parametrize(
    ("decision", "kind"),
    [("promoted", "promoted"), ("refused", "registered"), ("waiting", "registered")],
)
def test_the_ledger_calls_promoted_only_what_came_into_use(world, monkeypatch, decision, kind):
    version = SimpleNamespace(number=7, digest="f" * 12)
    monkeypatch.setattr(registry, "champion", lambda paths: None)
    monkeypatch.setattr(registry, "promote", lambda *arguments: None)
    monkeypatch.setattr(registry, "register_challenger", lambda *arguments: version)
    monkeypatch.setattr(training_flow, "trained_batches", lambda paths, ledger: ["site-3"])
    world.arrive("site-3", people=1, each=1)
    steps = training_flow._Steps(
        world.paths, 1, "a test", SimpleNamespace(log_tags=lambda tags: None), None
    )
    steps._step = lambda name, function, *arguments: function(*arguments)
    steps._judge = lambda number: (decision, [])
    steps._keep = lambda version, decision: []
    assert steps.carry_out().decision == decision
    assert set(world.ledger.events()["kind"]) & {"promoted", "registered"} == {kind}
    assert list(world.ledger.trainings()["version"]) == [7]  # lineage knows both


def record(paths, action, version, previous=""):
    name = f"{action}-{version}-{previous}"
    row = {"action": action, "version": version, "previous": previous, "decision_id": name}
    told = {"digest": f"digest-{version}", "by": "A. Weber", "why": "complaints"}
    promotion_log.append_record(paths, row | told)


def version(number, **tags):
    return SimpleNamespace(number=number, digest=f"digest-{number}", tags=tags)


def test_what_a_person_took_out_of_use_no_pass_puts_back(tmp_path):
    paths = Paths(tmp_path)
    record(paths, promotion_log.PROMOTED, 1)
    record(paths, promotion_log.PROMOTED, 2, 1)
    assert training_flow._was_left(paths, version(2)) == ""
    record(paths, promotion_log.ROLLED_BACK, 1, 2)
    assert training_flow._was_left(paths, version(2)).endswith("by A. Weber (complaints)")
    assert training_flow._was_left(paths, version(1)) == ""
    other = SimpleNamespace(number=2, digest="of another store")
    assert training_flow._was_left(paths, other) == ""
    record(paths, promotion_log.APPROVED, 2, 1)
    assert training_flow._was_left(paths, version(2)) == ""
    record(paths, promotion_log.NOT_MADE, 2, 3)  # it may be judged again
    assert training_flow._was_left(paths, version(3)) == ""


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A project whose registry is a stand-in; `in_use` is the version in use."""
    paths = Paths(tmp_path)
    paths.params.write_bytes((REPOSITORY / "params.yaml").read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://nowhere")
    store = SimpleNamespace(paths=paths, in_use=version(1), compared=None)

    def promote(paths, number, instead_of, decision_id):
        store.in_use, store.compared = version(number, put_by=decision_id), instead_of

    def assert_rival(paths, number, instead_of):
        if store.in_use.number not in (number, instead_of):
            record(paths, promotion_log.NOT_MADE, store.in_use.number, number)
            raise AffectGapError(f"version {number} was compared with version {instead_of}")

    monkeypatch.setattr(registry, "assert_rival", assert_rival)
    monkeypatch.setattr(registry, "finish_move", lambda paths: "")
    monkeypatch.setattr(registry, "champion", lambda paths: store.in_use)
    monkeypatch.setattr(registry, "find_version", lambda paths, number: version(number))
    monkeypatch.setattr(registry, "promote", promote)
    return store


def test_a_promotion_that_was_written_down_and_not_made_is_made(store):
    paths = store.paths
    record(paths, promotion_log.PROMOTED, 1)
    assert complete_promotion(paths) == []
    record(paths, promotion_log.PROMOTED, 2, 1)
    record(paths, promotion_log.REFUSED, 3, 2)
    store.in_use = version(7)  # registry/ as it was long ago, by `git checkout`
    assert complete_promotion(paths) == []
    store.in_use = version(1, put_by="rolled_back-1-2")  # rolled back after that registry/
    assert complete_promotion(paths) == []
    store.in_use = version(1, put_by="promoted-1-")
    *_, line = complete_promotion(paths)
    assert line == "finished: version 2 is put into use, as was decided before"
    assert store.in_use.number == 2 and store.compared == 1
    assert complete_promotion(paths) == []
    for action, left in ((promotion_log.ROLLED_BACK, 2), (promotion_log.NOT_MADE, 3)):
        record(paths, action, 1, left)
        store.in_use = version(1)
        assert complete_promotion(paths) == []


def test_a_promotion_that_a_rollback_overtook_is_not_made(store):
    record(store.paths, promotion_log.PROMOTED, 1)
    record(store.paths, promotion_log.PROMOTED, 2, 1)
    record(store.paths, promotion_log.ROLLED_BACK, 1, 2)
    record(store.paths, promotion_log.PROMOTED, 3, 2)  # judged while 2 was in use
    store.in_use = version(1, put_by="rolled_back-1-2")
    (line,) = complete_promotion(store.paths)
    assert line == "not put into use: version 3 was compared with version 2"
    assert store.in_use.number == 1 and complete_promotion(store.paths) == []


def test_an_approval_that_was_stopped_is_finished_whatever_the_last_pass_did(
    store, world, monkeypatch
):
    """After it a pass begins; its state, and the doctor's look, do not matter."""
    monkeypatch.setattr("flows.retraining.retrain.complete_promotion", complete_promotion)
    record(store.paths, promotion_log.PROMOTED, 1)
    record(store.paths, promotion_log.WAITING, 2, 1)
    world.go()
    assert world.passes[-1][0] == "trained" and store.in_use.number == 1
    record(store.paths, promotion_log.APPROVED, 2, 1)
    monkeypatch.setattr(registry, "fetch", lambda paths, number: None)
    (found,) = [*state_checks.unfinished_promotion(store.paths)]
    assert found.mended and store.in_use.number == 2
    assert [*state_checks.model_in_use(store.paths)] == []
    store.in_use = version(1)
    world.go()
    assert store.in_use.number == 2


def test_in_an_empty_store_nothing_is_finished_or_trained(store, monkeypatch):
    def find(paths, number):
        raise ModelError(f"there is no version {number}")

    monkeypatch.setattr(registry, "find_version", find)
    store.in_use = None
    record(store.paths, promotion_log.PROMOTED, 3)
    assert complete_promotion(store.paths) == []
    with pytest.raises(UserError, match="says version 3 is in use, this store has none"):
        training_flow.run_training_flow(store.paths, 1, "a test", Console(), True)
    (found,) = [*state_checks.model_in_use(store.paths)]
    assert not found.mended and "restore mlruns/" in str(found)
