"""What lies in data/raw against the ledger: changed, additional and missing pictures, by name."""

import errno
import os
import shutil

import pytest
from inbox_world import files_of, linked_into_cache, paths, send, take, tree
from PIL import Image

from flows.doctor import image_checks
from flows.doctor.image_checks import ledger_against_disk
from flows.intake import intake
from tasks.check import batch_checks
from tasks.core.errors import UserError
from tasks.core.files import sha256_of

__all__ = ["paths"]  # the fixture


@pytest.fixture(autouse=True)
def no_dvc(monkeypatch):
    """DVC cannot be asked; what it is asked is tested with the commands of intake."""

    def fail(root, granular):
        raise UserError("no DVC here")

    monkeypatch.setattr(image_checks, "data_status", fail)
    monkeypatch.setattr(intake, "add_to_dvc", lambda paths, dataset: None)


def told(paths):
    """What is found, by where it is; nothing may be moved by looking."""
    before = tree(paths.at("data"))
    found = list(ledger_against_disk(paths))
    assert tree(paths.at("data")) == before
    assert not any(finding.mended for finding in found)
    return [(finding.where.removeprefix(f"{paths.raw}/"), finding.what) for finding in found]


def taken(paths, *names, **more):
    for number, name in enumerate(names, start=1):
        send(paths, name, {**files_of(number), **more})
    assert {one.state for one in take(paths).values()} == {"accepted"}
    return [paths.raw / "arrived" / name for name in names]


def test_what_differs_from_the_ledger_is_named_and_counted(paths):
    monday, tuesday = taken(paths, "monday", "tuesday")
    assert told(paths) == []
    images = sorted(monday.glob("*.png"))
    images[0].write_bytes(images[0].read_bytes()[:-1] + b"x")  # same size, one byte
    for path in images[2:]:
        path.unlink()
    shutil.copy(images[1], monday / "again.png")
    (tuesday.parent / "wednesday").mkdir()
    shutil.copy(images[1], tuesday.parent / "wednesday")
    shutil.copy(images[1], tuesday.parent / "loose.png")
    (tuesday.parent / "empty").mkdir()
    gone = ", ".join(path.name for path in images[2:5])
    assert told(paths) == [
        ("batch monday", f"4 of 6 pictures are not there ({gone} …)"),
        ("batch monday", f"1 of 6 pictures are not what was accepted ({images[0].name})"),
        ("batch monday", "1 more files than were accepted (again.png)"),
        ("arrived/wednesday", "the ledger does not know this batch"),
        ("arrived", "1 files are in no batch (loose.png)"),
    ]


def test_images_that_are_links_into_dvcs_cache_are_well(paths):
    (monday,) = taken(paths, "monday")
    linked_into_cache(paths, "monday")
    assert told(paths) == []
    next(monday.glob("*.png")).resolve().unlink()
    assert [what.partition(" (")[0] for _, what in told(paths)] == ["1 of 6 pictures are not there"]


def test_additional_files_are_told_from_those_that_came_beside_the_images(paths, monkeypatch):
    monkeypatch.setattr(batch_checks, "batch_faults", lambda *_: [])  # broken pictures are no fault
    (monday,) = taken(paths, "monday", **{"notes.txt": b"n", ".DS_Store": b"d", "b.png": b"broken"})
    assert told(paths) == []
    for name in ("a.png", ".hidden"):
        (monday / name).write_bytes(b"late")
    assert told(paths) == [("batch monday", "2 more files than were accepted (.hidden, a.png)")]
    (monday / "labels.csv").write_text("path,emotion\n")  # then nobody can tell which came later
    among = "among 6 that are none of its pictures (.DS_Store, .hidden, a.png …)"
    assert told(paths) == [("batch monday", f"2 more files than were accepted, {among}")]


def test_a_image_that_cannot_be_read_is_said_and_the_others_are_read(paths, monkeypatch):
    (monday,) = taken(paths, "monday")
    first, second, *_ = sorted(monday.glob("*.png"))
    second.write_bytes(b"other")

    def read(path):
        if path == first:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return sha256_of(path)

    monkeypatch.setattr(image_checks, "sha256_of", read)
    unreadable = f"1 of 6 pictures cannot be read ({first.name}: Input/output error)"
    changed = f"1 of 6 pictures are not what was accepted ({second.name})"
    assert told(paths) == [("batch monday", changed), ("batch monday", unreadable)]


def test_a_withdrawn_batch_is_not_compared_and_is_said_where_it_is_back(paths):
    (monday,) = taken(paths, "monday")
    intake.withdraw(paths, "monday", "labels mixed up", "")
    assert told(paths) == []
    shutil.copytree(paths.quarantine / "monday", monday)
    assert told(paths) == [("arrived/monday", "this batch was withdrawn, and is here again")]


def test_a_whole_data_set_and_batches_within_it_are_looked_at_apart(paths, tmp_path):
    (tmp_path / "given/happy").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (20 + number, 20), "gray").save(tmp_path / f"given/happy/{number}.png")
    intake.intake_dataset(paths, tmp_path / "given", "arrived")
    (monday,) = taken(paths, "monday")
    assert told(paths) == []
    (monday / "late.png").write_bytes(b"late")
    (paths.raw / "arrived/happy/0.png").write_bytes(b"other")
    (paths.raw / "arrived/sad").mkdir()
    (paths.raw / "arrived/sad/2.png").write_bytes(b"late")
    assert told(paths) == [
        ("batch arrived", "1 of 2 pictures are not what was accepted (happy/0.png)"),
        ("batch arrived", "1 more files than were accepted (sad/2.png)"),
        ("batch monday", "1 more files than were accepted (late.png)"),
    ]


def test_a_lost_ledger_is_said_batch_by_batch_and_the_drawn_cohort_is_in_none(paths):
    taken(paths, "monday")
    paths.ledger.unlink()
    for name in ("drawn", "mine"):
        (paths.raw / name).mkdir()
        (paths.raw / name / "a.png").write_bytes(b"a")
    assert told(paths) == [
        ("arrived/monday", "the ledger does not know this batch"),
        ("mine", "the ledger does not know this data set"),
    ]
