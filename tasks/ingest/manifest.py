"""Rows of the manifest, from the adapter's label and the scan of a file; duplicate images.

Of duplicate images one copy remains if their labels agree, none if they conflict. Of conflicting
labels at most one is right, and the copies would leak between the splits. Only a person can decide
which is right, so that all copies are left out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from tasks.core.errors import DataError
from tasks.core.labels import UNKNOWN, age_band
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA
from tasks.ingest.dataset_reader import Entry, Reject, reject
from tasks.ingest.label import Fault, Label
from tasks.ingest.scan import Scan

_ID_DIGITS = 16
Bands = Mapping[str, tuple[float, float]]


class ManifestRow(NamedTuple):
    """One image; the fields are the columns of `tables.MANIFEST_SCHEMA`, in order."""

    image_id: str
    path: str
    dataset: str
    batch: str
    subject_id: str
    subject_known: bool
    emotion: str
    emotion_raw: str
    age_years: float | None
    age_band: str
    age_source: str | None
    gender: str
    ethnicity: str | None
    gaze: str | None
    mouth: str | None
    pose: str | None
    width_px: int
    height_px: int
    sha256: str


def image_id(sha256: str) -> str:
    """Return an image's ID: the first 16 hex digits of its sha256, "" without a digest."""
    return sha256[:_ID_DIGITS]


def make_row(
    dataset: str, path: str, label: Label | Fault, scan: Scan, bands: Bands
) -> ManifestRow | Fault:
    """Return an image's row, or its fault; a fault of the scan precedes that of the label.

    `bands` maps the names of age bands to `[from, to)` in years.
    """
    if scan.fault is not None:
        return scan.fault
    if isinstance(label, Fault):
        return label
    if label.emotion is None:
        return Fault("no_label", "the data set has no emotions")
    band = band_of(label, bands)
    if isinstance(band, Fault):
        return band
    return ManifestRow(
        image_id=image_id(scan.sha256),
        path=f"{dataset}/{path}",
        dataset=dataset,
        batch=label.batch,
        subject_id=f"{dataset}/{label.subject or image_id(scan.sha256)}",
        subject_known=label.subject is not None,
        emotion=label.emotion,
        emotion_raw=label.emotion_raw,
        age_years=label.age_years,
        age_band=band,
        age_source=label.age_source,
        gender=label.gender,
        ethnicity=label.ethnicity,
        gaze=label.gaze,
        mouth=label.mouth,
        pose=label.pose,
        width_px=scan.width_px,
        height_px=scan.height_px,
        sha256=scan.sha256,
    )


def manifest_table(rows: Sequence[ManifestRow]) -> pd.DataFrame:
    """Return the manifest as a data frame with the schema's columns."""
    return pd.DataFrame(list(rows), columns=MANIFEST_SCHEMA.names)


def band_of(label: Label, bands: Bands) -> str | Fault:
    """Return an image's age band from its age, else from its label's band, else from its range.

    The band of a range that does not lie entirely in one band is "unknown".
    """
    if label.age_years is not None:
        return age_band(label.age_years, bands)
    if label.age_band is not None:
        if label.age_band in (*bands, UNKNOWN):
            return label.age_band
        names = ", ".join(bands)
        return Fault("unknown_label", f"age band '{label.age_band}' is not one of {names}")
    if label.age_range is None:
        return UNKNOWN
    low, high, _ = label.age_range
    matching = (name for name, (start, end) in bands.items() if start <= low and high <= end)
    return next(matching, UNKNOWN)


def find_duplicates(rows: Sequence[ManifestRow]) -> dict[int, Fault]:
    """Return the faults of rows, in the manifest's order, whose content is not unique.

    The keys are positions. `duplicate` applies to all copies under one emotion but the first that
    is in no batch (else the first), `conflicting_labels` to all copies under several emotions.
    """
    same_content: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        same_content[row.sha256].append(position)
    faults: dict[int, Fault] = {}
    for positions in same_content.values():
        if len(positions) == 1:
            continue
        if len({rows[position].emotion for position in positions}) > 1:
            faults |= {position: _conflict(rows, position, positions) for position in positions}
        else:
            first = min(positions, key=lambda position: (rows[position].batch != "", position))
            faults |= {
                position: _duplicate(rows[first], rows[position])
                for position in positions
                if position != first
            }
    return faults


def _conflict(rows: Sequence[ManifestRow], position: int, positions: Sequence[int]) -> Fault:
    others = [rows[other] for other in positions if other != position]
    listed = ", ".join(f"{other.path} ({other.emotion})" for other in others)
    return Fault("conflicting_labels", f"{rows[position].emotion} here; same content: {listed}")


def _duplicate(first: ManifestRow, row: ManifestRow) -> Fault:
    subjects = "" if first.subject_id == row.subject_id else f" as {first.subject_id}"
    return Fault("duplicate", f"same content as {first.path}, which is kept{subjects}")


def make_rows(
    entries: Sequence[Entry], scans: Iterable[Scan], bands: Bands
) -> tuple[list[ManifestRow], list[Reject]]:
    """Return rows, sorted by data set and path and without duplicates, and unsorted rejects.

    `scans` are in the order of `entries`.
    """
    rows: list[ManifestRow] = []
    rejects: list[Reject] = []
    for entry, scan in zip(entries, scans, strict=True):
        row = make_row(entry.dataset, entry.path, entry.label, scan, bands)
        if isinstance(row, Fault):
            rejects.append(reject(entry.dataset, entry.path, row, image_id(scan.sha256)))
        else:
            rows.append(row)
    rows.sort(key=lambda row: (row.dataset, row.path))
    duplicates = find_duplicates(rows)
    for position, fault in duplicates.items():
        row = rows[position]
        rejects.append(Reject(row.image_id, row.path, fault.reason, fault.detail))
    return [row for position, row in enumerate(rows) if position not in duplicates], rejects


def require_rows(
    datasets: Iterable[str], rows: Sequence[ManifestRow], rejects: Sequence[Reject], paths: Paths
) -> None:
    """Raise DataError where a data set has no row; results without it would mislead."""
    counts = Counter(row.dataset for row in rows)
    for dataset in datasets:
        if counts[dataset]:
            continue
        faults = [reject for reject in rejects if reject.path.startswith(f"{dataset}/")]
        reasons = Counter(reject.reason for reject in faults).most_common()
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons)
        example = next(reject for reject in faults if reject.reason == reasons[0][0])
        raise DataError(
            f"{paths.raw / dataset}: none of its {len(faults)} files can be used ({listed}); "
            f"{example.path}: {example.detail}; {paths.rejects('ingest')} lists all"
        )
