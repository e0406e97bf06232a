"""Unpacking an archive that strangers made: member by member, with limits on everything.

Never `extractall`: names are checked, links, devices and encrypted members refused, and bytes are
counted as they come out, because sizes in an archive are claims. Zip, and tar with or without gzip;
other ways of packing are refused, for Python unpacks them in pieces of any size.
"""

import errno
import gzip
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tasks.core.errors import DataError
from tasks.core.text import one_line
from tasks.ingest.name_encoding import encoding_of_names
from tasks.ingest.tar_reader import read_members

SUFFIXES: tuple[str, ...] = (".zip", ".tar", ".tar.gz", ".tgz")

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 16 << 10  # more than headers, padding and a name add to a member
_NOTE_BYTES = 2048  # of long names and pax records for a member of a tar, on the average
_ENTRY_BYTES = 512  # of a member in the directory of a zip, more than names need on the average
_ENTRY = b"PK\1\2"  # how each begins there
_ENCRYPTED = 0x1
_PACKED_BY = frozenset([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
_SHOWN_CHARACTERS = 200
_DRIVE = re.compile("[A-Za-z]:")
_GZIP = b"\x1f\x8b"
_MAX_DEPTH = 64  # folders within folders; Python's own walks are recursive
_UTF8_NAME = 0x800  # flag of a zip's member
_UNICODE_PATH = 0x7075  # field of a zip's member: its name once more, in UTF-8
# What an operating system says where a name or a place in the archive is impossible.
_OF_THE_ARCHIVE = frozenset([errno.EINVAL, errno.EILSEQ])
_OTHER_KINDS = {
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"ALZ\1": "an ALZ archive",
    b"EGGA": "an EGG archive",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
}
_PACK_AGAIN = (
    "pack it again with names in UTF-8 (7-Zip: `7z a -tzip -mcu=on`; Bandizip: Unicode file "
    "names), or unpack it where it was made and give the folder"
)
_LEAST_RATIO_BYTES = 16 << 20  # below that no ratio is looked at: small flat pictures pack well


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    Attributes
    ----------
    files
        Members, folders among them.
    file_bytes, all_bytes
        Length of one of them, and of all.
    ratio
        Unpacked bytes a byte of the archive, from `_LEAST_RATIO_BYTES` on.
    """

    files: int
    file_bytes: int
    all_bytes: int
    ratio: float


class Unpacked(NamedTuple):
    """What came out of an archive: the number of files, and what there is to say of them."""

    files: int
    notes: tuple[str, ...]


class _Member(NamedTuple):
    name: str
    is_folder: bool
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, limits: Limits) -> Unpacked:
    """Unpack an archive, by its suffix.

    A backslash in a name separates folders as a slash does: some tools of Windows write it so.

    Parameters
    ----------
    archive
        A file whose name ends in one of `SUFFIXES`.
    folder
        An existing folder; nothing is written outside it and no file in it is overwritten.
    limits
        Where to stop; what was written until then is the caller's to remove.

    Returns
    -------
    Unpacked
        With a note where names were decoded by a guess, as those of Korean Windows are.

    Raises
    ------
    DataError
        One line: damaged or no such archive, an encrypted member, a name that leads out of the
        folder or occurs twice, a link or a device, more than the limits.
    """
    members = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
    count = 0
    meter = _Meter(archive, limits)
    notes: list[str] = []
    try:
        _require_size(archive, limits)
        for number, member in enumerate(members(archive, meter, notes), start=1):
            if number > limits.files:
                raise DataError(f"{archive}: more than {limits.files} files and folders")
            if member.is_folder:
                continue
            count += 1
            target = folder / _checked_name(member.name, archive)
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as packed, target.open("xb") as handle:
                _stream(packed, handle, meter)
    except (FileExistsError, NotADirectoryError) as error:
        name = str(Path(error.filename).relative_to(folder))
        raise DataError(f"{archive}: {name!r} is in it twice, or as file and as folder") from None
    except DataError:
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(f"{archive}: a name in it is too long for a file") from None
        if error.errno is not None and error.errno not in _OF_THE_ARCHIVE:
            raise  # the disk, not the archive
        raise DataError(_damaged(archive, error)) from None
    except Exception as error:  # noqa: BLE001 - the libraries raise anything on hostile bytes
        raise DataError(_damaged(archive, error)) from None
    os.sync()  # once for all: an fsync a file costs 5 ms each
    return Unpacked(count, tuple(notes))


@dataclass
class _Meter:
    """Counts the bytes that come out."""

    archive: Path
    limits: Limits
    bytes_out: int = 0
    note_bytes: int = 0

    def count(self, file_bytes: int, new_bytes: int) -> None:
        """Add bytes of a file that has so many by now; raises DataError beyond the limits."""
        self.bytes_out += new_bytes
        limits = self.limits
        if file_bytes > limits.file_bytes:
            raise DataError(
                f"{self.archive}: a file unpacks to more than {limits.file_bytes} bytes"
            )
        if self.bytes_out > limits.all_bytes:
            raise DataError(f"{self.archive}: unpacks to more than {limits.all_bytes} bytes")
        self._require_ratio(self.bytes_out)

    def count_note(self, new_bytes: int) -> None:
        """Add bytes that only describe members; raises DataError beyond the limits."""
        self.note_bytes += new_bytes
        if self.note_bytes > _CHUNK_BYTES + self.limits.files * _NOTE_BYTES:
            raise DataError(f"{self.archive}: its notes on members are too long")
        self._require_ratio(self.note_bytes)

    def _require_ratio(self, unpacked_bytes: int) -> None:
        packed, limits = self.archive.stat().st_size, self.limits
        if unpacked_bytes > max(_LEAST_RATIO_BYTES, limits.ratio * packed):
            raise DataError(
                f"{self.archive}: unpacks to more than {limits.ratio:g} times its {packed} bytes"
            )


def _stream(packed: IO[bytes], handle: IO[bytes], meter: _Meter) -> None:
    written = 0
    while chunk := packed.read(_CHUNK_BYTES):
        written += len(chunk)
        meter.count(written, len(chunk))
        handle.write(chunk)


def _require_size(archive: Path, limits: Limits) -> None:
    """Refuse, before anything of it is read, what is larger than all that may come out of it."""
    packed, most = archive.stat().st_size, limits.all_bytes + limits.files * _HEAD_BYTES
    if packed > most:
        raise DataError(
            f"{archive}: has {packed} bytes, and no more than {limits.all_bytes} may come out of it"
        )


def _zip_members(archive: Path, meter: "_Meter", notes: list[str]) -> Iterator[_Member]:
    with _BoundedZip(archive, meter.limits) as handle, zipfile.ZipFile(handle) as opened:
        names = _zip_names(opened.infolist(), archive, notes)
        for member, name in zip(opened.infolist(), names, strict=True):
            if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & _ENCRYPTED:
                raise DataError(f"{archive}: member {_brief(name)} is a link or encrypted")
            if member.compress_type not in _PACKED_BY:
                raise DataError(
                    f"{archive}: member {_brief(name)} is not packed by deflate; pack it so"
                )
            yield _Member(name, name.endswith("/"), lambda member=member: opened.open(member))


def _zip_names(members: list[zipfile.ZipInfo], archive: Path, notes: list[str]) -> list[str]:
    """Return the members' names; those of no declared encoding are decoded together."""
    names = [_declared_name(member) for member in members]
    undeclared = [
        member.orig_filename.encode("cp437")
        for member, name in zip(members, names, strict=True)
        if name is None
    ]
    encoding = encoding_of_names(undeclared)
    if encoding is None:
        first = str(undeclared[0][:_SHOWN_CHARACTERS])[2:-1]
        told = "names in it are neither UTF-8 nor wholly Korean (cp949)"
        raise DataError(f"{archive}: {told}, the first of them is '{first}'; {_PACK_AGAIN}")
    if undeclared and encoding != "utf-8":
        notes.append(f"{len(undeclared)} names read as {encoding}, since the zip does not say")
    decoded = (name.decode(encoding) for name in undeclared)
    whole = [next(decoded) if name is None else name for name in names]
    return [name.split("\0", 1)[0].replace("\\", "/") for name in whole]


def _declared_name(member: zipfile.ZipInfo) -> str | None:
    """Return the name of a zip's member, or None where its encoding is not said."""
    name = member.orig_filename
    if name.isascii() or member.flag_bits & _UTF8_NAME:
        return name
    return _unicode_path(member.extra, name.encode("cp437"))


def _unicode_path(extra: bytes, name: bytes) -> str | None:
    """Return the name in UTF-8 that WinRAR and Info-ZIP lay beside the other, if it is of that."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == _UNICODE_PATH and len(field) > 5:
            version, checksum = struct.unpack_from("<BL", field)
            if version == 1 and checksum == zlib.crc32(name):
                return field[5:].decode("utf-8")
    return None


class _BoundedZip(io.BufferedReader):
    """A zip whose directory cannot fill the memory.

    `zipfile` reads it in one piece, and makes an object of each entry, before it gives the first
    member. No other piece that it reads is longer than a chunk.
    """

    def __init__(self, archive: Path, limits: Limits) -> None:
        super().__init__(io.FileIO(archive))
        self._archive = archive
        self._files = limits.files

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file; raises DataError for a directory of more members than there may be."""
        most = self._files
        if size is not None and size > max(_CHUNK_BYTES, most * _ENTRY_BYTES):
            told = f"its list of members has {size} bytes, too many for {most} files and folders"
            raise DataError(f"{self._archive}: {told}")
        content = super().read(size)
        if len(content) > _CHUNK_BYTES and content.count(_ENTRY) > most:
            raise DataError(f"{self._archive}: more than {most} files and folders")
        return content


def _tar_members(archive: Path, meter: "_Meter", notes: list[str]) -> Iterator[_Member]:
    with archive.open("rb") as handle:
        packed = handle.read(len(_GZIP)) == _GZIP
        handle.seek(0)
        stream = gzip.GzipFile(fileobj=handle) if packed else handle
        for member in read_members(stream, meter.count_note):
            name = member.name.replace("\\", "/")
            if member.kind == "sparse":
                raise DataError(
                    f"{archive}: member {_brief(name)} is a sparse file; pack it without"
                )
            if member.kind == "other":
                raise DataError(f"{archive}: member {_brief(name)} is a link or no file")
            yield _Member(name, member.kind == "folder", lambda member=member: member.content)


def _checked_name(member: str, archive: Path) -> PurePosixPath:
    name = PurePosixPath(member)
    if not name.parts or name.is_absolute() or ".." in name.parts or _DRIVE.match(member):
        told = "leads out of its folder (it is absolute, has a drive letter, or `..`)"
        raise DataError(f"{archive}: member {_brief(member)} {told}")
    if len(name.parts) > _MAX_DEPTH:
        raise DataError(f"{archive}: folders within folders, more than {_MAX_DEPTH} deep")
    return name


def _brief(name: str) -> str:
    """Return a name for a message, which a tar may give up to a megabyte of."""
    return repr(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…")


def _damaged(archive: Path, error: Exception) -> str:
    reason = _other_kind(archive) or one_line(f"{type(error).__name__} {error}")
    return f"{archive}: is damaged or no archive of its suffix ({reason})"


def _other_kind(archive: Path) -> str:
    """Return what an archive is in truth and what to do with it; "" where that is not known."""
    with archive.open("rb") as handle:
        head = handle.read(_HEAD_BYTES)
    if not head:
        return "it has 0 bytes; give it again"
    if head.startswith(b"PK\3\4") and not archive.name.lower().endswith(".zip"):
        return "it is a zip; give it a name that ends in .zip"
    if head.startswith(_GZIP) and archive.name.lower().endswith(".zip"):
        return "it is packed by gzip; give it a name that ends in .tar.gz"
    kinds = [kind for start, kind in _OTHER_KINDS.items() if head.startswith(start)]
    return f"it is {kinds[0]}; unpack it and pack it as .zip" if kinds else ""
