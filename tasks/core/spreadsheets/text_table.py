"""Tables as spreadsheets and scripts write them, read as text: CSV of any kind, or a workbook.

The encoding (UTF-8, UTF-16, Korean cp949), the separator (comma, semicolon, tab, or as a line
`sep=` has it) and the header (a title may stand above it) are detected. Every row knows the line on
which it begins. A quote that swallows the lines below it is an error that names its line, never a
table with fewer rows.
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

HEADER_WITHIN = 20  # rows that are not empty
_SEPARATORS = ",;\t"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;\t]*', re.IGNORECASE)
_SAMPLE = 1 << 16  # characters in which the separator shows
_SAMPLE_ROWS = 30


class Row(NamedTuple):
    """A row: the line of the file on which it begins (from 1), its cells, and how many lines."""

    line: int
    cells: tuple[str, ...]
    lines: int = 1


class Misfit(NamedTuple):
    """A row that is no row of the table: its line, a fixed word, and what is wrong."""

    line: int
    reason: str
    detail: str


@dataclass(frozen=True)
class OpenTable:
    """A table that is being read: rows as they come, the separator ("" in a workbook), notes."""

    rows: Iterator[Row]
    separator: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NamedTable:
    """A table with a header.

    Attributes
    ----------
    columns
        Names of the columns, each once; columns without a name are left out.
    header_line
        The line of the header; 0 where no row is one, then `columns` are those of the first row.
    rows
        Rows that are not empty, with one cell per column.
    misfits
        Rows with cells beyond the header, and headers that occur again.
    short
        Lines of the rows with fewer cells than the header.
    separator
        What separates the cells; "" in a workbook.
    notes
        What a reader should know of how the table was read, one sentence each.
    """

    columns: tuple[str, ...]
    header_line: int = 0
    rows: list[Row] = field(default_factory=list)
    misfits: tuple[Misfit, ...] = ()
    short: tuple[int, ...] = ()
    separator: str = ","
    notes: tuple[str, ...] = ()


@contextmanager
def open_table(path: Path, sheet: int = 0) -> Iterator[OpenTable]:
    """Open a text table, or a sheet of a workbook, row by row; cells are as they are written.

    Raises
    ------
    DataError
        One line, here or from the rows: no such file, no text, an encoding that cannot be told, or
        a quote that is not closed.
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
    """Whether a file is an .xlsx workbook, by its content; raises DataError for an `.xls`."""
    start = first_bytes(path)
    refuse_old_workbook(path, start)
    return start.startswith(ZIP_MARK) or path.suffix.lower() == ".xlsx"


def sheets_of(path: Path) -> int:
    """Return how many sheets a table has: 1 for text."""
    return count_sheets(path) if is_workbook(path) else 1


def read_named_table(
    path: Path, name_of: Callable[[str], str], is_header: Callable[[frozenset[str]], bool]
) -> NamedTable:
    """Read a table whose header is recognized by its columns.

    Parameters
    ----------
    path
        The table.
    name_of
        Brings a cell of the header to a column's name; "" for none.
    is_header
        Whether a row with these names is the header; it is looked for in the first 20 rows of each
        sheet.

    Raises
    ------
    DataError
        One line: see `open_table`; two columns of one name that differ; a cell that swallows lines.
    """
    first: tuple[str, ...] = ()
    n_sheets = sheets_of(path)
    for sheet in range(n_sheets):
        with open_table(path, sheet) as table:
            filled = (row for row in table.rows if any(row.cells))
            for above, row in enumerate(islice(filled, HEADER_WITHIN)):
                names = [name_of(cell) for cell in row.cells]
                if is_header(frozenset(names)):
                    notes = [*table.notes]
                    if above:
                        notes.append(f"the header is in line {row.line}, below a title")
                    if n_sheets > 1:
                        notes.append(f"sheet {sheet + 1} of {n_sheets} was read")
                    return _below(table, row.line, names, notes, path)
                first = first or tuple(filter(None, names))
    return NamedTable(tuple(dict.fromkeys(first)))


def check_span(row: Row, width: int, separator: str, path: Path) -> None:
    """Raise DataError where a row's quoted cell has swallowed lines that were rows."""
    if row.lines == 1:
        return
    breaks = [len(re.findall(r"\r\n|\r|\n", cell)) for cell in row.cells]
    swallowed = any(
        count and cell.count(separator) >= (width - 1) * count
        for cell, count in zip(row.cells, breaks, strict=True)
    )
    if swallowed or len(row.cells) != width:
        raise DataError(
            f"{path}: a quote that opens in line {row.line} takes in the lines to "
            f"{row.line + row.lines - 1}; remove the stray quote, or the line breaks in that cell"
        )


def _below(
    table: OpenTable, header_line: int, names: list[str], notes: list[str], path: Path
) -> NamedTable:
    """Read the rows below a header."""
    width = max((at for at, name in enumerate(names, start=1) if name), default=0)
    places = [at for at, name in enumerate(names) if name]
    rows: list[Row] = []
    misfits: list[Misfit] = []
    short: list[int] = []
    nameless: dict[int, None] = {}
    named = tuple(names[:width])
    for row in table.rows:
        cells = row.cells
        if row.lines > 1:
            check_span(row, len(names), table.separator, path)
        if len(cells) > width:
            if any(map(str.strip, cells[width:])):
                used = max(at for at, cell in enumerate(cells, start=1) if cell.strip())
                detail = f"has {used} cells, the header {width}"
                misfits.append(Misfit(row.line, "extra_cells", detail))
                continue
            cells = cells[:width]
        elif len(cells) < width:
            short += [row.line] if any(map(str.strip, cells)) and table.separator else []
            cells = (*cells, *[""] * (width - len(cells)))
        if not any(cells) or not any(map(str.strip, cells)):
            continue  # spreadsheets end in empty lines and in lines of separators
        if cells[places[0]] and cells == named:
            misfits.append(Misfit(row.line, "repeated_header", "is the header again"))
            continue
        rows.append(Row(row.line, cells, row.lines))
        if len(places) < width:
            nameless |= {at: None for at in range(width) if not names[at] and cells[at].strip()}
    notes += [f"column {at + 1} has no name and is not used" for at in nameless]
    lines, more = _once_each(named, rows, path)
    columns = tuple(named[at] for at in lines)
    if len(lines) < width:
        rows = [Row(row.line, tuple(row.cells[at] for at in lines), row.lines) for row in rows]
    return NamedTable(
        columns, header_line, rows, tuple(misfits), tuple(short), table.separator, (*notes, *more)
    )


def _once_each(
    names: Sequence[str], rows: Sequence[Row], path: Path
) -> tuple[list[int], list[str]]:
    """Return the places of the columns, one per name; columns of one name must not differ."""
    places: dict[str, int] = {}
    notes = []
    for at, name in enumerate(names):
        if not name:
            continue
        before = places.setdefault(name, at)
        if before == at:
            continue
        for row in rows:
            one, other = (row.cells[place].strip() for place in (before, at))
            if one != other:
                raise DataError(
                    f"{path}: has two columns that mean '{name}', and they differ (line "
                    f"{row.line}: '{printable(one)}' and '{printable(other)}'); keep one of them"
                )
        notes.append(f"column '{name}' occurs twice with the same cells and was read once")
    return list(places.values()), notes


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
    """Return the separator and the number of the first line below a line `sep=`."""
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
    """Return how well a separator cuts rows of the same width: larger is better."""
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
