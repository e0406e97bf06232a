"""The ledger's SQLite file: its tables, one transaction at a time, and faults in one line."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.errors import DataError
from tasks.core.tables import current_subjects

EVENTS = "SELECT id, at, kind, batch, pass_id, detail FROM events ORDER BY id"
IMAGE_COLUMNS: tuple[str, ...] = (
    "path",
    "sha256",
    "image_id",
    "subject_id",
    "emotion",
    "age_band",
    "gender",
)

_BUSY_S = 60.0  # how long another process's transaction is waited for
_VERSION = 1  # of the tables; kept as SQLite's user_version
_TABLES = (
    "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, "
    "kind TEXT NOT NULL, batch TEXT, pass_id INTEGER, detail TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS pictures (event INTEGER NOT NULL REFERENCES events (id), "
    + ", ".join(f"{name} TEXT NOT NULL" for name in IMAGE_COLUMNS)
    + ")",
    "CREATE INDEX IF NOT EXISTS pictures_by_sha256 ON pictures (sha256)",
    "CREATE INDEX IF NOT EXISTS pictures_by_event ON pictures (event)",
    *(
        f"CREATE TRIGGER IF NOT EXISTS {table}_{verb} BEFORE {verb} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END"
        for table in ("events", "pictures")
        for verb in ("update", "delete")
    ),
)


class LedgerFile:
    """The file; see `Ledger` for what it raises."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open the file to read, or an empty one in memory where there is none yet."""
        with self._open(self.path if self.path.is_file() else None) as database:
            yield database

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction; it is made, with its folder, where it is missing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open(self.path) as database:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")

    @contextmanager
    def _open(self, path: Path | None) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(path or ":memory:", timeout=_BUSY_S, isolation_level=None)
            try:
                self._make_tables(database)
                yield database
            finally:
                database.close()  # rolls back what was not committed
        except (sqlite3.Error, pd.errors.DatabaseError) as error:
            raise DataError(f"{self.path}: {_in_words(error)}") from None

    def _make_tables(self, database: sqlite3.Connection) -> None:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == _VERSION:
            return
        if version:
            raise DataError(
                f"{self.path}: is a ledger of version {version}; this program reads {_VERSION}"
            )
        database.execute("BEGIN IMMEDIATE")  # the first of several users makes the tables
        for statement in _TABLES:
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {_VERSION}")
        database.execute("COMMIT")


def add_event(
    database: sqlite3.Connection,
    kind: str,
    detail: dict[str, Any],
    batch: str | None = None,
    pass_id: int | None = None,
) -> int:
    """Add an event, dated now, in an open transaction; returns its id."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    cursor = database.execute(
        "INSERT INTO events (at, kind, batch, pass_id, detail) VALUES (?, ?, ?, ?, ?)",
        (at, kind, batch, pass_id, json.dumps(detail, ensure_ascii=False)),
    )
    return int(cursor.lastrowid or 0)


def add_images(database: sqlite3.Connection, event: int, rows: Iterable[tuple[Any, ...]]) -> None:
    """Add images (`PICTURE_COLUMNS`) that an event brought, in the same transaction."""
    marks = ", ".join("?" * (len(IMAGE_COLUMNS) + 1))
    columns = ", ".join(("event", *IMAGE_COLUMNS))
    statement = f"INSERT INTO pictures ({columns}) VALUES ({marks})"
    database.executemany(statement, ((event, *row) for row in rows))


def read_people(database: sqlite3.Connection, events: Sequence[int]) -> frozenset[str]:
    """Read the `subject_id` of the people whose images these events brought, as of today.

    One image of each person and spelling is enough: a name that is a word for missing, which
    stands for as many people as images, is read image by image.
    """
    marks = ", ".join("?" * len(events))
    chosen = f"FROM pictures WHERE event IN ({marks})"
    query = f"SELECT subject_id, min(image_id) AS image_id {chosen} GROUP BY subject_id"
    once = pd.read_sql_query(query, database, params=tuple(events))
    people = current_subjects(once)["subject_id"]
    if not (people == once["subject_id"]).all():
        query = f"SELECT DISTINCT subject_id, image_id {chosen}"
        every = pd.read_sql_query(query, database, params=tuple(events))
        people = current_subjects(every)["subject_id"]
    return frozenset(people)


def _in_words(error: Exception) -> str:
    text = str(error)
    if "locked" in text:
        return f"another process has held the ledger for {_BUSY_S:.0f} s; try again"
    if "not a database" in text or "malformed" in text:
        return f"is no ledger or is damaged ({text}); put a copy of it in its place"
    return f"the ledger cannot be used ({text})"


def read_images(
    database: sqlite3.Connection, where: str = "", values: Sequence[Any] = ()
) -> pd.DataFrame:
    """Read images with the event that brought them; `{}` of `where` holds the values.

    People are named as today (`current_subjects`): rows that an earlier version wrote stay in the
    file as they are, which only grows.
    """
    query = f"SELECT event, {', '.join(IMAGE_COLUMNS)} FROM pictures {where} ORDER BY event, path"
    marks = ", ".join("?" * len(values))
    return current_subjects(pd.read_sql_query(query.format(marks), database, params=tuple(values)))
