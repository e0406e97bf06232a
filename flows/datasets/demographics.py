"""Counts of a data set's images by age, gender and ethnicity, without decoding them.

This works for every adapter, including those without emotions. The audit's section on pre-training
data reads the table.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.core.errors import DataError, UserError
from tasks.core.labels import UNKNOWN
from tasks.ingest.adapters import ADAPTERS
from tasks.ingest.label import Fault, Label, printable_path
from tasks.ingest.list_files import list_files
from tasks.ingest.manifest import Bands, band_of

COLUMNS: tuple[str, ...] = ("attribute", "group", "n", "share")
_YEARS = "recorded in years"


@dataclass(frozen=True)
class Demographics:
    """Demographic counts of a folder.

    Attributes
    ----------
    table
        Columns `attribute` (age_band, age_group, gender, ethnicity), `group`, `n` (images) and
        `share` (0 to 1, of all counted images); "unknown" is a group of each attribute. The rows
        `age_group` are the ranges as the data set writes them, if it has any; images with an
        age in years are one group there.
    n
        Counted images.
    left_out
        Number of files that the adapter rejects, by reason.
    notes
        What the adapter did not understand in a side file.
    """

    table: pd.DataFrame
    n: int
    left_out: Counter[str]
    notes: tuple[str, ...]

    def summary(self) -> str:
        """Return one line on what was counted and what was not."""
        reasons = ", ".join(f"{count} {name}" for name, count in self.left_out.most_common())
        parts = [f"{self.n} pictures counted", *([f"left out: {reasons}"] if reasons else [])]
        return "; ".join([*parts, *self.notes])


def count_demographics(folder: Path, adapter: str, bands: Bands) -> Demographics:
    """Count the images of a data set's folder by age, gender and ethnicity.

    Raises
    ------
    UserError
        For an unknown adapter or a missing folder.
    DataError
        If the adapter cannot read any file.
    """
    if adapter not in ADAPTERS:
        raise UserError(f"--adapter '{adapter}': use one of {', '.join(sorted(ADAPTERS))}")
    if not folder.is_dir():
        raise UserError(
            f"{printable_path(folder)}: no such folder; give the one that holds the pictures"
        )
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
        raise DataError(
            f"{printable_path(folder)}: adapter '{adapter}' cannot read any file "
            f"({listed or 'no files'})"
        )
    return Demographics(_table(labels, bands), len(labels), reasons, reading.notes)


def _table(labels: list[Label], bands: Bands) -> pd.DataFrame:
    counts = {
        "age_band": Counter(str(_band(label, bands)) for label in labels),
        "age_group": Counter(_age_group(label) for label in labels),
        "gender": Counter(label.gender for label in labels),
        "ethnicity": Counter(label.ethnicity or UNKNOWN for label in labels),
    }
    rows = []
    for attribute, groups in counts.items():
        if attribute == "age_group" and not any(label.age_range for label in labels):
            continue  # without ranges, the age bands are enough
        for group in sorted(groups, key=lambda name: (name in (_YEARS, UNKNOWN), name)):
            rows.append((attribute, group, groups[group], groups[group] / len(labels)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _age_group(label: Label) -> str:
    if label.age_years is not None:
        return _YEARS
    return label.age_range.words if label.age_range else UNKNOWN


def _band(label: Label, bands: Bands) -> str:
    band = band_of(label, bands)
    return UNKNOWN if isinstance(band, Fault) else band
