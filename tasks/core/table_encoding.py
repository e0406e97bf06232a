"""The encoding of a text table: UTF-8, UTF-16 (with a mark or without) or Korean cp949."""

import codecs
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

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
