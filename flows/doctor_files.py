"""The doctor's look at files: disk, locks of DVC and git, what dead processes half wrote."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from flows.dvc_files import mend_after_a_crash, torn_data_sets
from flows.dvc_graph import data_status
from flows.finding import Finding
from tasks.core.paths import Paths
from tasks.core.provenance import repository_fault

_LEAST_FREE_BYTES = 2 * 10**9
_LEAST_FREE_SHARE = 0.03
_GIT_LOCK_S = 60  # a lock of git's that is younger may be at work
_OLD_PROGRESS_S = 30 * 24 * 3600
# `.<name>.<pid>` or `.<name>.<pid>.<suffix>`: how this project writes beside the place.
_HALF_WRITTEN = re.compile(r"\..+?\.(?P<pid>\d+)(?:\.\w+)?")
_WRITTEN_TO = ("data", "models", "reports", "registry", "study")
_NOT_OURS = ("raw", "inbox", "quarantine")  # below data: other people's files


def disk(paths: Paths) -> Iterator[Finding]:
    """Say where the disk is nearly full."""
    usage = shutil.disk_usage(paths.root)
    if usage.free < max(_LEAST_FREE_BYTES, _LEAST_FREE_SHARE * usage.total):
        yield Finding(
            f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.0f} GB are free",
            str(paths.root),
            "make room (`dvc gc --workspace --all-tags` drops results of versions without a tag)",
            mended=False,
        )


def torn_dvc_files(paths: Paths) -> Iterator[Finding]:
    """Mend DVC's own files where they are torn, and an rwlock of processes that are gone."""
    for line in mend_after_a_crash(paths.root):
        name, _, what = line.partition(" was torn")
        yield Finding("was torn", name, what.removeprefix(" and").strip(" ;") or "removed", True)
    rwlock = paths.at(".dvc/tmp/rwlock")
    if not rwlock.is_file():
        return
    try:
        held = json.loads(rwlock.read_text(encoding="utf-8"))
    except ValueError:
        return
    holders = sorted({info["pid"] for info in _infos(held)})
    dead = [pid for pid in holders if not _is_dvc(pid)]
    if dead and len(dead) == len(holders):
        rwlock.unlink()
        named = ", ".join(map(str, dead))
        yield Finding(
            f"names processes that are gone ({named})", ".dvc/tmp/rwlock", "removed", True
        )


def git_locks(paths: Paths) -> Iterator[Finding]:
    """Remove locks that a killed git left, where no git is at work on this machine."""
    done = subprocess.run(
        ["git", "-C", str(paths.root), "rev-parse", "--absolute-git-dir"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        fault = repository_fault(paths.root)
        if fault.startswith("belongs"):  # a folder without git is no fault here
            what, _, remedy = fault.partition("; ")
            yield Finding(what, str(paths.root), remedy, mended=False)
        return
    folder = Path(done.stdout.strip())
    locks = [*folder.glob("*.lock"), *folder.glob("refs/**/*.lock")]
    old = [path for path in locks if time.time() - path.stat().st_mtime > _GIT_LOCK_S]
    for path in old:
        if _git_is_running():
            remedy = "remove it when no git command is at work"
            yield Finding("git's lock", str(path), remedy, mended=False)
        else:
            path.unlink()
            yield Finding("git's lock, and no git is at work", str(path), "removed", mended=True)
    for path in folder.glob("affectgap.*"):
        pid = path.name.split(".")[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            path.unlink()
            yield Finding("left by a process that is gone", str(path), "removed", mended=True)


def dead_writers(paths: Paths) -> Iterator[Finding]:
    """Remove what dead processes wrote beside its place and never moved there."""
    for folder in _WRITTEN_TO:
        for path in _half_written(paths.at(folder)):
            where = str(path.relative_to(paths.root))
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            yield Finding("half written by a process that is gone", where, "removed", mended=True)


def old_progress(paths: Paths) -> Iterator[Finding]:
    """Remove progress of trainings that nobody went on with for a month."""
    for folder in sorted(paths.at("work").glob("*/*")):
        if not re.fullmatch(r"[0-9a-f]{16}", folder.name) or not folder.is_dir():
            continue
        times = [path.stat().st_mtime for path in (folder, *folder.rglob("*"))]
        if time.time() - max(times) > _OLD_PROGRESS_S:
            shutil.rmtree(folder)
            where = str(folder.relative_to(paths.root))
            yield Finding("progress untouched for 30 days", where, "removed", mended=True)


def missing_in_cache(paths: Paths) -> Iterator[Finding]:
    """Say which data or results DVC could not bring back, since its cache lacks them."""
    if not paths.at(".dvc").is_dir():
        return
    torn_data_sets(paths)  # says what to do, where DVC would only say that it cannot read
    for name in data_status(paths.root).get("not_in_cache", []):
        yield Finding(
            "DVC's cache lacks it, so that no checkout brings it back",
            str(name),
            f"`dvc fetch`, or while the files are there `dvc commit --force {name}`",
            mended=False,
        )


def _half_written(folder: Path) -> Iterator[Path]:
    for below, folders, files in os.walk(folder):
        if Path(below) == folder and folder.name == "data":
            folders[:] = [name for name in folders if name not in _NOT_OURS]
        for name in [*folders, *files]:
            match = _HALF_WRITTEN.fullmatch(name)
            if match and not psutil.pid_exists(int(match["pid"])):
                if name in folders:
                    folders.remove(name)
                yield Path(below, name)


def _infos(held: Any) -> Iterator[dict[str, Any]]:
    """Yield every entry of an rwlock; a file of another form has none."""
    for part in ("read", "write"):
        for infos in (held.get(part) or {}).values() if isinstance(held, dict) else ():
            yield from infos if isinstance(infos, list) else [infos]


def _is_dvc(pid: int) -> bool:
    try:
        return any("dvc" in word for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _git_is_running() -> bool:
    return any(process.info["name"] == "git" for process in psutil.process_iter(["name"]))
