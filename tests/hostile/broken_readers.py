"""Readers with every fault that a campaign has to find: what its own test runs."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from random import Random

from tasks.core.errors import DataError


def breaks_sometimes(random: Random, folder: Path) -> str:
    """Raise for about a third of the seeds."""
    (folder / "left").touch()
    if random.random() < 0.3:
        raise KeyError("row")
    return "accepted"


def never_ends(_random: Random, _folder: Path) -> str:
    """Keep the processor busy, whatever a handler of errors does."""
    while True:
        with suppress(Exception):
            sum(range(1000))


def waits(_random: Random, _folder: Path) -> str:
    """Wait for what never comes, as one who opens a pipe does."""
    time.sleep(600)
    return "accepted"


def fills_memory(_random: Random, _folder: Path) -> str:
    """Swallow the error of a memory that is full, as readers do."""
    try:
        bytearray(4 << 30)
    except MemoryError as error:
        return f"damaged: {type(error).__name__}"
    return "accepted"


def crashes(random: Random, _folder: Path) -> str:
    """End the process for about half of the seeds."""
    if random.random() < 0.5:
        os.kill(os.getpid(), signal.SIGSEGV)
    return "accepted"


def says_too_much(_random: Random, _folder: Path) -> str:
    """Reject with two lines."""
    from hostile.campaign import rejected

    return rejected(DataError("row 1", "row 2"))
