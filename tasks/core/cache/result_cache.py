"""A content-addressed cache of per-item results of a stage.

Its SQLite files in `work/kept/…` are optional: without them, or if they are damaged, a stage
computes everything again and writes the same bytes. A key covers the image's bytes, the settings,
the code and the libraries, so that an entry cannot be outdated. Results survive when a run is
killed. A successful run evicts the entries that it did not use.
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
_AT_ONCE = 4096  # items per lookup
_KEYS_PER_QUERY = 500  # old builds of SQLite allow 999
_COMMIT_EVERY_S = 2.0  # a kill loses the results since the last commit
_MAX_PENDING_ROWS, _MAX_PENDING_BYTES = 1000, 1 << 24
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_FORMAT")
_TABLES = """
PRAGMA auto_vacuum = INCREMENTAL;
CREATE TABLE IF NOT EXISTS kept (key BLOB PRIMARY KEY, sum INTEGER NOT NULL, value BLOB NOT NULL);
CREATE TEMP TABLE used (key BLOB PRIMARY KEY) WITHOUT ROWID;
"""


def made_by(module: str, libraries: Iterable[str]) -> str:
    """Return a digest of the code and the libraries that results depend on.

    It covers the module (a dotted name), all files of the project that it imports, and the versions
    of the libraries (names of installed packages).
    """
    files = (sha256_of(_ROOT / name) for name in imported_files(_ROOT, module))
    installed = (f"{name} {version(name)}" for name in libraries)
    return hashlib.sha256("\n".join([*files, *installed]).encode()).hexdigest()


def key_of(*parts: str) -> bytes:
    """Return the key of a result: a digest of texts with their lengths."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).digest()


class Kept:
    """A cache in one SQLite file, created if it is missing.

    Any SQLite error (damage, a full disk, a lock) turns it into an empty cache that stores nothing;
    it never stops a stage. Only one process may write the file, which stages ensure with a lock;
    `busy_s` is the time to wait for another process all the same.
    """

    def __init__(self, file: Path, busy_s: float = 5.0) -> None:
        self._file, self._busy_s = file, busy_s
        self._pending: list[tuple[bytes, int, bytes]] = []  # not written yet
        self._pending_bytes = 0
        self._committed = time.monotonic()
        self._database = self._open() or self._open()  # the first call removes a damaged file

    def is_empty(self) -> bool:
        """Return whether the cache has no entries."""
        return not self._query("SELECT 1 FROM kept LIMIT 1")

    def find(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the intact entries of these keys and mark them as used."""
        rows = self._query_by_key("key, sum, value", keys)
        entries = {key: value for key, total, value in rows if _checksum(key, value) == total}
        self._write("INSERT OR IGNORE INTO used VALUES (?)", [(key,) for key in entries])
        return entries

    def has(self, keys: Iterable[bytes]) -> set[bytes]:
        """Return which of these keys have an entry, damaged ones included."""
        return {key for (key,) in self._query_by_key("key", keys)}

    def put(self, key: bytes, value: bytes) -> None:
        """Store a result, replacing an earlier one."""
        self._pending.append((key, _checksum(key, value), value))
        self._pending_bytes += len(value)
        full = len(self._pending) >= _MAX_PENDING_ROWS or self._pending_bytes >= _MAX_PENDING_BYTES
        if full or time.monotonic() - self._committed > _COMMIT_EVERY_S:
            self.commit()

    def commit(self) -> None:
        """Write pending results to disk, where they survive a kill."""
        rows, self._pending, self._pending_bytes = self._pending, [], 0
        self._committed = time.monotonic()
        if not rows:
            return
        self._query("BEGIN")
        self._write("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", rows)
        self._write("INSERT OR IGNORE INTO used VALUES (?)", [row[:1] for row in rows])
        self._query("COMMIT")

    def drop_unused(self) -> None:
        """Delete all entries that this run neither found nor stored."""
        self.commit()
        self._query("DELETE FROM kept WHERE key NOT IN (SELECT key FROM used)")
        self._query("PRAGMA incremental_vacuum")

    def close(self) -> None:
        """Commit and close."""
        self.commit()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _query_by_key(self, columns: str, keys: Iterable[bytes]) -> Iterator[Any]:
        remaining = iter(keys)
        while batch := list(islice(remaining, _KEYS_PER_QUERY)):
            marks = ",".join("?" * len(batch))
            yield from self._query(f"SELECT {columns} FROM kept WHERE key IN ({marks})", batch)

    def _write(self, statement: str, rows: Sequence[Sequence[bytes | int]]) -> None:
        if self._database is not None:
            try:
                self._database.executemany(statement, rows)
            except sqlite3.Error as error:
                self._give_up(error)

    def _query(self, statement: str, values: Sequence[bytes] = ()) -> list[Any]:
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
            self._abandon(database, error)
            return None
        return database

    def _give_up(self, error: sqlite3.Error) -> None:
        """Continue without the file."""
        database, self._database = self._database, None
        self._abandon(database, error)

    def _abandon(self, database: sqlite3.Connection | None, error: Exception) -> None:
        """Close without a commit, and delete the file if it is damaged."""
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(_DAMAGE):
            for file in (self._file, self._file.with_name(self._file.name + "-journal")):
                with suppress(OSError):
                    file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Where:
    """Where items without a cached result are processed; see `execution.map_in_order`.

    Up to `few` new items per lookup are processed by `here`, one per call, since starting worker
    processes would take longer.
    """

    executor: Executor
    chunk_size: int
    workers: int
    few: int
    here: Executor = field(default_factory=Here)


@contextmanager
def kept_results(file: Path) -> Iterator[Kept]:
    """Open a cache for one run; if the block succeeds, unused entries are evicted."""
    cache = Kept(file)
    try:
        yield cache
        cache.drop_unused()
    finally:
        cache.close()


def map_what_is_new(
    work: Callable[[list[Item]], list[Result]],
    items: Iterable[Item],
    known: Callable[[list[Item]], Sequence[Result | None]],
    keep: Callable[[Item, Result], None],
    where: Where,
) -> Iterator[Result]:
    """Apply `work` to items without a cached result; yield all results in the order of the items.

    Parameters
    ----------
    known
        Returns the cached results of some items, None for each that has to be computed.
    keep
        Called with each new result.
    """
    source = iter(items)
    while batch := list(islice(source, _AT_ONCE)):
        results = deque(known(batch))
        new = [item for item, result in zip(batch, results, strict=True) if result is None]
        many = len(new) > where.few
        executor, size = (where.executor, where.chunk_size) if many else (where.here, 1)
        computed = map_in_order(work, new, executor, size, where.workers)
        for item, result in zip(new, computed, strict=True):
            while (cached := results.popleft()) is not None:
                yield cached
            keep(item, result)
            yield result
        yield from (result for result in results if result is not None)


def _checksum(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))
