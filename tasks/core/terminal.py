"""Command-line output: a console without markup, one-line errors, streams of any encoding.

Names of files, groups and subjects are untrusted text: control characters and markup in them have
no effect on a terminal. Characters that a stream cannot encode are replaced. A closed pipe does not
interrupt the work.
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

LOG_WIDTH = 120  # characters per line of a table if the output is not a terminal
_ENCODE = "affectgap.replace"
_ASCII = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "→": "->", "·": "|", "’": "'"}
    | dict.fromkeys("\u00a0\u202f\u2009", " ")
)


class Console(RichConsole):
    """Rich's console without markup, emoji codes and control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text printable; Rich calls this for all output and for cells."""
        return super().render_str(printable(text), **options)

    def say(self, text: str, style: str | None = None) -> None:
        """Print one line without wrapping it."""
        self.print(text, style=style, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Continue without output, so that `affectgap retrain | head` completes its work."""
        _discard_output()


def console(**options: Any) -> Console:
    """Return a console for stdout, `LOG_WIDTH` wide if that is not a terminal."""
    return Console(**{"width": None if sys.stdout.isatty() else LOG_WIDTH} | options)


def json_line(value: Any) -> str:
    """Return a value as one line of JSON without control characters.

    Raises ValueError for NaN and infinity.
    """
    ascii_only = not _is_utf8(sys.stdout.encoding)
    text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False)
    return UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def prepare_output() -> None:
    """Replace characters that the encoding of stdout or stderr lacks, instead of raising."""
    codecs.register_error(_ENCODE, _replacement)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ENCODE)


def flush_output() -> None:
    """Flush stdout, unless its reader has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()


def print_error(error: object) -> None:
    """Print an error to stderr, one line per fault."""
    for line in str(error).splitlines():
        print(f"error: {printable(line)}", file=sys.stderr)


def _is_utf8(encoding: str | None) -> bool:
    return (encoding or "").lower().replace("-", "").replace("_", "") == "utf8"


def _discard_output() -> None:
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


def _replacement(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return typographic signs as ASCII, and other characters as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    ascii_text = error.object[error.start : error.end].translate(_ASCII)
    return ascii_text.encode("ascii", "backslashreplace").decode("ascii"), error.end
