"""Tables between stages: reproducible parquet, CSV without formulas, rejects, and row counts.

A stage adds columns and never changes earlier ones. Rows that it drops become rejects with a
reason; `check_conservation` enforces this.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core.errors import ConservationError, DataError
from tasks.core.files import atomic_path
from tasks.core.text import MISSING_WORDS, clean, clean_or_none, csv_cell, csv_text

REJECT_COLUMNS: tuple[str, ...] = ("image_id", "path", "reason", "detail")

# One row per image; `image_id` is the key of every table.
MANIFEST_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # first 16 hex digits of the file's sha256
        ("path", pa.string()),  # below data/raw, with forward slashes
        ("dataset", pa.string()),
        ("batch", pa.string()),  # of the intake; "" without one
        ("subject_id", pa.string()),  # "<dataset>/<subject>"
        ("subject_known", pa.bool_()),  # False: `subject_id` is unique to the image
        ("emotion", pa.string()),
        ("emotion_raw", pa.string()),  # the label in the data set's spelling
        ("age_years", pa.float64()),
        ("age_band", pa.string()),
        ("age_source", pa.string()),  # recorded, dataset or estimated; null without an age
        ("gender", pa.string()),  # as recorded by the data set
        ("ethnicity", pa.string()),
        ("gaze", pa.string()),
        ("mouth", pa.string()),
        ("pose", pa.string()),
        ("width_px", pa.int64()),  # of the upright image
        ("height_px", pa.int64()),
        ("sha256", pa.string()),
    ]
)

# Values in the audit's tables that the report searches for.
NO_MODEL = "(no model)"  # `factors.csv`, column `factor`: the note explains it
RAW = "nothing (raw)"  # `standardized.csv`, column `standardized_to`

# Columns that images can be grouped by, besides their emotion.
GROUP_COLUMNS = ("age_band", "gender", "ethnicity", "gaze", "mouth", "pose", "batch", "age_source")

_SUBJECT = "subject_id"
# An ASCII `subject_id` that `current_subjects` may change: outer spaces, a missing subject.
_OUTDATED = (
    r"(?i)^[\s\x0b\x1c-\x1f]|[\s\x0b\x1c-\x1f]$|/[\s\x0b\x1c-\x1f]|^[^/]*/(?:"
    + "|".join(re.escape(word) for word in sorted(MISSING_WORDS) if word.isascii())
    + ")$"
)


def write_table(table: pd.DataFrame, path: Path, schema: pa.Schema | None = None) -> None:
    """Write a table as parquet, atomically and with the same bytes for the same rows.

    The index is dropped. Columns that are not in `schema` have inferred types.
    """
    inferred = pa.Schema.from_pandas(table, preserve_index=False)
    known = {} if schema is None else {field.name: field for field in schema}
    typed = pa.schema([known.get(field.name, field) for field in inferred])
    arrow = pa.Table.from_pandas(table, schema=typed, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(arrow.replace_schema_metadata(None), temporary, compression="zstd")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a parquet table; raises DataError if it is missing or not parquet.

    In a table from an earlier version the subject ids are updated by `current_subjects`.
    """
    table = _read_arrow(path, columns)
    frame: pd.DataFrame = table.to_pandas()
    if _SUBJECT not in table.column_names or _are_current(table.column(_SUBJECT)):
        return frame
    if columns is not None and "image_id" not in columns:
        frame = _read_arrow(path, [*columns, "image_id"]).to_pandas()
        return current_subjects(frame)[list(columns)]
    return current_subjects(frame)


def read_table_as_written(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a parquet table like `read_table`, without updating its subject ids."""
    frame: pd.DataFrame = _read_arrow(path, columns).to_pandas()
    return frame


def current_subjects(table: pd.DataFrame) -> pd.DataFrame:
    """Update subject ids to the spelling that `ingest` produces today.

    Tables, ledgers and models of earlier versions may have several spellings of one id (decomposed
    Unicode, invisible characters), or use a word for "missing" as an id. As in `ingest`, images
    with such a word get an id made from their `image_id`, and False in `subject_known` if that
    column exists. A table that is up to date is returned as it is.
    """
    names = table[_SUBJECT]
    updated = {name: _current_subject(name) for name in names.unique() if isinstance(name, str)}
    unknown = [name for name, current in updated.items() if current.endswith("/")]
    if not unknown and all(name == current for name, current in updated.items()):
        return table
    current = names.map(lambda name: updated.get(name, name))
    missing = names.isin(unknown)
    if missing.any():
        current = current.where(~missing, current + table["image_id"])
    table = table.assign(**{_SUBJECT: current})
    if "subject_known" in table.columns:
        table["subject_known"] = table["subject_known"].where(~missing, False)
    return table


def _current_subject(name: str) -> str:
    """Return the current spelling of a `subject_id`; a missing subject leaves it ending in "/"."""
    dataset, slash, subject = name.partition("/")
    if not slash:
        return clean(name)
    return f"{clean(dataset)}/{clean_or_none(subject) or ''}"


def _are_current(names: pa.ChunkedArray) -> bool:
    """Return whether `current_subjects` certainly changes nothing, without a loop in Python."""
    if not (pa.types.is_string(names.type) or pa.types.is_large_string(names.type)):
        return False
    plain = pc.all(pc.string_is_ascii(names)).as_py() is not False
    return plain and not pc.any(pc.match_substring_regex(names, _OUTDATED)).as_py()


def _read_arrow(path: Path, columns: Sequence[str] | None) -> pa.Table:
    # Not `pq.read_table`, which would make a column of a folder name such as `a=b`.
    with _parquet_errors(path):
        return pq.ParquetFile(path).read(columns=None if columns is None else list(columns))


def read_schema(path: Path) -> pa.Schema:
    """Return a parquet table's Arrow types, for the argument `schema` of `write_table`.

    Pandas loses the type of a column without any value. Raises DataError like `read_table`.
    """
    with _parquet_errors(path):
        return pq.read_schema(path)


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise DataError(f"{path}: no such table; run `affectgap run` (or `dvc repro`) first")
    try:
        yield
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: is not a parquet table ({error})") from None


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV atomically: UTF-8, floats with 6 significant digits.

    Texts that a spreadsheet would read as formulas are escaped (`csv_cell`); `read_csv` reverses
    it.
    """
    cells = _with_texts(table, csv_cell, r"'*[=+\-@\t\r\n]")
    with atomic_path(path) as temporary:
        cells.to_csv(
            temporary,
            index=False,
            float_format="%.6g",
            lineterminator="\n",
            errors="backslashreplace",  # undecodable bytes of file names
        )


def read_csv(source: Any, **options: Any) -> pd.DataFrame:
    """Read a CSV written by `write_csv`, with the options of `pandas.read_csv`."""
    return plain_texts(pd.read_csv(source, **options))


def plain_texts(table: pd.DataFrame) -> pd.DataFrame:
    """Reverse the escapes of `csv_cell` in a table."""
    return _with_texts(table, csv_text, "'+[=+\\-@\t\r\n]")


def _with_texts(table: pd.DataFrame, change: Callable[[str], str], pattern: str) -> pd.DataFrame:
    """Change the texts of a table, its header included, that match a pattern."""
    match, columns = re.compile(pattern).match, {}
    for index in range(table.shape[1]):
        column = table.iloc[:, index]
        if column.dtype.kind in "biufcmM":
            continue
        cells = column.to_numpy(dtype=object)
        # Names of groups repeat: each is looked at once.
        texts = {cell for cell in cells if isinstance(cell, str)}
        new = {text: change(text) for text in texts if match(text)}
        if new:
            changed_cells = [
                new.get(cell, cell) if isinstance(cell, str) else cell for cell in cells
            ]
            columns[index] = pd.Series(np.array(changed_cells, object), index=column.index)
    header = [change(name) if isinstance(name, str) else name for name in table.columns]
    if not columns and header == list(table.columns):
        return table
    parts = [columns.get(index, table.iloc[:, index]) for index in range(table.shape[1])]
    changed_table = pd.concat(parts, axis=1)
    changed_table.columns = pd.Index(header)
    return changed_table


def rejects_table(rows: Sequence[Sequence[str]] = ()) -> pd.DataFrame:
    """Return a table of rejects from `(image_id, path, reason, detail)`; `image_id` may be ""."""
    return pd.DataFrame(list(rows), columns=list(REJECT_COLUMNS), dtype="str")


def check_conservation(stage: str, rows_in: int, rows_out: int, rejects: int) -> None:
    """Raise ConservationError unless rows in = rows out + rejects."""
    if rows_in != rows_out + rejects:
        raise ConservationError(
            f"{stage}: {rows_in} rows in, but {rows_out} out and {rejects} rejects"
        )
