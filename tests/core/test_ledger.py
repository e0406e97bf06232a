"""The ledger: what is true follows from what happened, in its order, whatever the clock says."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.ledger import ledger as ledger_module
from flows.ledger import sqlite
from flows.ledger.ledger import Arrival, Ledger
from tasks.core.errors import DataError
from tasks.core.parallel.process import is_dead, process_name

COLUMNS = ["path", "sha256", "image_id", "subject_id", "emotion", "age_band", "gender"]


def images(batch: str, count: int = 3) -> pd.DataFrame:
    who = ["fear", "child", "male"]
    rows = [
        [f"set/{batch}/{n}.png", f"{batch}-{n}", f"{batch}{n}", f"set/p{n}", *who]
        for n in range(count)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def arrive(ledger: Ledger, batch: str, state: str = "accepted", count: int = 3) -> None:
    table = images(batch, count)
    arrival = Arrival(batch, "set", f"digest of {batch}", batch, "", count + 1, table)
    ledger.begin(arrival, state, f"data/raw/set/{batch}", ["because"] * (state != "accepted"))
    ledger.decide(batch, state)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "data/ledger.db")


def states(ledger: Ledger) -> dict[str, str]:
    batches = ledger.batches()
    return dict(zip(batches["batch"], batches["state"], strict=True))


def test_nothing_is_made_before_something_is_written(ledger: Ledger) -> None:
    tables = [ledger.batches(), ledger.images(), ledger.untrained(), ledger.trainings()]
    tables += [ledger.passes(), ledger.events(), ledger.where(["x"])]
    assert all(table.empty and len(table.columns) for table in tables)
    assert not ledger._file.path.parent.exists()


def test_a_batch_from_arrival_to_withdrawal(ledger: Ledger) -> None:
    ledger.begin(Arrival("a", "set", "d", "a", "s", 4, images("a")), "accepted", "place", [])
    assert states(ledger) == {"a": "taking_in"} and len(ledger.under_way()) == 1
    assert ledger.untrained().empty
    ledger.decide("a", "accepted")
    assert ledger.under_way() == [] and ledger.untracked()["batch"].tolist() == ["a"]
    ledger.mark_tracked(["a"])
    assert ledger.untracked().empty
    row = ledger.batches().iloc[0]
    assert (row["n_files"], row["n_pictures"], row["n_subjects"]) == (4, 3, 3)
    assert row["received_at"] <= row["decided_at"] and pd.isna(row["drift"])
    ledger.set_drift("a", 0.7, "")
    assert ledger.batches()["drift"].tolist() == [0.7]
    assert ledger.where(["a-1", "other"])["path"].tolist() == ["set/a/1.png"]
    ledger.begin_withdrawal("a", "data/quarantine/a", ["mixed up"])
    assert states(ledger) == {"a": "accepted"} and ledger.under_way()[0].kind == "withdrawing"
    ledger.decide("a", "withdrawn")
    assert ledger.batches()["reason"].tolist() == ["mixed up"]
    assert ledger.places() == {"a": "data/quarantine/a"}
    assert ledger.untracked()["batch"].tolist() == ["a"]
    assert set(ledger.images()["state"]) == {"withdrawn"} and ledger.untrained().empty


def test_what_was_undone_leaves_the_batch_as_it_was(ledger: Ledger) -> None:
    ledger.begin(Arrival("a", "set", "d", "a", "", 4, images("a")), "accepted", "place", [])
    ledger.undo("a", "its sender was still at it")
    assert ledger.batches().empty and ledger.images().empty and ledger.under_way() == []
    arrive(ledger, "b", "quarantined")
    ledger.begin(Arrival("b", "set", "d", "b", "", 4, images("b", 9)), "accepted", "place", [])
    ledger.undo("b", "killed")
    assert states(ledger) == {"b": "quarantined"} and len(ledger.images()) == 3


def test_what_is_trained_and_what_waits(ledger: Ledger) -> None:
    for batch, state in (("a", "accepted"), ("b", "accepted"), ("c", "quarantined")):
        arrive(ledger, batch, state)
    number = ledger.start_pass("first")
    for _ in range(2):  # a pass that was killed does it again
        ledger.mark_trained(["a"], number, "model")
    assert ledger.untrained()["batch"].unique().tolist() == ["b"]
    assert ledger.trainings()["version"].isna().all() and len(ledger.trainings()) == 1
    ledger.mark_promoted("model", 3)
    ledger.mark_promoted("model", 3)
    assert ledger.trainings()["version"].tolist() == [3]
    ledger.end_pass(number, "trained", "promoted", 3)
    # A later pass kept the weights, and its model is another version for what it saw.
    later = ledger.start_pass("second")
    ledger.mark_trained(["a"], later, "model")
    ledger.mark_promoted("model", 4)
    ledger.end_pass(later, "trained", "promoted", 4)
    assert ledger.trainings()["version"].tolist() == [3, 4]
    # Withdrawn, mended and given again, it is new to every model.
    ledger.begin_withdrawal("a", "data/quarantine/a", [])
    ledger.decide("a", "withdrawn")
    arrive(ledger, "a")
    assert ledger.untrained()["batch"].unique().tolist() == ["b", "a"]


def test_of_what_is_trained_no_image_is_read(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    whole = sqlite.read_images

    def counting(*told: Any) -> pd.DataFrame:
        table = whole(*told)
        read.append(len(table))
        return table

    monkeypatch.setattr(ledger_module, "read_images", counting)
    arrive(ledger, "a", count=40)
    ledger.mark_trained(["a"], ledger.start_pass("x"), "model")
    nothing = ledger.untrained()
    assert nothing.empty and nothing.columns.tolist() == ledger.images().columns.tolist()
    read.clear()
    arrive(ledger, "b")
    arrive(ledger, "c", count=2)
    assert ledger.untrained()["batch"].tolist() == ["b"] * 3 + ["c"] * 2 and sum(read) == 5
    monkeypatch.setattr(ledger_module, "_ASKED", 1)  # in more than one query
    assert ledger.untrained()["batch"].tolist() == ["b"] * 3 + ["c"] * 2


def test_whom_the_trainings_had_is_told_however_many_batches_there_were(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_ASKED", 1)  # in more than one query
    assert ledger.trained_people() == frozenset()
    for batch, count in (("a", 2), ("b", 3), ("c", 9)):
        arrive(ledger, batch, count=count)
    ledger.mark_trained(["a", "b"], ledger.start_pass("x"), "model")
    assert ledger.trained_people() == {"set/p0", "set/p1", "set/p2"}
    assert ledger.not_trained() == {"c"}
    # A delivery that was begun and undone leaves what was trained with before.
    ledger.begin_withdrawal("b", "data/quarantine/b", [])
    ledger.decide("b", "withdrawn")
    ledger.begin(Arrival("b", "set", "d", "b", "", 1, images("b", 7)), "accepted", "place", [])
    assert ledger.not_trained() == {"b", "c"} and len(ledger.trained_people()) == 3
    ledger.undo("b", "killed")
    assert ledger.not_trained() == {"c"} and len(ledger.trained_people()) == 3


def test_a_whole_data_set_is_known_by_its_place(ledger: Ledger) -> None:
    for name, place in (("set", "data/raw/set/set"), ("set.2", "data/raw/set")):
        arrival = Arrival(name, "set", name, name, "", 4, images(name))
        ledger.begin(arrival, "accepted", place, [])
        ledger.decide(name, "accepted")
    ledger.begin_withdrawal("set.2", "data/quarantine/set.2", [])
    ledger.decide("set.2", "withdrawn")
    assert ledger.whole() == {"set.2": "set"}


def test_a_batch_that_comes_again_is_new_to_the_advice(ledger: Ledger) -> None:
    arrive(ledger, "a")
    assert ledger.advised() == {}
    ledger.set_drift("a", None, "")
    assert ledger.advised() == {"a": ""}
    ledger.set_drift("a", 0.3, "version 2")
    assert ledger.advised() == {"a": "version 2"}
    ledger.begin_withdrawal("a", "data/quarantine/a", [])
    ledger.decide("a", "withdrawn")
    arrive(ledger, "a")
    assert ledger.advised() == {}


def test_a_clock_that_is_set_back_changes_no_order(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(sqlite.datetime):
        year_now = 2030

        @classmethod
        def now(cls, zone: object = None) -> "Clock":
            cls.year_now -= 1
            return cls(cls.year_now, 1, 1, tzinfo=zone)

    monkeypatch.setattr(sqlite, "datetime", Clock)
    arrive(ledger, "a")
    arrive(ledger, "b")
    assert [ledger.start_pass("x"), ledger.start_pass("y")] == [1, 2]
    ledger.end_pass(2, "trained", "", None)
    assert ledger.batches()["batch"].tolist() == ["a", "b"]
    assert ledger.passes()["state"].tolist() == ["running", "trained"]
    at = ledger.events()["at"].tolist()
    assert at == sorted(at, reverse=True)


def test_passes_of_dead_processes_are_closed_and_others_are_not(ledger: Ledger) -> None:
    code = "from flows.ledger.ledger import Ledger; from pathlib import Path; import sys, time\n"
    code += "Ledger(Path(sys.argv[1])).start_pass('poll'); print(flush=True); time.sleep(60)"
    path = str(ledger._file.path)
    other = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        mine = ledger.start_pass("by hand")
        assert ledger.close_dead_passes() == []
    finally:
        other.send_signal(signal.SIGKILL)
    while not is_dead(ledger.passes()["process"][0]):  # before its body is fetched, too
        time.sleep(0.01)
    other.wait()
    assert ledger.close_dead_passes() == [1] and ledger.close_dead_passes() == []
    ledger.end_pass(mine, "waiting", "needs approval", 4)
    passes = ledger.passes()
    assert passes["state"].tolist() == ["died", "waiting"]
    assert passes["version"].tolist() == [pd.NA, 4] and passes["trigger"][1] == "by hand"
    assert not is_dead(process_name(os.getpid())) and not is_dead("another-host 1 2")


def test_it_only_grows(ledger: Ledger) -> None:
    arrive(ledger, "a")
    database = sqlite3.connect(ledger._file.path)
    for statement in ("DELETE FROM events", "UPDATE pictures SET emotion = 'anger'"):
        with pytest.raises(sqlite3.IntegrityError, match="only grows"):
            database.execute(statement)
    database.close()


def test_a_image_table_that_cannot_be_written_leaves_no_event(ledger: Ledger) -> None:
    arrive(ledger, "a")
    torn = images("b").assign(emotion=None)
    with pytest.raises(DataError, match="NOT NULL"):
        ledger.begin(Arrival("b", "set", "d", "b", "", 1, torn), "accepted", "place", [])
    assert states(ledger) == {"a": "accepted"} and len(ledger.events()) == 2


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(90)])
def test_a_file_that_is_no_ledger_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.db").write_bytes(content)
    for call in (Ledger(tmp_path / "ledger.db").batches, Ledger(tmp_path / "ledger.db").passes):
        with pytest.raises(DataError, match=r"ledger\.db: ") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert (tmp_path / "ledger.db").read_bytes() == content


def test_a_newer_ledger_and_a_locked_one_are_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive(ledger, "a")
    database = sqlite3.connect(ledger._file.path, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(sqlite, "_BUSY_S", 0.1)
    with pytest.raises(DataError, match="another process has held the ledger"):
        ledger.start_pass("x")
    database.execute("COMMIT")
    database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(DataError, match="version 9"):
        ledger.batches()


def _write(path: Path, name: str) -> None:
    ledger = Ledger(path)
    for number in range(5):
        ledger.set_drift(f"{name}{number}", 0.1, "")
        ledger.start_pass(name)


def test_several_first_users_at_once_lose_nothing(ledger: Ledger) -> None:
    context = get_context("fork")
    users = [context.Process(target=_write, args=(ledger._file.path, name)) for name in "abcd"]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert [user.exitcode for user in users] == [0] * 4
    assert len(ledger.events()) == 40
    assert ledger.passes()["pass_id"].tolist() == list(range(1, 21))
