"""How many of whom a data set holds: from names and side files alone, nothing is decoded.

Works for every adapter, those without emotions included. The table is what the audit's section on
pre-training data takes.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.core.errors import DataError, UserError
from tasks.core.labels import UNKNOWN
from tasks.ingest.adapters import ADAPTERS
from tasks.ingest.label import Fault, Label, shown
from tasks.ingest.listing import list_files
from tasks.ingest.manifest import Bands, band_of

COLUMNS: tuple[str, ...] = ("attribute", "group", "n", "share")
_YEARS = "recorded in years"


@dataclass(frozen=True)
class Demographics:
    """What a folder holds.

    Attributes
    ----------
    table
        Columns `attribute` (age_band, age_group, gender, ethnicity), `group`, `n` (pictures) and
        `share` (0 to 1, of all pictures counted); "unknown" is a group of each attribute. The rows
        `age_group` are the ranges as the data set writes them, if it has any; pictures with an
        age in years are one group there.
    n
        Pictures counted.
    left_out
        Files that the adapter refuses, by reason; they are not counted.
    notes
        What the adapter did not understand in a side file.
    """

    table: pd.DataFrame
    n: int
    left_out: Counter[str]
    notes: tuple[str, ...]

    def summary(self) -> str:
        """Say in one line what was counted and what was not."""
        reasons = ", ".join(f"{count} {name}" for name, count in self.left_out.most_common())
        parts = [f"{self.n} pictures counted", *([f"left out: {reasons}"] if reasons else [])]
        return "; ".join([*parts, *self.notes])


def count_demographics(folder: Path, adapter: str, bands: Bands) -> Demographics:
    """Count the pictures of a folder by age, gender and ethnicity.

    Parameters
    ----------
    folder
        A folder as its data set gives it out.
    adapter
        A name in `ADAPTERS`.
    bands
        Age bands: name to `[from, to)` in years.

    Raises
    ------
    UserError
        One line for an unknown adapter, a folder that is not there, or one of which the adapter
        reads nothing.
    """
    if adapter not in ADAPTERS:
        raise UserError(f"--adapter '{adapter}': there are {', '.join(sorted(ADAPTERS))}")
    if not folder.is_dir():
        raise UserError(f"{shown(folder)}: no such folder; give the one that holds the pictures")
    listing = list_files(folder)
    reading = ADAPTERS[adapter](folder, listing.files)
    faults = [*listing.faults.values(), *reading.missing.values()]
    labels: list[Label] = []
    for label in reading.labels.values():
        if isinstance(label, Fault):
            faults.append(label)
        else:
            labels.append(label)
    reasons = Counter(fault.reason for fault in faults)
    if not labels:
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise DataError(f"{shown(folder)}: adapter '{adapter}' reads nothing of it ({listed or 0})")
    return Demographics(_table(labels, bands), len(labels), reasons, reading.notes)


def _table(labels: list[Label], bands: Bands) -> pd.DataFrame:
    counts = {
        "age_band": Counter(str(_band(label, bands)) for label in labels),
        "age_group": Counter(_age_group(label) for label in labels),
        "gender": Counter(label.gender for label in labels),
        "ethnicity": Counter(label.ethnicity or UNKNOWN for label in labels),
    }
    rows = []
    for attribute, found in counts.items():
        if attribute == "age_group" and not any(label.age_range for label in labels):
            continue  # no ranges: the bands say it all
        for group in sorted(found, key=lambda name: (name in (_YEARS, UNKNOWN), name)):
            rows.append((attribute, group, found[group], found[group] / len(labels)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _age_group(label: Label) -> str:
    if label.age_years is not None:
        return _YEARS
    return label.age_range.words if label.age_range else UNKNOWN


def _band(label: Label, bands: Bands) -> str:
    band = band_of(label, bands)
    return UNKNOWN if isinstance(band, Fault) else band
