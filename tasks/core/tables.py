"""Tables between the rooms: parquet written the same way every time, rejects, and row accounts.

A room adds columns and never rewrites earlier ones. What it leaves out is a reject with a reason;
`check_conservation` holds every stage to that.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.errors import ConservationError, DataError
from tasks.core.files import atomic_path

REJECT_COLUMNS: tuple[str, ...] = ("image_id", "path", "reason", "detail")

# One row a picture; `image_id` is the key of every table.
MANIFEST_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # first 16 hex digits of the file's sha256
        ("path", pa.string()),  # below data/raw, with forward slashes
        ("dataset", pa.string()),
        ("batch", pa.string()),  # the intake's batch, "" where there was none
        ("subject_id", pa.string()),  # "<dataset>/<subject>"
        ("subject_known", pa.bool_()),  # False: the picture stands for a subject of its own
        ("emotion", pa.string()),
        ("emotion_raw", pa.string()),  # the label as the data set writes it
        ("age_years", pa.float64()),
        ("age_band", pa.string()),
        ("age_source", pa.string()),  # recorded, dataset or estimated; null without an age
        ("gender", pa.string()),  # as recorded by the data set
        ("ethnicity", pa.string()),
        ("gaze", pa.string()),
        ("mouth", pa.string()),
        ("pose", pa.string()),
        ("width_px", pa.int64()),  # after turning by the EXIF flag
        ("height_px", pa.int64()),
        ("sha256", pa.string()),
    ]
)

# Words of the audit's tables that the report looks for.
NO_MODEL = "(no model)"  # `factors.csv`, column `factor`: the note says why
RAW = "nothing (raw)"  # `standardised.csv`, column `standardised_to`

# What people and pictures can be grouped by, beside their emotion.
GROUP_COLUMNS = ("age_band", "gender", "ethnicity", "gaze", "mouth", "pose", "batch", "age_source")


def write_table(table: pd.DataFrame, path: Path, schema: pa.Schema | None = None) -> None:
    """Write a table as parquet, atomically and with the same bytes for the same rows.

    Parameters
    ----------
    table
        One row a picture (or a segment); the index is not kept.
    path
        The file; its folder is made.
    schema
        Arrow types for some or all columns; columns that it does not name keep inferred types.
    """
    inferred = pa.Schema.from_pandas(table, preserve_index=False)
    known = {} if schema is None else {field.name: field for field in schema}
    typed = pa.schema([known.get(field.name, field) for field in inferred])
    arrow = pa.Table.from_pandas(table, schema=typed, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(arrow.replace_schema_metadata(None), temporary, compression="zstd")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a parquet table; raises DataError with one line where it is missing or not parquet."""
    if not path.is_file():
        raise DataError(f"{path}: no such table; run `affectgap run` (or `dvc repro`) first")
    try:
        # The file itself, not a data set: a folder name such as `a=b` must not become a column.
        table = pq.ParquetFile(path).read(columns=None if columns is None else list(columns))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: is not a parquet table ({error})") from None
    frame: pd.DataFrame = table.to_pandas()
    return frame


def read_schema(path: Path) -> pa.Schema:
    """Return a parquet table's Arrow types, so that the next room writes the same columns alike.

    Pandas forgets them where a column holds no value at all; see the argument `schema` of
    `write_table`. Raises DataError like `read_table`.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such table; run `affectgap run` (or `dvc repro`) first")
    try:
        return pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: is not a parquet table ({error})") from None


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV atomically: UTF-8, one line a row, figures at 6 significant digits."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def rejects_table(rows: Sequence[Sequence[str]] = ()) -> pd.DataFrame:
    """Make a rejects table from `(image_id, path, reason, detail)` rows; `image_id` may be ""."""
    return pd.DataFrame(list(rows), columns=list(REJECT_COLUMNS), dtype="str")


def check_conservation(stage: str, rows_in: int, rows_out: int, rejects: int) -> None:
    """Hold a stage to its account; raises ConservationError unless in = out + rejects."""
    if rows_in != rows_out + rejects:
        raise ConservationError(
            f"{stage}: {rows_in} rows in, but {rows_out} out and {rejects} rejects"
        )
