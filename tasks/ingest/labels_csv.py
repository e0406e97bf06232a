"""`labels.csv`: what a user writes beside a folder of pictures, one row a picture.

The header names columns of the manifest; rows are matched to files by path, or by a bare name that
occurs once. Names are compared after Unicode normalisation, because archives made on macOS hold
decomposed Hangul and spreadsheets hold composed Hangul.
"""

import csv
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import DataError
from tasks.core.labels import AGE_SOURCES
from tasks.ingest.label import parse_age, parse_gender

NAME = "labels.csv"

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
    """One row: where it stands, the file it names and what it says of it (cells are stripped)."""

    where: str
    file: str
    age_years: float | None
    gender: str
    cells: Mapping[str, str]

    def text(self, column: str) -> str | None:
        """Return a cell, or None where the column is absent or the cell is empty."""
        return self.cells.get(column) or None


def read_rows(path: Path) -> list[Row]:
    """Read a `labels.csv`.

    Raises
    ------
    DataError
        One line: not UTF-8, no header, an unknown or doubled column, a row with more or fewer
        cells than the header, an age that is no number, an unknown gender or age source.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle, strict=True)
            header = _check_header(next(reader, []), path)
            return list(_rows(reader, header, path))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not UTF-8 (byte {error.start}); save it as 'CSV UTF-8'"
        ) from None
    except (csv.Error, OSError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None


def match_rows(rows: Sequence[Row], files: Sequence[str]) -> tuple[dict[str, Row], list[Row]]:
    """Match rows to files.

    Parameters
    ----------
    rows
        Rows of a `labels.csv`.
    files
        Paths below the data set's folder.

    Returns
    -------
    tuple of dict and list
        File to row, and the rows whose file is not there.

    Raises
    ------
    DataError
        One line for a bare name that several files bear, or a file with two rows.
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
    """Finds the file that a row names."""

    def __init__(self, files: Sequence[str]) -> None:
        self.exact = frozenset(files)
        self.composed = {unicodedata.normalize("NFC", file): file for file in files}
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for composed, file in self.composed.items():
            self.by_name[composed.rsplit("/", 1)[-1]].append(file)

    def find(self, row: Row) -> str | None:
        if row.file in self.exact:
            return row.file
        path = posixpath.normpath(unicodedata.normalize("NFC", row.file.replace("\\", "/")))
        if path in self.composed:
            return self.composed[path]
        same_name = self.by_name.get(path, [])
        if len(same_name) > 1:
            raise DataError(
                f"{row.where}: '{row.file}' could be {same_name[0]} or {same_name[1]}; "
                "write the path"
            )
        return same_name[0] if same_name else None


def _check_header(cells: Sequence[str], path: Path) -> list[str]:
    header = [cell.strip().lower() for cell in cells]
    allowed = (*FILE_COLUMNS, *VALUE_COLUMNS)
    unknown = [column for column in header if column not in allowed]
    if unknown:
        raise DataError(
            f"{path}: unknown column '{unknown[0]}'; allowed, separated by commas: "
            + ", ".join(allowed)
        )
    if len(set(header)) != len(header):
        raise DataError(f"{path}: a column occurs twice in the header ({', '.join(header)})")
    if len(set(header) & set(FILE_COLUMNS)) != 1:
        raise DataError(f"{path}: the header needs one column 'path' (or 'file')")
    return header


def _rows(reader: Iterator[list[str]], header: Sequence[str], path: Path) -> Iterator[Row]:
    for number, cells in enumerate(reader, start=2):
        if not any(cell.strip() for cell in cells):
            continue  # spreadsheets end in empty lines
        where = f"{path}: row {number}"
        if len(cells) != len(header):
            raise DataError(f"{where} has {len(cells)} cells, the header {len(header)}")
        values = {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
        file = values.pop("path", "") or values.pop("file", "")
        if not file:
            raise DataError(f"{where} names no file")
        if values.get("age_source") and values["age_source"] not in AGE_SOURCES:
            raise DataError(
                f"{where}: age_source '{values['age_source']}'; write one of "
                + ", ".join(AGE_SOURCES)
            )
        age_years = parse_age(values.get("age_years", ""), where)
        yield Row(where, file, age_years, parse_gender(values.get("gender", ""), where), values)
