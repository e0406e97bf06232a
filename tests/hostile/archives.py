"""Hostile archives: zip, tar and tar.gz with damaged headers, names, sizes, links and notes."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

from hostile.campaign import mutate, rejected

from flows.intake.archives import Limits, unpack
from tasks.core.errors import DataError

LIMITS = Limits(files=50, file_bytes=1 << 20, all_bytes=2 << 20, ratio=100.0)
_BLOCK = 512
_NAMES = (
    *("../out", "/etc/out", "a/../../out", "..\\out", "C:/out", "\\\\server\\out", "", ".", "/"),
    *("..", "a/", "a\0b", "two\nlines", "\x1b]0;title\x07", "[/red]", "é", "e\u0301", "한글.png"),
    *(
        "d/" * 60 + "deep",
        "x" * 300,
        "_READY",
        "labels.csv",
        "Thumbs.db",
        "__MACOSX/._a",
        ".hidden",
    ),
)
_NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
_PAX_KEYS = (
    *("path", "linkpath", "size", "mtime", "uid", "hdrcharset", "comment", "SCHILY.realsize"),
    *("GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.map", "GNU.sparse.size"),
    *("GNU.sparse.numblocks", "GNU.sparse.offset", "GNU.sparse.numbytes", "GNU.sparse.realsize"),
    *("GNU.sparse.name", ""),
)
_PAX_VALUES = (
    *("../out", "/etc/out", "0", "-1", "1", "1,2,3", "0,512,1024,512", "9" * 30, "9" * 6000),
    *("1e308", "nan", "", "x" * 5000, "한글", "two\nlines", "BINARY"),
)
Members = Sequence[tuple[str, bytes]]


def check_archive(random: Random, folder: Path) -> str:
    """Unpack a hostile archive: all its files within limits and in their folder, or one line."""
    suffix, content = hostile_archive(random)
    archive = folder / f"a{suffix}"
    archive.write_bytes(content)
    into = folder / "into"
    into.mkdir()
    try:
        unpacked = unpack(archive, into, LIMITS)
    except DataError as error:
        outcome = rejected(error)
        assert archive.name in str(error), error
        outcome += ": MemoryError" * ("MemoryError" in str(error))
    else:
        outcome = "accepted"
        assert unpacked.files == sum(not path.is_dir() for path in into.rglob("*"))
    assert {path.name for path in folder.iterdir()} == {archive.name, "into"}, "a file outside"
    assert archive.read_bytes() == content, "the archive was changed"
    entries = [path.lstat() for path in into.rglob("*")]
    kinds = {stat.S_IFMT(entry.st_mode) for entry in entries}
    assert kinds <= {stat.S_IFREG, stat.S_IFDIR}, "a link or a device"
    assert sum(entry.st_size for entry in entries if stat.S_ISREG(entry.st_mode)) <= 3 << 20
    return outcome


def hostile_archive(random: Random, members: Members = ()) -> tuple[str, bytes]:
    """Build one: its suffix and its bytes."""
    members = list(members) or [
        ("labels.csv", b"path,emotion\na.png,anger\n"),
        ("a.png", random.randbytes(random.choice((0, 600, 3000)))),
        ("deep/b.png", bytes(700)),
    ]
    for _ in range(random.choice((0, 0, 1, 2))):
        members.insert(random.randint(0, len(members)), (random.choice(_NAMES), b"content"))
    if random.random() < 0.1:
        members.append(random.choice(members))
    build = random.choice((_zip, _zip, _tar, _tar))
    suffix, content = build(random, members)
    if random.random() < 0.35:
        content = mutate(content, random)
    if suffix == ".tar" and random.random() < 0.3:
        suffix, content = ".tar.gz", _gzip(random, content)
    if random.random() < 0.03:  # another suffix than it should have
        suffix = random.choice((".zip", ".tar", ".tar.gz", ".tgz"))
    return suffix, content


def _zip(random: Random, members: Members) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(buffer, "w", method) as opened:
        for name, content in members:
            info = zipfile.ZipInfo(name or "x")
            info.filename = name  # whatever ZipInfo makes of it
            if random.random() < 0.1:
                modes = (stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR)
                info.external_attr = (random.choice(modes) | 0o777) << 16
            if not name or name in {one.filename for one in opened.infolist()}:
                opened.NameToInfo.pop(name, None)  # else a warning for each doubled name
            opened.writestr(info, content, method)
    content = bytearray(buffer.getvalue())
    for _ in range(random.choice((0, 1, 1, 2))):
        _change_zip_field(content, random)
    if random.random() < 0.15:  # names in the encoding of another system, without the flag
        for korean in ("한글".encode("cp949"), b"\xff\xfe\x80", b"caf\xe9"):
            content = content.replace(b"deep", (korean + b"____")[:4])
    return ".zip", bytes(content)


def _change_zip_field(content: bytearray, random: Random) -> None:
    """Write a number into a field of a local header, of the directory or of its end."""
    fields = {
        b"PK\3\4": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
        b"PK\1\2": (
            *((4, 2), (6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2)),
            *((32, 2), (38, 4), (42, 4)),
        ),
        b"PK\5\6": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
    }
    mark = random.choice(list(fields))
    places = [at for at in range(len(content)) if content[at : at + 4] == mark]
    if places:
        at, size = random.choice(fields[mark])
        number = random.choice((*_NUMBERS, random.randrange(len(content))))
        raw = (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        at += random.choice(places)
        content[at : at + size] = raw[: max(0, len(content) - at)]


def _tar(random: Random, members: Members) -> tuple[str, bytes]:
    parts = []
    for name, content in members:
        if random.random() < 0.25:
            parts.append(_pax(random))
        if random.random() < 0.1:
            parts.append(_long_name(random))
        parts += _tar_member(random, name, content)
    end = random.choice((bytes(2 * _BLOCK), bytes(2 * _BLOCK), bytes(_BLOCK), b"", b"\xff" * 700))
    return ".tar", b"".join([*parts, end])


def _tar_member(random: Random, name: str, content: bytes) -> list[bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    header = bytearray(info.tobuf(random.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))))
    if random.random() < 0.4:
        _change_tar_field(header, len(header) - _BLOCK, random)
    return [bytes(header), content, bytes(-len(content) % _BLOCK)]


def _change_tar_field(header: bytearray, start: int, random: Random) -> None:
    """Write into a field of a header and mend its checksum, so that a reader goes on to it."""
    octal = (
        b"0",
        b"9",
        b"7" * 11,
        b"00000001000",
        b"-1",
        b"\x80" + b"\0" * 10 + b"\1",
        b"\xff" * 12,
    )
    kinds = [*b"01234567LKSgxNXDVM\0Zz"]
    what = random.randrange(6)
    if what == 0:
        _put(header, start + 124, random.choice(octal), 12)  # its size
    elif what == 1:
        header[start + 156] = random.choice(kinds)
    elif what == 2:
        _put(header, start + 157, random.choice(_NAMES).encode(errors="replace"), 100)
        header[start + 156] = random.choice(b"12")
    elif what == 3:
        header[start + 156] = ord("S")  # old sparse: offsets and lengths, whether more follow, size
        for at in range(386, 386 + 96, 12):
            _put(header, start + at, random.choice(octal), 12)
        header[start + 482] = random.choice((0, 1))
        _put(header, start + 483, random.choice(octal), 12)
    elif what == 4:
        _put(header, start + random.choice((0, 100, 108, 116, 136, 257, 345)), b"\xff\0x", 8)
    else:
        _put(header, start, random.choice(_NAMES).encode(errors="replace"), 100)
    if random.random() < 0.9:
        header[start + 148 : start + 156] = b" " * 8
        total = sum(header[start : start + _BLOCK])
        header[start + 148 : start + 156] = b"%06o\0 " % total


def _put(header: bytearray, at: int, raw: bytes, size: int) -> None:
    header[at : at + size] = raw[:size].ljust(size, b"\0")


def _pax(random: Random) -> bytes:
    """Return a header of notes: sound records, or such whose lengths are lies."""
    records = b""
    for _ in range(random.choice((1, 2, 40))):
        body = f" {random.choice(_PAX_KEYS)}={random.choice(_PAX_VALUES)}\n".encode()
        length = len(body) + len(str(len(body)))
        if random.random() < 0.1:
            length = random.choice((0, 1, length + 1, 10**9, 10**30))
        records += str(length).encode() + body
    if random.random() < 0.1:  # digits without an end
        records += random.choice((b"1", b"9")) * random.choice((5_000, 60_000))
    kind = random.choice((tarfile.XHDTYPE, tarfile.XGLTYPE))
    return _special(kind, records)


def _long_name(random: Random) -> bytes:
    name = random.choice(_NAMES).encode(errors="replace") + b"\0" * random.choice((0, 1, 5000))
    return _special(random.choice((tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)), name)


def _special(kind: bytes, content: bytes) -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % _BLOCK)


def _gzip(random: Random, content: bytes) -> bytes:
    packed = gzip.compress(content, mtime=0)
    what = random.randrange(6)
    if what == 0:
        return packed + gzip.compress(bytes(random.choice((0, 1 << 20, 1 << 24))), mtime=0)
    if what == 1:
        return packed + random.randbytes(50)
    if what == 2:
        return packed[:3] + bytes([random.randrange(256)]) + packed[4:]  # flags
    if what == 3:
        return packed[:-8] + struct.pack("<II", random.randrange(1 << 32), 0)
    return packed
