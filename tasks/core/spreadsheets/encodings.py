"""Encodings of text tables (UTF-8, UTF-16, Korean cp949), and Excel workbooks as rows of text.

A workbook is a zip archive of XML: its members' sizes are checked before any is read, and whatever
openpyxl raises on a damaged one becomes one line.
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
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_NEUTRAL = re.compile("[\u3000-\u303f\u3131-\u318e\uff00-\uffef]")  # signs of Korean text
ZIP_MARK, OLE_MARK = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_LARGEST_BYTES = 1 << 28  # of all members when unpacked
_NEEDED = "xl/workbook.xml"
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error, ParseError, OSError, EOFError),
    *(KeyError, ValueError, TypeError, AttributeError, IndexError, ArithmeticError, RuntimeError),
)


def first_bytes(path: Path) -> bytes:
    """Return the first 4 KB of a file; raises DataError where it is none or cannot be read."""
    try:
        if not path.is_file():
            raise DataError(f"{path}: {'is no file' if path.exists() else 'no such file'}")
        with path.open("rb") as handle:
            return handle.read(4096)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def encoding_of(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return a text's encoding for `open` and, where it is not UTF-8, a note.

    Raises
    ------
    DataError
        One line where the file is no text, or in another encoding.
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
    """Return the kind of UTF-16 whose plain characters leave NULs on one side of each pair."""
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
    """Return the first Korean words of a cp949 text; None where it is no plain Korean.

    Many bytes of other encodings decode as cp949 too, but into rare syllables and Chinese
    characters: at least four fifths must be syllables of the older standard KS X 1001.
    """
    decoder = codecs.getincrementaldecoder("cp949")()
    words: Counter[str] = Counter()
    try:
        for chunk in _chunks(path):
            words.update(_NOT_ASCII.findall(decoder.decode(chunk)))
        words.update(_NOT_ASCII.findall(decoder.decode(b"", final=True)))
    except UnicodeDecodeError:
        return None
    usual = other = 0
    for word, count in words.items():
        syllables = _NEUTRAL.sub("", word)
        common = sum("가" <= letter <= "힣" and _in_ks_x_1001(letter) for letter in syllables)
        usual += common * count
        other += (len(syllables) - common) * count
    return next(iter(words)) if usual and usual >= 4 * other else None


def _in_ks_x_1001(letter: str) -> bool:
    try:
        return len(letter.encode("euc_kr")) == 2
    except UnicodeEncodeError:
        return False


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
