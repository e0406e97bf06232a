"""`labels.csv`: a user's table of labels in a folder of images, one row per image.

The header names columns of the manifest. Rows are matched to files by path, or by a bare name that
occurs once. Names are compared after cleaning (`tasks.core.text.clean`), because archives made on
macOS contain decomposed Hangul and spreadsheets composed Hangul. The table may have any format that
`tasks.core.spreadsheets.text_table` reads.
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import DataError
from tasks.core.labels import AGE_SOURCES
from tasks.core.spreadsheets.cells import decimal_point, why_spoiled
from tasks.core.spreadsheets.text_table import NamedTable, read_named_table
from tasks.core.spreadsheets.text_table import Row as TableRow
from tasks.core.text import clean, clean_or_none, csv_text, printable
from tasks.ingest.label import parse_age, parse_gender

NAME = "labels.csv"
# Accepted names, in any case. Windows writes `labels.csv.txt` while it hides file extensions.
_ACCEPTED_NAMES: frozenset[str] = frozenset([NAME, "labels.csv.txt", "labels.tsv", "labels.xlsx"])
# Similar names that are not accepted: copies and other formats.
_SIMILAR = re.compile(
    r"(?:copy of |kopie von )?labels?(?:[ _-]*(?:\(\d+\)|copy|kopie|복사본|final|new|v?\d+))*"
    r"(?:\.(?:csv|tsv|txt|xlsx?|xlsm|xlsb|ods|numbers))+",
    re.IGNORECASE,
)

FILE_COLUMNS: tuple[str, ...] = ("path", "file")
VALUE_COLUMNS: tuple[str, ...] = (
    "emotion",
    "subject_id",
    "age_years",
    "age_band",
    "age_source",
    "gender",
    "ethnicity",
    "gaze",
    "mouth",
    "pose",
    "batch",
)


@dataclass(frozen=True)
class Row:
    """One row: its location for messages, the file that it names, and its non-empty cells."""

    where: str
    file: str
    age_years: float | None
    gender: str
    cells: Mapping[str, str]

    def text(self, column: str) -> str | None:
        """Return a cell, None where the column or the value is missing."""
        return self.cells.get(column)


@dataclass(frozen=True)
class Labels:
    """The rows of a table of labels, and notes on how it was read."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def find_table(files: Sequence[str]) -> str | None:
    """Return the table of labels among paths below a folder; DataError for several."""
    tables = sorted(file for file in files if clean(file).lower() in _ACCEPTED_NAMES)
    if len(tables) > 1:
        names = " and ".join(map(printable, tables))
        raise DataError(f"{names} could both be the table of labels; remove all but one")
    return tables[0] if tables else None


def similar_files(files: Sequence[str]) -> list[str]:
    """Return files that look like a table of labels but are not read as one."""
    table = find_table(files)
    return [
        file
        for file in files
        if file != table and _SIMILAR.fullmatch(clean(file.rsplit("/", 1)[-1]))
    ]


def require_no_similar(folder: Path, files: Sequence[str]) -> None:
    """Raise DataError where labels would be ignored because of their file's name."""
    if similar := similar_files(files):
        names = ", ".join(map(printable, similar[:3])) + ", …" * (len(similar) > 3)
        raise DataError(
            f"{folder}: {names} looks like a table of labels, but only {NAME} in the top-level "
            f"folder is read; rename it to {NAME} (CSV) or labels.xlsx, or remove it"
        )


def read_labels(path: Path) -> Labels:
    """Read a table of labels.

    Raises
    ------
    DataError
        For a file that is not a table, an unknown column, two columns of one name that differ, a
        row whose length differs from the header's, an age that is not a number, an age band or
        subject that Excel turned into a date, or an unknown gender or age source.
    """
    table = read_named_table(path, _column, lambda names: bool(names & set(FILE_COLUMNS)))
    _check_header(table, path)
    for misfit in table.misfits:
        raise DataError(f"{path}: row {misfit.line} {misfit.detail}")
    for line in table.short:
        raise DataError(
            f"{path}: row {line} has fewer cells than the header, which has {len(table.columns)}"
        )
    notes = tuple(f"{path.name}: {note}" for note in table.notes)
    return Labels(tuple(_rows(table, path)), notes)


def match_rows(rows: Sequence[Row], files: Sequence[str]) -> tuple[dict[str, Row], list[Row]]:
    """Return the row of each file, and the rows whose file does not exist.

    Raises DataError for a bare name that several files have, and for a file with two rows.
    """
    finder = _Finder(files)
    matched: dict[str, Row] = {}
    missing: list[Row] = []
    for row in rows:
        file = finder.find(row)
        if file is None:
            missing.append(row)
        elif file in matched:
            raise DataError(f"{row.where}: '{row.file}' has a row already ({matched[file].where})")
        else:
            matched[file] = row
    return matched, missing


class _Finder:
    """Finds files by the paths or names in rows."""

    def __init__(self, files: Sequence[str]) -> None:
        self.exact = frozenset(files)
        self.composed = {clean(file): file for file in files}
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for composed, file in self.composed.items():
            self.by_name[composed.rsplit("/", 1)[-1]].append(file)

    def find(self, row: Row) -> str | None:
        if row.file in self.exact:
            return row.file
        path = posixpath.normpath(clean(row.file).replace("\\", "/"))
        if path in self.composed:
            return self.composed[path]
        same_name = self.by_name.get(path, [])
        if len(same_name) > 1:
            raise DataError(
                f"{row.where}: '{row.file}' could be {same_name[0]} or {same_name[1]}; "
                "write the path"
            )
        return same_name[0] if same_name else None


def _column(cell: str) -> str:
    return clean(cell).lower()


def _check_header(table: NamedTable, path: Path) -> None:
    allowed = (*FILE_COLUMNS, *VALUE_COLUMNS)
    unknown = [column for column in table.columns if column not in allowed]
    if unknown:
        raise DataError(
            f"{path}: unknown column '{printable(unknown[0])}'; allowed are: " + ", ".join(allowed)
        )
    if len(set(table.columns) & set(FILE_COLUMNS)) != 1:
        raise DataError(f"{path}: the header needs one column 'path' (or 'file')")


def _rows(table: NamedTable, path: Path) -> Iterator[Row]:
    for row in table.rows:
        where = f"{path}: row {row.line}"
        file, values = _values(table, row, where)
        if values.get("age_source") not in (None, *AGE_SOURCES):
            raise DataError(
                f"{where}: age_source '{values['age_source']}'; write one of "
                + ", ".join(AGE_SOURCES)
            )
        age_years = parse_age(decimal_point(values.get("age_years", ""), table.separator), where)
        yield Row(where, file, age_years, parse_gender(values.get("gender", ""), where), values)


def _values(table: NamedTable, row: TableRow, where: str) -> tuple[str, dict[str, str]]:
    """Return the file that a row names, and the non-empty cells."""
    file, values = "", {}
    for column, cell in zip(table.columns, row.cells, strict=True):
        if column in FILE_COLUMNS:  # a file may have any name, even "None"
            file = cell.strip()
        elif value := clean_or_none(csv_text(clean(cell))):
            values[column] = value
    if not file:
        raise DataError(f"{where} names no file")
    for column in ("subject_id", "age_years", "age_band"):
        reason = why_spoiled(values.get(column, ""), in_ids=column == "subject_id")
        if reason:
            raise DataError(f"{where}: column {column}: {reason}")
    return file, values
