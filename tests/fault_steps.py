"""Faults of a pass, each ending in a plain restart: what the short test and the full run share.

`ready` is a project with a model in use and three batches in the inbox; `expected` what one
undisturbed pass makes of it. Each step takes a fresh copy of `ready` and returns what it saw.
"""

import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import psutil
from pass_world import (
    Outcome,
    assert_every_image_is_in_one_place,
    copy_project,
    images_in_inbox,
    kill,
    our_processes,
    outcome,
    run,
    start,
    wait_until,
)

from flows.ledger.ledger import Ledger
from tasks.core.paths import Paths

_PASS = ("retrain", "--quiet")
_ROOM_BYTES = 8 * 10**9  # of which tmpfs takes only what is written
_GRACE_S = 20  # in which processes of a command that ended must end too
_BALLAST = "ballast"
_TORN_SHARE = 0.5  # of kills, after which files of DVC's are torn as well
_PASS_S = 1800  # more than any pass here takes
MOVING = "a move"  # when the disk is full: see `full_disk`
_BATCH = "good"  # whose move it is
_SLOW_SYNC = """
import os, time
real = os.sync
def sync():
    time.sleep(3)
    real()
os.sync = sync
"""
_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
#include <sys/time.h>
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, t);
    if (id == CLOCK_REALTIME) t->tv_sec -= 400 * 86400L;
    return code;
}
time_t time(time_t *out) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}
int gettimeofday(struct timeval *v, void *zone) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    v->tv_sec = t.tv_sec;
    v->tv_usec = t.tv_nsec / 1000;
    return 0;
}
"""


def undisturbed(ready: Paths, folder: Path) -> Outcome:
    """One pass, left alone."""
    paths = copy_project(ready, folder)
    run(paths, *_PASS)
    return outcome(paths)


def killed(
    ready: Paths, expected: Outcome, folder: Path, kills: int, longest_s: float, seed: int
) -> str:
    """SIGKILL at random moments, torn files, a plain restart; on as many copies as it takes."""
    moments = random.Random(seed)
    done = rounds = 0
    while done < kills:
        paths = copy_project(ready, folder / f"killed-{rounds}")
        given = images_in_inbox(paths)
        second_at_once(paths)
        done += 1
        while done < kills:
            process = start(paths, *_PASS)
            try:
                code = process.wait(timeout=moments.uniform(0.2, longest_s))
            except subprocess.TimeoutExpired:
                done += kill(process)
                if moments.random() < _TORN_SHARE:
                    tear(paths, moments)
                continue
            assert code == 0, paths.at("work/said.txt").read_text()[-3000:]
            break
        tear(paths, moments)
        run(paths, *_PASS)
        assert_whole(paths, expected, given)
        rounds += 1
        shutil.rmtree(paths.root)
    return f"{done} kills in {rounds} rounds"


def tear(paths: Paths, moments: random.Random) -> None:
    """Cut the files that DVC writes in place at any byte, as a crash of the machine does."""
    for path in (paths.at("dvc.lock"), *sorted(paths.raw.glob("*.dvc"))):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: moments.randrange(path.stat().st_size + 1)])
    paths.at(".dvc/tmp/rwlock").write_text('{"write": {"data/ra')


def second_at_once(paths: Paths) -> None:
    """Begin a pass, see that a second one leaves with one line, and kill the first."""
    first = start(paths, *_PASS)
    assert wait_until(lambda: _is_locked(paths.at("work/retrain.lock")))
    said = run(paths, *_PASS, code=2).strip()
    assert said.startswith("error: ") and "another pass is at work here" in said
    assert len(said.splitlines()) == 1
    kill(first)


def server_gone(ready: Paths, expected: Outcome, folder: Path) -> str:
    """The Prefect server is killed in the middle; the same command then ends the pass."""
    paths = copy_project(ready, folder / "server")
    given = images_in_inbox(paths)
    process = start(paths, *_PASS)
    assert wait_until(lambda: _child(process, "-m tasks crop"), _PASS_S)
    server = _child(process, "from flows.pipeline.prefect_server import serve")
    assert server is not None
    server.send_signal(signal.SIGKILL)
    code = process.wait(timeout=_PASS_S)
    assert wait_until(lambda: not our_processes(paths), _GRACE_S), our_processes(paths)
    run(paths, *_PASS)
    assert_whole(paths, expected, given)
    return f"the pass whose server was killed left with {code}; the next one ended it"


def locked_database(ready: Paths, expected: Outcome, folder: Path, seconds: float) -> str:
    """Somebody holds MLflow's database for a while; the pass waits."""
    paths = copy_project(ready, folder / "locked")
    given = images_in_inbox(paths)
    process = start(paths, *_PASS)
    assert wait_until(lambda: _child(process, "-m tasks ingest"), _PASS_S)
    database = sqlite3.connect(paths.mlruns / "mlflow.db", isolation_level=None, timeout=60)
    database.execute("BEGIN EXCLUSIVE")
    time.sleep(seconds)
    database.execute("ROLLBACK")
    database.close()
    assert process.wait(timeout=_PASS_S) == 0, paths.at("work/said.txt").read_text()[-3000:]
    assert_whole(paths, expected, given)
    return f"locked for {seconds:g} s; the pass waited"


def full_disk(ready: Paths, expected: Outcome, disk: Path, free_mb: float = 0, at: str = "") -> str:
    """The disk fills up at some point; with more room the same command ends the pass.

    `disk` becomes the mount point of a small tmpfs; needs the right to mount. `at`: it is full
    to the last byte from when a process with these words begins, or, for `MOVING`, from when a
    batch's move is in the ledger and not made yet; else `free_mb` are left from the start.
    """
    disk.mkdir(parents=True, exist_ok=True)
    used = sum(path.lstat().st_blocks * 512 for path in ready.root.rglob("*"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={4 * used}", "affectgap-test", str(disk)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        paths = copy_project(ready, disk / "clone")
        given = images_in_inbox(paths)
        if not at:
            _resize(disk, shutil.disk_usage(disk).used + int(free_mb * 1e6))
        slowly = _slow_to_sync(paths, disk.with_name(f"{disk.name}-slow")) if at == MOVING else {}
        done = start(paths, *_PASS, **slowly)
        if at:
            assert wait_until(lambda: _is_at(at, done, paths), _PASS_S)
            _fill(disk)
        code = done.wait(timeout=_PASS_S)
        said = _said(paths)
        assert code != 0, "there was room for everything"
        assert "Traceback" not in said, said[-3000:]
        assert wait_until(lambda: not our_processes(paths), _GRACE_S), our_processes(paths)
        if at == MOVING:  # it is there and not written down, and nothing after it was tried
            assert _on_its_way(paths) == [_BATCH] and "disk is full" in said, said[-3000:]
            assert (paths.raw / "arrived" / _BATCH).is_dir() and (paths.inbox / "other").is_dir()
        (disk / _BALLAST).unlink(missing_ok=True)
        _resize(disk, _ROOM_BYTES)
        run(paths, *_PASS)
        assert_whole(paths, expected, given)
        when = f"full when {at} began" if at else f"{free_mb:g} MB free"
        return f"{when}: left with {code}: {said.strip().splitlines()[-1][:150]}"
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)


def clock_set_back(ready: Paths, expected: Outcome, folder: Path) -> str:
    """The clock is 400 days behind that of the pass before; needs a C compiler."""
    library, source = folder / "clock.so", folder / "clock.c"
    source.write_text(_CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    paths = copy_project(ready, folder / "clock")
    given = images_in_inbox(paths)
    run(paths, *_PASS, LD_PRELOAD=str(library))
    started = Ledger(paths.ledger).passes()["started_at"]
    assert started.iloc[-1] < started.iloc[0]
    assert_whole(paths, expected, given)
    return f"passes began at {started.iloc[0][:10]} and, after it, at {started.iloc[-1][:10]}"


def ready_while_read(ready: Paths, folder: Path) -> str:
    """A sender writes `_READY` too early and goes on copying: nothing is lost or doubled."""
    paths = copy_project(ready, folder / "early")
    given = images_in_inbox(paths)
    early = paths.inbox / "early"
    names = sorted(path for path in (paths.inbox / "good").glob("*.jpg"))
    shutil.copytree(paths.inbox / "good", folder / "waiting")
    shutil.rmtree(paths.inbox / "good")
    early.mkdir()
    shutil.copy(folder / "waiting" / "labels.csv", early)

    def send() -> None:
        for name in names:
            shutil.copy(folder / "waiting" / name.name, early / name.name)
            (early / "_READY").touch()
            time.sleep(0.5)

    sender = threading.Thread(target=send)
    sender.start()
    run(paths, *_PASS)
    sender.join()
    run(paths, *_PASS)
    given = {name.replace("good/", "early/"): content for name, content in given.items()}
    found = [p for p in paths.at("data").rglob("*.jpg") if f"{p.parent.name}/{p.name}" in given]
    assert len(found) == len(given)
    states = Ledger(paths.ledger).batches().set_index("batch")["state"]
    return ", ".join(f"{batch} {state}" for batch, state in states.items())


def assert_whole(paths: Paths, expected: Outcome, given: dict[str, bytes]) -> None:
    """What must hold after any fault and a plain restart."""
    assert not our_processes(paths), our_processes(paths)
    assert_every_image_is_in_one_place(paths, given)
    found = outcome(paths)
    assert set(found.files) == set(expected.files)
    assert [name for name in expected.files if found.files[name] != expected.files[name]] == []
    for part in ("batches", "pictures", "untrained", "decisions", "in_use", "versions"):
        assert getattr(found, part) == getattr(expected, part), part
    assert run(paths, "doctor").strip().splitlines()[-1].startswith(("nothing", "mended"))


def _is_at(at: str, process: subprocess.Popen[str], paths: Paths) -> bool:
    if at == MOVING:
        return _on_its_way(paths) == [_BATCH]
    return _child(process, at) is not None


def _on_its_way(paths: Paths) -> list[str | None]:
    return [step.batch for step in Ledger(paths.ledger).under_way()]


def _slow_to_sync(paths: Paths, folder: Path) -> dict[str, str]:
    """Have Python take a while for `os.sync`, which is called right before a batch moves."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SLOW_SYNC)
    return {"PYTHONPATH": f"{folder}:{paths.root}"}


def _said(paths: Paths) -> str:
    return paths.at("work/said.txt").read_text(encoding="utf-8")


def _fill(disk: Path) -> None:
    """Write until nothing more can be written."""
    with (disk / _BALLAST).open("wb", buffering=0) as file:
        for block in (1_000_000, 4096, 1):
            try:
                while True:
                    file.write(bytes(block))
            except OSError:
                continue


def _resize(disk: Path, size: int) -> None:
    command = ["mount", "-o", f"remount,size={size}", str(disk)]
    subprocess.run(command, check=True, capture_output=True)


def _child(process: subprocess.Popen[str], words: str) -> psutil.Process | None:
    """Find what a command has started, by its command line."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
        return next((one for one in family if words in " ".join(one.cmdline())), None)
    except psutil.Error:
        return None


def _is_locked(path: Path) -> bool:
    from filelock import FileLock, Timeout

    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
