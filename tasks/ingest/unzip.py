"""Unpacking an archive that strangers made: member by member, with limits on everything.

Never `extractall`: names are checked, links and encrypted members refused, and bytes are counted
as they come out, because sizes in an archive are claims.
"""

import os
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from tasks.core.errors import DataError

MAX_MEMBERS = 20_000
MAX_BYTES = 8 << 30
_CHUNK_BYTES = 1 << 20
_ENCRYPTED = 0x1


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a zip archive.

    Parameters
    ----------
    archive
        The archive.
    folder
        An existing folder; nothing is written outside it and no file in it is overwritten.

    Returns
    -------
    int
        Number of files written.

    Raises
    ------
    DataError
        One line: no zip archive, a damaged or encrypted member, a name that leads out of the
        folder or occurs twice, a link, more than `MAX_MEMBERS` files or `MAX_BYTES` bytes.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            if len(members) > MAX_MEMBERS:
                raise DataError(f"{archive}: {len(members)} files, more than {MAX_MEMBERS}")
            left_bytes = MAX_BYTES
            for member in members:
                target = folder / _checked_name(member, archive)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as packed, target.open("xb") as handle:
                    left_bytes -= _stream(packed, handle, left_bytes, archive)
    except FileExistsError as error:
        raise DataError(f"{archive}: '{error.filename}' is in it twice") from None
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError) as error:
        raise DataError(f"{archive}: is damaged or no zip archive ({error}); remove it") from None
    return len(members)


def _stream(packed: IO[bytes], handle: IO[bytes], left: int, archive: Path) -> int:
    written = 0
    while chunk := packed.read(_CHUNK_BYTES):
        written += len(chunk)
        if written > left:
            raise DataError(f"{archive}: unpacks to more than {MAX_BYTES} bytes")
        handle.write(chunk)
    handle.flush()
    os.fsync(handle.fileno())
    return written


def _checked_name(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    name = PurePosixPath(member.filename)
    plain = not name.is_absolute() and ".." not in name.parts and name.parts
    if not plain or any(sign in member.filename for sign in "\\:\0"):
        raise DataError(f"{archive}: member '{member.filename}' leads out of its folder")
    if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & _ENCRYPTED:
        raise DataError(f"{archive}: member '{member.filename}' is a link or encrypted")
    return name
