"""Tables between the rooms: parquet written the same way every time, rejects, and row accounts.

A room adds columns and never rewrites earlier ones. What it leaves out is a reject with a reason;
`check_conservation` holds every stage to that.
"""

import re
from collections.abc import Callable, Sequence
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
        ("batch", pa.string()),  # the intake's batch, "" where there was none
        ("subject_id", pa.string()),  # "<dataset>/<subject>"
        ("subject_known", pa.bool_()),  # False: the image stands for a subject of its own
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

# What people and images can be grouped by, beside their emotion.
GROUP_COLUMNS = ("age_band", "gender", "ethnicity", "gaze", "mouth", "pose", "batch", "age_source")

_SUBJECT = "subject_id"
# An ASCII `subject_id` that `current_subjects` may change: a space at an edge, a missing subject.
_OUTDATED = (
    r"(?i)^[\s\x0b\x1c-\x1f]|[\s\x0b\x1c-\x1f]$|/[\s\x0b\x1c-\x1f]|^[^/]*/(?:"
    + "|".join(re.escape(word) for word in sorted(MISSING_WORDS) if word.isascii())
    + ")$"
)


def write_table(table: pd.DataFrame, path: Path, schema: pa.Schema | None = None) -> None:
    """Write a table as parquet, atomically and with the same bytes for the same rows.

    Parameters
    ----------
    table
        One row per image (or a segment); the index is not kept.
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
    """Read a parquet table; raises DataError with one line where it is missing or not parquet.

    People are named as `current_subjects` does, also in a table that an earlier version wrote.
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
    """Read a parquet table as `read_table`, with people as the version that wrote it named them."""
    frame: pd.DataFrame = _read_arrow(path, columns).to_pandas()
    return frame


def current_subjects(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with every person in the spelling that `ingest` gives today.

    Tables, ledgers and models made by earlier versions may name one person in several spellings
    (decomposed Unicode, invisible characters), and everyone whose name is a word for missing as one
    person. Such images stand for a person of their own, as in `ingest`.

    Parameters
    ----------
    table
        Columns `subject_id` ("<dataset>/<subject>") and, where there are such words, `image_id`;
        `subject_known` is adapted where it is there.

    Returns
    -------
    DataFrame
        The table itself where nothing changes.
    """
    names = table[_SUBJECT]
    spelled = {name: _current_subject(name) for name in names.unique() if isinstance(name, str)}
    unknown = [name for name, current in spelled.items() if current.endswith("/")]
    if not unknown and all(name == current for name, current in spelled.items()):
        return table
    current = names.map(lambda name: spelled.get(name, name))
    nobody = names.isin(unknown)
    if nobody.any():
        current = current.where(~nobody, current + table["image_id"])
    table = table.assign(**{_SUBJECT: current})
    if "subject_known" in table.columns:
        table["subject_known"] = table["subject_known"].where(~nobody, False)
    return table


def _current_subject(name: str) -> str:
    """Return a `subject_id` in today's spelling; without a subject after the "/" where unknown."""
    dataset, slash, subject = name.partition("/")
    if not slash:
        return clean(name)
    return f"{clean(dataset)}/{clean_or_none(subject) or ''}"


def _are_current(names: pa.ChunkedArray) -> bool:
    """Tell, without a look at each in Python, whether `current_subjects` would change no name."""
    if not (pa.types.is_string(names.type) or pa.types.is_large_string(names.type)):
        return False
    plain = pc.all(pc.string_is_ascii(names)).as_py() is not False
    return plain and not pc.any(pc.match_substring_regex(names, _OUTDATED)).as_py()


def _read_arrow(path: Path, columns: Sequence[str] | None) -> pa.Table:
    if not path.is_file():
        raise DataError(f"{path}: no such table; run `affectgap run` (or `dvc repro`) first")
    try:
        # The file itself, not a data set: a folder name such as `a=b` must not become a column.
        return pq.ParquetFile(path).read(columns=None if columns is None else list(columns))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: is not a parquet table ({error})") from None


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
    """Write a CSV atomically: UTF-8, one line per row, figures at 6 significant digits.

    No cell is a formula to a spreadsheet (`csv_cell`); `read_csv` gives the texts back.
    """
    cells = _with_texts(table, csv_cell, r"'*[=+\-@\t\r\n]")
    with atomic_path(path) as temporary:
        cells.to_csv(
            temporary,
            index=False,
            float_format="%.6g",
            lineterminator="\n",
            errors="backslashreplace",  # bytes of a name in another encoding
        )


def read_csv(source: Any, **options: Any) -> pd.DataFrame:
    """Read a CSV that `write_csv` wrote, with the options of `pandas.read_csv`."""
    return plain_texts(pd.read_csv(source, **options))


def plain_texts(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the texts that `csv_cell` made cells of; the others as they are."""
    return _with_texts(table, csv_text, "'+[=+\\-@\t\r\n]")


def _with_texts(table: pd.DataFrame, change: Callable[[str], str], changed: str) -> pd.DataFrame:
    """Change the texts of a table, its header included, that match a pattern."""
    match, columns = re.compile(changed).match, {}
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
    """Make a rejects table from `(image_id, path, reason, detail)` rows; `image_id` may be ""."""
    return pd.DataFrame(list(rows), columns=list(REJECT_COLUMNS), dtype="str")


def check_conservation(stage: str, rows_in: int, rows_out: int, rejects: int) -> None:
    """Hold a stage to its account; raises ConservationError unless in = out + rejects."""
    if rows_in != rows_out + rejects:
        raise ConservationError(
            f"{stage}: {rows_in} rows in, but {rows_out} out and {rejects} rejects"
        )
