"""Progress of long work: a bar on a terminal, lines for a parent process, nothing in a log.

A stage started by a flow (`AFFECTGAP_PROGRESS=lines`) prints at most one marked line per quarter
second. The flow reads it with `parse` to draw one bar per stage.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

from tasks.core.text import printable

MARK = "\x1eprogress "
NOTE = "note: "
_EVERY_S = 0.25

Item = TypeVar("Item")


def track(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Yield `items` and show how many of `total` are done; `what` labels the bar."""
    if os.environ.get("AFFECTGAP_PROGRESS") == "lines":
        yield from _lines(items, total, what)
    elif sys.stderr.isatty() and os.environ.get("AFFECTGAP_PROGRESS") != "off":
        console = Console(stderr=True)
        yield from rich_track(items, what, total=total, console=console, transient=True)
    else:
        yield from items


def say(line: str) -> None:
    """Print a note for the user; the flow shows it too."""
    print(NOTE + printable(line), flush=True)


def parse(line: str) -> tuple[str, int, int] | None:
    """Return (what, done, total) of a progress line; None for any other line."""
    if not line.startswith(MARK):
        return None
    what, done, total = json.loads(line[len(MARK) :])
    return what, done, total


def _lines(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    displayed = 0.0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - displayed >= _EVERY_S or done == total:
            print(MARK + json.dumps([what, done, total]), flush=True)
            displayed = now
