"""Unpacking an archive that strangers made: member by member, with limits on everything.

Never `extractall`: names are checked, links, devices and encrypted members refused, and bytes are
counted as they come out, because sizes in an archive are claims. Zip, and tar with or without gzip;
other ways of packing are refused, for Python unpacks them in pieces of any size.
"""

import errno
import io
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tasks.core.errors import DataError

SUFFIXES: tuple[str, ...] = (".zip", ".tar", ".tar.gz", ".tgz")

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 16 << 10  # more than headers, padding and a name add to a member
_ENTRY_BYTES = 512  # of a member in the directory of a zip, more than names need on the average
_ENTRY = b"PK\1\2"  # how each begins there
_ENCRYPTED = 0x1
_PACKED_BY = frozenset([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
_DRIVE = re.compile("[A-Za-z]:")
_GZIP = b"\x1f\x8b"
_TAR_NOTE_BYTES = 1 << 20  # tarfile holds a member's long names and notes in memory
_TAR_NOTES = frozenset(
    [
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    ]
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


class _Member(NamedTuple):
    name: str
    is_folder: bool
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, limits: Limits) -> int:
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
    int
        Number of files written.

    Raises
    ------
    DataError
        One line: damaged or no such archive, an encrypted member, a name that leads out of the
        folder or occurs twice, a link or a device, more than the limits.
    """
    members = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
    count = 0
    meter = _Meter(archive, limits)
    try:
        _require_size(archive, limits)
        for number, member in enumerate(members(archive, limits), start=1):
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
        if error.errno is not None:
            raise  # the disk, not the archive
        raise DataError(_damaged(archive, error)) from None
    except Exception as error:  # noqa: BLE001 - the libraries raise anything on hostile bytes
        raise DataError(_damaged(archive, error)) from None
    os.sync()  # once for all: an fsync a file costs 5 ms each
    return count


@dataclass
class _Meter:
    """Counts the bytes that come out."""

    archive: Path
    limits: Limits
    bytes_out: int = 0

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
        packed = self.archive.stat().st_size
        if self.bytes_out > max(_LEAST_RATIO_BYTES, limits.ratio * packed):
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


def _zip_members(archive: Path, limits: Limits) -> Iterator[_Member]:
    with _BoundedZip(archive, limits) as handle, zipfile.ZipFile(handle) as opened:
        for member in opened.infolist():
            name = member.filename.replace("\\", "/")
            if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & _ENCRYPTED:
                raise DataError(f"{archive}: member {name!r} is a link or encrypted")
            if member.compress_type not in _PACKED_BY:
                raise DataError(f"{archive}: member {name!r} is not packed by deflate; pack it so")
            yield _Member(name, name.endswith("/"), lambda member=member: opened.open(member))


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


def _tar_members(archive: Path, limits: Limits) -> Iterator[_Member]:
    with archive.open("rb") as handle:
        mode = "r|gz" if handle.read(len(_GZIP)) == _GZIP else "r|"
    with tarfile.open(archive, mode, tarinfo=_BoundedInfo) as opened:
        while (member := opened.next()) is not None:
            opened.members.clear()  # else it holds every one of them until the end
            if not (member.isdir() or member.isreg()):
                raise DataError(f"{archive}: member {member.name!r} is a link or no file")
            name = member.name.replace("\\", "/")
            yield _Member(name, member.isdir(), lambda member=member: opened.extractfile(member))


class _BoundedInfo(tarfile.TarInfo):
    """A member whose notes cannot fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str | None, errors: str) -> "_BoundedInfo":
        found = super().frombuf(buf, encoding, errors)
        if found.type in _TAR_NOTES and found.size > _TAR_NOTE_BYTES:
            raise tarfile.ReadError(f"a note of {found.size} bytes before a member")
        return found


def _checked_name(member: str, archive: Path) -> PurePosixPath:
    name = PurePosixPath(member)
    if not name.parts or name.is_absolute() or ".." in name.parts or _DRIVE.match(member):
        told = "leads out of its folder (it is absolute, has a drive letter, or `..`)"
        raise DataError(f"{archive}: member {member!r} {told}")
    return name


def _damaged(archive: Path, error: Exception) -> str:
    said = " ".join(f"{type(error).__name__} {error}".split())
    return f"{archive}: is damaged or no archive of its suffix ({said})"
