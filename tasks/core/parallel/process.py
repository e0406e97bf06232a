"""Processes: unique names, ending with the parent, torchrun ranks, accounts without a name.

Nothing here imports torch, so that a command can get its rank before slow imports.

`getpass.getuser` (which DVC calls) and `~` fail for an account without a name or a home, as in a
container that was started with a bare user id. `name_account` sets both.
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

# Arguments of torchrun, such as "--nproc-per-node 2": training stages launch themselves with it, so
# that `affectgap run` and `dvc repro` can use several devices.
TORCHRUN_VARIABLE = "AFFECTGAP_TORCHRUN"


def die_with_parent(parent_pid: int | None = None) -> None:
    """Have the kernel kill this process when its parent dies (Linux only).

    With `parent_pid` the process also ends if the parent has died before this call. The kernel
    watches the *thread* that started this process, so a parent must start its children from a
    thread that lives as long as they do.
    """
    if not sys.platform.startswith("linux"):
        return
    expected = os.getppid() if parent_pid is None else parent_pid
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != expected:
        os.kill(os.getpid(), signal.SIGKILL)


def starter_pid() -> int | None:
    """Return the pid of the DVC process that started this stage, if the environment has it."""
    pid = os.environ.get(STARTER_VARIABLE, "")
    return int(pid) if pid.isdigit() else None


def process_name(pid: int) -> str:
    """Return a unique name of a process: host, pid and start time, since pids are reused.

    On Linux the start is relative to the boot, so that changes of the clock do not matter. Raises
    psutil.NoSuchProcess if the process does not exist or is a zombie.
    """
    process = psutil.Process(pid)
    if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        raise psutil.NoSuchProcess(pid)
    return f"{socket.gethostname()} {pid} {_start(process)}"


def is_dead(name: str) -> bool:
    """Return whether the process with a `process_name` ran on this machine and has ended."""
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
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{process.create_time():.2f}"
    # proc(5): field 22, in ticks after boot; the name in parentheses may contain spaces.
    return f"{boot[:8]}-{stat.rpartition(')')[2].split()[19]}"


class PartDone(BaseException):
    """A worker rank has finished training; only rank 0 continues and writes the results."""


def under_torchrun() -> bool:
    """Return whether torchrun (or a compatible launcher) started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Return this process's rank; 0 without torchrun."""
    return int(os.environ["RANK"]) if under_torchrun() else 0


def local_rank() -> int:
    """Return this process's rank on this machine; 0 without torchrun."""
    return int(os.environ["LOCAL_RANK"]) if under_torchrun() else 0


def size() -> int:
    """Return the number of processes that train together."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else 1


def first_alone() -> None:
    """Raise PartDone in every process except rank 0; called before anything is written."""
    if rank() > 0:
        raise PartDone


def name_account(root: Path) -> None:
    """Set `USER` and `HOME` for this process and its children if they are missing.

    An account without a home gets `.cache/home` in the project's folder.
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
