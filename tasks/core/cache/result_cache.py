"""What earlier runs of a stage worked out, kept under a digest of all that it followed from.

`work/kept/…` holds SQLite files that nothing needs: without them, or with damaged ones, a stage
works everything out again and writes the same bytes. A key covers an image's own bytes, the
settings, the code and the libraries, so that an entry is either right or not found. What a run
worked out stays when it is killed; what a successful run did not use is dropped.
"""

import hashlib
import sqlite3
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.core.cache.source_files import imported_files
from tasks.core.files import sha256_of
from tasks.core.parallel.execution import Here, Item, Result, map_in_order

_ROOT = Path(__file__).resolve().parents[3]
_AT_ONCE = 4096  # items that are looked up before the new ones among them are worked on
_KEYS_A_QUERY = 500  # SQLite allows 999 in old builds
_COMMIT_EVERY_S = 2.0  # a kill costs what was put since
_MOST_ROWS, _MOST_BYTES = 1000, 1 << 24  # of what waits to be written
_BAD_FILES = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_FORMAT")
_TABLES = """
PRAGMA auto_vacuum = INCREMENTAL;
CREATE TABLE IF NOT EXISTS kept (key BLOB PRIMARY KEY, sum INTEGER NOT NULL, value BLOB NOT NULL);
CREATE TEMP TABLE used (key BLOB PRIMARY KEY) WITHOUT ROWID;
"""


def made_by(module: str, libraries: Iterable[str]) -> str:
    """Return a digest of the code and the libraries that a result follows from.

    Parameters
    ----------
    module
        Dotted name of the module that makes it; every file of the project that it imports counts.
    libraries
        Names of installed packages, whose versions count.
    """
    files = (sha256_of(_ROOT / name) for name in imported_files(_ROOT, module))
    installed = (f"{name} {version(name)}" for name in libraries)
    return hashlib.sha256("\n".join([*files, *installed]).encode()).hexdigest()


def key_of(*parts: str) -> bytes:
    """Return the key of a result: a digest of texts, in which their borders count."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).digest()


class Kept:
    """One file of kept results; see the module's text.

    Whatever SQLite has against the file (damage, a full disk, a lock) makes this a store that
    finds and keeps nothing; it never stops a stage.

    Parameters
    ----------
    file
        The SQLite file; made with its folder where it is missing. One process at a time writes it
        (stages hold a lock of their own).
    busy_s
        How long a file is waited for that another process holds all the same.
    """

    def __init__(self, file: Path, busy_s: float = 5.0) -> None:
        self._file, self._busy_s = file, busy_s
        self._put: list[tuple[bytes, int, bytes]] = []  # not written yet
        self._put_bytes = 0
        self._committed = time.monotonic()
        self._database = self._open() or self._open()  # a damaged file is removed by the first

    def is_empty(self) -> bool:
        """Return whether looking for anything is in vain."""
        return not self._ask("SELECT 1 FROM kept LIMIT 1")

    def find(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return what is kept under some keys; missing and damaged entries are left out.

        What is found counts as used by this run.
        """
        wanted, found = iter(keys), dict[bytes, bytes]()
        while some := list(islice(wanted, _KEYS_A_QUERY)):
            marks = ",".join("?" * len(some))
            rows = self._ask(f"SELECT key, sum, value FROM kept WHERE key IN ({marks})", some)
            found |= {key: value for key, total, value in rows if _sum(key, value) == total}
        self._write("INSERT OR IGNORE INTO used VALUES (?)", [(key,) for key in found])
        return found

    def has(self, keys: Iterable[bytes]) -> set[bytes]:
        """Return which of some keys something is kept under, whole or damaged; see `find`."""
        wanted, there = iter(keys), set[bytes]()
        while some := list(islice(wanted, _KEYS_A_QUERY)):
            marks = ",".join("?" * len(some))
            there |= {
                key for (key,) in self._ask(f"SELECT key FROM kept WHERE key IN ({marks})", some)
            }
        return there

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a result, in place of what was there under this key."""
        self._put.append((key, _sum(key, value), value))
        self._put_bytes += len(value)
        full = len(self._put) >= _MOST_ROWS or self._put_bytes >= _MOST_BYTES
        if full or time.monotonic() - self._committed > _COMMIT_EVERY_S:
            self.commit()

    def commit(self) -> None:
        """Write what was put to the disk; it is then found even after a kill."""
        rows, self._put, self._put_bytes = self._put, [], 0
        self._committed = time.monotonic()
        if not rows:
            return
        self._ask("BEGIN")
        self._write("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", rows)
        self._write("INSERT OR IGNORE INTO used VALUES (?)", [row[:1] for row in rows])
        self._ask("COMMIT")

    def drop_unused(self) -> None:
        """Forget every entry that this run neither found nor put."""
        self.commit()
        self._ask("DELETE FROM kept WHERE key NOT IN (SELECT key FROM used)")
        self._ask("PRAGMA incremental_vacuum")

    def close(self) -> None:
        """Commit and close."""
        self.commit()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _write(self, statement: str, rows: Sequence[Sequence[bytes | int]]) -> None:
        if self._database is not None:
            try:
                self._database.executemany(statement, rows)
            except sqlite3.Error as error:
                self._give_up(error)

    def _ask(self, statement: str, values: Sequence[bytes] = ()) -> list[Any]:
        if self._database is None:
            return []
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def _open(self) -> sqlite3.Connection | None:
        database = None
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(
                self._file, self._busy_s, isolation_level=None, check_same_thread=False
            )
            database.executescript(_TABLES)
            database.execute("SELECT key, sum, value FROM kept LIMIT 1").fetchall()
        except (sqlite3.Error, OSError) as error:
            self._leave(database, error)
            return None
        return database

    def _give_up(self, error: sqlite3.Error) -> None:
        """Go on without a store."""
        database, self._database = self._database, None
        self._leave(database, error)

    def _leave(self, database: sqlite3.Connection | None, error: Exception) -> None:
        """Close, without what was not committed; a damaged file is removed, a busy one is not."""
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(_BAD_FILES):
            for file in (self._file, self._file.with_name(self._file.name + "-journal")):
                with suppress(OSError):
                    file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Where:
    """Who does what is new: `executor` and the rest as in `execution.map_in_order`.

    So `few` new items, of a few thousand, are worked on in this process, one a call of `here`: to
    start others would take longer.
    """

    executor: Executor
    chunk_size: int
    workers: int
    few: int
    here: Executor = field(default_factory=Here)


@contextmanager
def kept_results(file: Path) -> Iterator[Kept]:
    """Open a store for one run; when the block succeeds, what it did not use is dropped."""
    kept = Kept(file)
    try:
        yield kept
        kept.drop_unused()
    finally:
        kept.close()


def map_what_is_new(
    work: Callable[[list[Item]], list[Result]],
    items: Iterable[Item],
    known: Callable[[list[Item]], Sequence[Result | None]],
    keep: Callable[[Item, Result], None],
    where: Where,
) -> Iterator[Result]:
    """Apply `work` to the items without a known result; yield all results in the items' order.

    Parameters
    ----------
    work, items
        As in `execution.map_in_order`.
    known
        From some items to their results, None for each that has to be worked on.
    keep
        Is told each new result.
    where
        The workers.
    """
    source = iter(items)
    while some := list(islice(source, _AT_ONCE)):
        results = deque(known(some))
        new = [item for item, result in zip(some, results, strict=True) if result is None]
        many = len(new) > where.few
        executor, size = (where.executor, where.chunk_size) if many else (where.here, 1)
        made = map_in_order(work, new, executor, size, where.workers)
        for item, result in zip(new, made, strict=True):
            while (before := results.popleft()) is not None:
                yield before
            keep(item, result)
            yield result
        yield from (result for result in results if result is not None)


def _sum(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))
