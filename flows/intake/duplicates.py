"""Images of a batch that were imported before, by their content."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from flows.ledger.ledger import Ledger

_MAX_LISTED = 5


@dataclass(frozen=True)
class DuplicateReport:
    """Images of a batch that are not new.

    Attributes
    ----------
    count
        Images that are in the data already.
    lines
        One line for each of the first of them.
    conflicts
        One line for each of the first with different emotions: `ingest` would leave out both.
    withdrawn
        Number of images of withdrawn batches, which may come again with better labels.
    """

    count: int
    lines: tuple[str, ...]
    conflicts: tuple[str, ...]
    withdrawn: int


def find_known_images(
    rows: pd.DataFrame, manifest: pd.DataFrame | None, ledger: Ledger
) -> DuplicateReport:
    """Find a batch's images, given as rows of the manifest, in the manifest and the ledger."""
    if rows.empty:
        return DuplicateReport(0, (), (), 0)
    columns = ["path", "sha256", "emotion"]
    known = ledger.where(rows["sha256"].tolist())
    withdrawn = known[known["state"] == "withdrawn"]["sha256"].nunique()
    known = known[known["state"] == "accepted"]
    sources = [known.assign(source="batch " + known["batch"])[[*columns, "source"]]]
    if manifest is not None:
        same = manifest[manifest["sha256"].isin(rows["sha256"]) & ~_withdrawn(manifest, ledger)]
        sources.append(same.assign(source="the data")[[*columns, "source"]])
    existing = pd.concat(sources, ignore_index=True).drop_duplicates("sha256")
    repeated = rows[columns].merge(existing, on="sha256", suffixes=("", "_existing"))
    conflicting = repeated[repeated["emotion"] != repeated["emotion_existing"]]
    return DuplicateReport(
        len(repeated), _lines(repeated, _repeat), _lines(conflicting, _conflict), int(withdrawn)
    )


def _withdrawn(manifest: pd.DataFrame, ledger: Ledger) -> pd.Series:
    """Return a mask of the rows whose batch was withdrawn after the manifest was written."""
    batches = ledger.batches()
    withdrawn = batches[batches["state"] == "withdrawn"]
    keys = set(zip(withdrawn["dataset"], withdrawn["batch"], strict=True))
    pairs = zip(manifest["dataset"], manifest["batch"], strict=True)
    return pd.Series([pair in keys for pair in pairs], index=manifest.index, dtype=bool)


def _repeat(row: dict[str, str]) -> str:
    return f"{row['path']} is {row['path_existing']} in {row['source']}"


def _conflict(row: dict[str, str]) -> str:
    existing = f"{row['path_existing']} ({row['emotion_existing']}) in {row['source']}"
    return f"{row['path']} ({row['emotion']}) is the same picture as {existing}"


def _lines(table: pd.DataFrame, describe: Callable[[dict[str, str]], str]) -> tuple[str, ...]:
    rows = table.sort_values("path").head(_MAX_LISTED).to_dict("records")
    omitted = len(table) - len(rows)
    return (*map(describe, rows), *([f"and {omitted} more"] if omitted else []))
