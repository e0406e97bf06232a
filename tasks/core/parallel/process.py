"""Processes: lasting names, an end with their parent, torchrun ranks, accounts without a name.

Nothing here imports torch, so that a command can ask for its rank before anything slow is imported.

`getpass.getuser` (which DVC calls) and `~` fail for an account without a name or a home, as in a
container that was started with a bare user id; such an account gets both.
"""

import ctypes
import os
import pwd
import signal
import socket
import sys
from pathlib import Path

import psutil

STARTER_VARIABLE = "AFFECTGAP_DVC_PID"
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

# Arguments of torchrun, such as "--nproc-per-node 2", with which the training stages start
# themselves; so `affectgap run` and `dvc repro` use several devices too.
TORCHRUN_VARIABLE = "AFFECTGAP_TORCHRUN"


def die_with_parent(parent_pid: int | None = None) -> None:
    """Have the kernel kill this process when its parent dies (Linux; elsewhere does nothing).

    Parameters
    ----------
    parent_pid
        Who started this process, where that is known: a parent that died before the kernel was
        asked is then noticed too, and this process ends at once.

    Notes
    -----
    The kernel watches the *thread* that started this process, so a parent must start its children
    from a thread that lives as long as they do.
    """
    if not sys.platform.startswith("linux"):
        return
    expected = os.getppid() if parent_pid is None else parent_pid
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != expected:
        os.kill(os.getpid(), signal.SIGKILL)


def starter_pid() -> int | None:
    """Return the pid that a DVC process of ours left for the stages that it starts, if any."""
    known = os.environ.get(STARTER_VARIABLE, "")
    return int(known) if known.isdigit() else None


def process_name(pid: int) -> str:
    """Name a process for good: host, pid and start, for a pid alone comes round again.

    The start is counted from the boot where the kernel says it so (Linux): a clock that is set
    back does not rename a process. Raises psutil.NoSuchProcess where there is none of that number,
    or only its body, which nobody has fetched yet.
    """
    process = psutil.Process(pid)
    if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        raise psutil.NoSuchProcess(pid)
    return f"{socket.gethostname()} {pid} {_start(process)}"


def is_dead(name: str) -> bool:
    """Return whether the process of a `process_name` ran on this machine and is gone."""
    host, _, rest = name.partition(" ")
    pid, _, _ = rest.partition(" ")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        return process_name(int(pid)) != name
    except psutil.NoSuchProcess:
        return True


def _start(process: psutil.Process) -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        told = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{process.create_time():.2f}"
    # proc(5): field 22, in ticks after boot; the name in brackets may hold blanks.
    return f"{boot[:8]}-{told.rpartition(')')[2].split()[19]}"


class PartDone(BaseException):
    """A process has done its part; the first one alone goes on and writes what came out."""


def under_torchrun() -> bool:
    """Return whether torchrun (or what speaks its language) started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Return this process's number among all, from 0; 0 where there is one alone."""
    return int(os.environ["RANK"]) if under_torchrun() else 0


def local_rank() -> int:
    """Return this process's number among those of this machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if under_torchrun() else 0


def size() -> int:
    """Return how many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else 1


def first_alone() -> None:
    """End every process but the first; called before anything is written.

    Raises
    ------
    PartDone
        In every process but the first.
    """
    if rank() > 0:
        raise PartDone


def name_account(root: Path) -> None:
    """Set `USER` and `HOME` for this process and what it starts, where nothing else says them.

    Parameters
    ----------
    root
        The project's folder; a home that is missing becomes `.cache/home` below it.
    """
    try:
        account = pwd.getpwuid(os.geteuid())
        name, home = account.pw_name, account.pw_dir
    except KeyError:
        name, home = f"uid-{os.geteuid()}", ""
    if not any(os.environ.get(key) for key in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        os.environ["USER"] = name
    if not os.environ.get("HOME"):
        os.environ["HOME"] = home or str(root / ".cache/home")
