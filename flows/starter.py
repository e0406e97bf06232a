"""Which command a process belongs to: each leaves its name to all that it starts, for the doctor.

A parent tells nothing: a child of a shell, of a container's first process or of a service manager
looks like one whose starter is gone.
"""

import os

import psutil

from tasks.core.process import is_dead, process_name

COMMAND_VARIABLE = "AFFECTGAP_COMMAND"


def mark_as_command() -> None:
    """Leave this process's name to everything that it starts from now on."""
    os.environ[COMMAND_VARIABLE] = process_name(os.getpid())


def is_left_over(process: psutil.Process) -> bool:
    """Tell whether the command that a process was started for is gone; without a name: False."""
    name = process.environ().get(COMMAND_VARIABLE, "")
    return bool(name) and is_dead(name)
