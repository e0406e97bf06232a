"""Exceptions that users see as one line, with their exit codes, and the detection of a full disk.

A `UserError` is something that the user can correct. `tasks/__main__.py` and `flows/cli.py` print
its text after "error:" and exit with its code, without a traceback.
"""

import errno

from tasks.core.text import printable

# The middle of a longer line is dropped: it quotes a cell or a name, and the advice comes last.
_MAX_START, _MAX_END = 1000, 400  # characters
FULL = "the disk is full; make room, then run the same command again"
_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_MESSAGES = ("No space left on device", "database or disk is full", "Disk quota exceeded")


class AffectGapError(Exception):
    """Base class of the project's errors; the text says what, where and what to do.

    There is one line per fault. Control characters in quoted names are escaped, so that a line
    break in a file's name does not start another line.
    """

    exit_code = 1

    def __init__(self, *faults: object) -> None:
        super().__init__(*faults)

    def __str__(self) -> str:
        return "\n".join(_shortened(printable(str(fault))) for fault in self.args)


def _shortened(line: str) -> str:
    too_long = len(line) > _MAX_START + _MAX_END
    return f"{line[:_MAX_START]} … {line[-_MAX_END:]}" if too_long else line


class UserError(AffectGapError):
    """A mistake in the input: a parameter, a file, a folder, a command (exit code 2)."""

    exit_code = 2


class BusyError(UserError):
    """Another command holds a lock of this project; retry when it is done."""


class ParamsError(UserError):
    """`params.yaml` or a preset has a missing, misspelled or impossible value; names the key."""


class DataError(UserError):
    """A table or a set of images cannot be used as it is; one line per fault."""


class DownloadError(UserError):
    """A download failed; the text names the file and where to put it by hand."""


class ModelError(UserError):
    """A model, a weights file or an architecture cannot be used; says which and why."""


class DivergedError(ModelError):
    """The training loss became NaN or infinite; names the step and what to change."""


class ConservationError(AffectGapError):
    """A stage lost or invented rows: rows in ≠ rows out + rejects (a bug in this project)."""


def is_full(error: BaseException) -> bool:
    """Return whether an exception, or one in its chain, was caused by a full disk."""
    visited: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in visited:
        if isinstance(current, OSError) and current.errno in _ERRNOS:
            return True
        if says_full(str(current)):
            return True
        visited.add(id(current))
        current = current.__cause__ or current.__context__
    return False


def says_full(text: str) -> bool:
    """Return whether another program's message reports a full disk."""
    return any(message in text for message in _MESSAGES)
