"""The inbox: a batch is taken in once, kept out with its reasons, or left; nothing is lost."""

import errno
import io
import os
import re
import shutil
import signal
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from inbox_world import (
    checked,
    files_of,
    linked_into_cache,
    paths,
    png,
    reason,
    send,
    send_archive,
    state_of,
    take,
    tree,
)
from PIL import Image

from flows.doctor.state_checks import interrupted_intakes
from flows.intake import atomic_moves, recovery, validate_batch
from flows.intake import entries as entries_module
from flows.intake import inbox as module
from flows.intake.entries import BatchRejectedError, dataset_of, inbox_entry
from flows.intake.intake import withdraw
from flows.intake.settings import Params
from flows.ledger.ledger import Arrival, Ledger
from flows.pipeline import dvc_repair
from tasks.check import batch_checks as checks
from tasks.core import files as files_module
from tasks.core.errors import AffectGapError, DataError, ParamsError, UserError
from tasks.core.files import alone
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, read_table, write_table
from tasks.ingest import stage as ingest_stage
from tasks.ingest.manifest import manifest_table

__all__ = ["checked", "paths"]  # the fixtures


def test_a_batch_becomes_part_of_the_data_and_of_the_manifest(paths: Paths) -> None:
    sent = tree(send(paths, "site 3", files_of(1)))
    send(paths, "later", files_of(2), mark="dataset: arrived\n")
    taken = take(paths)
    assert {name: one.state for name, one in taken.items()} == {
        "later": "accepted",
        "site-3": "accepted",
    }
    assert tree(paths.raw / "arrived/site-3") == sent and not any(paths.inbox.iterdir())
    known = Ledger(paths.ledger).images()
    params = load_section(paths.params, "ingest", ingest_stage.Params)
    only = {"arrived": params.datasets["arrived"]}
    ingest_stage.run(params.model_copy(update={"datasets": only}), paths)
    manifest = read_table(paths.manifest)
    assert manifest.groupby("batch").size().to_dict() == {"later": 6, "site-3": 6}
    assert set(manifest["path"].str.rsplit("/", n=1).str[0]) == {"arrived/later", "arrived/site-3"}
    columns = ["path", "sha256", "image_id", "subject_id", "emotion", "age_band", "gender"]
    assert known[columns].equals(manifest.sort_values("path")[columns].reset_index(drop=True))


def test_a_half_copied_batch_waits(paths: Paths) -> None:
    send(paths, "half", files_of(1), mark=None)
    before = tree(paths.inbox)
    assert take(paths)["half"].state == "not_ready" and tree(paths.inbox) == before
    assert state_of(paths) == {} and not paths.ledger.exists()
    (paths.inbox / "half/_READY").touch()
    assert take(paths)["half"].state == "accepted"


def test_the_same_batch_again_is_said_and_kept(paths: Paths) -> None:
    send(paths, "a", files_of(1))
    take(paths)
    inode = (paths.raw / "arrived/a/labels.csv").stat().st_ino
    send(paths, "a", files_of(1))
    send_archive(paths, "other.tar.gz", files_of(1))
    taken = take(paths)
    assert {one.state for one in taken.values()} == {"repeated"}
    assert "the same as batch a" in reason(paths, "a.2") and "other" in taken
    assert (paths.raw / "arrived/a/labels.csv").stat().st_ino == inode
    assert (paths.quarantine / "other/other.tar.gz").is_file()
    assert not any(paths.inbox.iterdir())


def test_partly_repeated_images(tmp_path: Path, paths: Paths) -> None:
    files = files_of(1)
    send(paths, "a", files)
    take(paths)
    mixed = files_of(2)
    mixed["labels.csv"] += b"old.png,anger,p1-0,6,female\n"
    mixed["old.png"] = files["p1-0_anger.png"]
    send(paths, "mixed", mixed)
    assert take(paths)["mixed"].state == "quarantined"
    assert "old.png is arrived/a/p1-0_anger.png in batch a" in reason(paths, "mixed")
    text = paths.params.read_text()
    paths.params.write_text(text.replace("max_repeated_share: 0.0", "max_repeated_share: 0.5"))
    send(paths, "again", mixed)
    assert "1 are in the data already" in take(paths)["again"].detail
    files["labels.csv"] = files["labels.csv"].replace(b",fear,", b",disgust,")
    send(paths, "conflict", {**files, "new.png": png(9)})
    assert take(paths)["conflict"].state == "quarantined"
    assert "(disgust) is the same picture as arrived/a/p1-0_fear.png (fear)" in reason(
        paths, "conflict"
    )


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no picture": (lambda at: [path.unlink() for path in at.glob("*.png")], "has no other file"),
    "empty": (lambda at: [path.unlink() for path in at.glob("*.*")], "no picture"),
    "broken": (lambda at: next(at.glob("*anger.png")).write_bytes(png(9)[:300]), "1 damaged"),
    "vanished": (lambda at: next(at.glob("*anger.png")).unlink(), "1 missing_file"),
    "too many": (lambda at: [(at / f"{n}.txt").touch() for n in range(31)], "intake.max_files"),
    "huge file": (lambda at: (at / "x").write_bytes(bytes(100_001)), "intake.max_file_mb"),
    "huge": (lambda at: [(at / n).write_bytes(bytes(90_000)) for n in "xyz"], "max_batch_mb"),
    "deep": (lambda at: (at / "/".join("d" * 25)).mkdir(parents=True), "more than 20 deep"),
    "not UTF-8": (lambda at: (at / "labels.csv").write_bytes(b"path,emotion\n\xff,1\n"), "UTF-8"),
    "name": (lambda at: (at / os.fsdecode(b"caf\xe9.png")).write_bytes(b"1"), "not_utf8_name"),
    "column": (lambda at: (at / "labels.csv").write_text("path,age\n"), "unknown column 'age'"),
    "labels twice": (lambda at: (at / "Labels.csv").touch(), "could both be the table of labels"),
    "labels of another name": (
        lambda at: (at / "labels.csv").rename(at / "labels (1).csv"),
        "looks like a table of labels",
    ),
    "outside": (lambda at: (at / "x.png").symlink_to("/etc/passwd"), "outside_link"),
    "link": (lambda at: (at / "x.png").symlink_to(next(at.glob("*anger.png"))), "is a link"),
    "folder link": (lambda at: (at / "x").symlink_to("/etc"), "outside_link"),
    "pipe": (lambda at: os.mkfifo(at / "x.png"), "not_a_file"),
    "mark": (lambda at: (at / "_READY").write_text("dataset: nowhere"), "'nowhere' takes no"),
    "drawn": (lambda at: (at / "_READY").write_text("dataset: drawn"), "'drawn' takes no"),
    "odd mark": (lambda at: (at / "_READY").write_bytes(b"\xff\0"), "_READY must be empty"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_batch_with_a_fault_is_quarantined_whole(paths: Paths, fault: str) -> None:
    spoil, said = FAULTS[fault]
    folder = send(paths, "bad", files_of(1))
    send(paths, "good", files_of(2))
    spoil(folder)
    entries = sorted(os.listdir(folder))
    taken = take(paths)
    assert taken["bad"].state == "quarantined" and taken["good"].state == "accepted"
    assert said in reason(paths, "bad") and said in taken["bad"].detail
    assert sorted(os.listdir(paths.quarantine / "bad")) == sorted([*entries, "REASON.md"])
    assert not any(paths.inbox.iterdir()) and os.listdir(paths.raw / "arrived") == ["good"]
    assert state_of(paths) == {"bad": "quarantined", "good": "accepted"}


@pytest.mark.parametrize("inner", ["", "folder"])
@pytest.mark.parametrize("name", ["b.zip", "b.tar", "b.tar.gz"])
def test_archives_are_batches(paths: Paths, name: str, inner: str) -> None:
    files = files_of(1)
    path = send_archive(paths, name, files, inner)
    mark = path.with_name(f"{name}._READY")
    mark.unlink()
    assert take(paths)[name].state == "not_ready"
    mark.touch()
    assert take(paths)["b"].state == "accepted"
    assert set(tree(paths.raw / "arrived/b")) == {*files, "_READY"}
    assert not any(paths.inbox.iterdir()) and os.listdir(paths.raw) == ["arrived"]


def test_hostile_archives_are_quarantined_as_they_are(paths: Paths) -> None:
    with zipfile.ZipFile(paths.inbox / "out.zip", "w") as opened:
        opened.writestr("../../../out.png", png(1))
    with zipfile.ZipFile(paths.inbox / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.png", bytes(5_000_000))
    with zipfile.ZipFile(paths.inbox / "many.zip", "w") as opened:
        for number in range(31):
            opened.writestr(f"{number}.png", b"")
    with tarfile.open(paths.inbox / "link.tar", "w") as opened:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(link)
    with zipfile.ZipFile(paths.inbox / "mark.zip", "w") as opened:
        opened.writestr("a.png", png(1))
        opened.writestr("_READY/b.png", png(2))
    (paths.inbox / "torn.tar.gz").write_bytes(b"\x1f\x8b\x08torn")
    for path in list(paths.inbox.iterdir()):
        path.with_name(f"{path.name}._READY").touch()
    before = set(os.listdir(paths.inbox))
    words = {"out": "leads out", "bomb": "unpacks to more", "many": "more than 30 files"}
    words |= {"link": "is a link", "torn": "is damaged", "mark": "a folder named _READY"}
    taken = take(paths)
    assert {one.state for one in taken.values()} == {"quarantined"}
    for batch, said in words.items():
        assert said in reason(paths, batch)
    there = {path.name for path in paths.quarantine.rglob("*") if path.is_file()}
    assert there == before | {"REASON.md"} and os.listdir(paths.raw) == []


def with_directory_elsewhere(path: Path) -> bytes:
    """Return a zip whose end says that its list of members begins where nothing is."""
    whole = path.read_bytes()
    return whole[:-6] + b"\xff\xff\xff\xff\0\0"


@pytest.mark.parametrize("name", ["b.zip", "b.tar.gz"])
def test_no_unreadable_archive_stays_in_the_inbox(paths: Paths, name: str) -> None:
    path = send_archive(paths, name, files_of(1))
    whole = path.read_bytes()
    spoilt = {"cut": whole[:-900], "empty": b"", "rar": b"Rar!\x1a\7" + bytes(99)}
    if name == "b.zip":
        spoilt["elsewhere"] = with_directory_elsewhere(path)
    path.unlink()
    (paths.inbox / f"{name}._READY").unlink()
    for kind, content in spoilt.items():
        given = paths.inbox / name.replace("b", kind, 1)
        given.write_bytes(content)
        given.with_name(f"{given.name}._READY").touch()
    taken = take(paths)
    assert {one.state for one in taken.values()} == {"quarantined"} and set(taken) == set(spoilt)
    for kind, content in spoilt.items():
        assert (paths.quarantine / kind / name.replace("b", kind, 1)).read_bytes() == content
        assert "is damaged or not an archive of its suffix" in reason(paths, kind)
    assert not any(paths.inbox.iterdir())


def test_a_zip_of_korean_windows_is_a_batch(paths: Paths) -> None:
    files = {name.replace("p1-", "아이"): one for name, one in files_of(1).items()}
    files["labels.csv"] = files["labels.csv"].replace(b"\np1-", "\n아이--".encode())
    path = send_archive(paths, "b.zip", files)
    content = path.read_bytes().replace("아이".encode(), b"\xbe\xc6\xc0\xcc--")
    path.write_bytes(_without_utf8_flags(content))
    taken = take(paths)["b"]
    assert taken.state == "accepted" and taken.n_pictures == 6
    assert "6 names read as cp949; the zip declares no encoding" in taken.detail


def _without_utf8_flags(content: bytes) -> bytes:
    """Take back what a zip says of its names' encoding."""
    changed = bytearray(content)
    for start, flags in ((b"PK\3\4", 7), (b"PK\1\2", 9)):
        at = content.find(start)
        while at >= 0:
            changed[at + flags] &= 0xF7
            at = content.find(start, at + 4)
    return bytes(changed)


def test_images_of_12_bits_in_16_are_said(paths: Paths) -> None:
    files = files_of(1)
    buffer = io.BytesIO()
    deep = np.arange(2500, dtype=np.uint16).reshape(50, 50)
    Image.fromarray(deep).save(buffer, "PNG")
    files["p1-0_anger.png"] = buffer.getvalue()
    send(paths, "a", files)
    detail = take(paths)["a"].detail
    assert "12 bits in 16, scaled by 4095 (pictures: 1)" in detail
    params = load_section(paths.params, "ingest", ingest_stage.Params)
    only = {"arrived": params.datasets["arrived"]}
    for _ in range(2):  # again from what the first run kept
        result = ingest_stage.run(params.model_copy(update={"datasets": only}), paths)
        assert "scaled by 4095 (pictures: 1)" in result.summary


def test_what_windows_lays_into_folders_is_passed_over(paths: Paths) -> None:
    own = {"Thumbs.db": b"1", "desktop.ini": b"2", "EHThumbs.DB": b"3"}
    send(paths, "a", {**files_of(1), **own})
    send_archive(paths, "b.zip", {f"inner/{n}": c for n, c in files_of(2).items()} | own)
    (paths.inbox / "desktop.ini").write_bytes(b"4")
    taken = take(paths)
    assert {name: one.state for name, one in taken.items()} == {"a": "accepted", "b": "accepted"}
    assert all("left out" not in one.detail for one in taken.values())
    assert [path.name for path in paths.inbox.iterdir()] == ["desktop.ini"]


def merge_bomb() -> str:
    """Return 600 bytes of YAML that are 9¹² mappings once they are merged."""
    lines = ["a0: &a0 {k: v}"]
    for level in range(1, 12):
        lines.append(f"a{level}: &a{level} {{<<: [{','.join([f'*a{level - 1}'] * 9)}]}}")
    return "\n".join(lines)


ODD_MARKS = [
    merge_bomb(),
    "dataset: arrived\ndataset: drawn",
    "dataset: arrived\n" + "# \n" * 2000,
    "2026-11-31",  # a day that is none
    "[" * 600,  # deeper than Python's stack
    "!!int ''",
    'dataset: "a\\nb"',
    'dataset: "\\ud800"',
    "#" * 5000,
]


@pytest.mark.usefixtures("bounded")
def test_no_mark_however_odd_keeps_the_others_out(paths: Paths) -> None:
    params = load_section(paths.params, "intake", Params)
    for mark in ODD_MARKS:
        found = inbox_entry(send(paths, "odd", {"x.png": b""}, mark))
        assert found is not None
        with pytest.raises(BatchRejectedError, match="_READY must be empty"):
            dataset_of(found, params)
    (paths.inbox / "odd/_READY").write_text(ODD_MARKS[0])
    send(paths, "z", files_of(1, people=1))
    taken = take(paths)
    assert [taken["odd"].state, taken["z"].state] == ["quarantined", "accepted"]


def test_a_batch_that_breaks_the_reading_is_left_and_said(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(paths, "a", files_of(1, people=1))
    send(paths, "b", files_of(2, people=1))
    whole = validate_batch.read_batch

    def breaking(
        folder: Path, batch: str, how: validate_batch.ReadOptions
    ) -> entries_module.BatchReading:
        if batch == "a":
            raise ZeroDivisionError("odd\nbytes")
        return whole(folder, batch, how)

    monkeypatch.setattr(module, "read_batch", breaking)
    taken = take(paths)
    assert [taken["a"].state, taken["b"].state] == ["not_ready", "accepted"]
    assert "ZeroDivisionError odd bytes" in taken["a"].detail


@pytest.fixture
def bounded() -> Iterator[None]:
    """End what would wait for a pipe's other end for ever."""

    def stop(*_: object) -> None:
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("bounded")
def test_a_pipe_is_not_opened_wherever_it_is(paths: Paths) -> None:
    for name, pipe in (("hidden", ".x"), ("deep", ".d/p"), ("reason", "REASON.md")):
        folder = send(paths, name, {"f": b""})
        (folder / pipe).parent.mkdir(exist_ok=True)
        os.mkfifo(folder / pipe)
    own = send(paths, "own", {"REASON.md": b"theirs", ".REASON.txt": b"1", "x.png": b"no picture"})
    taken, place = take(paths), paths.quarantine
    assert {one.state for one in taken.values()} == {"quarantined"}
    assert "'.x': hidden, and not a plain file" in taken["hidden"].detail
    assert "'.d/p': hidden" in taken["deep"].detail and "not_a_file" in taken["reason"].detail
    assert (place / "reason/REASON.sender.md").is_fifo() and "# Why" in reason(paths, "reason")
    assert not own.exists() and (place / "own/REASON.sender.md").read_text() == "theirs"
    assert (place / "own/.REASON.txt").is_file() and "# Why" in reason(paths, "own")


def test_a_batch_that_cannot_be_moved_does_not_keep_the_others_out(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(paths, "stuck", {"x.png": b"no picture"})
    send(paths, "a", files_of(1, people=1))
    whole, held = os.rename, {"stuck"}

    def denied(source: Path, target: Path) -> None:
        if Path(source).name in held:
            raise PermissionError(errno.EACCES, "Permission denied", str(source))
        whole(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", denied)
        assert take(paths)["a"].state == "accepted"
        send(paths, "b", files_of(2, people=1))
        taken = take(paths)
        assert [taken["stuck"].state, taken["b"].state] == ["not_ready", "accepted"]
        (finding,) = interrupted_intakes(paths)
        assert "cannot be moved to data/quarantine/stuck (Permission den" in finding.what
        assert not finding.mended and (paths.inbox / "stuck/x.png").is_file()
        held.add("a")
        with pytest.raises(DataError, match="a: cannot be moved to data/quarantine/a"):
            withdraw(paths, "a", "why", "")
    assert "a: withdrawn, now in data/quarantine/a" in withdraw(paths, "a", "why", "")
    assert take(paths) == {}
    assert state_of(paths) == {"stuck": "quarantined", "a": "withdrawn", "b": "accepted"}
    assert not any(paths.inbox.iterdir())


def test_what_waits_for_ingest_blames_no_new_batch(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as links into DVC's cache nor where params.yaml reads its data set no more."""
    there: list[int] = []
    monkeypatch.setattr(checks, "pipeline_faults", lambda rows, *_: there.append(len(rows)) or [])
    write_table(manifest_table([]), paths.manifest, MANIFEST_SCHEMA)
    send(paths, "a", files_of(1, people=1))
    assert take(paths)["a"].state == "accepted"
    linked_into_cache(paths, "a")
    send(paths, "b", files_of(2, people=1))
    assert take(paths)["b"].state == "accepted"
    text = paths.params.read_text()
    paths.params.write_text(re.sub(r"\barrived\b", "clinic", text))
    send(paths, "c", files_of(3, people=1))
    assert take(paths)["c"].state == "accepted" and there == [0, 3, 0]


def test_a_batch_whose_folder_is_missing_keeps_its_name(paths: Paths) -> None:
    send(paths, "a", files_of(1, people=1))
    take(paths)
    shutil.rmtree(paths.raw / "arrived/a")
    send(paths, "a", files_of(1, people=1))
    told = take(paths)["a.2"]
    assert told.state == "repeated" and "`affectgap doctor` says what to do" in told.detail
    assert state_of(paths) == {"a": "accepted", "a.2": "quarantined"}


def test_a_withdrawn_batch_outlives_the_cache_of_dvc(paths: Paths) -> None:
    sent = tree(send(paths, "a", {**files_of(1, people=1), "deep/.x": b"x", ".y": b"y"}))
    # Hidden files are left out when it is read, and kept all the same.
    text = paths.params.read_text()
    paths.params.write_text(text.replace("max_faulty_share: 0.0", "max_faulty_share: 0.5"))
    assert take(paths)["a"].state == "accepted"
    linked_into_cache(paths, "a")
    withdraw(paths, "a", "why", "")
    shutil.rmtree(paths.at(".dvc/cache"))  # `dvc gc`
    there = tree(paths.quarantine / "a")
    assert there.pop("REASON.md") and there == sent
    assert [path.name for path in paths.quarantine.iterdir()] == ["a"]


def test_a_link_to_a_folder_elsewhere_is_not_followed(paths: Paths) -> None:
    elsewhere = send(paths, "elsewhere", files_of(1)).rename(paths.root / "elsewhere")
    (paths.inbox / "link").symlink_to(elsewhere)
    before = tree(elsewhere)
    assert take(paths)["link"].state == "quarantined"
    assert (paths.quarantine / "link/link").is_symlink() and tree(elsewhere) == before
    assert "Put what `link` leads to into data/inbox itself" in reason(paths, "link")


@pytest.mark.parametrize("mark", ["x.zip._READY", "x.zip_READY"])
@pytest.mark.parametrize("leads_to", ["archive", "folder", "nothing"])
def test_a_link_in_place_of_an_archive_is_not_followed(
    paths: Paths, mark: str, leads_to: str
) -> None:
    elsewhere = paths.root / "elsewhere"
    elsewhere.mkdir()
    if leads_to == "archive":
        send_archive(paths, "x.zip", files_of(1)).rename(elsewhere / "x.zip")
        (paths.inbox / "x.zip._READY").unlink()
    if leads_to == "folder":
        send(paths, "x", files_of(1), mark=None).rename(elsewhere / "x.zip")
    (paths.inbox / "x.zip").symlink_to(elsewhere / "x.zip")
    assert take(paths)["x.zip"].state == "not_ready"
    (paths.inbox / mark).touch()
    before = tree(elsewhere)
    assert take(paths)["x"].state == "quarantined" and not any(paths.inbox.iterdir())
    assert sorted(os.listdir(paths.quarantine / "x")) == ["REASON.md", "x.zip", mark]
    assert (paths.quarantine / "x/x.zip").is_symlink() and tree(elsewhere) == before
    told = reason(paths, "x")
    assert "- it is a link" in told and "Put what `x.zip` leads to into data/inbox" in told


def test_a_folder_that_may_not_be_opened_keeps_no_other_batch_out(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = send(paths, "closed", files_of(1))
    send(paths, "open", files_of(2))
    whole = Path.is_file

    def is_file(path: Path) -> bool:
        if path.parent == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    taken = take(paths)
    assert [taken["closed"].state, taken["open"].state] == ["not_ready", "accepted"]
    assert "cannot be opened (Permission denied)" in taken["closed"].detail


def what_to_do(paths: Paths, batch: str) -> str:
    """The advice of a REASON.md, which the tests below follow."""
    return reason(paths, batch).partition("## What to do\n\n")[2]


def test_a_folder_is_given_again_as_its_reasons_say(paths: Paths) -> None:
    files = files_of(1)
    send(paths, "a", {**files, "x.png": b"no picture"})
    assert take(paths)["a"].state == "quarantined"
    place, told = paths.quarantine / "a", what_to_do(paths, "a")
    assert "put this folder into data/inbox again (this file may stay in it)" in told
    assert "with `_READY` written last" in told
    (place / "x.png").unlink()  # mended
    (place / "_READY").unlink()
    place.rename(paths.inbox / "a")
    assert take(paths)["a"].state == "not_ready"
    (paths.inbox / "a/_READY").touch()
    assert take(paths)["a"].state == "accepted"
    assert set(tree(paths.raw / "arrived/a")) == {*files, "_READY"}
    assert state_of(paths) == {"a": "accepted"} and not any(paths.quarantine.iterdir())


@pytest.mark.parametrize("mark", ["._READY", "_READY"])
@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_an_archive_is_given_again_as_its_reasons_say(paths: Paths, name: str, mark: str) -> None:
    files = files_of(1)
    archive = send_archive(paths, name, {**files, "x.png": b"no picture"})
    archive.with_name(f"{name}._READY").rename(archive.with_name(name + mark))
    assert take(paths)["a"].state == "quarantined"
    told = what_to_do(paths, "a")
    assert f"unpack `{name}`, fix its contents, and pack it again. Put that into data/inbox" in told
    assert f"with `{name}{mark}` beside it written last, and remove this folder" in told
    send_archive(paths, name, files)  # mended
    (paths.inbox / f"{name}._READY").unlink()
    assert take(paths)[name].state == "not_ready"
    (paths.inbox / f"{name}{mark}").touch()
    shutil.rmtree(paths.quarantine / "a")
    assert take(paths)["a"].state == "accepted" and state_of(paths) == {"a": "accepted"}
    assert set(tree(paths.raw / "arrived/a")) == {*files, "_READY"}


def test_a_folder_of_the_quarantine_may_come_again_as_an_archive(paths: Paths) -> None:
    files = files_of(1)
    send(paths, "a", {**files, "x.png": b"no picture"})
    take(paths)
    given = {**files, "REASON.md": reason(paths, "a").encode(), "_READY": b""}
    send_archive(paths, "a.zip", given, inner="a")  # and nobody has removed the folder
    assert take(paths)["a.2"].state == "accepted"
    assert set(tree(paths.raw / "arrived/a.2")) == {*files, "_READY"}


def test_reasons_of_a_batch_whose_folder_was_missing_promise_none(paths: Paths) -> None:
    send(paths, "a", files_of(1))
    take(paths)
    shutil.rmtree(paths.raw / "arrived/a")
    withdraw(paths, "a", "no consent", "")
    assert what_to_do(paths, "a").startswith("Nothing of it is left here")


def in_the_middle(monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object]) -> None:
    """Have a sender act while its batch is being read, once."""
    whole, acts = validate_batch.read_batch, [act]

    def read(
        folder: Path, batch: str, how: validate_batch.ReadOptions
    ) -> entries_module.BatchReading:
        found = whole(folder, batch, how)
        if acts:
            acts.pop()(folder)
        return found

    monkeypatch.setattr(module, "read_batch", read)


@pytest.mark.parametrize(
    "act",
    [
        lambda at: (at / "new.png").write_bytes(png(7)),
        lambda at: (at / "p1-0_fear.png").write_bytes((at / "p1-0_fear.png").read_bytes()),
        lambda at: (at / "p1-0_fear.png").unlink(),
        lambda at: (at / "_READY").write_text("dataset: arrived"),
        lambda at: at.rename(at.with_name("renamed")),
        shutil.rmtree,
    ],
    ids=["added", "written", "removed", "marked again", "renamed", "gone"],
)
def test_a_batch_that_changes_while_it_is_read_is_left(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object]
) -> None:
    send(paths, "a", files_of(1))
    in_the_middle(monkeypatch, act)
    assert take(paths)["a"].state == "not_ready"
    assert state_of(paths) == {} and not paths.quarantine.exists()
    assert list(paths.raw.rglob("*.png")) == []
    left = os.listdir(paths.inbox)
    assert len(left) == (0 if act is shutil.rmtree else 1)


def test_a_mark_that_appears_while_the_inbox_is_read(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(paths, "a", files_of(1))
    late = send(paths, "b", files_of(2), mark=None)
    in_the_middle(monkeypatch, lambda at: (late / "_READY").touch())
    taken = take(paths)
    assert [taken["a"].state, taken["b"].state] == ["accepted", "not_ready"]
    assert take(paths)["b"].state == "accepted"


def test_a_sender_that_writes_through_the_move_gets_its_batch_back(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = send(paths, "a", files_of(1))
    whole = atomic_moves.move
    with (folder / "p1-0_fear.png").open("ab") as still_open:

        def move_while_it_is_written(source: Path, target: Path) -> None:
            whole(source, target)
            still_open.write(b"more")
            still_open.flush()

        monkeypatch.setattr(module, "move", move_while_it_is_written)
        assert take(paths)["a"].state == "not_ready"
    assert (folder / "_READY").is_file() and state_of(paths) == {}
    monkeypatch.setattr(module, "move", whole)
    assert take(paths)["a"].state == "accepted"


def test_a_file_that_cannot_be_read(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    send(paths, "a", files_of(1))
    send(paths, "b", files_of(2))
    whole = files_module.sha256_of

    def failing(path: Path) -> str:
        if path.parent.name == "a" and path.name == "labels.csv":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(validate_batch, "sha256_of", failing)
    taken = take(paths)
    assert [taken["a"].state, taken["b"].state] == ["quarantined", "accepted"]
    assert "'labels.csv' cannot be read (Permission denied)" in reason(paths, "a")


@pytest.fixture
def elsewhere(paths: Paths, tmp_path: Path) -> Path:
    """The inbox on another file system."""
    folder = Path("/dev/shm") / f"affectgap-inbox-{os.getpid()}"
    if not folder.parent.is_dir() or folder.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    folder.mkdir()
    paths.inbox.rmdir()
    paths.inbox.symlink_to(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_an_inbox_on_another_disk(paths: Paths, elsewhere: Path) -> None:
    sent = tree(send(paths, "a", files_of(1)))
    bad = tree(send(paths, "bad", {**files_of(2), "x.png": b"x"}))
    os.mkfifo(paths.inbox / "bad/pipe")
    taken = take(paths)
    assert [taken["a"].state, taken["bad"].state] == ["accepted", "quarantined"]
    assert tree(paths.raw / "arrived/a") == sent and not any(elsewhere.iterdir())
    assert bad.items() <= tree(paths.quarantine / "bad").items()


def test_what_a_sender_adds_to_a_copied_batch_is_not_removed(
    paths: Paths, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(sources: list[Path]) -> None:
        raise KeyboardInterrupt

    send(paths, "a", files_of(1, people=1))
    send(paths, "b", files_of(2, people=1))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, "remove_sources", killed)
        take(paths)
    (paths.inbox / "a/late.png").write_bytes(png(9))
    taken = take(paths)
    assert [taken["a"].state, taken["b"].state] == ["not_ready", "accepted"]
    assert state_of(paths) == {"a": "accepted", "b": "accepted"}
    assert (elsewhere / "a/late.png").is_file() and not (elsewhere / "a/_READY").exists()


def test_a_full_disk_leaves_everything_where_it_was(
    paths: Paths, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(paths, "a", files_of(1))
    send_archive(paths, "b.zip", files_of(2))
    before = tree(paths.inbox)

    def full(*names: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")

    with monkeypatch.context() as patched:
        patched.setattr(atomic_moves.shutil, "copy2", full)
        patched.setattr(atomic_moves, "unpack", full)
        taken = take(paths)
    assert {one.state for one in taken.values()} == {"not_ready"}
    assert all("the disk is full" in one.detail for one in taken.values())
    assert tree(paths.inbox) == before and tree(paths.raw) == {} and state_of(paths) == {}
    assert {one.state for one in take(paths).values()} == {"accepted"}


@pytest.mark.slow
def test_a_batch_that_would_stop_the_pipeline_is_kept_out(checked: Paths) -> None:
    paths = checked
    send(paths, "all", files_of(1, people=8), mark=None)
    labels = paths.inbox / "all/labels.csv"
    text = paths.params.read_text()
    seven = "emotions: [anger, disgust, fear, happiness, neutral, sadness, surprise]  # all must"
    for old, new in (
        ("min_rows: 50", "min_rows: 5"),
        (seven, "emotions: [anger, fear, happiness]  #"),
    ):
        assert old in text
        text = text.replace(old, new)
    paths.params.write_text(text)
    (paths.inbox / "all/_READY").touch()
    assert take(paths)["all"].state == "accepted" and not labels.exists()
    params = load_section(paths.params, "ingest", ingest_stage.Params)
    only = {"arrived": params.datasets["arrived"]}
    ingest_stage.run(params.model_copy(update={"datasets": only}), paths)
    files = files_of(2)
    files["labels.csv"] = files["labels.csv"].replace(b",6,", b",30,")  # two adults only
    send(paths, "few-adults", files)
    send(paths, "more", files_of(3))
    taken = take(paths)
    assert [taken["few-adults"].state, taken["more"].state] == ["quarantined", "accepted"]
    told = reason(paths, "few-adults")
    assert "would stop the stage `check`: subjects_per_group" in told and "adult" in told


def test_a_withdrawn_batch_is_out_of_the_data_and_can_come_back(paths: Paths) -> None:
    sent = tree(send(paths, "a", files_of(1)))
    take(paths)
    ledger = Ledger(paths.ledger)
    ledger.mark_trained(["a"], ledger.start_pass("x"), "model")
    ledger.mark_promoted("model", 4)
    line = withdraw(paths, "a", "labels mixed up", "A. Weber")
    assert "version 4 of the model was trained with it" in line
    assert list(paths.raw.rglob("*.png")) == [] and state_of(paths) == {"a": "withdrawn"}
    assert "labels mixed up (A. Weber)" in reason(paths, "a")
    send(paths, "lost", files_of(2))
    take(paths)
    shutil.rmtree(paths.raw / "arrived/lost")
    assert "withdrawn, now in" in withdraw(paths, "lost", "lost by hand", "")
    with pytest.raises(UserError, match="'a' is not part of the data"):
        withdraw(paths, "a", "again", "")
    send(paths, "a", files_of(1))
    assert "withdrawn (labels mixed up (A. Weber))" in take(paths)["a.2"].detail
    mended = files_of(1)
    mended["labels.csv"] = mended["labels.csv"].replace(b",anger,", b",disgust,")
    send(paths, "mended", mended)
    assert "6 came before in a batch that was withdrawn" in take(paths)["mended"].detail
    withdraw(paths, "mended", "no", "")
    (paths.quarantine / "a").rename(paths.inbox / "a")  # by hand, with its REASON.md
    assert take(paths)["a"].state == "accepted" and tree(paths.raw / "arrived/a") == sent
    assert ledger.untrained()["batch"].unique().tolist() == ["a"]


def test_an_inbox_that_is_not_there_and_one_at_work(paths: Paths) -> None:
    paths.inbox.rmdir()
    assert take(paths) == {}
    with alone(paths.at("work/run.lock"), "busy"), pytest.raises(UserError, match="at work here"):
        take(paths)


def test_params_that_would_refuse_every_batch_move_none(paths: Paths) -> None:
    send(paths, "a", {**files_of(1), "x.png": b"no picture"})
    send(paths, "named", files_of(2), mark="dataset: arrived")
    send(paths, "z", files_of(3))
    text, before = paths.params.read_text(), tree(paths.inbox)
    paths.params.write_text(text.replace("  dataset: arrived", "  dataset: nowhere"))
    said = r"intake\.dataset 'nowhere' .* one of ingest\.datasets \(arrived\)"
    with pytest.raises(ParamsError, match=said):
        take(paths)
    assert tree(paths.inbox) == before and not paths.quarantine.exists() and not paths.raw.exists()
    assert not paths.ledger.exists()


def test_what_was_moved_before_a_failure_is_tracked(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same look; where DVC cannot either (a full disk), in the next, whatever params say."""
    seen: list[str] = []
    room = [True, False]
    whole = Ledger.begin

    def add(paths: Paths, dataset: str) -> None:
        if not (room.pop(0) if room else True):
            raise AffectGapError("DVC: no space left on device")
        seen.append(dataset)

    def begin(ledger: Ledger, arrival: Arrival, *more: Any) -> None:
        if arrival.batch == "full":
            raise DataError("the ledger: no space left on device")
        whole(ledger, arrival, *more)

    monkeypatch.setattr(recovery, "add_to_dvc", add)
    monkeypatch.setattr(Ledger, "begin", begin)
    ledger = Ledger(paths.ledger)
    for batch, left, tracked in (("a", [], 1), ("b", ["b"], 1)):
        send(paths, batch, files_of(ord(batch)))
        send(paths, "full", files_of(2))
        with pytest.raises(DataError, match="the ledger: no space"):
            take(paths)
        assert state_of(paths)[batch] == "accepted" and (paths.inbox / "full/_READY").is_file()
        assert ledger.untracked()["batch"].tolist() == left and len(seen) == tracked
    text = paths.params.read_text()
    paths.params.write_text(text.replace("  dataset: arrived", "  dataset: nowhere"))
    with pytest.raises(ParamsError):
        take(paths)
    assert ledger.untracked().empty and seen == ["arrived", "arrived"]


def test_a_ledger_that_cannot_be_read_stops_in_one_line(paths: Paths) -> None:
    send(paths, "a", files_of(1))
    paths.ledger.write_bytes(b"torn" * 1000)
    with pytest.raises(DataError, match="is no ledger or is damaged"):
        take(paths)
    assert (paths.inbox / "a/_READY").is_file()


def test_the_ledger_knows_what_the_manifest_will(paths: Paths) -> None:
    send(paths, "a", {**files_of(1), "._a": b"1", "thumbs.txt": b""})
    assert take(paths)["a"].state == "quarantined"
    batches = Ledger(paths.ledger).batches()
    assert batches[["n_files", "n_pictures", "n_subjects"]].to_numpy().tolist() == [[9, 6, 2]]
    assert isinstance(batches, pd.DataFrame) and "1 empty" in batches["reason"][0]


def test_why_dvc_could_not_track_a_data_set_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["adding", "ERROR: unexpected error - No space left on device", "", "Having troubles?"]
    monkeypatch.setattr(dvc_repair, "run_dvc", lambda *_: iter([*said, "exit 255"]))
    with pytest.raises(AffectGapError) as error:
        dvc_repair.add_to_dvc(Paths(tmp_path), "mine")
    told = "data/raw/mine: DVC could not track it: unexpected error - No space left on device"
    assert str(error.value) == told


def test_ids_that_resemble_those_there_are_named_where_a_batch_is_accepted(paths: Paths) -> None:
    labels = "path,emotion,subject_id,age_years,gender\nx.png,fear,{},6,female\n"
    for name, subject in {"NA": "S7", "b": "s07", "c": "S8"}.items():
        content = labels.format(subject).encode()
        files = {"labels.csv": content, "x.png": png(ord(name[0]))}
        send(paths, name, files, mark="dataset: arrived\u00a0\u200b\n")
    write_table(manifest_table([]), paths.manifest, MANIFEST_SCHEMA)
    taken = take(paths)
    assert taken["b"].detail.endswith("if they are one: arrived/S7 and arrived/s07")
    named = {name for name, one in taken.items() if "leading zeros" in one.detail}
    assert named == {"b"} and set(taken) == {"batch-NA", "b", "c"}  # NA would be no batch
