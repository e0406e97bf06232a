"""Files of DVC's that a crash cut short, at any byte: made again, or said with what to do."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from dvc.repo import Repo

from flows.doctor.file_checks import repair_dvc_files
from flows.pipeline import dvc_repair
from flows.pipeline.dvc_graph import changed_stages, data_status
from flows.pipeline.dvc_repair import is_complete_lock, repair, repair_after_crash
from tasks.core.errors import AffectGapError, UserError
from tasks.core.paths import Paths

DATA = (
    "outs:\n- md5: 097e2a1e4c79bb642710b6a228ae0800.dir\n  nfiles: 6\n  hash: md5\n  path: mine\n"
)


def dvc(root, *arguments):
    command = [sys.executable, "-m", "dvc", *arguments]
    subprocess.run(command, cwd=root, check=True, capture_output=True)


def git(root, *arguments):
    who = ("-c", "user.name=x", "-c", "user.email=x@localhost")
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def commit(root):
    git(root, "add", "-A", "--", "dvc.yaml", "params.yaml", ":(glob)data/raw/*.dvc")
    git(root, "commit", "-qm", "x")


def data_set(root, name, *images):
    """A folder below data/raw that DVC tracks; returns DVC's file."""
    for image in images:
        path = root / "data/raw" / name / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(image)
    dvc(root, "add", "-q", f"data/raw/{name}")
    return root / f"data/raw/{name}.dvc"


@pytest.fixture
def tracked(monkeypatch):
    """DVC left out: what it was asked to track, and a file that says so."""
    asked = []

    def add(paths, dataset):
        asked.append(dataset)
        (paths.raw / f"{dataset}.dvc").write_text(DATA)

    monkeypatch.setattr(dvc_repair, "add_to_dvc", add)
    return asked


@pytest.fixture
def mine(tmp_path):
    """A data set's folder with a picture; returns where DVC's file goes."""
    (tmp_path / "data/raw/mine").mkdir(parents=True)
    (tmp_path / "data/raw/mine/a.jpg").touch()
    return tmp_path / "data/raw/mine.dvc"


@pytest.mark.parametrize("who", ["pass", "doctor"])
def test_every_cut_of_a_lock_is_mended_or_taken_by_dvc(toy, who):
    graph = yaml.safe_load((toy / "dvc.yaml").read_text())
    del graph["stages"]["b"]
    graph["stages"]["c"]["deps"] = ["a.txt"]
    (toy / "dvc.yaml").write_text(yaml.safe_dump(graph))
    dvc(toy, "repro", "-q")
    paths, lock = Paths(toy), toy / "dvc.lock"
    whole = lock.read_bytes()
    assert set(yaml.safe_load(whole)["stages"]) == {"a", "c"}
    taken = []
    for cut in range(len(whole)):
        lock.write_bytes(whole[:cut])
        if who == "pass":
            mended = len(list(repair(paths)))
        else:
            mended = [finding.mended for finding in repair_dvc_files(paths)] == [True]
        assert lock.exists() is not bool(mended), cut
        if not mended:
            taken.append(cut)
            with Repo(str(toy)) as repo:
                repo.status()
    assert taken and all(whole[:cut].endswith(b"\n") for cut in taken)
    parts = [yaml.safe_load(whole[:cut]) for cut in taken]
    assert any("stages" not in part for part in parts), "a lock of no stage is one"
    lock.write_bytes(whole)
    assert list(repair(paths)) == [] and lock.read_bytes() == whole


def test_stages_that_a_cut_lock_lacks_come_from_dvcs_run_cache(toy):
    dvc(toy, "repro", "-q")
    lock, ran = toy / "dvc.lock", (toy / "log.txt").read_text()
    whole, made = lock.read_bytes(), (toy / "c.txt").read_text()
    first = whole[: re.search(rb"(?<=\n)  b@y:", whole).start()]
    assert is_complete_lock(first.decode())
    lock.write_bytes(first)
    assert set(changed_stages(toy, None)) == {"b@y", "c"}
    dvc(toy, "repro", "-q")
    assert (toy / "log.txt").read_text() == ran and (toy / "c.txt").read_text() == made
    assert lock.read_bytes() == whole


def test_every_cut_of_a_data_sets_file_is_made_again(mine, tracked):
    root = mine.parents[2]
    for cut in range(len(DATA) - 1):
        mine.write_text(DATA[:cut])
        (told,) = repair_after_crash(root)
        assert told.startswith("data/raw/mine.dvc was torn"), cut
        assert mine.read_text() == DATA
        assert (root / "work/torn/mine.dvc.torn").read_text() == DATA[:cut]
    assert len(tracked) == len(DATA) - 1
    for text in (DATA, DATA[:-1], f"{DATA}desc: by hand\n", f"<<<<<<< ours\n{DATA}=======\n"):
        mine.write_text(text)
        assert list(repair_after_crash(root)) == [] and mine.read_text() == text


def test_a_file_that_is_called_otherwise_than_its_folder_is_not_torn(mine, tracked):
    other = mine.with_name("mine-again.dvc")
    other.write_text(DATA)
    mine.write_text(DATA)
    assert list(repair_after_crash(mine.parents[2])) == []
    mine.with_name("mine-again").mkdir()
    (mine.with_name("mine-again") / "a.jpg").touch()
    assert len(list(repair_after_crash(mine.parents[2]))) == 1 and tracked == ["mine-again"]


def test_what_was_set_aside_when_the_mending_was_killed_is_made_by_the_next(
    mine, tracked, monkeypatch
):
    root = mine.parents[2]
    mine.write_text("outs:\n- md5: 2ab")

    def fail(paths, dataset):
        raise AffectGapError("killed")

    with monkeypatch.context() as patch, pytest.raises(AffectGapError, match="killed"):
        patch.setattr(dvc_repair, "add_to_dvc", fail)
        list(repair_after_crash(root))
    assert not mine.exists() and tracked == []
    assert len(list(repair_after_crash(root))) == 1
    assert tracked == ["mine"] and list(repair_after_crash(root)) == []


@pytest.mark.slow
def test_two_torn_files_are_made_again_with_what_people_wrote_in_them(toy):
    mine, other = data_set(toy, "mine", "a.jpg"), data_set(toy, "other", "b.jpg")
    mine.write_text(mine.read_text() + "desc: of the first site\n")
    commit(toy)
    (toy / "data/raw/mine/c.jpg").write_text("since the commit")
    other.write_bytes(b"")
    mine.write_text("outs:\n- md5: 2ab")
    with pytest.raises(UserError) as error:
        data_status(toy)
    assert "DVC cannot read the project: " in str(error.value) and "Hit us up" not in str(
        error.value
    )
    assert len(list(repair_after_crash(toy))) == 2
    told = yaml.safe_load(mine.read_text())
    assert (told["outs"][0]["nfiles"], told["desc"]) == (2, "of the first site")
    assert yaml.safe_load(other.read_text())["outs"][0]["path"] == "other"
    assert set(changed_stages(toy, None)) == {"a", "b@x", "b@y", "c"}


@pytest.mark.slow
def test_without_its_folder_a_torn_file_is_said_and_what_is_said_helps(toy, affectgap):
    mine = data_set(toy, "mine", "a.jpg")
    commit(toy)
    mine.write_text("outs:\n- md5: 2ab")
    shutil.rmtree(toy / "data/raw/mine")
    for command in ("run", "doctor"):
        done = affectgap(toy, command)
        assert done.returncode == (1 if command == "doctor" else 2)
        said = done.stdout + done.stderr
        assert "data/raw/mine.dvc: is torn, and data/raw/mine holds nothing; `git" in said
        assert "Hit us up" not in said and "see the message" not in said and "path'" not in said
    (commands,) = re.findall(r"holds nothing; `(.*)` restores both", said)
    folder = os.path.dirname(sys.executable)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(commands, shell=True, cwd=toy, check=True, env=environment)
    assert (toy / "data/raw/mine/a.jpg").read_text() == "a.jpg"
    assert list(repair_after_crash(toy)) == []


def test_without_a_commit_a_copy_of_the_folder_is_asked_for(mine):
    mine.write_bytes(b"")
    shutil.rmtree(mine.with_suffix(""))
    with pytest.raises(UserError, match="restore data/raw/mine from a backup"):
        list(repair_after_crash(mine.parents[2]))
