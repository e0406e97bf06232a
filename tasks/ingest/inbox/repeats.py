"""Pictures of a batch that were there before, by their content."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from tasks.core.ledger import Ledger

_SHOWN = 5


@dataclass(frozen=True)
class Repeats:
    """What of a batch is not new.

    Attributes
    ----------
    count
        Pictures that are part of the data already.
    lines
        The first of them, and where they are, a line each.
    conflicts
        A line each for those that are there under another emotion: `ingest` would leave out both.
    withdrawn
        How many were in a batch that was withdrawn; they may come again, with better labels.
    """

    count: int
    lines: tuple[str, ...]
    conflicts: tuple[str, ...]
    withdrawn: int


def find_repeats(rows: pd.DataFrame, manifest: pd.DataFrame | None, ledger: Ledger) -> Repeats:
    """Look for a batch's pictures in the manifest and among all that ever came.

    Parameters
    ----------
    rows
        The batch's rows of the manifest.
    manifest
        The manifest, or None before the first one.
    ledger
        The ledger.
    """
    if rows.empty:
        return Repeats(0, (), (), 0)
    columns = ["path", "sha256", "emotion"]
    known = ledger.where(rows["sha256"].tolist())
    withdrawn = known[known["state"] == "withdrawn"]["sha256"].nunique()
    known = known[known["state"] == "accepted"]
    there = [known.assign(whence="batch " + known["batch"])[[*columns, "whence"]]]
    if manifest is not None:
        same = manifest[manifest["sha256"].isin(rows["sha256"]) & ~_withdrawn(manifest, ledger)]
        there.append(same.assign(whence="the data")[[*columns, "whence"]])
    before = pd.concat(there, ignore_index=True).drop_duplicates("sha256")
    both = rows[columns].merge(before, on="sha256", suffixes=("", "_there"))
    other = both[both["emotion"] != both["emotion_there"]]
    return Repeats(len(both), _lines(both, _place), _lines(other, _conflict), int(withdrawn))


def _withdrawn(manifest: pd.DataFrame, ledger: Ledger) -> pd.Series:
    """Mark the rows whose batch left data/raw since the manifest was made."""
    batches = ledger.batches()
    gone = batches[batches["state"] == "withdrawn"]
    keys = set(zip(gone["dataset"], gone["batch"], strict=True))
    pairs = zip(manifest["dataset"], manifest["batch"], strict=True)
    return pd.Series([pair in keys for pair in pairs], index=manifest.index, dtype=bool)


def _place(row: dict[str, str]) -> str:
    return f"{row['path']} is {row['path_there']} in {row['whence']}"


def _conflict(row: dict[str, str]) -> str:
    there = f"{row['path_there']} ({row['emotion_there']}) in {row['whence']}"
    return f"{row['path']} ({row['emotion']}) is the same picture as {there}"


def _lines(table: pd.DataFrame, in_words: Callable[[dict[str, str]], str]) -> tuple[str, ...]:
    rows = table.sort_values("path").head(_SHOWN).to_dict("records")
    more = len(table) - len(rows)
    return (*map(in_words, rows), *([f"and {more} more"] if more else []))
