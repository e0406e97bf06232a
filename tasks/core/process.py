"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal
import sys

STARTER_VARIABLE = "AFFECTGAP_DVC_PID"
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def die_with_parent(parent_pid: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere does nothing).

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
