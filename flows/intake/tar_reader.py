"""A streaming tar reader with limits that `tarfile` lacks.

`tarfile` keeps any number of sparse maps and pax records in memory, needs quadratic time for the
digits of a pax record (before Python 3.11.10), and takes a damaged header in the middle for the end
of the archive. Only its parser of single headers is used here.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

_BLOCK_BYTES = tarfile.BLOCKSIZE
_CHUNK_BYTES = 1 << 20
_MAX_EXTENSION_BYTES = 1 << 20  # of one long name or one set of pax records
_MAX_EXTENSIONS = 16  # before one member; archivers write one to three
_MAX_RECORDS = 1_000  # in one set of pax records; archivers write up to a few dozen
_MAX_DIGITS = 20  # of a length or a size in a pax record
_PAX = frozenset([tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE])
_EXTENSIONS = frozenset(
    [*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
_SPARSE = b"GNU.sparse."


class TarMember(NamedTuple):
    """A member of a tar.

    Attributes
    ----------
    name
        Bytes that are not UTF-8 are surrogates, as in file names.
    kind
        `file`, `folder`, `sparse` (a file with holes) or `other` (a link, a device, …).
    content
        The bytes of a file; read them before requesting the next member.
    """

    name: str
    kind: str
    content: IO[bytes]


class _Extension(NamedTuple):
    """Values of the extended headers before a member."""

    name: str | None = None
    size: int | None = None
    is_sparse: bool = False


def read_members(stream: IO[bytes], on_extension: Callable[[int], None]) -> Iterator[TarMember]:
    """Yield the members of an uncompressed tar, reading it once.

    `on_extension` is called with the length of each long name and set of pax records before it is
    read.

    Raises
    ------
    tarfile.TarError
        If the tar is invalid, damaged or truncated, or its extended headers exceed the limits.
    """
    while (result := _next_header(stream, on_extension)) is not None:
        header, extension = result
        size = header.size if extension.size is None else extension.size
        content = _Content(stream, size if header.isreg() else 0)
        yield TarMember(extension.name or header.name, _kind(header, extension), content)
        while content.read(_CHUNK_BYTES):
            pass
        _read_exactly(stream, -content.size % _BLOCK_BYTES)


def _next_header(
    stream: IO[bytes], on_extension: Callable[[int], None]
) -> tuple[tarfile.TarInfo, _Extension] | None:
    """Return the headers of the next member, None at the end of the archive."""
    extension = _Extension()
    for _ in range(_MAX_EXTENSIONS):
        block = stream.read(_BLOCK_BYTES)
        if block == bytes(_BLOCK_BYTES):
            return None
        if len(block) < _BLOCK_BYTES:
            raise tarfile.ReadError("it ends without the empty blocks that close a tar")
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if header.size < 0:
            raise tarfile.ReadError(f"a member of {header.size} bytes")
        if header.type not in _EXTENSIONS:
            return header, extension
        extension = _extended(extension, header, stream, on_extension)
    raise tarfile.ReadError(f"more than {_MAX_EXTENSIONS} extended headers before a member")


def _extended(
    extension: _Extension,
    header: tarfile.TarInfo,
    stream: IO[bytes],
    on_extension: Callable[[int], None],
) -> _Extension:
    """Return an extension updated by one more extended header."""
    if header.size > _MAX_EXTENSION_BYTES:
        raise tarfile.ReadError(f"an extended header of {header.size} bytes before a member")
    on_extension(header.size)
    content = _read_exactly(stream, header.size)
    _read_exactly(stream, -header.size % _BLOCK_BYTES)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return extension._replace(name=_name(content.split(b"\0", 1)[0]))
    if header.type == tarfile.GNUTYPE_LONGLINK:
        return extension
    for key, value in _pax_records(content):
        if key.startswith(_SPARSE):
            extension = extension._replace(is_sparse=True)
        elif header.type in _PAX and key == b"path":
            extension = extension._replace(name=_name(value))
        elif header.type in _PAX and key == b"size":
            if not value.isdigit() or len(value) > _MAX_DIGITS:
                raise tarfile.ReadError("a pax record whose size is not a number")
            extension = extension._replace(size=int(value))
    return extension


def _pax_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    r"""Yield the records `LENGTH KEY=VALUE\n`, in linear time."""
    start = 0
    for _ in range(_MAX_RECORDS):
        if start == len(content) or not content[start]:
            return
        space = content.find(b" ", start, start + _MAX_DIGITS)
        digits = content[start:space] if space >= 0 else b""
        end = start + int(digits) if digits.isdigit() else start
        key, equals, value = content[space + 1 : end].partition(b"=")
        if end > len(content) or not equals or not value.endswith(b"\n"):
            raise tarfile.ReadError("an invalid pax record")
        yield key, value[:-1]
        start = end
    raise tarfile.ReadError(f"more than {_MAX_RECORDS} pax records in one header")


def _name(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape").rstrip("/")


def _kind(header: tarfile.TarInfo, extension: _Extension) -> str:
    if extension.is_sparse or header.type == tarfile.GNUTYPE_SPARSE:
        return "sparse"
    return "file" if header.isreg() else "folder" if header.isdir() else "other"


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise tarfile.ReadError("it ends within a member")
    return content


class _Content(io.RawIOBase):
    """The bytes of one member."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        super().__init__()
        self.size = size
        self._stream = stream
        self._left = size

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: the stream belongs to the archive, whose reader skips unread bytes."""

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        content = _read_exactly(self._stream, wanted)
        self._left -= wanted
        return content
