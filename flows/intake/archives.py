"""Safe unpacking of untrusted archives: zip, and tar with or without gzip.

`extractall` is never used. Names are checked, links, devices and encrypted members are rejected,
and bytes are counted as they are written, because the sizes that an archive declares may be wrong.
Other compression methods are rejected, because Python decompresses them in chunks of unbounded
size.
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

from flows.intake.tar_reader import read_members
from tasks.core.errors import DataError
from tasks.core.text import one_line
from tasks.ingest.list_files import encoding_of_names

SUFFIXES: tuple[str, ...] = (".zip", ".tar", ".tar.gz", ".tgz")

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 16 << 10  # more than headers, padding and a name add to a member
_EXTENSION_BYTES = 2048  # maximum average of long names and pax records per member of a tar
_ENTRY_BYTES = 512  # maximum average of an entry in the directory of a zip
_ENTRY = b"PK\1\2"  # signature of such an entry
_ENCRYPTED = 0x1
_COMPRESSION = frozenset([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
_NAME_CHARACTERS = 200  # of a name in a message
_DRIVE = re.compile("[A-Za-z]:")
_GZIP = b"\x1f\x8b"
_MAX_DEPTH = 64  # of nested folders, which Python's functions walk recursively
_UTF8_NAME = 0x800  # flag of a zip's member
_UNICODE_PATH = 0x7075  # extra field of a zip's member: its name in UTF-8
# Errors of the operating system for names or offsets that are impossible.
_ARCHIVE_ERRORS = frozenset([errno.EINVAL, errno.EILSEQ])
_OTHER_FORMATS = {
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
_MIN_RATIO_BYTES = 16 << 20  # smaller contents may have any ratio: plain images compress well


@dataclass(frozen=True)
class Limits:
    """Limits on the content of an archive.

    Attributes
    ----------
    files
        Members, including folders.
    file_bytes, all_bytes
        Size of one member, and of all.
    ratio
        Unpacked bytes per byte of the archive, for contents above 16 MiB.
    """

    files: int
    file_bytes: int
    all_bytes: int
    ratio: float


class Unpacked(NamedTuple):
    """Number of unpacked files, and notes on how the archive was read."""

    files: int
    notes: tuple[str, ...]


class _Member(NamedTuple):
    name: str
    is_folder: bool
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, limits: Limits) -> Unpacked:
    """Unpack an archive of one of `SUFFIXES` into an existing folder.

    Nothing is written outside the folder, and no file in it is overwritten. Backslashes in names
    separate folders, as some Windows tools write them. A note reports names of undeclared encoding.

    Raises
    ------
    DataError
        For a damaged archive, an encrypted member, a name that leads out of the folder or occurs
        twice, a link or a device, or contents beyond the limits. The caller removes the files
        written so far.
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
                _copy(packed, handle, meter)
    except (FileExistsError, NotADirectoryError) as error:
        name = str(Path(error.filename).relative_to(folder))
        raise DataError(
            f"{archive}: contains {name!r} twice, or both as a file and as a folder"
        ) from None
    except DataError:
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(f"{archive}: contains a name that is too long for a file") from None
        if error.errno is not None and error.errno not in _ARCHIVE_ERRORS:
            raise  # caused by the disk, not by the archive
        raise DataError(_damaged(archive, error)) from None
    except Exception as error:  # noqa: BLE001 - the libraries raise anything on hostile bytes
        raise DataError(_damaged(archive, error)) from None
    os.sync()  # once for all files, since an fsync takes 5 ms per file
    return Unpacked(count, tuple(notes))


@dataclass
class _Meter:
    """Counts unpacked bytes; raises DataError beyond the limits."""

    archive: Path
    limits: Limits
    bytes_out: int = 0
    extension_bytes: int = 0

    def count(self, file_bytes: int, new_bytes: int) -> None:
        """Count new bytes of a file, of which `file_bytes` are unpacked."""
        self.bytes_out += new_bytes
        limits = self.limits
        if file_bytes > limits.file_bytes:
            raise DataError(
                f"{self.archive}: a file unpacks to more than {limits.file_bytes} bytes"
            )
        if self.bytes_out > limits.all_bytes:
            raise DataError(f"{self.archive}: unpacks to more than {limits.all_bytes} bytes")
        self._require_ratio(self.bytes_out)

    def count_extension(self, new_bytes: int) -> None:
        """Count bytes of extended headers."""
        self.extension_bytes += new_bytes
        if self.extension_bytes > _CHUNK_BYTES + self.limits.files * _EXTENSION_BYTES:
            raise DataError(f"{self.archive}: the headers of its members are too long")
        self._require_ratio(self.extension_bytes)

    def _require_ratio(self, unpacked_bytes: int) -> None:
        packed, limits = self.archive.stat().st_size, self.limits
        if unpacked_bytes > max(_MIN_RATIO_BYTES, limits.ratio * packed):
            raise DataError(
                f"{self.archive}: unpacks to more than {limits.ratio:g} times its {packed} bytes"
            )


def _copy(packed: IO[bytes], handle: IO[bytes], meter: _Meter) -> None:
    written = 0
    while chunk := packed.read(_CHUNK_BYTES):
        written += len(chunk)
        meter.count(written, len(chunk))
        handle.write(chunk)


def _require_size(archive: Path, limits: Limits) -> None:
    """Reject, without reading it, an archive that is larger than its contents may be."""
    packed = archive.stat().st_size
    if packed > limits.all_bytes + limits.files * _HEAD_BYTES:
        raise DataError(
            f"{archive}: has {packed} bytes, more than the {limits.all_bytes} it may unpack to"
        )


def _zip_members(archive: Path, meter: _Meter, notes: list[str]) -> Iterator[_Member]:
    with _BoundedZip(archive, meter.limits) as handle, zipfile.ZipFile(handle) as opened:
        names = _zip_names(opened.infolist(), archive, notes)
        for member, name in zip(opened.infolist(), names, strict=True):
            if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & _ENCRYPTED:
                raise DataError(f"{archive}: member {_brief(name)} is a link or encrypted")
            if member.compress_type not in _COMPRESSION:
                raise DataError(
                    f"{archive}: member {_brief(name)} is not compressed by deflate; pack it again"
                )
            yield _Member(name, name.endswith("/"), lambda member=member: opened.open(member))


def _zip_names(members: list[zipfile.ZipInfo], archive: Path, notes: list[str]) -> list[str]:
    """Return the members' names, guessing one encoding for all names that declare none."""
    names = [_declared_name(member) for member in members]
    undeclared = [
        member.orig_filename.encode("cp437")
        for member, name in zip(members, names, strict=True)
        if name is None
    ]
    encoding = encoding_of_names(undeclared)
    if encoding is None:
        first = str(undeclared[0][:_NAME_CHARACTERS])[2:-1]
        raise DataError(
            f"{archive}: its names are neither UTF-8 nor entirely Korean (cp949), the first is "
            f"'{first}'; {_PACK_AGAIN}"
        )
    if undeclared and encoding != "utf-8":
        notes.append(f"{len(undeclared)} names read as {encoding}; the zip declares no encoding")
    decoded = (name.decode(encoding) for name in undeclared)
    complete = [next(decoded) if name is None else name for name in names]
    return [name.split("\0", 1)[0].replace("\\", "/") for name in complete]


def _declared_name(member: zipfile.ZipInfo) -> str | None:
    """Return the name of a zip's member, or None where its encoding is not declared."""
    name = member.orig_filename
    if name.isascii() or member.flag_bits & _UTF8_NAME:
        return name
    return _unicode_path(member.extra, name.encode("cp437"))


def _unicode_path(extra: bytes, name: bytes) -> str | None:
    """Return the UTF-8 name that WinRAR and Info-ZIP add, if its checksum matches the name."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == _UNICODE_PATH and len(field) > 5:
            version, checksum = struct.unpack_from("<BL", field)
            if version == 1 and checksum == zlib.crc32(name):
                return field[5:].decode("utf-8")
    return None


class _BoundedZip(io.BufferedReader):
    """A zip file whose directory cannot exhaust the memory.

    `zipfile` reads the whole directory and creates an object per entry before it yields the first
    member. All its other reads are at most a chunk long.
    """

    def __init__(self, archive: Path, limits: Limits) -> None:
        super().__init__(io.FileIO(archive))
        self._archive = archive
        self._files = limits.files

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes; raise DataError for a directory of more than the allowed members."""
        if size is not None and size > max(_CHUNK_BYTES, self._files * _ENTRY_BYTES):
            raise DataError(
                f"{self._archive}: its list of members has {size} bytes, too many for "
                f"{self._files} files and folders"
            )
        content = super().read(size)
        if len(content) > _CHUNK_BYTES and content.count(_ENTRY) > self._files:
            raise DataError(f"{self._archive}: more than {self._files} files and folders")
        return content


def _tar_members(archive: Path, meter: _Meter, notes: list[str]) -> Iterator[_Member]:
    with archive.open("rb") as handle:
        compressed = handle.read(len(_GZIP)) == _GZIP
        handle.seek(0)
        stream = gzip.GzipFile(fileobj=handle) if compressed else handle
        for member in read_members(stream, meter.count_extension):
            name = member.name.replace("\\", "/")
            if member.kind == "sparse":
                raise DataError(
                    f"{archive}: member {_brief(name)} is a sparse file; pack it as a plain file"
                )
            if member.kind == "other":
                raise DataError(f"{archive}: member {_brief(name)} is a link or not a file")
            yield _Member(name, member.kind == "folder", lambda member=member: member.content)


def _checked_name(member: str, archive: Path) -> PurePosixPath:
    name = PurePosixPath(member)
    if not name.parts or name.is_absolute() or ".." in name.parts or _DRIVE.match(member):
        raise DataError(
            f"{archive}: member {_brief(member)} leads out of the folder (it is absolute, has a "
            "drive letter, or `..`)"
        )
    if len(name.parts) > _MAX_DEPTH:
        raise DataError(f"{archive}: its folders are nested more than {_MAX_DEPTH} deep")
    return name


def _brief(name: str) -> str:
    """Return a name for a message, shortened, since names in a tar can have a megabyte."""
    return repr(name if len(name) <= _NAME_CHARACTERS else f"{name[:_NAME_CHARACTERS]}…")


def _damaged(archive: Path, error: Exception) -> str:
    reason = _other_format(archive) or one_line(f"{type(error).__name__} {error}")
    return f"{archive}: is damaged or not an archive of its suffix ({reason})"


def _other_format(archive: Path) -> str:
    """Return the actual format and what to do about it, "" where it is unknown."""
    with archive.open("rb") as handle:
        head = handle.read(_HEAD_BYTES)
    if not head:
        return "it has 0 bytes; copy it again"
    if head.startswith(b"PK\3\4") and not archive.name.lower().endswith(".zip"):
        return "it is a zip; give it a name that ends in .zip"
    if head.startswith(_GZIP) and archive.name.lower().endswith(".zip"):
        return "it is packed by gzip; give it a name that ends in .tar.gz"
    formats = [name for start, name in _OTHER_FORMATS.items() if head.startswith(start)]
    return f"it is {formats[0]}; unpack it and pack it as .zip" if formats else ""
