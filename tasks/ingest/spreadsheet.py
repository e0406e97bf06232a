"""Streaming readers of the spreadsheets of data sets, CSV or XLSX, and of FER2013's pixels.

Spreadsheets may have a title above the header, and headers vary. The header is therefore the first
row that has the wanted columns under any of their usual names.

FER2013's table (`fer2013.csv`, `icml_face_data.csv`) has the columns `emotion`, `pixels` (48 rows
of 48 gray values) and `Usage`, in any order. Row 12, counted from 0, becomes `fer0000012.png`, its
name in FER+. Emotion and usage go into `fer2013_labels.csv`.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.core.errors import DataError
from tasks.core.parallel.progress import track
from tasks.core.spreadsheets.text_table import (
    HEADER_WITHIN,
    OpenTable,
    check_span,
    open_table,
    sheets_of,
)
from tasks.core.spreadsheets.text_table import Row as NumberedRow
from tasks.core.text import MISSING_WORDS, clean, csv_cell, csv_text, is_missing, printable

# An .xls cannot be read, but is included for an error with advice instead of a reject.
SUFFIXES: frozenset[str] = frozenset([".csv", ".tsv", ".xlsx", ".xls"])
_LONGEST_MISSING = max(map(len, MISSING_WORDS))
Row = tuple[str, ...]
TABLE_NAMES: tuple[str, ...] = ("fer2013.csv", "icml_face_data.csv")
LABELS_NAME = "fer2013_labels.csv"
SIDE_PX = 48
_CHUNK_BYTES = 1 << 16
_COLUMNS = {name: re.compile(name) for name in ("emotion", "pixels", "usage")}


@dataclass(frozen=True)
class Record:
    """A row below the header: its number in the file (from 1), and its cells by wanted column."""

    number: int
    cells: Mapping[str, str]


@contextmanager
def open_rows(path: Path, sheet: int = 0) -> Iterator[Iterator[Row]]:
    """Open a table as an iterator of rows of cleaned text; DataError for any other file."""
    with open_table(path, sheet) as table:
        yield (_cleaned(row.cells) for row in table.rows)


def read_records(
    path: Path, columns: Mapping[str, re.Pattern[str]], needed: Sequence[frozenset[str]]
) -> Iterator[Record]:
    """Yield the non-empty rows below the header.

    Parameters
    ----------
    columns
        Wanted column to a pattern of its headers, which matches the result of `plain`.
    needed
        Groups of wanted columns; the header must have at least one of each group (see `each`).
        Cells of missing columns are "".

    Raises
    ------
    DataError
        If no row is such a header; the message quotes the first row.
    """
    first: Row = ()
    for sheet in range(sheets_of(path)):
        with open_table(path, sheet) as table:
            for row in islice(table.rows, HEADER_WITHIN):
                header = _cleaned(row.cells)
                first = first or header
                indices = _indices(header, columns)
                if all(group & indices.keys() for group in needed):
                    yield from _records(table, header, indices, columns, path)
                    return
    quoted = ", ".join(first)[:80] or "empty"
    wanted = " and ".join(" or ".join(sorted(group)) for group in needed)
    raise DataError(
        f"{path}: no header was understood (the first row is {quoted}); it needs columns such as "
        f"{wanted}; add them, or remove the file"
    )


def _records(
    table: OpenTable,
    header: Row,
    indices: Mapping[str, int],
    columns: Mapping[str, object],
    path: Path,
) -> Iterator[Record]:
    duplicates = _duplicate_columns(header, indices)
    for row in table.rows:
        check_span(row, len(header), table.separator, path)
        cells = _cleaned(row.cells)
        if any(cells):
            _require_equal(row, cells, duplicates, path)
            values = {name: cells[at] if at < len(cells) else "" for name, at in indices.items()}
            values = {name: "" if _is_missing(cell) else cell for name, cell in values.items()}
            yield Record(row.line, {name: values.get(name, "") for name in columns})


def _duplicate_columns(header: Row, indices: Mapping[str, int]) -> list[tuple[int, int]]:
    """Return pairs of indices of equal headers, for the columns that are read."""
    return [
        (index, other)
        for index in indices.values()
        for other, cell in enumerate(header)
        if other != index and plain(cell) == plain(header[index])
    ]


def _require_equal(
    row: NumberedRow, cells: Row, pairs: Sequence[tuple[int, int]], path: Path
) -> None:
    for pair in pairs:
        one, two = (cells[index] if index < len(cells) else "" for index in pair)
        if one != two:
            raise DataError(
                f"{path}: two columns have the same header and differ (row {row.line}: "
                f"'{printable(one)}' and '{printable(two)}'); remove one of them"
            )


def _cleaned(cells: Sequence[str]) -> Row:
    return tuple(csv_text(clean(cell)) for cell in cells)


def _is_missing(cell: str) -> bool:
    return len(cell) <= _LONGEST_MISSING and is_missing(cell)


def each(columns: Iterable[str]) -> list[frozenset[str]]:
    """Return one group per column, so that `read_records` requires all of them."""
    return [frozenset([name]) for name in columns]


def plain(header: str) -> str:
    """Return a header without case, blanks and signs: `Age (in years)` becomes `ageinyears`."""
    return re.sub(r"[\W_]", "", header.casefold())


def _indices(row: Row, columns: Mapping[str, re.Pattern[str]]) -> dict[str, int]:
    """Return the index of the first matching cell of each wanted column in a header row."""
    indices: dict[str, int] = {}
    for index, cell in enumerate(row):
        for name, headers in columns.items():
            if headers.fullmatch(plain(cell)):
                indices.setdefault(name, index)
    return indices


_NEEDED = each(["emotion", "pixels"])


def image_name(row: int) -> str:
    """Return the image's name in FER+, from its row counted from 0."""
    return f"fer{row:07}.png"


def write_images(table: Path, folder: Path) -> int:
    """Write the images and labels of a table to an existing folder; return the number of images.

    Raises
    ------
    DataError
        For a row whose pixels are not 2,304 values from 0 to 255. The caller removes the files
        written so far.
    """
    number = -1
    with (folder / LABELS_NAME).open("x", encoding="utf-8", newline="") as handle:
        labels = csv.writer(handle, lineterminator="\n")
        labels.writerow(["file", "emotion", "usage"])
        records = track(read_records(table, _COLUMNS, _NEEDED), _count_lines(table), "intake")
        for number, record in enumerate(records):
            name = image_name(number)
            Image.fromarray(_pixels(record, table)).save(folder / name, "PNG")
            labels.writerow([name, *(csv_cell(record.cells[key]) for key in ("emotion", "usage"))])
    if number < 0:
        raise DataError(f"{table}: has no rows")
    return number + 1


def _pixels(record: Record, table: Path) -> np.ndarray:
    """Return a row's gray values, `(48, 48)` uint8."""
    try:
        values = bytes(map(int, record.cells["pixels"].split()))  # ValueError outside 0 to 255
    except ValueError:
        values = b""
    if len(values) != SIDE_PX * SIDE_PX:
        raise DataError(
            f"{table}: row {record.number}: pixels are not {SIDE_PX * SIDE_PX} values from 0 to "
            "255; download the table again"
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(SIDE_PX, SIDE_PX)


def _count_lines(table: Path) -> int:
    with table.open("rb") as handle:
        chunks = iter(lambda: handle.read(_CHUNK_BYTES), b"")
        return sum(chunk.count(b"\n") for chunk in chunks)
