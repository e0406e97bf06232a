"""Output of the command line: a console without markup, plain errors, streams of any encoding.

Names of files, groups and people are strangers' words. On a terminal they are text: they move no
cursor, set no title, open no markup and begin no line. What a stream's encoding lacks is replaced,
and a reader that leaves early ends no work.
"""

import codecs
import io
import json
import os
import sys
from typing import Any

from rich.console import Console as RichConsole
from rich.text import Text

from tasks.core.text import UNPRINTABLE, printable

LOG_WIDTH = 120  # characters per line of a table, where the output is no terminal
_ENCODE = "affectgap.replace"
_ASCII = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "→": "->", "·": "|", "’": "'"}
    | dict.fromkeys("\u00a0\u202f\u2009", " ")
)


class Console(RichConsole):
    """Rich's console, which takes every text as it is: no markup, no emoji codes, no escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text printable; Rich calls this for all that is printed and for cells."""
        return super().render_str(printable(text), **options)

    def say(self, text: str, style: str | None = None) -> None:
        """Print one line as it is, without wrapping it."""
        self.print(text, style=style, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Go on without a reader, so that `affectgap retrain | head` leaves nothing half done."""
        _discard_output()


def console(**options: Any) -> Console:
    """Return a console for stdout; in a log its tables are `LOG_WIDTH` wide."""
    return Console(**{"width": None if sys.stdout.isatty() else LOG_WIDTH} | options)


def json_line(value: Any) -> str:
    """Return a value as one line of JSON, with escapes for what a terminal would act upon.

    Raises ValueError for a number that JSON lacks: NaN or infinity.
    """
    ascii_only = not _takes_all(sys.stdout.encoding)
    text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False)
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def prepare_output() -> None:
    """Have stdout and stderr take any text: what their encoding lacks is replaced."""
    codecs.register_error(_ENCODE, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ENCODE)


def flush_output() -> None:
    """Write what is still buffered, unless nobody reads it any more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()


def print_error(error: object) -> None:
    """Print an error's faults on stderr, one line each."""
    for line in str(error).splitlines():
        print(f"error: {printable(line)}", file=sys.stderr)


def _takes_all(encoding: str | None) -> bool:
    return (encoding or "").lower().replace("-", "").replace("_", "") == "utf8"


def _discard_output() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write typographic signs as ASCII, and all else that an encoding lacks as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    ascii_text = error.object[error.start : error.end].translate(_ASCII)
    return ascii_text.encode("ascii", "backslashreplace").decode("ascii"), error.end
