"""Cleans a command's arguments, and leaves the command's name to every process that it starts.

The name tells the doctor which processes outlived their command. The parent process does not: a
child of a shell, of a container's first process or of a service manager looks like one whose
starter is gone.
"""

import os
from collections.abc import Sequence

import psutil

from tasks.core.process import is_dead, process_name
from tasks.core.text import clean

COMMAND_VARIABLE = "AFFECTGAP_COMMAND"


def clean_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments as ids, batches and groups are spelled in the data.

    What names a file or folder that is there stays as it was given, also in `--option=VALUE`, and
    so does the folder of a file that is still to be written.
    """
    cleaned = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option.startswith("--"):
            cleaned.append(f"{option}={_clean_argument(value)}")
        else:
            cleaned.append(_clean_argument(argument))
    return cleaned


def _clean_argument(value: str) -> str:
    if clean(value) == value or os.path.lexists(value):
        return value
    folder, slash, name = value.rpartition("/")
    return f"{folder if os.path.isdir(folder) else clean(folder)}{slash}{clean(name)}"


def mark_as_command() -> None:
    """Leave this process's name to everything that it starts from now on."""
    os.environ[COMMAND_VARIABLE] = process_name(os.getpid())


def is_left_over(process: psutil.Process) -> bool:
    """Tell whether the command that a process was started for is gone; without a name: False."""
    name = process.environ().get(COMMAND_VARIABLE, "")
    return bool(name) and is_dead(name)
