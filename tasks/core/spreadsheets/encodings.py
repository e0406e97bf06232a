"""Encodings of text tables (UTF-8, UTF-16, Korean cp949), and Excel workbooks as rows of text.

A workbook is a zip archive of XML. The sizes of its members are checked before any is read, and
all errors of openpyxl for a damaged one become a DataError.
"""

import codecs
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from tasks.core.errors import DataError

_CHUNK_BYTES = 1 << 16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose BOM is a prefix of it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_NEUTRAL = re.compile("[\u3000-\u303f\u3131-\u318e\uff00-\uffef]")  # punctuation, single letters
ZIP_MARK, OLE_MARK = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_LARGEST_BYTES = 1 << 28  # of all members, unpacked
_NEEDED = "xl/workbook.xml"
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error, ParseError, OSError, EOFError),
    *(KeyError, ValueError, TypeError, AttributeError, IndexError, ArithmeticError, RuntimeError),
)


def first_bytes(path: Path) -> bytes:
    """Return the first 4 KB of a file; raises DataError if it is missing or unreadable."""
    try:
        if not path.is_file():
            raise DataError(f"{path}: {'is no file' if path.exists() else 'no such file'}")
        with path.open("rb") as handle:
            return handle.read(4096)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def encoding_of(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return a text file's encoding for `open`, with a note if it is not UTF-8.

    Raises DataError if the file is not text or has another encoding.
    """
    start = first_bytes(path)
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    name = marked or _unmarked_utf16(start)
    if name:
        if _decodes(path, name):
            return name, (f"read as {name[:6].upper()}, not UTF-8",)
        raise DataError(
            f"{path}: starts like {name[:6].upper()} text but cannot be decoded; save it as "
            "'CSV UTF-8'"
        )
    if _has_nul(path):
        raise DataError(f"{path}: is not UTF-8 text (it holds NUL bytes); save it as 'CSV UTF-8'")
    if _decodes(path, "utf-8"):
        return "utf-8-sig", ()
    korean = _korean(path)
    if korean is None:
        raise DataError(
            f"{path}: is not UTF-8 text, nor UTF-16 or Korean cp949; save it as 'CSV UTF-8'"
        )
    return "cp949", (f"read as cp949 (Korean Windows), not UTF-8, for example '{korean}'",)


def _unmarked_utf16(start: bytes) -> str | None:
    """Detect UTF-16 without a BOM by the NUL in one of the two bytes of each ASCII character."""
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if max(even, odd) * 10 < len(start) or min(even, odd) * 10 > max(even, odd):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as handle:
        yield from iter(lambda: handle.read(_CHUNK_BYTES), b"")


def _has_nul(path: Path) -> bool:
    return any(b"\0" in chunk for chunk in _chunks(path))


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for chunk in _chunks(path):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _korean(path: Path) -> str | None:
    """Return the first Korean words of a cp949 text; None if it is not Korean.

    Texts in other encodings often decode as cp949 too, but into rare syllables and Chinese
    characters. At least four fifths must be syllables of the older standard KS X 1001.
    """
    decoder = codecs.getincrementaldecoder("cp949")()
    words: Counter[str] = Counter()
    try:
        for chunk in _chunks(path):
            words.update(_NOT_ASCII.findall(decoder.decode(chunk)))
        words.update(_NOT_ASCII.findall(decoder.decode(b"", final=True)))
    except UnicodeDecodeError:
        return None
    common = rare = 0
    for word, count in words.items():
        letters = _NEUTRAL.sub("", word)
        in_standard = sum("가" <= letter <= "힣" and _in_ks_x_1001(letter) for letter in letters)
        common += in_standard * count
        rare += (len(letters) - in_standard) * count
    return next(iter(words)) if common and common >= 4 * rare else None


def _in_ks_x_1001(letter: str) -> bool:
    try:
        return len(letter.encode("euc_kr")) == 2
    except UnicodeEncodeError:
        return False


def refuse_old_workbook(path: Path, start: bytes) -> None:
    """Raise DataError with advice if a file starts like an `.xls` or an encrypted workbook."""
    if start.startswith(OLE_MARK):
        raise DataError(
            f"{path}: is an old Excel workbook (.xls) or one with a password, which is not read; "
            "save it as .xlsx without a password, or as 'CSV UTF-8'"
        )


def count_sheets(path: Path) -> int:
    """Return the number of sheets of a workbook; raises DataError like `open_sheet`."""
    with _open_book(path) as book:
        return len(book.worksheets)


@contextmanager
def open_sheet(path: Path, sheet: int) -> Iterator[Iterator[tuple[str, ...]]]:
    """Open a sheet as rows of text; an empty row is an empty tuple.

    Raises DataError if the file is not a workbook or is damaged.
    """
    with _open_book(path) as book:
        yield _rows(book.worksheets[sheet], path)


@contextmanager
def _open_book(path: Path) -> Iterator[Any]:
    import openpyxl  # takes 0.3 s

    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member.file_size for member in archive.infolist()}
        _check_members(path, members)
        handle = path.open("rb")  # openpyxl accepts a path only if it ends in .xlsx
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
        sheet.reset_dimensions()  # a sheet may claim 16,384 columns, which every row would have
        for row in sheet.iter_rows(values_only=True):
            yield tuple("" if cell is None else str(cell) for cell in row)
    except _DAMAGED as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(f"{path}: cannot be read as a table ({reason})")
