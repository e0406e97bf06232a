"""A spreadsheet that a data set comes with, CSV or XLSX, as rows of text; read row by row.

Its makers had people in mind: a title may stand above the header, and headers vary. So the header
is the first row that has the wanted columns under any of their usual names.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tasks.core.errors import DataError
from tasks.core.table_text import HEADER_WITHIN, OpenTable, check_span, open_table, sheets_of
from tasks.core.table_text import Row as NumberedRow
from tasks.core.text import MISSING_WORDS, clean, csv_text, is_missing, printable

# An .xls is not read, but named with what to do: it must not pass for a picture.
SUFFIXES: frozenset[str] = frozenset([".csv", ".tsv", ".xlsx", ".xls"])
_LONGEST_MISSING = max(map(len, MISSING_WORDS))

Row = tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """A row under the header: its number in the file (from 1) and its cells by wanted column."""

    number: int
    cells: Mapping[str, str]


@contextmanager
def open_rows(path: Path, sheet: int = 0) -> Iterator[Iterator[Row]]:
    """Open a table of `tasks.core.table_text` as rows of cleaned text.

    Raises
    ------
    DataError
        One line where it is no table.
    """
    with open_table(path, sheet) as table:
        yield (_cleaned(row.cells) for row in table.rows)


def read_records(
    path: Path, columns: Mapping[str, re.Pattern[str]], needed: Sequence[frozenset[str]]
) -> Iterator[Record]:
    """Read the rows below the header.

    Parameters
    ----------
    path
        The table.
    columns
        Wanted column to the headers that it may have (all of it, as `plain` writes it).
    needed
        Of each of these groups of wanted columns the header must have one (see `each`); cells of
        columns that are not there are "".

    Yields
    ------
    Record
        Rows with at least one cell filled.

    Raises
    ------
    DataError
        One line where no row is such a header, with what the first row says.
    """
    first: Row = ()
    for sheet in range(sheets_of(path)):
        with open_table(path, sheet) as table:
            for row in islice(table.rows, HEADER_WITHIN):
                header = _cleaned(row.cells)
                first = first or header
                places = _places(header, columns)
                if all(group & places.keys() for group in needed):
                    yield from _below(table, header, places, columns, path)
                    return
    shown = ", ".join(first)[:80] or "empty"
    wanted = " and ".join(" or ".join(sorted(group)) for group in needed)
    raise DataError(
        f"{path}: no header was understood (the first row is {shown}); it needs columns such as "
        f"{wanted}, or take the file away"
    )


def _below(
    table: OpenTable,
    header: Row,
    places: Mapping[str, int],
    columns: Mapping[str, object],
    path: Path,
) -> Iterator[Record]:
    again = _doubled(header, places)
    for row in table.rows:
        check_span(row, len(header), table.separator, path)
        cells = _cleaned(row.cells)
        if any(cells):
            _require_equal(row, cells, again, path)
            found = {name: cells[at] if at < len(cells) else "" for name, at in places.items()}
            found = {name: "" if _is_missing(cell) else cell for name, cell in found.items()}
            yield Record(row.line, {name: found.get(name, "") for name in columns})


def _doubled(header: Row, places: Mapping[str, int]) -> list[tuple[int, int]]:
    """Return pairs of places whose headers are the same, of the columns that are read."""
    return [
        (at, other)
        for at in places.values()
        for other, cell in enumerate(header)
        if other != at and plain(cell) == plain(header[at])
    ]


def _require_equal(
    row: NumberedRow, cells: Row, pairs: Sequence[tuple[int, int]], path: Path
) -> None:
    for at, other in pairs:
        one, two = (cells[place] if place < len(cells) else "" for place in (at, other))
        if one != two:
            raise DataError(
                f"{path}: two columns have the same header and differ (row {row.line}: "
                f"'{printable(one)}' and '{printable(two)}'); take one of them out"
            )


def _cleaned(cells: Sequence[str]) -> Row:
    return tuple(csv_text(clean(cell)) for cell in cells)


def _is_missing(cell: str) -> bool:
    return len(cell) <= _LONGEST_MISSING and is_missing(cell)


def each(columns: Iterable[str]) -> list[frozenset[str]]:
    """Return every column as a group of its own: all of them are needed."""
    return [frozenset([name]) for name in columns]


def plain(header: str) -> str:
    """Return a header without case, blanks and signs: `Age (in years)` is `ageinyears`."""
    return re.sub(r"[\W_]", "", header.casefold())


def _places(row: Row, columns: Mapping[str, re.Pattern[str]]) -> dict[str, int]:
    """Find which cell of a header row is which wanted column; the first that fits counts."""
    places: dict[str, int] = {}
    for place, cell in enumerate(row):
        for name, headers in columns.items():
            if headers.fullmatch(plain(cell)):
                places.setdefault(name, place)
    return places
