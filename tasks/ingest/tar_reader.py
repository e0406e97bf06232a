"""A tar read one header at a time, under limits that `tarfile` does not have.

`tarfile` holds maps of sparse files and pax records of any number in memory, takes quadratic time
over the digits of a pax record (before Python 3.11.10), and passes a damaged header in the middle
for the end of the archive. Its parser of a single header is used here; the rest is this module's.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

_BLOCK_BYTES = tarfile.BLOCKSIZE
_CHUNK_BYTES = 1 << 20
_MAX_NOTE_BYTES = 1 << 20  # of one long name or one set of pax records
_MAX_NOTES = 16  # before one member; writers use one to three
_MAX_RECORDS = 1_000  # in one set of pax records; writers use one to some dozen
_MAX_DIGITS = 20  # of a length or a size in a pax record
_PAX = frozenset([tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE])
_NOTES = frozenset([*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
_SPARSE = b"GNU.sparse."


class TarMember(NamedTuple):
    """A member of a tar.

    Attributes
    ----------
    name
        Its name; bytes that are not UTF-8 are surrogates, as in names of files.
    kind
        `file`, `folder`, `sparse` (a file with holes) or `other` (a link, a device, …).
    content
        Its bytes, for a file; to be read before the next member is asked for.
    """

    name: str
    kind: str
    content: IO[bytes]


class _Note(NamedTuple):
    """What the blocks before a member say of it."""

    name: str | None = None
    size: int | None = None
    is_sparse: bool = False


def read_members(stream: IO[bytes], on_note: Callable[[int], None]) -> Iterator[TarMember]:
    """Yield the members of an uncompressed tar.

    Parameters
    ----------
    stream
        The tar; it is read once, forwards.
    on_note
        Called with the length of each long name and set of pax records before it is read.

    Yields
    ------
    TarMember
        In their order.

    Raises
    ------
    tarfile.TarError
        For what is no tar, is damaged or cut off anywhere, or has notes beyond the limits.
    """
    while (found := _next_header(stream, on_note)) is not None:
        header, note = found
        size = header.size if note.size is None else note.size
        content = _Content(stream, size if header.isreg() else 0)
        yield TarMember(note.name or header.name, _kind(header, note), content)
        while content.read(_CHUNK_BYTES):
            pass
        _read_exactly(stream, -content.size % _BLOCK_BYTES)


def _next_header(
    stream: IO[bytes], on_note: Callable[[int], None]
) -> tuple[tarfile.TarInfo, _Note] | None:
    """Read up to the next member; None at the end of the archive."""
    note = _Note()
    for _ in range(_MAX_NOTES):
        block = stream.read(_BLOCK_BYTES)
        if block == bytes(_BLOCK_BYTES):
            return None
        if len(block) < _BLOCK_BYTES:
            raise tarfile.ReadError("it ends without the empty blocks that close a tar")
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if header.size < 0:
            raise tarfile.ReadError(f"a member of {header.size} bytes")
        if header.type not in _NOTES:
            return header, note
        note = _with(note, header, stream, on_note)
    raise tarfile.ReadError(f"more than {_MAX_NOTES} notes before a member")


def _with(
    note: _Note, header: tarfile.TarInfo, stream: IO[bytes], on_note: Callable[[int], None]
) -> _Note:
    """Add what one more note says."""
    if header.size > _MAX_NOTE_BYTES:
        raise tarfile.ReadError(f"a note of {header.size} bytes before a member")
    on_note(header.size)
    content = _read_exactly(stream, header.size)
    _read_exactly(stream, -header.size % _BLOCK_BYTES)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return note._replace(name=_name(content.split(b"\0", 1)[0]))
    if header.type == tarfile.GNUTYPE_LONGLINK:
        return note
    for key, value in _pax_records(content):
        if key.startswith(_SPARSE):
            note = note._replace(is_sparse=True)
        elif header.type in _PAX and key == b"path":
            note = note._replace(name=_name(value))
        elif header.type in _PAX and key == b"size":
            if not value.isdigit() or len(value) > _MAX_DIGITS:
                raise tarfile.ReadError("a pax record whose size is no number")
            note = note._replace(size=int(value))
    return note


def _pax_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    r"""Yield the records `LENGTH KEY=VALUE\n`, in time that is linear in their length."""
    start = 0
    for _ in range(_MAX_RECORDS):
        if start == len(content) or not content[start]:
            return
        space = content.find(b" ", start, start + _MAX_DIGITS)
        digits = content[start:space] if space >= 0 else b""
        end = start + int(digits) if digits.isdigit() else start
        key, equals, value = content[space + 1 : end].partition(b"=")
        if end > len(content) or not equals or not value.endswith(b"\n"):
            raise tarfile.ReadError("a note that is no pax record")
        yield key, value[:-1]
        start = end
    raise tarfile.ReadError(f"a note of more than {_MAX_RECORDS} pax records")


def _name(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape").rstrip("/")


def _kind(header: tarfile.TarInfo, note: _Note) -> str:
    if note.is_sparse or header.type == tarfile.GNUTYPE_SPARSE:
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
        """Do nothing: what is left is passed over, and the stream is the archive's."""

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        content = _read_exactly(self._stream, wanted)
        self._left -= wanted
        return content
