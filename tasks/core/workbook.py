"""Excel workbooks (.xlsx) as rows of text, read row by row.

A workbook is a zip archive of XML: its members' sizes are checked before any is read, and whatever
openpyxl raises on a damaged one becomes one line.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from tasks.core.errors import DataError

ZIP_MARK, OLE_MARK = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_LARGEST_BYTES = 1 << 28  # of all members when unpacked
_NEEDED = "xl/workbook.xml"
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error, ParseError, OSError, EOFError),
    *(KeyError, ValueError, TypeError, AttributeError, IndexError, ArithmeticError, RuntimeError),
)


def refuse_old_workbook(path: Path, start: bytes) -> None:
    """Raise DataError, with advice, for the first bytes of an `.xls` or an encrypted workbook."""
    if start.startswith(OLE_MARK):
        raise DataError(
            f"{path}: is an old Excel workbook (.xls) or one with a password, which is not read; "
            "save it as .xlsx without a password, or as 'CSV UTF-8'"
        )


def count_sheets(path: Path) -> int:
    """Return how many sheets a workbook has; raises DataError as `open_sheet`."""
    with _open_book(path) as book:
        return len(book.worksheets)


@contextmanager
def open_sheet(path: Path, sheet: int) -> Iterator[Iterator[tuple[str, ...]]]:
    """Open a sheet as rows of text, an empty tuple for an empty row.

    Raises
    ------
    DataError
        One line where it is no workbook, or damaged.
    """
    with _open_book(path) as book:
        yield _rows(book.worksheets[sheet], path)


@contextmanager
def _open_book(path: Path) -> Iterator[Any]:
    import openpyxl  # 0.3 s, for those who have a workbook

    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member.file_size for member in archive.infolist()}
        _check_members(path, members)
        handle = path.open("rb")  # a name would have to end in .xlsx
        book = openpyxl.load_workbook(handle, read_only=True, data_only=True)
    except _DAMAGED as error:
        raise _damaged(path, error) from None
    try:
        yield book
    finally:
        book.close()
        handle.close()


def _check_members(path: Path, members: dict[str, int]) -> None:
    if _NEEDED not in members:
        raise DataError(
            f"{path}: cannot be read as a table (a zip archive, but no Excel workbook); save it as "
            ".xlsx or 'CSV UTF-8'"
        )
    if sum(members.values()) > _LARGEST_BYTES:
        raise DataError(
            f"{path}: unpacks to more than {_LARGEST_BYTES >> 20} MB; save it as 'CSV UTF-8'"
        )


def _rows(sheet: Any, path: Path) -> Iterator[tuple[str, ...]]:
    try:
        sheet.reset_dimensions()  # a sheet may claim 16,384 columns, and each row gets them
        for row in sheet.iter_rows(values_only=True):
            yield tuple("" if cell is None else str(cell) for cell in row)
    except _DAMAGED as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    words = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(f"{path}: cannot be read as a table ({words})")
