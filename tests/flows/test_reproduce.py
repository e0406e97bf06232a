import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.pipeline.dvc_graph import changed_stages, stage_graph
from flows.pipeline.dvc_repair import repair_after_crash
from tasks.core.errors import UserError
from tasks.core.paths import Paths
from tasks.core.tracking import mlflow_runs

REPOSITORY = Path(__file__).parents[2]


def events(root):
    return [line.split() for line in (root / "log.txt").read_text().splitlines()]


def outputs(root):
    return {p.name: p.read_text() for p in root.glob("?*.txt") if p.name != "log.txt"}


def pipelines(root):
    client, experiment = mlflow_runs.open_store(Paths(root))
    runs = client.search_runs([experiment], "tags.`affectgap.kind` = 'pipeline'")
    return sorted(runs, key=lambda run: run.info.start_time)


def test_the_graph_is_dvcs_own(toy):
    assert stage_graph(toy, None) == {"a": [], "b@x": ["a"], "b@y": ["a"], "c": ["b@x", "b@y"]}
    assert stage_graph(toy, "b@x") == {"a": [], "b@x": ["a"]}
    assert set(stage_graph(toy, "b")) == {"a", "b@x", "b@y"}
    with pytest.raises(UserError, match="no stage 'd'"):
        stage_graph(toy, "d")


def test_a_run_makes_what_dvc_makes_then_does_nothing(toy, affectgap):
    (toy / "params.yaml").write_text("a: {}\nb: {seconds: 6}\nc: {value: 3}\n")
    first = affectgap(toy, "run", "--quiet")
    assert first.returncode == 0, first.stderr
    assert "wrote a line" in first.stdout
    made = outputs(toy)
    began = {row[1]: float(row[2]) for row in events(toy) if row[0] == "start"}
    ended = {row[1]: float(row[2]) for row in events(toy) if row[0] == "end"}
    assert max(began["b-x"], began["b-y"]) < min(ended["b-x"], ended["b-y"]), "not side by side"

    second = affectgap(toy, "run", "--quiet")
    assert second.returncode == 0
    assert "up to date" in second.stdout
    assert len(pipelines(toy)) == 1
    assert len(events(toy)) == 8

    for path in toy.glob("?*.txt"):
        path.unlink()
    (toy / "dvc.lock").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--no-run-cache"],
        cwd=toy,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert outputs(toy) == made


def test_a_restored_stage_links_the_run_that_made_it(toy, affectgap):
    (toy / "data" / "runs").mkdir(parents=True)
    (toy / "data" / "runs" / "c.json").write_text('{"stage": "c", "run_id": "abc"}')
    assert affectgap(toy, "run", "--quiet").returncode == 0
    (toy / "params.yaml").write_text("a: {value: 1}\nb: {value: 2}\nc: {value: 4}\n")
    assert affectgap(toy, "run", "--quiet").returncode == 0
    (toy / "params.yaml").write_text("a: {value: 1}\nb: {value: 2}\nc: {value: 3}\n")
    third = affectgap(toy, "run", "--quiet")
    assert "restored from DVC's cache" in third.stdout
    *_, last = pipelines(toy)
    assert last.data.tags["reused.c"] == "abc"
    assert "abc" in last.data.tags["mlflow.note.content"]
    assert last.info.status == "FINISHED"


def test_a_stage_that_fails_says_its_own_line_and_stops_what_follows(toy, affectgap):
    (toy / "params.yaml").write_text("a: {}\nb: {fault: 'labels.csv: no column emotion'}\nc: {}\n")
    done = affectgap(toy, "run", "--quiet")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert lines == ["error: labels.csv: no column emotion"]
    assert "Traceback" not in done.stderr + done.stdout
    assert "c" not in {row[1] for row in events(toy)}
    assert pipelines(toy)[-1].info.status == "FAILED"


@pytest.mark.parametrize("moment", ["a", "b-x"])
def test_a_killed_run_leaves_no_process_and_goes_on_afterwards(toy, affectgap, moment):
    slow = "a: {value: 1, seconds: 4}\nb: {value: 2, seconds: 4}\nc: {value: 3}\n"
    (toy / "params.yaml").write_text(slow)
    command = [sys.executable, "-c", "from flows.cli import main; main()", "run", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.Popen(
        command, cwd=toy, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    log = toy / "log.txt"
    while not (log.exists() and f"start {moment} " in log.read_text()):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    family = psutil.Process(run.pid).children(recursive=True)
    assert any("serve(" in " ".join(p.cmdline()) for p in family), "no Prefect server to orphan"
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    assert f"end {moment} " not in log.read_text()

    again = affectgap(toy, "run", "--quiet")
    assert again.returncode == 0, again.stderr
    made = outputs(toy)
    assert made["c.txt"].startswith("c3a1b-x2b-y2")
    assert [run.info.status for run in pipelines(toy)] == ["KILLED", "FINISHED"]


def test_two_runs_at_once_are_refused(toy, affectgap):
    from filelock import FileLock

    (toy / "work").mkdir()
    with FileLock(toy / "work" / "run.lock"):
        done = affectgap(toy, "run", "--quiet")
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*another `affectgap run` or .* is at work here\n", done.stderr)


def test_a_folder_that_is_no_repository_says_so_in_one_line(toy, affectgap):
    import shutil

    shutil.rmtree(toy / ".git")
    done = affectgap(toy, "run", env={"GIT_CEILING_DIRECTORIES": str(toy.parent)})
    assert done.returncode == 2
    assert "git init" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_project_of_another_account_is_not_called_one_without_git(toy, affectgap):
    """`git init`, which it was told to do, would not have helped."""
    done = affectgap(toy, "run", env={"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"})
    assert done.returncode == 2 and "git init" not in done.stderr
    assert "dubious ownership" in done.stderr and len(done.stderr.splitlines()) == 1
    assert f"safe.directory {toy}`" in done.stderr


def test_what_a_crash_tore_is_mended(toy):
    (toy / ".dvc" / "tmp").mkdir(exist_ok=True)
    (toy / ".dvc" / "tmp" / "rwlock").write_text('{"write": {"/a')
    (toy / "dvc.lock").write_text("")
    assert len(list(repair_after_crash(toy))) == 2
    assert set(changed_stages(toy, None)) == {"a", "b@x", "b@y", "c"}
    assert list(repair_after_crash(toy)) == []
