"""The error tree: what a user sees as one line, and with which exit code.

Everything that a user can mend is a `UserError`; `tasks/__main__.py` and `flows/cli.py` print its
text after "error:" and leave with its exit code, without a traceback.
"""


class AffectGapError(Exception):
    """Root of the project's own errors; the text says what, where and what to do."""

    exit_code = 1


class UserError(AffectGapError):
    """A mistake in what was given: a parameter, a file, a folder, a command (exit code 2)."""

    exit_code = 2


class ParamsError(UserError):
    """`params.yaml` or a preset has a missing, misspelt or impossible value; names the key."""


class DataError(UserError):
    """A table or a set of pictures cannot be used as it is; one line a fault."""


class DownloadError(UserError):
    """A file could not be fetched; the text names the file and where to put it by hand."""


class ModelError(UserError):
    """A model, a weights file or an architecture cannot be used; says which and why."""


class DivergedError(ModelError):
    """A training's loss is no finite number any more; names the step and what to change."""


class ConservationError(AffectGapError):
    """A stage lost or invented rows: rows in is not rows out plus rejects (a defect of ours)."""
