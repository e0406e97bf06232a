"""More than one machine, played on this one: an S3 server, a work pool, workers in own clones."""

import contextvars
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import boto3
import psutil
import pytest
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
from mlflow.utils.server_info import (
    SERVER_INFO_MULTIPART_DOWNLOADS_ENABLED,
    SERVER_INFO_MULTIPART_UPLOADS_ENABLED,
)
from moto.server import ThreadedMotoServer
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_AUTH_STRING

from flows.pipeline import dvc_graph, remote_stages, remote_worker
from flows.pipeline.prefect_server import prefect_server
from flows.pipeline.remote_stages import run_on_worker
from flows.pipeline.remote_worker import parse_exit
from flows.process_env import prepare_environment
from tasks.core.errors import AffectGapError, UserError
from tasks.core.tracking.versions import commit_of

POOL = "machines"


def dvc(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def git(root: Path, *arguments: str) -> None:
    author = ("-c", "user.name=someone", "-c", "user.email=someone@localhost")
    subprocess.run(["git", *author, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def s3(monkeypatch):
    """An S3 server with an empty bucket; its address."""
    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "y"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="shared")
    yield url
    server.stop()


@pytest.fixture
def clones(toy, s3, tmp_path, monkeypatch):
    """The toy project with the S3 server as its remote, and two clones of it for workers."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.setenv("PREFECT_HOME", str(toy / ".prefect"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (toy / ".gitignore").write_text("*.txt\n.prefect\nwork\nmlruns\n")
    (toy / "tasks/.keep").touch()  # git keeps no empty folder
    dvc(toy, "remote", "add", "--default", "shared", "s3://shared/cache")
    dvc(toy, "remote", "modify", "shared", "endpointurl", s3)
    git(toy, "add", "--all")
    git(toy, "commit", "--quiet", "--message", "toy")
    workers = [tmp_path / "one", tmp_path / "two"]
    for folder in workers:
        git(tmp_path, "clone", "--quiet", str(toy), str(folder))
    return toy, workers


@pytest.fixture
def start_worker(tmp_path):
    """Start a worker in a clone; all that were started are gone afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def start(clone: Path, url: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "AFFECTGAP_CLONE": str(clone),
            "PREFECT_API_URL": url,
            "PREFECT_API_AUTH_STRING": PREFECT_API_AUTH_STRING.value() or "",
            "PREFECT_HOME": str(clone / ".prefect"),
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "3",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
        }
        options = ("--pool", POOL, "--type", "process", "--name", clone.name, "--limit", "1")
        command = [sys.executable, "-m", "prefect", "worker", "start", *options]
        with (tmp_path / f"{clone.name}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=clone, env=environment, stdout=log, stderr=log)
        started.append(process)
        return process

    yield start
    for process in started:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            child.kill()
        process.wait()


def starts(root: Path) -> list[str]:
    log = root / "log.txt"
    lines = log.read_text().splitlines() if log.is_file() else []
    return [line.split()[1] for line in lines if line.startswith("start")]


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def in_threads(root: Path, stages: list[str]) -> list[Future[str]]:
    """Ask the pool for several stages side by side; Prefect's settings go with the context."""
    threads = ThreadPoolExecutor(len(stages))
    return [
        threads.submit(contextvars.copy_context().run, run_on_worker, root, POOL, stage)
        for stage in stages
    ]


@pytest.mark.long
def test_workers_share_what_they_made_and_a_lost_one_is_replaced(clones, start_worker):
    root, workers = clones
    (root / "params.yaml").write_text("{a: {value: 7}, b: {seconds: 4}, c: {}}\n")
    with prefect_server(root) as url:
        with get_client(sync_client=True) as client:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        processes = {clone.name: start_worker(clone, url) for clone in workers}
        assert run_on_worker(root, POOL, "a") in processes
        dvc(root, "repro", "--pull", "--single-item", "a")
        both = in_threads(root, ["b@x", "b@y"])
        wait_for(lambda: any({"b-x", "b-y"} & set(starts(clone)) for clone in workers))
        lost = next(clone for clone in workers if {"b-x", "b-y"} & set(starts(clone)))
        os.kill(processes[lost.name].pid, signal.SIGKILL)
        left = next(clone for clone in workers if clone != lost)
        assert left.name in [answer.result() for answer in both]
        dvc(root, "repro", "--pull")
    assert {"b-x", "b-y"} & set(starts(left))
    assert starts(root) == ["c"]  # everything else came back through the run-cache
    assert (root / "c.txt").read_text() == "ca7b-xb-y"


@pytest.mark.long
def test_a_stage_that_fails_on_a_worker_says_so_here(toy, monkeypatch):
    """Without a remote: the stage fails before anything would be pushed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("AFFECTGAP_CLONE", str(toy))
    monkeypatch.setattr(remote_worker, "die_with_parent", lambda: None)
    monkeypatch.setattr(remote_worker, "_tag_with_worker", lambda: None)
    git(toy, "add", "--all")
    git(toy, "commit", "--quiet", "--message", "toy")
    files = {"params.yaml": "{a: {fault: no pictures}, b: {}, c: {}}\n"}
    state = remote_worker.stage_on_worker.fn("a", [], commit_of(toy), files, "")
    assert parse_exit(state.message) == (2, "no pictures")
    outside = {"../elsewhere.yaml": "a: 1\n"}
    state = remote_worker.stage_on_worker.fn("a", [], commit_of(toy), outside, "")
    assert parse_exit(state.message) == (2, "../elsewhere.yaml: is no file of the project")
    state = remote_worker.stage_on_worker.fn("a", [], "0" * 40, files, "")
    assert "push the commit where workers fetch" in state.message


def test_a_clone_forgets_an_earlier_askers_changes(tmp_path):
    for name in ("stage.py", "params.yaml"):
        (tmp_path / name).write_text("as committed")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "toy")
    (tmp_path / "stage.py").write_text("an earlier asker's")
    remote_worker._check_out(tmp_path, commit_of(tmp_path), {"params.yaml": "this asker's"})
    assert (tmp_path / "stage.py").read_text() == "as committed"
    assert (tmp_path / "params.yaml").read_text() == "this asker's"


def test_code_that_is_not_committed_is_said_before_anything_is_sent(toy):
    """A worker would run other code, and what it made would not be restored here."""
    (toy / ".gitignore").write_text("*.txt\n")
    dvc_yaml = (toy / "dvc.yaml").read_text()
    (toy / "dvc.yaml").write_text(dvc_yaml.replace("deps: [a.txt]", "deps: [a.txt, stage.py, lib]"))
    git(toy, "add", "--all")
    git(toy, "commit", "--quiet", "--message", "toy")
    (toy / "params.yaml").write_text("a: {value: 9}\nb: {}\nc: {}\n")  # travels, as dvc.lock does
    (toy / "dvc.lock").write_text("schema: '2.0'\n")
    (toy / "notes.md").write_text("no stage reads it")
    remote_stages._assert_committed(toy)
    (toy / "lib").mkdir()
    (toy / "lib/new.py").write_text("")
    (toy / "stage.py").write_text("changed")
    asked = Mock()
    with pytest.raises(UserError, match=r"^stage.py, lib/new.py: not committed, so workers"):
        remote_stages._prepare(asked, toy, POOL)
    assert asked.mock_calls == []


def test_a_cut_lock_is_read_again_until_it_is_whole(tmp_path, monkeypatch):
    lock = tmp_path / "dvc.lock"
    lock.write_text("schema: '2.0'\nstages:\n")  # a mapping, which DVC refuses
    whole = "schema: '2.0'\nstages:\n  a:\n    cmd: ls\n"
    slept = []
    monkeypatch.setattr(remote_stages.time, "sleep", lambda s: slept.append(lock.write_text(whole)))
    assert remote_stages._whole_lock(lock) == whole and len(slept) == 1
    lock.write_text("schema: '2.0'\nstages:\n")
    monkeypatch.setattr(remote_stages.time, "sleep", slept.append)
    with pytest.raises(UserError, match="is torn; `affectgap doctor` mends it"):
        remote_stages._whole_lock(lock)


def test_why_dvc_could_not_push_or_pull_is_told(toy, monkeypatch):
    """With `--quiet` DVC says nothing at all."""
    said = ["Collecting", "ERROR: failed to push data to the cloud - no room", "", "Having any"]

    def run_dvc(root, *arguments, environment=None):
        yield from [] if "--quiet" in arguments else said
        yield "exit 1"

    monkeypatch.setattr(remote_stages, "run_dvc", run_dvc)
    monkeypatch.setattr(remote_worker, "run_dvc", run_dvc)
    monkeypatch.setattr(remote_stages, "_assert_committed", lambda root: None)
    told = "failed to push data to the cloud - no room"
    with pytest.raises(UserError, match=f"cannot push to the DVC remote: {told}$"):
        remote_stages._prepare(Mock(), toy, POOL)
    with pytest.raises(AffectGapError, match=f"dvc pull failed:\n{told}$"):
        remote_worker._pull(toy, ["a"], {})
    assert dvc_graph.dvc_errors(said, full=True) == "\n".join(said)
    help_elsewhere = "Having any troubles? Hit us up at https://dvc.org/support"
    assert dvc_graph.dvc_errors([*said, help_elsewhere], full=True) == "\n".join(said)


def test_files_come_through_mlflows_server_and_not_from_s3_itself(monkeypatch):
    """The server offers addresses in S3, by the name that it has for it; clients may have none."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    store = MlflowArtifactsRepository("mlflow-artifacts:/1", tracking_uri="http://127.0.0.1:9")
    store._server_capabilities = {
        SERVER_INFO_MULTIPART_DOWNLOADS_ENABLED: True,
        SERVER_INFO_MULTIPART_UPLOADS_ENABLED: True,
    }
    assert store._is_multipart_download_enabled() and store._is_multipart_upload_enabled()
    prepare_environment(Path("anywhere"))
    assert not store._is_multipart_download_enabled() and not store._is_multipart_upload_enabled()


def test_what_a_stage_said_on_a_worker_keeps_its_exit_code():
    assert parse_exit("exit 2: crop: no face: in any") == (2, "crop: no face: in any")
    assert parse_exit("Flow run encountered an exception") == (
        1,
        "Flow run encountered an exception",
    )
