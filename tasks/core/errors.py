"""The error tree: what a user sees as one line, and with which exit code.

Everything that a user can mend is a `UserError`; `tasks/__main__.py` and `flows/cli.py` print its
text after "error:" and leave with its exit code, without a traceback.
"""

import errno

from tasks.core.text import printable

# Of a longer fault the middle is left out: it quotes a cell or a name, and the advice stands last.
_MAX_START, _MAX_END = 1000, 400  # characters
FULL = "the disk is full; make room, then run the same command again"
_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left on device", "database or disk is full", "Disk quota exceeded")


class AffectGapError(Exception):
    """Root of the project's own errors; the text says what, where and what to do.

    Parameters
    ----------
    faults
        One line per fault. What a fault quotes, such as a file's name, is shown without control
        characters: a line break in it does not begin another line.
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
    """A mistake in what was given: a parameter, a file, a folder, a command (exit code 2)."""

    exit_code = 2


class BusyError(UserError):
    """Another command holds a lock of this project; the same command works when it is done."""


class ParamsError(UserError):
    """`params.yaml` or a preset has a missing, misspelled or impossible value; names the key."""


class DataError(UserError):
    """A table or a set of images cannot be used as it is; one line per fault."""


class DownloadError(UserError):
    """A file could not be fetched; the text names the file and where to put it by hand."""


class ModelError(UserError):
    """A model, a weights file or an architecture cannot be used; says which and why."""


class DivergedError(ModelError):
    """A training's loss is no finite number any more; names the step and what to change."""


class ConservationError(AffectGapError):
    """A stage lost or invented rows: rows in is not rows out plus rejects (a defect of ours)."""


def is_full(error: BaseException) -> bool:
    """Return whether an error, or one behind it, came of a full disk."""
    seen: set[int] = set()
    behind: BaseException | None = error
    while behind is not None and id(behind) not in seen:
        if isinstance(behind, OSError) and behind.errno in _ERRNOS:
            return True
        if says_full(str(behind)):
            return True
        seen.add(id(behind))
        behind = behind.__cause__ or behind.__context__
    return False


def says_full(text: str) -> bool:
    """Return whether another program's message is of a full disk."""
    return any(words in text for words in _WORDS)
