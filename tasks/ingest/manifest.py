"""Rows of the manifest, from what the adapter says of a file and what decoding it showed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from tasks.core.labels import UNKNOWN, age_band
from tasks.core.tables import MANIFEST_SCHEMA
from tasks.ingest.decode import Scan
from tasks.ingest.label import Fault, Label

_ID_DIGITS = 16


class ManifestRow(NamedTuple):
    """One picture; the fields are the columns of `tables.MANIFEST_SCHEMA`, in its order."""

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


Bands = Mapping[str, tuple[float, float]]


def image_id(sha256: str) -> str:
    """Return the key of a picture: the first 16 hex digits of its sha256, "" for no digest."""
    return sha256[:_ID_DIGITS]


def make_row(
    dataset: str, path: str, label: Label | Fault, scan: Scan, bands: Bands
) -> ManifestRow | Fault:
    """Make a picture's row, or say why it has none.

    Parameters
    ----------
    dataset
        The data set's name.
    path
        The file below the data set's folder.
    label
        What the adapter says.
    scan
        What decoding showed; its fault goes before the adapter's.
    bands
        Age bands: name to `[from, to)` in years.
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
    """Return the manifest as a frame with all columns, in the schema's order."""
    return pd.DataFrame(list(rows), columns=MANIFEST_SCHEMA.names)


def band_of(label: Label, bands: Bands) -> str | Fault:
    """Name the age band of a picture.

    A recorded age decides, else the band that the data set names, else a range: a band holds it
    only where the whole range lies in it; a range over two bands is "unknown".
    """
    if label.age_years is not None:
        return age_band(label.age_years, bands)
    if label.age_band is not None:
        if label.age_band in (*bands, UNKNOWN):
            return label.age_band
        known = ", ".join(bands)
        return Fault("unknown_label", f"age band '{label.age_band}' is not among {known}")
    if label.age_range is None:
        return UNKNOWN
    low, high, _ = label.age_range
    whole = (name for name, (start, end) in bands.items() if start <= low and high <= end)
    return next(whole, UNKNOWN)
