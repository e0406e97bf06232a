"""Archives of strangers: nothing leads out, nothing fills the disk or the memory."""

import gzip
import io
import os
import random
import re
import shutil
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from flows.intake.archives import Limits, unpack
from tasks.core.errors import DataError
from tasks.core.parallel.limited_process import call_limited
from tasks.ingest.list_files import list_files

WIDE = Limits(files=100, file_bytes=1 << 30, all_bytes=1 << 30, ratio=100.0)
KINDS = ["a.zip", "a.tar", "a.tar.gz", "a.tgz"]


def make(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a zip or a tar, by the suffix."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in members.items():
                opened.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as opened:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return path


def unpacked(archive: Path, limits: Limits = WIDE) -> dict[str, bytes]:
    into = archive.parent / "into"
    into.mkdir(exist_ok=True)
    count, _ = unpack(archive, into, limits)
    found = {str(path.relative_to(into)): path for path in into.rglob("*") if path.is_file()}
    assert count == len(found)
    return {name: path.read_bytes() for name, path in found.items()}


def refused(archive: Path, limits: Limits = WIDE) -> str:
    with pytest.raises(DataError) as caught:
        unpacked(archive, limits)
    assert "\n" not in str(caught.value) and str(archive) in str(caught.value)
    outside = {path.name for path in archive.parent.iterdir()} - {archive.name, "into"}
    assert not outside
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_files_come_out_as_they_went_in(tmp_path: Path, kind: str) -> None:
    members = {"happy/a b.jpg": b"1" * 3_000_000, "Ä/c.txt": b"", "d": b"3"}
    assert unpacked(make(tmp_path / kind, members)) == members


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
@pytest.mark.parametrize(
    "name",
    [
        *("../out.jpg", "/etc/out.jpg", "a/../../out.jpg", "a\\..\\out.jpg", "\\out.jpg"),
        *("C:\\out.jpg", "C:/out.jpg", "c:out.jpg", "\\\\server\\out.jpg", "two\nlines/../x"),
    ],
)
def test_members_that_lead_out_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    assert "leads out" in refused(make(tmp_path / kind, {"fine.jpg": b"1", name: b"2"}))


@pytest.mark.parametrize("kind", KINDS)
def test_names_with_colons_and_the_separators_of_windows_are_taken(
    tmp_path: Path, kind: str
) -> None:
    members = {"p1_10:30.png": b"1", "happy\\deep\\c.png": b"2"}
    there = {"p1_10:30.png": b"1", "happy/deep/c.png": b"2"}
    assert unpacked(make(tmp_path / kind, members)) == there


def test_a_folder_of_a_zip_may_end_in_a_backslash(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zip", {"happy\\": b"", "happy\\a.png": b"1"})
    assert unpacked(path) == {"happy/a.png": b"1"}


def test_a_name_that_no_text_file_could_hold_is_said_all_the_same(tmp_path: Path) -> None:
    for name, said in ((os.fsdecode(b"../caf\xe9"), r"caf\udce9' leads out"), ("\xe4\0b", "null")):
        told = refused(make(tmp_path / "a.tar", {name: b"1"}))
        assert said in told and told.encode("utf-8")


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("link.jpg")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(member, "/etc/passwd")
    assert "is a link" in refused(tmp_path / "a.zip")
    (tmp_path / "a.zip").unlink()
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            linked = tarfile.TarInfo("link.jpg")
            linked.type, linked.linkname = kind, "/etc/passwd"
            tar.addfile(linked)
        assert "is a link or not a file" in refused(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_archives_that_unpack_to_too_much_are_stopped(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / kind, {"a": bytes(3 << 20), "b": bytes(3 << 20)})
    assert path.stat().st_size < 20_000
    assert "unpacks to more than" in refused(path, Limits(9, 1 << 30, 4 << 20, 1e9))
    written = sum(entry.stat().st_size for entry in (tmp_path / "into").iterdir())
    assert written <= 4 << 20
    for entry in (tmp_path / "into").iterdir():
        entry.unlink()
    assert "a file unpacks to more than" in refused(path, Limits(9, 1 << 20, 1 << 30, 1e9))
    (tmp_path / "into/a").unlink()
    assert "more than 1 files" in refused(path, Limits(1, 1 << 30, 1 << 30, 1e9))


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_folders_count_too(tmp_path: Path, kind: str) -> None:
    for number in range(11):
        (tmp_path / f"packed/{number}").mkdir(parents=True)
    suffix = "zip" if kind == "a.zip" else "gztar"
    path = Path(shutil.make_archive(str(tmp_path / "a"), suffix, tmp_path / "packed"))
    shutil.rmtree(tmp_path / "packed")
    assert "more than 10 files and folders" in refused(path, Limits(10, 1, 1, 100.0))


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_larger_than_all_that_may_come_out_is_not_read(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / kind).write_bytes(bytes(20_000))
    told = refused(tmp_path / kind, Limits(1, 9, 10, 9))
    assert "has 20000 bytes, more than the 10 it may unpack to" in told


def crowded(path: Path, members: int) -> int:
    """Write a zip that says it has one member and lists very many; returns its list's length."""
    whole = make(path, {"a.png": b""}).read_bytes()
    start, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    entries = whole[start:end] * members
    record = whole[end : end + 12] + struct.pack("<L", len(entries)) + whole[end + 16 :]
    path.write_bytes(whole[:start] + entries + record)
    return len(entries)


@pytest.mark.parametrize(
    ("allowed", "said", "held"),
    [(50_000, "more than 50000 files", 2), (1_000, "too many for 1000 files", 0)],
)
def test_members_of_a_zip_do_not_gather_in_memory(
    tmp_path: Path, allowed: int, said: str, held: int
) -> None:
    length = crowded(tmp_path / "a.zip", 100_000)
    tracemalloc.start()
    try:
        assert said in refused(tmp_path / "a.zip", Limits(allowed, 1 << 30, 1 << 30, 100.0))
        assert tracemalloc.get_traced_memory()[1] < held * length + 1_000_000
    finally:
        tracemalloc.stop()


def test_a_zip_of_as_many_members_as_there_may_be_comes_out(tmp_path: Path) -> None:
    members = {f"{number:0200}": b"" for number in range(4_500)}  # its list is beyond a chunk
    path = make(tmp_path / "a.zip", members)
    assert unpacked(path, Limits(4_500, 1, 1, 1.0)) == members


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_python_unpacks_in_one_piece_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as opened:
        opened.writestr("a.png", bytes(1 << 20))
    assert "'a.png' is not compressed by deflate" in refused(tmp_path / "a.zip")
    (tmp_path / "a.zip").unlink()
    with tarfile.open(tmp_path / "a.tar", "w:bz2" if method == zipfile.ZIP_BZIP2 else "w:xz"):
        pass
    assert "is damaged or not an archive" in refused(tmp_path / "a.tar")


def test_members_of_a_tar_do_not_gather_in_memory(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    (tmp_path / "a.tar").write_bytes(folder.tobuf() * 5_000 + bytes(1024))
    tracemalloc.start()
    try:
        assert unpacked(tmp_path / "a.tar", Limits(5_000, 1, 1, 100.0)) == {}
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_a_bomb_is_stopped_by_its_ratio(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / kind, {"a": bytes(20 << 20)})
    assert "times its" in refused(path)
    assert (tmp_path / "into/a").stat().st_size <= 16 << 20


def test_a_tar_whose_note_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    note = tarfile.TarInfo("note")
    note.type, note.size = tarfile.XHDTYPE, 1 << 32
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(note.tobuf(tarfile.GNU_FORMAT) + bytes(10_240)))
    assert "an extended header of 4294967296 bytes" in refused(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_torn_archive_is_refused(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / kind, {"a": random.Random(1).randbytes(9_000), "b": b"2"})
    path.write_bytes(path.read_bytes()[:900])
    assert "is damaged or not an archive" in refused(path)


def test_damaged_members_and_doubled_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as opened:
        opened.writestr("a.jpg", b"sound content")
    path.write_bytes(path.read_bytes().replace(b"sound", b"sOund"))
    assert "damaged" in refused(path)
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as opened:
        opened.writestr("b.jpg", b"1")
        opened.writestr("b.jpg", b"2")
    assert "twice" in refused(path)
    path.unlink()
    (tmp_path / "into/b.jpg").unlink()
    assert "both as a file and as a folder" in refused(
        make(tmp_path / "a.tar", {"c": b"1", "c/d": b"2"})
    )
    assert "too long" in refused(make(tmp_path / "a.tar", {"e" * 300: b"1"}))


def limited(archive: Path, seconds: float = 10.0, memory_mb: int = 200) -> str:
    """Unpack in a process under limits; returns the one line with which it is refused."""
    into = archive.parent / "into"
    into.mkdir(exist_ok=True)
    with pytest.raises(DataError) as caught:
        call_limited(
            "tests.unpack_limited:unpack",
            str(archive),
            str(into),
            seconds=seconds,
            memory_mb=memory_mb,
        )
    assert type(caught.value) is DataError and "\n" not in str(caught.value)
    return str(caught.value)


def note(content: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    header = tarfile.TarInfo("note")
    header.type, header.size = kind, len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """Return a pax record."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length < len(rest) + len(str(length)):
        length += 1
    return str(length).encode() + rest


def one_file(name: str = "a.png", content: bytes = b"1") -> bytes:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header.tobuf() + content + bytes(-len(content) % 512)


def sparse_file(blocks: int) -> bytes:
    """Return a file with holes as GNU tar wrote it first: a map of any length in the headers."""
    header = tarfile.TarInfo("s")
    header.type = tarfile.GNUTYPE_SPARSE
    content = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    content[482], content[148:156] = 1, b" " * 8
    content[148:156] = b"%06o\0 " % sum(content)
    block = b"00000000001\x0000000000001\0" * 21
    return bytes(content) + (block + b"\1" + bytes(511 - len(block))) * blocks


END = bytes(1024)


def test_a_name_that_is_korean_but_no_utf_8_says_what_renames_it(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode("아이.png".encode("cp949"))).write_bytes(b"1")
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"1")
    faults = list_files(tmp_path).faults
    told = {fault.detail for fault in faults.values() if fault.reason == "not_utf8_name"}
    assert len(told) == 2
    assert sum("'아이.png' in cp949" in line and "convmv" in line for line in told) == 1


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "digits without an end": (lambda: note(b"1" * 1_000_000) + one_file(), "invalid pax record"),
    "records without an end": (lambda: note(record(b"a", b"") * 99_999), "more than 1000 pax"),
    "records of all members": (
        lambda: b"".join(
            note(record(b"a", b"b" * 900_000), tarfile.XGLTYPE) + one_file(f"{number}")
            for number in range(20)
        ),
        "times its",
    ),
    "a note on a note": (lambda: note(record(b"a", b"b")) * 17, "more than 16 extended headers"),
    "a map in a record": (
        lambda: note(record(b"GNU.sparse.map", b"0," * 400_000)) + one_file(),
        "'a.png' is a sparse file",
    ),
    "a map in headers": (lambda: sparse_file(50_000), "'s' is a sparse file"),
    "a size of many digits": (lambda: note(record(b"size", b"9" * 90_000)), "is not a number"),
    "a size below zero": (lambda: negative_size(), "a member of -"),
    "a name of a megabyte": (lambda: note(record(b"path", b"../" * 300_000)) + one_file(), "leads"),
    "deep folders": (lambda: note(record(b"path", b"a/" * 1_000)) + one_file(), "64 deep"),
}


def negative_size() -> bytes:
    header = bytearray(one_file()[:512])
    header[124:136], header[148:156] = b"\xff" * 12, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_of_a_tar_costs_little_time_and_memory(tmp_path: Path, bomb: str) -> None:
    content, said = BOMBS[bomb]
    (tmp_path / "a.tgz").write_bytes(gzip.compress(content() + END, 9))
    told = limited(tmp_path / "a.tgz")
    assert said in told and len(told) < 700


def test_names_and_sizes_of_every_tar_format_are_read(tmp_path: Path) -> None:
    members = {"ä" * 70 + "/" + "b" * 90 + ".png": b"1", "c" * 200: b"2" * 700, "d/e": b""}
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as opened:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(content), 1.5  # which pax notes
                opened.addfile(member, io.BytesIO(content))
        assert unpacked(tmp_path / "a.tar") == members
        shutil.rmtree(tmp_path / "into")


def test_no_member_after_a_damaged_or_missing_header_is_lost_in_silence(tmp_path: Path) -> None:
    whole = make(tmp_path / "a.tar", {"a": b"1", "b": b"2"}).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:1024] + b"x" + whole[1025:])
    assert "bad checksum" in refused(tmp_path / "a.tar")
    shutil.rmtree(tmp_path / "into")
    (tmp_path / "a.tar").write_bytes(whole[:1024])
    assert "ends without the empty blocks" in refused(tmp_path / "a.tar")


def zipped_as(path: Path, names: Sequence[bytes], extra: bytes = b"") -> Path:
    """Write a zip whose names have these bytes and no word on their encoding."""
    with zipfile.ZipFile(path, "w") as opened:
        for number, _ in enumerate(names):
            member = zipfile.ZipInfo(f"{number:03}")
            member.extra = extra
            opened.writestr(member, b"%d" % number)
    content = path.read_bytes()
    for number, name in enumerate(names):
        assert len(name) >= 3
        content = _renamed(content, b"%03d" % number, name)
    path.write_bytes(content)
    return path


def _renamed(content: bytes, old: bytes, new: bytes) -> bytes:
    """Give a member of a zip another name, in its own header and in the directory."""
    more = len(new) - len(old)
    local = content.index(b"PK\3\4")
    while content[local + 30 : local + 33] != old:
        local = content.index(b"PK\3\4", local + 4)
    content = _with_name(content, local, 26, 30, old, new)
    entry = content.index(b"PK\1\2")
    while content[entry + 46 : entry + 49] != old:
        entry = content.index(b"PK\1\2", entry + 4)
    content = _with_name(content, entry, 28, 46, old, new)
    entry = content.index(b"PK\1\2")
    end = content.index(b"PK\5\6")
    patched = bytearray(content)
    at = entry
    while at < end:
        (offset,) = struct.unpack_from("<L", patched, at + 42)
        if offset > local:
            struct.pack_into("<L", patched, at + 42, offset + more)
        lengths = struct.unpack_from("<HHH", patched, at + 28)
        at += 46 + sum(lengths)
    struct.pack_into("<LL", patched, end + 12, end - entry, entry)
    return bytes(patched)


def _with_name(content: bytes, at: int, length: int, name: int, old: bytes, new: bytes) -> bytes:
    size = struct.pack("<H", len(new))
    head = content[at : at + length] + size + content[at + length + 2 : at + name]
    return content[:at] + head + new + content[at + name + len(old) :]


def test_names_of_korean_windows_are_read(tmp_path: Path) -> None:
    names = ["labels.csv", "아이0_happy.png", "김철수/사진 (1).jpg", "happy/이영희.jpg"]
    path = zipped_as(tmp_path / "a.zip", [name.encode("cp949") for name in names])
    (tmp_path / "into").mkdir()
    assert unpack(path, tmp_path / "into", WIDE).notes == (
        "3 names read as cp949; the zip declares no encoding",
    )
    there = [p.relative_to(tmp_path / "into") for p in (tmp_path / "into").rglob("*.*")]
    assert {str(path) for path in there} == set(names)


def test_names_of_macos_and_of_the_west_are_read(tmp_path: Path) -> None:
    for encoding, names in (("utf-8", ["아이.png", "é.png"]), ("cp437", ["Müller.png", "Zoé.png"])):
        path = zipped_as(tmp_path / "a.zip", [name.encode(encoding) for name in names])
        assert set(unpacked(path)) == set(names)
        shutil.rmtree(tmp_path / "into")


def test_the_name_in_utf_8_that_lies_beside_another_one_is_taken(tmp_path: Path) -> None:
    name = "山田_happy.png"
    plain = name.encode("cp932")
    field = struct.pack("<BL", 1, zlib.crc32(plain)) + name.encode()
    extra = struct.pack("<HH", 0x7075, len(field)) + field
    assert set(unpacked(zipped_as(tmp_path / "a.zip", [plain], extra))) == {name}


@pytest.mark.parametrize(
    "names",
    [
        ["ひろし.png".encode("cp932"), "はなこ.png".encode("cp932")],
        ["王小明.png".encode("gbk")],
        ["아이.png".encode("cp949"), b"caf\xe9.png"],
        [bytes(range(0x80, 0x100)) + b".png"],
    ],
)
def test_names_of_no_known_encoding_are_refused_with_advice(
    tmp_path: Path, names: list[bytes]
) -> None:
    told = refused(zipped_as(tmp_path / "a.zip", names))
    assert "neither UTF-8 nor entirely Korean (cp949)" in told and "-mcu=on" in told
    assert repr(names[0])[2:-1] in told


UNREADABLE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda whole: b"", "it has 0 bytes"),
    "directory elsewhere": (lambda whole: whole[:-6] + b"\xff\xff\xff\xff\0\0", "Invalid argument"),
    "directory beyond": (lambda whole: whole[:-10] + b"\xff" * 8 + b"\0\0", "BadZipFile"),
    "no directory": (lambda whole: whole[:-22], "not a zip file"),
    "RAR": (lambda whole: b"Rar!\x1a\7\1\0" + bytes(40), "a RAR archive"),
    "7z": (lambda whole: b"7z\xbc\xaf\x27\x1c" + bytes(40), "a 7-Zip archive; unpack it and pack"),
    "ALZ": (lambda whole: b"ALZ\1" + bytes(40), "an ALZ archive"),
    "gzip": (lambda whole: gzip.compress(b"1"), "ends in .tar.gz"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_every_unreadable_zip_is_refused(tmp_path: Path, kind: str) -> None:
    spoil, said = UNREADABLE[kind]
    path = make(tmp_path / "a.zip", {"a.png": b"1"})
    path.write_bytes(spoil(path.read_bytes()))
    told = refused(path)
    assert re.search(said, told) and "is damaged or not an archive of its suffix" in told


def test_an_encrypted_zip_and_a_zip_named_tar_are_refused(tmp_path: Path) -> None:
    whole = bytearray(make(tmp_path / "a.zip", {"a.png": b"1"}).read_bytes())
    whole[whole.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(whole)
    assert "'a.png' is a link or encrypted" in refused(tmp_path / "a.zip")
    (tmp_path / "a.zip").rename(tmp_path / "a.tar")
    assert "it is a zip; give it a name that ends in .zip" in refused(tmp_path / "a.tar")
