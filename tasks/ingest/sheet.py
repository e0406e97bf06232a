"""A spreadsheet that a data set comes with, CSV or XLSX, as rows of text; read row by row.

Its makers had people in mind: a title may stand above the header, and headers vary. So the header
is the first row that has the wanted columns under any of their usual names.
"""

import csv
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError

from tasks.core.errors import DataError

if TYPE_CHECKING:
    from openpyxl import Workbook

SUFFIXES: frozenset[str] = frozenset([".csv", ".tsv", ".xlsx"])
_HEADER_WITHIN = 20  # rows

Row = tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """A row under the header: its number in the file (from 1) and its cells by wanted column."""

    number: int
    cells: Mapping[str, str]


@contextmanager
def open_rows(path: Path, sheet: int = 0) -> Iterator[Iterator[Row]]:
    """Open a CSV (comma, semicolon or tab) or a sheet of an XLSX as rows of stripped text.

    Raises
    ------
    DataError
        One line where it is neither.
    """
    try:
        if _is_xlsx(path):
            with _open_book(path) as book:
                rows = book.worksheets[sheet].iter_rows(values_only=True)
                yield (tuple(_text(cell) for cell in row) for row in rows)
        else:
            with path.open(encoding="utf-8-sig", newline="") as handle:
                separator = _separator(handle.readline())
                handle.seek(0)
                rows = csv.reader(handle, delimiter=separator)
                yield (tuple(cell.strip() for cell in row) for row in rows)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not UTF-8 (byte {error.start}); save it as 'CSV UTF-8' or XLSX"
        ) from None
    except (csv.Error, zipfile.BadZipFile, KeyError, ValueError, ParseError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from None


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
    for sheet in range(_count_sheets(path)):
        with open_rows(path, sheet) as rows:
            numbered = enumerate(rows, start=1)
            for _, row in islice(numbered, _HEADER_WITHIN):
                first = first or row
                places = _places(row, columns)
                if all(group & places.keys() for group in needed):
                    yield from _below(numbered, places, columns)
                    return
    shown = ", ".join(first)[:80] or "empty"
    wanted = " and ".join(" or ".join(sorted(group)) for group in needed)
    raise DataError(
        f"{path}: no header was understood (the first row is {shown}); it needs columns such as "
        f"{wanted}, or take the file away"
    )


def _below(
    numbered: Iterator[tuple[int, Row]], places: Mapping[str, int], columns: Mapping[str, object]
) -> Iterator[Record]:
    for number, row in numbered:
        if any(row):
            cells = {name: row[at] if at < len(row) else "" for name, at in places.items()}
            yield Record(number, {name: cells.get(name, "") for name in columns})


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


def _separator(line: str) -> str:
    return max(",;\t", key=line.count)


def _is_xlsx(path: Path) -> bool:
    return path.suffix.lower() == ".xlsx"


def _count_sheets(path: Path) -> int:
    if not _is_xlsx(path):
        return 1
    with open_rows(path), _open_book(path) as book:  # the first tells a torn file in our words
        return len(book.worksheets)


@contextmanager
def _open_book(path: Path) -> Iterator["Workbook"]:
    import openpyxl  # 0.3 s, for the sets that come with one

    with closing(openpyxl.load_workbook(path, read_only=True, data_only=True)) as book:
        yield book


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()
