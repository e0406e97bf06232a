"""Advice at an intake and at the pass after it: one report a batch and model; it stops nothing."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from typer.testing import CliRunner

from flows import cli
from flows.drift.reports import report_drift_of_waiting
from flows.ledger.ledger import Arrival, Ledger
from tasks.core.errors import DataError
from tasks.core.files import write_text
from tasks.core.paths import Paths
from tasks.register import registry

REPOSITORY = Path(__file__).parents[2]
COLUMNS = ["path", "sha256", "image_id", "subject_id", "emotion", "age_band", "gender"]
NO_MODEL = "drift: not compared, no model is in use yet"


class Project:
    """A project in which a comparison is one function, and the registry another."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        self.paths.params.write_bytes((REPOSITORY / "params.yaml").read_bytes())
        self.ledger = Ledger(self.paths.ledger)
        self.in_use: int | None = 4
        self.compared: list[tuple[str, int | None]] = []
        self.error: Exception | None = None

    def accept(self, batch: str) -> None:
        row = [f"arrived/{batch}/a.png", batch, batch, "arrived/a", "anger", "child", "female"]
        table = pd.DataFrame([row], columns=COLUMNS)
        arrival = Arrival(batch, "arrived", batch, batch, "", 1, table)
        self.ledger.begin(arrival, "accepted", f"data/raw/arrived/{batch}", [])
        self.ledger.decide(batch, "accepted")

    def advise(self, paths: Paths, batch: str) -> float:
        self.compared.append((batch, self.in_use))
        if self.error is not None:
            raise self.error
        for kind in ("csv", "md"):
            write_text(self.report(batch, kind), f"with version {self.in_use}")
        return 0.6

    def champion(self, paths: Paths) -> SimpleNamespace | None:
        return self.in_use and SimpleNamespace(number=self.in_use, digest="abc")

    def report(self, batch: str, kind: str = "md") -> Path:
        return self.paths.at(f"reports/drift/{batch}.{kind}")

    def at_intake(self) -> list[str]:
        return self._lines(at_intake=True)

    def at_pass(self) -> list[str]:
        return self._lines()

    def _lines(self, **how: bool) -> list[str]:
        said: list[str] = []
        report_drift_of_waiting(self.paths, said.append, **how)
        return said


@pytest.fixture
def project(tmp_path, monkeypatch):
    project = Project(tmp_path)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns/mlflow.db").touch()
    monkeypatch.setattr("flows.drift.batch_drift.write_drift_report", project.advise)
    monkeypatch.setattr(registry, "champion", project.champion)
    return project


def test_what_the_intake_compared_the_next_pass_does_not(project):
    project.accept("site-3")
    assert project.at_intake() == [
        f"drift of site-3: largest effect 0.60; {project.report('site-3')}"
    ]
    assert project.at_pass() == project.at_intake() == []
    project.accept("site-4")
    project.at_pass()
    assert project.compared == [("site-3", 4), ("site-4", 4)]
    assert list(project.ledger.batches()["drift"]) == [0.6, 0.6]


def test_another_model_in_use_or_a_report_that_is_gone_is_compared_anew(project):
    project.accept("site-3")
    project.at_intake()
    project.in_use = 5
    project.at_intake()  # it has a report
    project.at_pass()
    assert project.report("site-3").read_text() == "with version 5"
    project.report("site-3").unlink()
    project.at_pass()
    assert project.compared == [("site-3", 4), ("site-3", 5), ("site-3", 5)]


def test_without_a_model_in_use_an_intake_says_so_and_leaves_it_to_the_pass(project):
    assert project.at_intake() == []  # nothing waits
    project.in_use = None
    project.accept("site-3")
    project.accept("site-4")
    assert project.at_intake() == [NO_MODEL] and project.compared == []
    assert [line.partition(":")[0] for line in project.at_pass()] == [
        "drift of site-3",
        "drift of site-4",
    ]
    (project.paths.mlruns / "mlflow.db").unlink()  # nothing was tracked yet: none is made
    project.accept("site-5")
    assert project.at_intake() == [NO_MODEL] and not list(project.paths.mlruns.iterdir())


def test_what_failed_is_said_in_place_of_the_report_and_tried_again(project):
    project.accept("site-3")
    project.error = DataError("a.png: is gone")
    assert project.at_intake() == ["drift of site-3: not compared (a.png: is gone)"]
    assert project.report("site-3").read_text().endswith("It was not compared: a.png: is gone.\n")
    project.error = None
    project.at_pass()
    assert project.report("site-3").read_text() == "with version 4"
    project.in_use, project.error = 5, OSError(28, "No space left on device")
    project.at_pass()  # no table of another model stays beside the line
    assert not project.report("site-3", "csv").exists()


@pytest.mark.parametrize("broken", ["set_drift", "untrained", "champion"])
def test_a_ledger_or_store_that_fails_stops_nothing(project, monkeypatch, broken):
    project.accept("site-3")
    project.at_pass()
    project.accept("site-4")

    def fail(*arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(registry if broken == "champion" else Ledger, broken, fail)
    (line,) = project.at_pass()
    what = "drift" if broken == "untrained" else "drift of site-4"
    assert line == f"{what}: not compared (OSError: [Errno 5] Input/output error)"
    assert project.report("site-3").read_text() == "with version 4"  # a report that is there stays


def test_the_command_intake_gives_the_advice(project, monkeypatch):
    def take_in(paths, say):
        if not project.ledger.places():
            project.accept("site-3")
        return []

    subprocess.run(["git", "init", "-q", project.paths.root], check=True)
    monkeypatch.setattr("flows.intake.intake.intake_inbox", take_in)
    monkeypatch.setattr(cli, "_project", lambda: project.paths)
    for _ in range(2):
        said = CliRunner().invoke(cli.app, ["intake"])
        assert said.exit_code == 0
    assert project.compared == [("site-3", 4)]
