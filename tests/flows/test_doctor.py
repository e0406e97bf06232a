"""What the doctor finds after a crash, what it mends, and what it leaves to a person."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from batches import draw_batch, mark_ready

from flows.doctor import doctor, file_checks
from flows.doctor.doctor import examine
from flows.intake.validate_batch import digest_of
from flows.ledger.ledger import Arrival, Ledger
from flows.ledger.sqlite import IMAGE_COLUMNS
from flows.process_env import COMMAND_VARIABLE
from tasks.core.errors import UserError
from tasks.core.files import alone, prepare_site_cache, sha256_of
from tasks.core.parallel.process import process_name
from tasks.core.paths import Paths
from tasks.core.tracking import mlflow_runs
from tasks.ingest.list_files import list_files
from tasks.register.promotion_log import append_record

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """A project in which DVC is not asked, slow as it is, and the disk has room."""
    monkeypatch.setattr(file_checks, "_LEAST_FREE_BYTES", 0)
    monkeypatch.setattr(file_checks, "_LEAST_FREE_SHARE", 0.0)
    others = [check for check in doctor._CHECKS if check is not file_checks.missing_in_cache]
    monkeypatch.setattr(doctor, "_CHECKS", tuple(others))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = os.umask(0o077)  # as every command sets it
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(prepare_site_cache(tmp_path)))
    yield Paths(tmp_path)
    os.umask(before)


@pytest.fixture
def dead_pid():
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def accepted(paths, batch="monday", people=1):
    """A batch that was taken in as intake does it, by the ledger's own steps."""
    place = paths.raw / "arrived" / batch
    mark_ready(draw_batch(place, 1, people, emotions=["anger", "fear"], size_px=128))
    rows = [
        [f"arrived/{batch}/{path.name}", sha256_of(path), path.name, "s", "anger", "child", "male"]
        for path in sorted(place.glob("*.jpg"))
    ]
    images = pd.DataFrame(rows, columns=list(IMAGE_COLUMNS))
    ledger = Ledger(paths.ledger)
    n_files = len(list_files(place).files) - 1  # without the mark
    arrival = Arrival(batch, "arrived", digest_of(place), batch, "", n_files, images)
    ledger.begin(arrival, "accepted", f"data/raw/arrived/{batch}", [])
    ledger.decide(batch, "accepted")
    ledger.mark_tracked([batch])
    return place


def said(findings):
    return [str(finding) for finding in findings]


def test_a_well_kept_project_has_no_findings_and_nothing_is_made_in_it(paths):
    accepted(paths)
    assert said(examine(paths)) == []
    assert not paths.mlruns.exists()


def test_a_torn_lock_a_dead_lock_and_half_written_files_are_mended(paths, dead_pid):
    rwlock = paths.at(".dvc/tmp/rwlock")
    rwlock.write_text('{"write": {"')
    paths.at("dvc.lock").write_bytes(b"")
    paths.at("models").mkdir()
    paths.at("data").mkdir(exist_ok=True)
    paths.at(f"models/.finetuned.{dead_pid}").mkdir()
    paths.at(f"data/.split.{dead_pid}.parquet").write_text("half")
    alive = paths.at(f"data/.split.{os.getpid()}.parquet")
    alive.write_text("being written")
    findings = examine(paths)
    assert all(finding.mended for finding in findings)
    where = [finding.where for finding in findings]
    assert {".dvc/tmp/rwlock", "dvc.lock", f"models/.finetuned.{dead_pid}"} <= set(where)
    assert alive.exists() and not paths.at(f"data/.split.{dead_pid}.parquet").exists()
    assert examine(paths) == []

    holder = {"pid": dead_pid, "cmd": "dvc repro"}
    rwlock.write_text(json.dumps({"read": {}, "write": {"a.txt": holder}}))
    (finding,) = examine(paths)
    assert finding.mended and str(dead_pid) in finding.what


def test_the_rwlock_of_a_living_dvc_is_left_alone(paths):
    rwlock = paths.at(".dvc/tmp/rwlock")
    waiting = [sys.executable, "-c", "import time; time.sleep(60)  # dvc repro"]
    process = subprocess.Popen(waiting)
    try:
        holder = {"pid": process.pid, "cmd": "dvc repro"}
        rwlock.write_text(json.dumps({"read": {}, "write": {"a.txt": holder}}))
        assert list(file_checks.repair_dvc_files(paths)) == []
        assert rwlock.exists()
    finally:
        process.kill()
        process.wait()


def test_an_old_lock_of_git_is_removed_and_a_young_one_is_not(paths):
    old, young = paths.at(".git/index.lock"), paths.at(".git/HEAD.lock")
    for path in (old, young):
        path.write_bytes(b"")
    an_hour_ago = time.time() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    (finding,) = file_checks.git_locks(paths)
    assert str(old) in str(finding)
    assert young.exists()
    assert old.exists() is not finding.mended


@pytest.mark.slow
def test_dead_runs_and_passes_are_closed_and_living_ones_are_not(paths):
    code = (
        "from pathlib import Path; from flows.ledger.ledger import Ledger;"
        "from tasks.core.tracking import mlflow_runs as tracking\n"
        "from tasks.core.paths import Paths; import os\n"
        "paths = Paths(Path.cwd()); Ledger(paths.ledger).start_pass('a test')\n"
        "with tracking.open_run(paths, 'dying', {}, 'pipeline'): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=paths.root, check=False)
    ledger = Ledger(paths.ledger)
    living = ledger.start_pass("this test")
    client, experiment = mlflow_runs.open_store(paths)
    assert len(client.search_runs([experiment], "attributes.status = 'RUNNING'")) == 1
    findings = examine(paths)
    assert [finding.where for finding in findings] == ["MLflow", "pass 1"]
    assert all(finding.mended for finding in findings)
    assert not client.search_runs([experiment], "attributes.status = 'RUNNING'")
    states = ledger.passes().set_index("pass_id")["state"].to_dict()
    assert states == {1: "died", living: "running"}


def test_a_batch_half_taken_in_is_put_back_to_be_looked_at_again(paths):
    source = mark_ready(draw_batch(paths.inbox / "tuesday", 5, 1, emotions=["fear"], size_px=128))
    images = pd.DataFrame(columns=list(IMAGE_COLUMNS))
    arrival = Arrival("tuesday", "arrived", "digest", "tuesday", "", 3, images)
    Ledger(paths.ledger).begin(arrival, "accepted", "data/raw/arrived/tuesday", [])
    (finding,) = examine(paths)
    assert finding.mended and finding.where == "tuesday"
    assert source.is_dir() and Ledger(paths.ledger).under_way() == []


def test_what_lies_elsewhere_than_the_ledger_says_is_left_to_a_person(paths):
    place = accepted(paths)
    next(iter(place.glob("*.jpg"))).unlink()
    (missing,) = examine(paths)
    assert not missing.mended and "1 of 2 pictures are not there" in missing.what
    place.rename(paths.raw / "arrived" / "renamed")
    gone, extra = examine(paths)
    assert not gone.mended and "its folder is not there" in gone.what
    assert not extra.mended and "the ledger does not know this batch" in extra.what
    assert extra.where.endswith("renamed")


STAGE = [sys.executable, "-c", "import time; time.sleep(300)  # -m tasks train"]


def test_an_orphan_of_ours_is_ended_and_a_stranger_is_not(paths):
    start = (
        "import subprocess; from flows.process_env import export_command_id; export_command_id();"
        f"subprocess.Popen({STAGE!r})"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", start], cwd=paths.root, check=True, env=environment)
    elsewhere = subprocess.Popen(STAGE, cwd="/")
    try:
        (ended,) = [one for one in said(examine(paths)) if "its command is gone" in one]
        assert elsewhere.poll() is None
    finally:
        elsewhere.kill()
        elsewhere.wait()
    pid = int(ended.split("process ")[1].split()[0].strip(":;,"))
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


@pytest.mark.parametrize("marked", [True, False], ids=["a command of ours", "dvc repro"])
def test_what_a_living_command_started_from_another_folder_goes_on(paths, monkeypatch, marked):
    """As `cd docs && affectgap serve` does, or a container whose first process is `serve`."""
    monkeypatch.delenv(COMMAND_VARIABLE, raising=False)
    if marked:
        monkeypatch.setenv(COMMAND_VARIABLE, process_name(os.getpid()))
    child = subprocess.Popen(STAGE, cwd=paths.root)  # this test runs elsewhere
    try:
        assert examine(paths) == []
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


@pytest.mark.slow
def test_a_promotion_that_the_registry_does_not_know_is_said(paths):
    mlflow_runs.open_store(paths)
    row = {"action": "rolled_back", "version": 3, "digest": "0", "decision_id": "x"}
    append_record(paths, row)
    (finding,) = examine(paths)
    assert not finding.mended
    assert "version None is in use, and the last line says 3" in finding.what


@pytest.mark.slow
def test_results_that_dvc_lost_are_named(toy):
    paths = Paths(toy)
    dvc = [sys.executable, "-m", "dvc"]
    quiet = {"cwd": paths.root, "check": True, "capture_output": True}
    paths.raw.mkdir(parents=True)
    (paths.raw / "mine").mkdir()
    (paths.raw / "mine" / "a.txt").write_text("a")
    subprocess.run([*dvc, "add", "-q", "data/raw/mine"], **quiet)
    assert list(file_checks.missing_in_cache(paths)) == []
    for path in paths.at(".dvc/cache/files/md5").glob("*/*"):
        path.chmod(0o644)
        path.unlink()
    findings = list(file_checks.missing_in_cache(paths))
    assert findings and not any(finding.mended for finding in findings)
    assert any("data/raw/mine" in finding.where for finding in findings)


def test_a_full_disk_is_said(paths, monkeypatch):
    monkeypatch.setattr(file_checks, "_LEAST_FREE_SHARE", 1.0)
    (finding,) = examine(paths)
    assert not finding.mended and "GB are free" in str(finding) and str(finding).startswith("FOUND")


def test_nothing_is_touched_while_another_command_is_at_work(paths):
    paths.at("dvc.lock").write_bytes(b"")
    with (
        alone(paths.at("work/run.lock"), "busy"),
        pytest.raises(UserError, match="run `affectgap doctor` when it is done"),
    ):
        examine(paths)
    assert paths.at("dvc.lock").read_bytes() == b""


@pytest.mark.slow
def test_the_command_leaves_with_1_only_where_a_person_is_needed(toy, affectgap):
    paths = Paths(toy)
    assert "nothing to mend" in affectgap(paths.root, "doctor").stdout
    paths.at(".dvc/tmp/rwlock").write_text("{")
    done = affectgap(paths.root, "doctor")
    assert done.returncode == 0 and "mended  .dvc/tmp/rwlock" in done.stdout
    accepted(paths)
    (paths.raw / "arrived" / "monday").rename(paths.root / "lost")
    done = affectgap(paths.root, "doctor")
    assert done.returncode == 1 and "FOUND " in done.stdout and not done.stderr
