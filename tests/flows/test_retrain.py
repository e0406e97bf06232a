"""The pass around the training: when it trains, how it ends, and what the next one makes of it."""

import io
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from rich.console import Console

from flows import one_pass, retrain
from tasks.core.errors import AffectGapError, DataError
from tasks.core.ledger import Arrival, Ledger
from tasks.core.locks import alone
from tasks.core.paths import Paths
from tasks.register import records, registry

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
        return one_pass.Trained(7, "f" * 12, "promoted", ["version 7 is put into use"])

    def arrive(self, name: str, people: int, each: int) -> None:
        rows = [
            {
                "path": f"arrived/{name}/{person}-{take}.png",
                "sha256": f"{name}{person}{take}",
                "image_id": f"{name}{person}{take}",
                "subject_id": f"arrived/{person}",
                "emotion": "anger",
                "age_band": "child",
                "gender": "female",
            }
            for person in range(people)
            for take in range(each)
        ]
        batch = Arrival(name, "arrived", name, name, "", len(rows), pd.DataFrame(rows))
        self.ledger.begin(batch, "accepted", f"data/raw/arrived/{name}", "")
        self.ledger.decide(name, "accepted")

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
        return -0.7

    monkeypatch.setattr("flows.one_pass.train_and_judge", world.train)
    monkeypatch.setattr("flows.one_pass.finish_promotion", lambda paths: [])
    monkeypatch.setattr("flows.intake.take_in_inbox", lambda paths, say: [])
    monkeypatch.setattr("flows.drift.advise", advise)
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


def test_asked_for_it_trains_whatever_the_policy_says(world):
    world.go()
    world.go(now=True)
    assert world.reasons[1] == retrain.ASKED


def test_drift_that_cannot_be_told_stops_nothing(world, monkeypatch):
    def fail(paths, batch):
        raise DataError("no training data")

    monkeypatch.setattr("flows.drift.advise", fail)
    world.arrive("site-3", people=1, each=1)
    assert world.go() == ["version 7 is put into use"]
    assert "drift of site-3: not compared (no training data)" in world.console.file.getvalue()


def test_a_mistake_is_not_repeated_on_a_schedule_until_something_changes(world):
    world.error = DataError("check: 3 groups are too small\nand more")
    with pytest.raises(DataError):
        world.go(scheduled=True)
    (held,) = world.go(scheduled=True)
    assert held.startswith("the last pass failed: check: 3 groups are too small; it is tried again")
    assert world.passes == [("failed", "no pass has trained yet")]
    with pytest.raises(DataError):  # a person may always try
        world.go()
    (world.paths.raw / "arrived.dvc").write_text("new data")
    world.error = None
    assert world.go(scheduled=True) == ["version 7 is put into use"]
    assert world.go(scheduled=True)[0].startswith("training: not due")


def test_another_failure_is_tried_three_times(world):
    world.error = AffectGapError("the disk was full")
    for _ in range(3):
        with pytest.raises(AffectGapError):
            world.go(scheduled=True)
    assert world.go(scheduled=True)[0].startswith("the last pass failed: the disk was full")
    assert len(world.reasons) == 3


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
    world.ledger.start_pass(retrain.ASKED)
    monkeypatch.setattr("tasks.core.ledger.is_dead", lambda process: True)
    world.go()
    assert "closed: pass 1, which died" in world.console.file.getvalue()
    assert world.passes == [("died", retrain.ASKED), ("trained", retrain.ASKED)]


def test_a_second_pass_at_once_is_one_line(world):
    with alone(world.paths.at("work/retrain.lock"), ""), pytest.raises(retrain.BusyError) as error:
        world.go()
    assert "another pass is at work here" in str(error.value)
    assert world.reasons == []


def record(paths, action, version, previous=""):
    name = f"{action}-{version}-{previous}"
    row = {"action": action, "version": version, "previous": previous, "decision_id": name}
    records.append_record(paths, {**row, "by": "A. Weber", "why": "complaints"})


def test_what_a_person_took_out_of_use_no_pass_puts_back(tmp_path):
    paths = Paths(tmp_path)
    record(paths, records.PROMOTED, 1)
    record(paths, records.PROMOTED, 2, 1)
    assert one_pass._was_left(paths, 2) == ""
    record(paths, records.ROLLED_BACK, 1, 2)
    assert one_pass._was_left(paths, 2).endswith("by A. Weber (complaints)")
    assert one_pass._was_left(paths, 1) == ""
    record(paths, records.APPROVED, 2, 1)
    assert one_pass._was_left(paths, 2) == ""


def test_a_promotion_that_was_written_down_and_not_made_is_made(tmp_path, monkeypatch):
    paths = Paths(tmp_path)
    paths.params.write_bytes((REPOSITORY / "params.yaml").read_bytes())
    in_use = SimpleNamespace(number=1, digest="a")
    monkeypatch.setattr(registry, "finish_move", lambda paths: "")
    monkeypatch.setattr(registry, "champion", lambda paths: in_use)
    monkeypatch.setattr(
        registry, "find_version", lambda paths, number: SimpleNamespace(number=number, digest="b")
    )

    def promote(paths, number):
        in_use.number = number

    monkeypatch.setattr(registry, "promote", promote)
    record(paths, records.PROMOTED, 1)
    assert one_pass.finish_promotion(paths) == []
    record(paths, records.PROMOTED, 2, 1)
    record(paths, records.REFUSED, 3, 2)
    in_use.number = 7  # registry/ as it was long ago, by `git checkout`
    assert one_pass.finish_promotion(paths) == []
    in_use.number = 1
    *_, line = one_pass.finish_promotion(paths)
    assert line == "finished: version 2 is put into use, as was decided before"
    assert in_use.number == 2
    assert one_pass.finish_promotion(paths) == []
    record(paths, records.ROLLED_BACK, 1, 2)
    in_use.number = 1
    assert one_pass.finish_promotion(paths) == []
