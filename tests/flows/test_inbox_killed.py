"""An intake that is killed between any two of its steps, and then simply run again.

The child process is forked with Great Expectations left out and DVC replaced by a note, and kills
itself with SIGKILL before its n-th step (a rename, a removal, a file, a transaction).
"""

import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inbox_world import (
    files_of,
    linked_into_cache,
    new_project,
    paths,
    send,
    send_archive,
    state_of,
    take,
    tree,
)

from flows.intake import intake, recovery
from flows.intake.intake import withdraw
from flows.ledger import sqlite
from flows.ledger.ledger import Ledger
from tasks.core.paths import Paths

__all__ = ["paths"]  # the fixture

STEPS = [(os, "rename"), (os, "replace"), (shutil, "rmtree"), (shutil, "copyfile"), (os, "unlink")]


def fill(paths: Paths) -> None:
    send(paths, "bad", {**files_of(1), "x.png": b"no picture"})
    send(paths, "good", files_of(2))
    send_archive(paths, "packed.zip", files_of(3))
    send_archive(paths, "torn.zip", files_of(4)).write_bytes(b"torn")
    (paths.inbox / "linked.zip").symlink_to(paths.root / "elsewhere.zip")
    (paths.inbox / "linked.zip._READY").touch()


def counted(step: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def counting(*names: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*names, **more)

    return counting


def be_killed(at: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that dies before step `at`; True where it got so far."""
    child = os.fork()
    if child == 0:
        left = [at]
        for module, name in STEPS:
            setattr(module, name, counted(getattr(module, name), left))
        sqlite.add_event = counted(sqlite.add_event, left)
        recovery.add_to_dvc = counted(recovery.add_to_dvc, left)
        execute = sqlite3.Connection

        class Counting(execute):
            def execute(self, statement: str, *more: Any) -> sqlite3.Cursor:
                if statement == "COMMIT":
                    counted(lambda: None, left)()
                return super().execute(statement, *more)

        connect = sqlite3.connect
        sqlite.sqlite3.connect = lambda *a, **k: connect(*a, factory=Counting, **k)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def outcome(paths: Paths) -> dict[str, object]:
    """Everything that a user would find, except times and inodes."""
    reasons = {path for path in paths.quarantine.rglob("REASON.md")}
    trees = {name: tree(paths.at(name)) for name in ("data/raw", "data/inbox", "data/quarantine")}
    for path in reasons:
        said = re.sub(r"\d{4}-\d\d-\d\dT\S+", "(time)", path.read_text())
        trees["data/quarantine"][path.relative_to(paths.quarantine).as_posix()] = said
    ledger = Ledger(paths.ledger)
    table = ledger.batches().drop(columns=["received_at", "decided_at"]).sort_values("batch")
    names = [str(path.relative_to(paths.root)) for path in paths.at("data").rglob(".*")]
    links = [path for path in paths.at("data").rglob("*") if path.is_symlink()]
    return {
        **trees,
        "batches": table.astype("str").to_dict("records"),
        "pictures": ledger.images().sort_values("path").to_dict("records"),
        "untracked": ledger.untracked()["batch"].tolist(),
        "hidden": names,
        "links": sorted(str(path.relative_to(paths.root)) for path in links),
    }


def projects(root: Path, every: int) -> Iterator[tuple[int, Paths]]:
    for number in range(0, 1000, every):
        yield number, new_project(root / str(number))
        shutil.rmtree(root / str(number))


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_intake_is_finished_by_the_next_one(
    paths: Paths, tmp_path: Path, every: int
) -> None:
    fill(paths)
    take(paths)
    undisturbed = outcome(paths)
    assert state_of(paths) == {
        "bad": "quarantined",
        "good": "accepted",
        "linked": "quarantined",
        "packed": "accepted",
        "torn": "quarantined",
    }
    for at, fresh in projects(tmp_path / "killed", every):
        fill(fresh)
        if not be_killed(at, lambda where=fresh: take(where)):
            break
        take(fresh)
        assert outcome(fresh) == undisturbed, at
    assert at > 30  # every step was one to be killed at


def test_a_killed_withdrawal_is_finished_by_the_next_command(paths: Paths, tmp_path: Path) -> None:
    send(paths, "a", files_of(2))
    take(paths)
    taken_in = shutil.copytree(paths.root, tmp_path / "taken-in")
    withdraw(paths, "a", "why", "")
    undisturbed = outcome(paths)
    for at, fresh in projects(tmp_path / "killed", 1):
        shutil.copytree(taken_in, fresh.root, dirs_exist_ok=True)
        linked_into_cache(fresh, "a")
        if not be_killed(at, lambda where=fresh: withdraw(where, "a", "why", "")):
            break
        intake.recover(fresh, lambda line: None)
        found = outcome(fresh)
        if "withdrawn" not in state_of(fresh).values():  # killed before it was begun
            withdraw(fresh, "a", "why", "")
            found = outcome(fresh)
        assert found == undisturbed, at
    assert at >= 8 + 2 * 7  # a copy and a rename a file
