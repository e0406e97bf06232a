"""`registry/promotions.csv`: what was decided about models; lines are only ever added.

A line is synced before the next step is taken. A crash while a line is written leaves one without
its end, which nobody reads and the next writer removes: whoever wrote it does that step again. The
same action of the same decision is never written twice.
"""

import csv
import io
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from filelock import FileLock

from tasks.core.errors import DataError
from tasks.core.paths import Paths
from tasks.core.tables import read_csv
from tasks.core.text import csv_cell, printable

PROMOTED, REFUSED, WAITING = "promoted", "refused", "waiting"
APPROVED, ROLLED_BACK = "approved", "rolled_back"
NOT_MADE = "not_made"  # `previous` was let through and not put into use: `version` came between
ACTIONS: tuple[str, ...] = (PROMOTED, REFUSED, WAITING, APPROVED, ROLLED_BACK, NOT_MADE)
TAKES_OUT: tuple[str, ...] = (ROLLED_BACK, NOT_MADE)  # `previous` is not in use after these
INTO_USE: tuple[str, ...] = (PROMOTED, APPROVED, *TAKES_OUT)  # after these, `version` is in use
COLUMNS: tuple[str, ...] = (
    "at",  # UTC, ISO 8601; for people: the order of lines is the order of events
    "action",
    "version",  # the version that was judged; after INTO_USE the one in use from then on
    "digest",  # of its weights
    "previous",  # the version in use before; empty where there was none
    "decision_id",  # of the gate's decision, or of the rolling back
    "worst_group",
    "worst_recall",
    "by",
    "why",
    "tag",  # git's, where there is one
)


def append_record(paths: Paths, row: Mapping[str, object]) -> bool:
    """Add a line, synced to disk.

    Parameters
    ----------
    paths
        The project's paths; the table is `paths.promotions`.
    row
        Values by column: `action`, `version` and `decision_id` must be there, `at` is now where it
        is not given, the others are empty.

    Returns
    -------
    bool
        False where this action of this decision stands there already; nothing is written then.

    Raises
    ------
    ValueError
        For an unknown column or action, or without a decision_id: a defect of the caller.
    """
    unknown = set(row) - set(COLUMNS)
    if unknown or row.get("action") not in ACTIONS or not row.get("decision_id"):
        raise ValueError(f"no record of a decision: {dict(row)}")
    full = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **row}
    cells = ["" if full.get(name) is None else _one_line(full.get(name, "")) for name in COLUMNS]
    path = paths.promotions
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.work("registry", "records.lock")):
        known = read_records(paths)
        same = (known["decision_id"] == cells[5]) & (known["action"] == cells[1])
        if same.any():
            return False
        _add_line(path, cells)
    return True


def read_records(paths: Paths) -> pd.DataFrame:
    """Read all lines, oldest first: text with `COLUMNS`, "" where nothing is recorded.

    Raises
    ------
    DataError
        One line, where the file is no table of decisions.
    """
    path = paths.promotions
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        return pd.DataFrame(columns=list(COLUMNS), dtype="str")
    try:
        table = read_csv(io.BytesIO(whole), dtype="str", keep_default_na=False)
        return table[list(COLUMNS)]
    except (KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{path}: is no table of decisions ({reason}); `git checkout` brings back the last one"
        ) from None


def in_use(records: pd.DataFrame) -> pd.Series | None:
    """Return the line that put into use what is in use; None where nothing ever was."""
    return _last(records[records["action"].isin(INTO_USE)])


def last_record(records: pd.DataFrame, number: int, digest: str) -> pd.Series | None:
    """Return the last line about a version.

    A new store counts from 1 again: a line is about a version where its number and its weights'
    digest are the same.
    """
    return _last(records[_is_about(records, number, digest)])


def taken_out(records: pd.DataFrame, number: int, digest: str) -> pd.Series | None:
    """Return the line that took a version out of use, None where it came back or never left.

    A newer version in its place takes nothing out: only what is in `TAKES_OUT` does.
    """
    put_in = records["action"].isin(INTO_USE) & _is_about(records, number, digest)
    left = records["action"].isin(TAKES_OUT) & (records["previous"] == str(number))
    left &= _digests_before(records).isin(["", digest])
    last = _last(records[put_in | left])
    return last if last is not None and left[last.name] else None


def rolled_back(records: pd.DataFrame, number: int, digest: str) -> pd.Series | None:
    """Return the line by which a rollback left these weights; None where they came back since.

    Versions of different data may have the same weights: what was left as one does not come back
    as another.
    """
    out = taken_out(records, number, digest)
    if out is not None and out["action"] == ROLLED_BACK:
        return out
    put_in = records["action"].isin(INTO_USE) & (records["digest"] == digest)
    left = (records["action"] == ROLLED_BACK) & (_digests_before(records) == digest) & ~put_in
    last = _last(records[put_in | left])
    return last if last is not None and left[last.name] else None


def _is_about(records: pd.DataFrame, number: int, digest: str) -> pd.Series:
    return (records["version"] == str(number)) & records["digest"].isin(["", digest])


def _digests_before(records: pd.DataFrame) -> pd.Series:
    """Return, for each line, the digest of `previous` when that was last put into use."""
    known: dict[str, str] = {}
    found = []
    for row in records.itertuples(index=False):
        found.append(known.get(row.previous, ""))
        if row.action in INTO_USE and row.digest:
            known[row.version] = row.digest
    return pd.Series(found, index=records.index, dtype="str")


def _last(rows: pd.DataFrame) -> pd.Series | None:
    return None if rows.empty else rows.iloc[-1]


def _one_line(value: object) -> str:
    return printable(" ".join(str(value).split()))


def _add_line(path: Path, cells: list[str]) -> None:
    with path.open("ab+") as handle:
        handle.seek(0)
        content = handle.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):  # torn by a crash
            handle.truncate(whole)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if whole == 0:
            writer.writerow(COLUMNS)
        writer.writerow(map(csv_cell, cells))
        handle.write(text.getvalue().encode())
        handle.flush()
        os.fsync(handle.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
