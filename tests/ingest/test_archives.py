"""Archives of strangers: nothing leads out, nothing fills the disk or the memory."""

import gzip
import io
import os
import random
import shutil
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tasks.core.errors import DataError
from tasks.ingest import archives
from tasks.ingest.archives import Limits, unpack

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
    count = unpack(archive, into, limits)
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
        assert "is a link or no file" in refused(tmp_path / "a.tar")


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
    assert "has 20000 bytes, and no more than 10 may come out of it" in told


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
    assert "'a.png' is not packed by deflate" in refused(tmp_path / "a.zip")
    (tmp_path / "a.zip").unlink()
    with tarfile.open(tmp_path / "a.tar", "w:bz2" if method == zipfile.ZIP_BZIP2 else "w:xz"):
        pass
    assert "is damaged or no archive" in refused(tmp_path / "a.tar")


def test_members_of_a_tar_do_not_gather_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "a.tar", {str(number): b"1" for number in range(50)})
    opened, whole = [], tarfile.open
    monkeypatch.setattr(
        archives.tarfile, "open", lambda *a, **k: opened.append(whole(*a, **k)) or opened[-1]
    )
    assert len(unpacked(path)) == 50 and len(opened[0].members) <= 1


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
    assert "a note of 4294967296 bytes" in refused(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_torn_archive_is_refused(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / kind, {"a": random.Random(1).randbytes(9_000), "b": b"2"})
    path.write_bytes(path.read_bytes()[:900])
    assert "is damaged or no archive" in refused(path)


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
    assert "as file and as folder" in refused(make(tmp_path / "a.tar", {"c": b"1", "c/d": b"2"}))
    assert "too long" in refused(make(tmp_path / "a.tar", {"e" * 300: b"1"}))
