"""The promotion log `registry/promotions.csv`: an append-only record of decisions.

A line is synced to disk before the next step. A crash during a write leaves an incomplete line,
which readers ignore and the next writer removes; the interrupted step is then repeated. The same
action of the same decision is never written twice.
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
NOT_MADE = "not_made"  # `previous` passed but was not promoted, since `version` came first
ACTIONS: tuple[str, ...] = (PROMOTED, REFUSED, WAITING, APPROVED, ROLLED_BACK, NOT_MADE)
TAKES_OUT: tuple[str, ...] = (ROLLED_BACK, NOT_MADE)  # `previous` is not the champion after these
INTO_USE: tuple[str, ...] = (PROMOTED, APPROVED, *TAKES_OUT)  # `version` is the champion after
COLUMNS: tuple[str, ...] = (
    "at",  # UTC, ISO 8601; informative: the order of lines is the order of events
    "action",
    "version",  # the version that was judged; after INTO_USE the new champion
    "digest",  # of its weights
    "previous",  # the former champion; empty for none
    "decision_id",  # of the gate's decision, or of the rollback
    "worst_group",
    "worst_recall",
    "by",
    "why",
    "tag",  # git tag, if any
)


def append_record(paths: Paths, row: Mapping[str, object]) -> bool:
    """Append a line, synced to disk; return False if this action of this decision is logged.

    `row` needs `action`, `version` and `decision_id`. `at` defaults to now, other columns to "".

    Raises
    ------
    ValueError
        For an unknown column or action, or without a decision_id.
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
    """Read all lines as text, oldest first.

    Raises
    ------
    DataError
        If the file is not a promotion log.
    """
    path = paths.promotions
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    complete = content[: content.rfind(b"\n") + 1]
    if not complete:
        return pd.DataFrame(columns=list(COLUMNS), dtype="str")
    try:
        table = read_csv(io.BytesIO(complete), dtype="str", keep_default_na=False)
        return table[list(COLUMNS)]
    except (KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{path}: is no table of decisions ({reason}); `git checkout` brings back the last one"
        ) from None


def in_use(records: pd.DataFrame) -> pd.Series | None:
    """Return the line that promoted the current champion; None if there was none yet."""
    return _last(records[records["action"].isin(INTO_USE)])


def last_record(records: pd.DataFrame, number: int, digest: str) -> pd.Series | None:
    """Return the last line about a version.

    Number and digest of the weights must match, since a new store counts from 1 again.
    """
    return _last(records[_is_about(records, number, digest)])


def taken_out(records: pd.DataFrame, number: int, digest: str) -> pd.Series | None:
    """Return the line that demoted a version; None if it came back or was never demoted.

    Only the actions `TAKES_OUT` demote a version; the promotion of a newer one does not.
    """
    promoted = records["action"].isin(INTO_USE) & _is_about(records, number, digest)
    demoted = records["action"].isin(TAKES_OUT) & (records["previous"] == str(number))
    demoted &= _digests_before(records).isin(["", digest])
    last = _last(records[promoted | demoted])
    return last if last is not None and demoted[last.name] else None


def rolled_back(records: pd.DataFrame, number: int, digest: str) -> pd.Series | None:
    """Return the line that rolled back these weights; None if they came back since.

    Versions of different data may have the same weights. Weights that were rolled back as one
    version do not come back as another.
    """
    demotion = taken_out(records, number, digest)
    if demotion is not None and demotion["action"] == ROLLED_BACK:
        return demotion
    promoted = records["action"].isin(INTO_USE) & (records["digest"] == digest)
    demoted = (records["action"] == ROLLED_BACK) & (_digests_before(records) == digest) & ~promoted
    last = _last(records[promoted | demoted])
    return last if last is not None and demoted[last.name] else None


def _is_about(records: pd.DataFrame, number: int, digest: str) -> pd.Series:
    return (records["version"] == str(number)) & records["digest"].isin(["", digest])


def _digests_before(records: pd.DataFrame) -> pd.Series:
    """Return, for each line, the digest of `previous` at its last promotion."""
    known: dict[str, str] = {}
    digests = []
    for row in records.itertuples(index=False):
        digests.append(known.get(row.previous, ""))
        if row.action in INTO_USE and row.digest:
            known[row.version] = row.digest
    return pd.Series(digests, index=records.index, dtype="str")


def _last(rows: pd.DataFrame) -> pd.Series | None:
    return None if rows.empty else rows.iloc[-1]


def _one_line(value: object) -> str:
    return printable(" ".join(str(value).split()))


def _add_line(path: Path, cells: list[str]) -> None:
    with path.open("ab+") as handle:
        handle.seek(0)
        content = handle.read()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):  # torn by a crash
            handle.truncate(complete)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if complete == 0:
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
