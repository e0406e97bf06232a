"""One at a time: a lock file held for the length of a block, freed when its process dies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.core.errors import UserError


@contextmanager
def alone(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file `path` (its folder is made); raises UserError(busy) where another does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(busy) from None
    try:
        yield
    finally:
        lock.release()
