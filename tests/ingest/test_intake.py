"""Intake: the whole folder or nothing, and one line where it refuses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from flows.intake import place_images as module
from flows.intake.place_images import intake
from tasks.core.errors import DataError
from tasks.core.files import sha256_of
from tasks.core.paths import Paths

LIMIT = 1_000_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three files, one of them hidden, one no picture."""
    folder = tmp_path / "given/happy"
    folder.mkdir(parents=True)
    Image.new("RGB", (20, 20), "red").save(folder / "a b.png")
    (folder / "._a b.png").write_bytes(bytes(217))
    (tmp_path / "given/notes.txt").write_text("by hand")
    return tmp_path / "given"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "project")


def tree(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): sha256_of(path) for path in files}


def refused(source: Path, dataset: str, paths: Paths) -> str:
    with pytest.raises(DataError) as caught:
        intake(source, dataset, paths, LIMIT)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_file_is_copied_as_it_is(source: Path, paths: Paths) -> None:
    before = tree(source)
    summary = intake(source, "mine", paths, LIMIT)
    assert tree(paths.raw / "mine") == before == tree(source)
    assert (summary.files, summary.already_there) == (3, False)
    assert summary.size_bytes == sum(path.stat().st_size for path in source.rglob("*.*"))
    assert "3 files" in str(summary)
    assert [path.name for path in paths.raw.iterdir()] == ["mine"]


def test_a_labels_csv_with_a_fault_is_told_before_anything_is_copied(
    source: Path, paths: Paths
) -> None:
    (source / "labels.csv").write_text("path,age\nhappy/a b.png,5\n")
    assert "unknown column 'age'" in refused(source, "mine", paths)
    assert not (paths.raw / "mine").exists()
    intake(source, "affectnet", paths, LIMIT)  # a known set has tables of its own


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LABELS.CSV", "unknown column 'age'"),
        ("labels.csv.txt", "unknown column 'age'"),
        ("labels.xls", "labels.xls looks like a table of labels"),
        ("happy/labels.csv", "happy/labels.csv looks like a table of labels"),
        ("labels (2).csv", "rename it to labels.csv"),
    ],
)
def test_no_labels_are_ignored_for_the_name_of_their_file(
    source: Path, paths: Paths, name: str, message: str
) -> None:
    (source / name).write_text("path,age\nhappy/a b.png,5\n")
    assert message in refused(source, "mine", paths)
    assert not (paths.raw / "mine").exists()


def test_the_tables_of_batches_are_left_to_the_adapter(source: Path, paths: Paths) -> None:
    for batch in ("one", "two"):
        (source / batch).mkdir()
        (source / batch / "_READY").touch()
        (source / batch / "labels.csv").write_text("path,emotion\na.png,sad\n")
    assert intake(source, "mine", paths, LIMIT).files == 7


def test_names_in_other_encodings_are_copied(source: Path, paths: Paths) -> None:
    (source / os.fsdecode(b"caf\xe9.bin")).write_bytes(b"x")
    intake(source, "mine", paths, LIMIT)
    assert (paths.raw / "mine" / os.fsdecode(b"caf\xe9.bin")).read_bytes() == b"x"


def test_the_same_folder_again_does_nothing(source: Path, paths: Paths) -> None:
    intake(source, "mine", paths, LIMIT)
    kept = (paths.raw / "mine/happy/a b.png").stat().st_ino
    assert intake(source, "mine", paths, LIMIT).already_there
    assert (paths.raw / "mine/happy/a b.png").stat().st_ino == kept
    assert intake(paths.raw / "mine", "mine", paths, LIMIT).already_there  # put there by hand


@pytest.mark.parametrize("change", ["more", "less", "other"])
def test_another_folder_under_the_same_name_is_refused(
    source: Path, paths: Paths, change: str
) -> None:
    intake(source, "mine", paths, LIMIT)
    before = tree(paths.raw)
    if change == "more":
        (source / "c.txt").write_text("new")
    elif change == "less":
        (source / "notes.txt").unlink()
    else:
        (source / "notes.txt").write_text("by haNd")
    assert "choose another name" in refused(source, "mine", paths)
    assert tree(paths.raw) == before


@pytest.mark.parametrize("name", ["Mine", "a b", "../up", "", "a/b", "drawn", "all", "-x", "é"])
def test_bad_names_are_refused(source: Path, paths: Paths, name: str) -> None:
    assert "--dataset" in refused(source, name, paths)
    assert not paths.root.exists()


def test_missing_file_and_empty_sources(source: Path, paths: Paths, tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "absent", "mine", paths)
    assert "not a folder" in refused(source / "notes.txt", "mine", paths)
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused(tmp_path / "empty", "mine", paths)
    assert "contains data/raw" in refused(tmp_path, "mine", paths)


def test_folder_without_a_image(source: Path, paths: Paths) -> None:
    (source / "happy/a b.png").write_bytes(b"not a picture")
    text = refused(source, "mine", paths)
    assert "none of its 3 files is a picture" in text and "not_an_image" in text
    assert not (paths.raw / "mine").exists()


@pytest.mark.parametrize("inside", [True, False])
def test_links_and_pipes_are_refused(
    source: Path, paths: Paths, tmp_path: Path, inside: bool
) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    target = source / "happy/a b.png" if inside else tmp_path / "secret.png"
    (source / "link.png").symlink_to(target)
    assert "link.png" in refused(source, "mine", paths)
    (source / "link.png").unlink()
    (source / ".hidden").symlink_to(target)
    assert ".hidden" in refused(source, "mine", paths)
    (source / ".hidden").unlink()
    os.mkfifo(source / "pipe")
    assert "pipe" in refused(source, "mine", paths)
    assert not (paths.raw / "mine").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_broken_off_midway_leaves_nothing(
    source: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    copied: list[object] = []
    original = shutil.copyfileobj

    def failing(given: object, copy: object) -> None:
        original(given, copy)
        copied.append(copy)
        if len(copied) == 2:
            raise error

    monkeypatch.setattr(module.shutil, "copyfileobj", failing)
    with pytest.raises(DataError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        intake(source, "mine", paths, LIMIT)
    if isinstance(error, OSError):
        assert "No space left" in str(caught.value) and "\n" not in str(caught.value)
    assert len(copied) == 2 and list(paths.raw.iterdir()) == []


def test_disk_that_is_too_small(
    source: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(source)._replace(free=10)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage)
    assert "are free" in refused(source, "mine", paths)
    assert not (paths.raw / "mine").exists()


def test_what_a_killed_intake_left_is_removed_by_the_next(source: Path, paths: Paths) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    dead = paths.raw / f".incoming-mine-{int(gone.stdout)}"
    alive = paths.raw / f".incoming-other-{os.getppid()}"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
        (folder / "half.png").write_bytes(b"x")
    intake(source, "mine", paths, LIMIT)
    assert not dead.exists() and alive.exists() and (paths.raw / "mine").is_dir()


def test_target_that_appears_meanwhile_is_not_touched(
    source: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(given: Path, copy: Path) -> None:
        (paths.raw / "mine").mkdir(exist_ok=True)
        (paths.raw / "mine/theirs.png").write_bytes(b"theirs")
        shutil.copyfile(given, copy.parent.mkdir(parents=True, exist_ok=True) or copy)

    monkeypatch.setattr(module, "_copy", overtaken)
    assert "was created meanwhile" in refused(source, "mine", paths)
    assert [path.name for path in paths.raw.rglob("*") if path.is_file()] == ["theirs.png"]
