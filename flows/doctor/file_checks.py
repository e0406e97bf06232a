"""Checks of the doctor on files: free disk, locks of DVC and git, half-written files."""

import getpass
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from flows.doctor.state_checks import Finding
from flows.pipeline.dvc_graph import data_status
from flows.pipeline.dvc_repair import repair_after_crash, torn_data_sets
from tasks.core.files import SITE_CACHE, close_folders, open_to_others
from tasks.core.paths import Paths
from tasks.core.tracking.versions import repository_fault

_LEAST_FREE_BYTES = 2 * 10**9
_LEAST_FREE_SHARE = 0.03
_GIT_LOCK_S = 60  # a younger git lock may be in use
_OLD_PROGRESS_S = 30 * 24 * 3600

# Temporary files of this project: `.<name>.<pid>` or `.<name>.<pid>.<suffix>`.
_HALF_WRITTEN = re.compile(r"\..+?\.(?P<pid>\d+)(?:\.\w+)?")
_WRITTEN_TO = ("data", "models", "reports", "registry", "study")
_NOT_OURS = ("raw", "inbox", "quarantine")  # below data: may hold other programs' files
_SYSTEM_SITE_CACHES = (Path("/var/tmp/dvc"), Path("/Library/Caches/dvc"))  # DVC's defaults


def disk(paths: Paths) -> Iterator[Finding]:
    """Report a nearly full disk."""
    usage = shutil.disk_usage(paths.root)
    if usage.free < max(_LEAST_FREE_BYTES, _LEAST_FREE_SHARE * usage.total):
        yield Finding(
            f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.0f} GB are free",
            str(paths.root),
            "make room (`dvc gc --workspace --all-tags` drops results of versions without a tag)",
            mended=False,
        )


def repair_dvc_files(paths: Paths) -> Iterator[Finding]:
    """Repair torn files of DVC, and remove an rwlock whose processes are gone."""
    for line in repair_after_crash(paths.root):
        name, _, what = line.partition(" was torn")
        yield Finding("was torn", name, what.removeprefix(" and").strip(" ;") or "removed", True)
    rwlock = paths.at(".dvc/tmp/rwlock")
    if not rwlock.is_file():
        return
    try:
        content = json.loads(rwlock.read_text(encoding="utf-8"))
    except ValueError:
        return
    holders = sorted({info["pid"] for info in _infos(content)})
    dead = [pid for pid in holders if not _is_dvc(pid)]
    if dead and len(dead) == len(holders):
        rwlock.unlink()
        pids = ", ".join(map(str, dead))
        yield Finding(f"names processes that are gone ({pids})", ".dvc/tmp/rwlock", "removed", True)


def git_locks(paths: Paths) -> Iterator[Finding]:
    """Remove locks that a killed git left, if no git runs on this machine."""
    done = subprocess.run(
        ["git", "-C", str(paths.root), "rev-parse", "--absolute-git-dir"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        fault = repository_fault(paths.root)
        if fault and (paths.root / ".git").exists():  # a folder without git is fine here
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
    """Remove temporary files of processes that died before they moved them into place."""
    for folder in _WRITTEN_TO:
        for path in _half_written(paths.at(folder)):
            where = str(path.relative_to(paths.root))
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            yield Finding("half written by a process that is gone", where, "removed", mended=True)


def old_progress(paths: Paths) -> Iterator[Finding]:
    """Remove training progress that is older than a month."""
    for folder in sorted(paths.at("work").glob("*/*")):
        if not re.fullmatch(r"[0-9a-f]{16}", folder.name) or not folder.is_dir():
            continue
        times = [path.stat().st_mtime for path in (folder, *folder.rglob("*"))]
        if time.time() - max(times) > _OLD_PROGRESS_S:
            shutil.rmtree(folder)
            where = str(folder.relative_to(paths.root))
            yield Finding("progress untouched for 30 days", where, "removed", mended=True)


def missing_in_cache(paths: Paths) -> Iterator[Finding]:
    """Report data and results that DVC could not restore because its cache lacks them."""
    if not paths.at(".dvc").is_dir():
        return
    torn_data_sets(paths)  # raises with a remedy, where DVC would only fail
    for name in data_status(paths.root).get("not_in_cache", []):
        yield Finding(
            "DVC's cache lacks it, so no checkout can restore it",
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


def _infos(content: Any) -> Iterator[dict[str, Any]]:
    """Yield every entry of an rwlock; none if the file has another form."""
    for part in ("read", "write"):
        for infos in (content.get(part) or {}).values() if isinstance(content, dict) else ():
            yield from infos if isinstance(infos, list) else [infos]


def _is_dvc(pid: int) -> bool:
    try:
        return any("dvc" in word for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _git_is_running() -> bool:
    return any(process.info["name"] == "git" for process in psutil.process_iter(["name"]))


def open_folders(paths: Paths) -> Iterator[Finding]:
    """Close folders that hold images, names or ids and are open to other accounts."""
    for path, mode in close_folders(paths.root):
        where = str(path.relative_to(paths.root))
        yield Finding(f"other accounts had access (mode {mode:o})", where, "closed", mended=True)
    for path, mode, _ in open_to_others(paths.root):
        where = str(path.relative_to(paths.root))
        remedy = f"it belongs to another account, which can close it: `chmod go-rwx {where}`"
        yield Finding(f"other accounts have access (mode {mode:o})", where, remedy, mended=False)


def readable_inbox(paths: Paths) -> Iterator[Finding]:
    """Report an inbox that every account can read; the operator decides how sites deliver."""
    try:
        mode = stat.S_IMODE(paths.inbox.stat().st_mode)
        reachable = paths.inbox.parent.stat().st_mode & stat.S_IXOTH
    except FileNotFoundError:
        return
    if mode & stat.S_IROTH and reachable:
        yield Finding(
            f"every account of this machine may list and read it (mode {mode:o})",
            str(paths.inbox.relative_to(paths.root)),
            "`chmod o-r data/inbox`; give sites a group, if they need access",
            mended=False,
        )


def site_caches_elsewhere(paths: Paths) -> Iterator[Finding]:
    """Report DVC caches of this project in the system's folders; remove stray ones of ours."""
    for place in _SYSTEM_SITE_CACHES:
        folder = place / "repo" / _dvc_token(paths.root)
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid():
            yield Finding(
                "an earlier DVC kept names of this project's files here, open to other accounts",
                str(folder),
                f"remove it: `rm -r {shlex.quote(str(folder))}`",
                mended=False,
            )
    # DVC resolves the setting relative to the working directory.
    for folder in sorted(paths.root.glob(f"*/{SITE_CACHE}/repo")):
        if folder.lstat().st_uid == os.geteuid():
            shutil.rmtree(folder.parent)
            where = str(folder.parent.relative_to(paths.root))
            fault = "`dvc` was called in a subfolder and left its site cache"
            yield Finding(fault, where, "removed; call `dvc` in the project's folder", mended=True)


def _dvc_token(root: Path) -> str:
    """Return the name that DVC 3 gives to a project in a site cache."""
    try:
        made_at = os.path.getmtime(root / ".dvc/tmp/btime")
    except OSError:
        made_at = None
    identity = str((str(root), None, made_at, getpass.getuser(), 3, 0))
    return hashlib.md5(identity.encode(), usedforsecurity=False).hexdigest()
