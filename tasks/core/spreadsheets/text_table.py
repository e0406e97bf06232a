"""Tables from spreadsheets and scripts, read as text: any kind of CSV, or an Excel workbook.

The encoding (UTF-8, UTF-16, Korean cp949), the separator (comma, semicolon, tab, or the one in a
line `sep=`) and the header (a title may precede it) are detected. Every row has the number of its
first line. An unclosed quote that swallows lines is an error with its line number; rows are never
lost silently.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

from tasks.core.errors import DataError
from tasks.core.spreadsheets.encodings import (
    ZIP_MARK,
    count_sheets,
    encoding_of,
    first_bytes,
    open_sheet,
    refuse_old_workbook,
)
from tasks.core.text import printable

HEADER_WITHIN = 20  # first non-empty rows
_SEPARATORS = ",;\t"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;\t]*', re.IGNORECASE)
_SAMPLE = 1 << 16  # characters from which the separator is detected
_SAMPLE_ROWS = 30


class Row(NamedTuple):
    """A row: its first line in the file (from 1), its cells, and its number of lines."""

    line: int
    cells: tuple[str, ...]
    lines: int = 1


class Misfit(NamedTuple):
    """A rejected row: its line, a fixed reason, and details."""

    line: int
    reason: str
    detail: str


@dataclass(frozen=True)
class OpenTable:
    """A table being read: its rows, the separator ("" for a workbook), and notes."""

    rows: Iterator[Row]
    separator: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NamedTable:
    """A table with a header."""

    columns: tuple[str, ...]  # unique; columns without a name are dropped
    header_line: int = 0  # 0: no header was found, and `columns` are the cells of the first row
    rows: list[Row] = field(default_factory=list)  # not empty, with one cell per column
    misfits: tuple[Misfit, ...] = ()  # rows with extra cells, and repeated headers
    short: tuple[int, ...] = ()  # lines of rows with fewer cells than the header
    separator: str = ","  # "" for a workbook
    notes: tuple[str, ...] = ()  # sentences for the user about how the table was read


@contextmanager
def open_table(path: Path, sheet: int = 0) -> Iterator[OpenTable]:
    """Open a text table, or a sheet of a workbook, to read it row by row.

    Opening it or reading rows raises DataError for a missing file, a binary file, an unknown
    encoding or an unclosed quote.
    """
    if is_workbook(path):
        with open_sheet(path, sheet) as rows:
            numbered = (Row(number, cells) for number, cells in enumerate(rows, start=1))
            yield OpenTable(numbered, "")
        return
    encoding, notes = encoding_of(path)
    with path.open(encoding=encoding, newline="") as handle:
        separator, first_line = _separator(handle)
        yield OpenTable(_rows(handle, separator, first_line, path), separator, notes)


def is_workbook(path: Path) -> bool:
    """Return whether a file is an .xlsx workbook; raises DataError for an `.xls`."""
    start = first_bytes(path)
    refuse_old_workbook(path, start)
    return start.startswith(ZIP_MARK) or path.suffix.lower() == ".xlsx"


def sheets_of(path: Path) -> int:
    """Return the number of sheets: 1 for a text table."""
    return count_sheets(path) if is_workbook(path) else 1


def read_named_table(
    path: Path, name_of: Callable[[str], str], is_header: Callable[[frozenset[str]], bool]
) -> NamedTable:
    """Read a table whose header is recognized by its columns.

    Raises DataError as `open_table` does, for different columns with the same name, and for a
    quoted cell that swallows rows.

    Parameters
    ----------
    name_of
        Converts a cell of the header to a column name; "" for none.
    is_header
        Returns whether a row with these names is the header. The first 20 rows of each sheet are
        searched.
    """
    first: tuple[str, ...] = ()
    n_sheets = sheets_of(path)
    for sheet in range(n_sheets):
        with open_table(path, sheet) as table:
            filled = (row for row in table.rows if any(row.cells))
            for index, row in enumerate(islice(filled, HEADER_WITHIN)):
                names = [name_of(cell) for cell in row.cells]
                if is_header(frozenset(names)):
                    notes = [*table.notes]
                    if index:
                        notes.append(f"the header is in line {row.line}, below a title")
                    if n_sheets > 1:
                        notes.append(f"sheet {sheet + 1} of {n_sheets} was read")
                    return _read_body(table, row.line, names, notes, path)
                first = first or tuple(filter(None, names))
    return NamedTable(tuple(dict.fromkeys(first)))


def check_span(row: Row, width: int, separator: str, path: Path) -> None:
    """Raise DataError if a quoted cell of a row has swallowed other rows."""
    if row.lines == 1:
        return
    line_breaks = [len(re.findall(r"\r\n|\r|\n", cell)) for cell in row.cells]
    swallowed = any(
        count and cell.count(separator) >= (width - 1) * count
        for cell, count in zip(row.cells, line_breaks, strict=True)
    )
    if swallowed or len(row.cells) != width:
        raise DataError(
            f"{path}: a quote that opens in line {row.line} takes in the lines to "
            f"{row.line + row.lines - 1}; remove the stray quote, or the line breaks in that cell"
        )


def _read_body(
    table: OpenTable, header_line: int, names: list[str], notes: list[str], path: Path
) -> NamedTable:
    """Read the rows below a header."""
    width = max((index for index, name in enumerate(names, start=1) if name), default=0)
    named = [index for index, name in enumerate(names) if name]
    rows: list[Row] = []
    misfits: list[Misfit] = []
    short: list[int] = []
    unnamed: dict[int, None] = {}  # columns without a name that have cells
    header = tuple(names[:width])
    for row in table.rows:
        cells = row.cells
        if row.lines > 1:
            check_span(row, len(names), table.separator, path)
        if len(cells) > width:
            if any(map(str.strip, cells[width:])):
                used = max(index for index, cell in enumerate(cells, start=1) if cell.strip())
                detail = f"has {used} cells, the header {width}"
                misfits.append(Misfit(row.line, "extra_cells", detail))
                continue
            cells = cells[:width]
        elif len(cells) < width:
            short += [row.line] if any(map(str.strip, cells)) and table.separator else []
            cells = (*cells, *[""] * (width - len(cells)))
        if not any(cells) or not any(map(str.strip, cells)):
            continue  # spreadsheets often end with empty rows
        if cells[named[0]] and cells == header:
            misfits.append(Misfit(row.line, "repeated_header", "is the header again"))
            continue
        rows.append(Row(row.line, cells, row.lines))
        if len(named) < width:
            unnamed |= {i: None for i in range(width) if not names[i] and cells[i].strip()}
    notes += [f"column {index + 1} has no name and is not used" for index in unnamed]
    indices, duplicate_notes = _unique_columns(header, rows, path)
    columns = tuple(header[index] for index in indices)
    if len(indices) < width:
        rows = [Row(row.line, tuple(row.cells[i] for i in indices), row.lines) for row in rows]
    notes += duplicate_notes
    return NamedTable(
        columns, header_line, rows, tuple(misfits), tuple(short), table.separator, tuple(notes)
    )


def _unique_columns(
    names: Sequence[str], rows: Sequence[Row], path: Path
) -> tuple[list[int], list[str]]:
    """Return the indices of columns with unique names; columns of the same name must not differ."""
    indices: dict[str, int] = {}
    notes = []
    for index, name in enumerate(names):
        if not name:
            continue
        first = indices.setdefault(name, index)
        if first == index:
            continue
        for row in rows:
            one, other = row.cells[first].strip(), row.cells[index].strip()
            if one != other:
                raise DataError(
                    f"{path}: has two columns that mean '{name}', and they differ (line "
                    f"{row.line}: '{printable(one)}' and '{printable(other)}'); keep one of them"
                )
        notes.append(f"column '{name}' occurs twice with the same cells and was read once")
    return list(indices.values()), notes


def _rows(handle: TextIO, separator: str, first_line: int, path: Path) -> Iterator[Row]:
    reader = csv.reader(handle, delimiter=separator, strict=True)
    line = first_line
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}: cannot be read as CSV: a quote that opens in line {line} is not closed "
                f"before a separator ({error}); remove the stray quote"
            ) from None
        after = first_line + reader.line_num
        yield Row(line, tuple(cells), after - line)
        line = after


def _separator(handle: TextIO) -> tuple[str, int]:
    """Return the separator and the number of the first line, which is 2 after a line `sep=`."""
    sample = handle.read(_SAMPLE)
    complete = len(sample) < _SAMPLE
    handle.seek(0)
    lines = sample.splitlines(keepends=True)
    named = _SEPARATOR_LINE.fullmatch(lines[0].rstrip("\r\n")) if lines else None
    if named:
        handle.readline()
        return named[1], 2
    lines = lines if complete or len(lines) < 2 else lines[:-1]
    return max(_SEPARATORS, key=lambda separator: _regularity(lines, separator)), 1


def _regularity(lines: list[str], separator: str) -> tuple[float, int, int]:
    """Return a score of how well a separator makes rows of the same width; higher is better."""
    try:
        rows = list(islice(csv.reader(lines, delimiter=separator), _SAMPLE_ROWS))
    except csv.Error:
        return 0.0, 0, 0
    filled = [row for row in rows if any(map(str.strip, row))]
    widths = Counter(len(row) for row in filled if len(row) > 1)
    if not widths:
        return 0.0, 0, 0
    width, count = widths.most_common(1)[0]
    others = set(_SEPARATORS) - {separator}
    clean = sum(len(row) == width and not others & set(row[0]) for row in filled)
    return count / len(filled), clean, width
