"""`affectgap serve` for real, on toy stages: schedule, event, runs that die, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import requests
from httpx import ConnectError
from typer.testing import CliRunner
from whole_way import environment

from flows import serve, server
from flows.operations import operations_app
from tasks.core.errors import AffectGapError, UserError
from tasks.core.ledger import Ledger

REPOSITORY = Path(__file__).parents[2]
SERVE = [sys.executable, "-c", "from flows.cli import main; main()", "serve", "--port"]

TOY_STAGE = """
import time
from tasks.core.process import die_with_parent, starter_pid
die_with_parent(starter_pid())
time.sleep(600)
"""


@pytest.fixture
def project(tmp_path):
    """A project whose only stage takes ten minutes, with a ledger that says: nothing is due."""
    root = tmp_path / "toy"
    (root / "tasks").mkdir(parents=True)
    (root / "data" / "inbox").mkdir(parents=True)
    (root / "stage.py").write_text(TOY_STAGE)
    stage = {"cmd": f"exec {sys.executable} stage.py", "outs": ["a.txt"], "deps": ["stage.py"]}
    (root / "dvc.yaml").write_text(json.dumps({"stages": {"a": stage}}))
    params = (REPOSITORY / "params.yaml").read_text()
    (root / "params.yaml").write_text(params.replace("poll_minutes: 10 ", "poll_minutes: 600 "))
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    dvc = [sys.executable, "-m", "dvc", "init", "-q"]
    subprocess.run(dvc, cwd=root, check=True, env={**os.environ, "DVC_NO_ANALYTICS": "1"})
    ledger = Ledger(root / "data" / "ledger.db")
    ledger.end_pass(ledger.start_pass("a test"), "trained", "promoted", 1)
    return root


class Serving:
    """The command in a process of its own."""

    def __init__(self, root: Path, port: int) -> None:
        self.log = root / f"serve-{uuid.uuid4().hex[:6]}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*SERVE, str(port)],
                cwd=root,
                env={**environment(REPOSITORY), "PYTHONUNBUFFERED": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.seen: set[psutil.Process] = set()

    def wait_for(self, *, line: str = "", process: str = "", count: int = 1) -> psutil.Process:
        """Wait for a line of the log to come `count` times, or for a process below it."""
        for _ in range(1200):
            assert self.process.poll() is None, self.log.read_text()
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.seen.update(children)
            if line and self.log.read_text().count(line) >= count:
                return psutil.Process(self.process.pid)
            for child in children:
                if process and process in " ".join(_command(child)):
                    return child
            time.sleep(0.1)
        raise AssertionError(f"no {line or process}: {self.log.read_text()}")

    def assert_nothing_is_left(self) -> None:
        left = psutil.wait_procs(self.seen, timeout=15)[1]
        assert not left, left


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def fire(port: int) -> None:
    event = {
        "event": "affectgap.data.arrived",
        "occurred": datetime.now(UTC).isoformat(),
        "id": str(uuid.uuid4()),
        "resource": {"prefect.resource.id": "site.3"},
        "payload": {},
    }
    requests.post(
        f"http://127.0.0.1:{port}/api/events", json=[event], timeout=10
    ).raise_for_status()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_that_is_none_is_taken_or_not_allowed_is_one_line(tmp_path, monkeypatch):
    said = CliRunner().invoke(operations_app, ["serve", "--port", "70000"])
    assert said.exit_code == 2 and "65535" in said.output
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} of 127.0.0.1 is taken; "):
            server.standing_server(tmp_path, port).__enter__()

    def refuse(self, address):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(UserError, match=r"port 80 of 127.0.0.1 \(Permission denied\); "):
        server.standing_server(tmp_path, 80).__enter__()


def test_a_page_of_another_address_may_not_read_the_server(tmp_path, monkeypatch):
    told = {}

    class Process:
        def __init__(self, command, env, **more):
            told.update(env)

        def poll(self):
            return None

    monkeypatch.setattr(server.subprocess, "Popen", Process)
    monkeypatch.setattr(server, "answers", lambda url: True)
    server.Server(tmp_path, 4321, standing=True).start()
    allowed = told["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    assert allowed == "http://127.0.0.1:4321,http://localhost:4321"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AffectGapError("server.log: it did not start"), "server.log: it did not start"),
        (ConnectError("no\nroute"), "http://site/api: Prefect does not answer (no route); is"),
    ],
)
def test_what_ends_serve_is_told_in_one_line(error, told, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://site/api")
    for raised in (error, ExceptionGroup("tasks", [error])):
        with pytest.raises(AffectGapError) as caught, serve._in_one_line(None):
            raise raised
        assert str(caught.value).startswith(told)
    with pytest.raises(ExceptionGroup), serve._in_one_line(None):  # a defect is shown whole
        raise ExceptionGroup("tasks", [KeyError("a")])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_looks_is_called_by_an_event_does_again_what_died_and_leaves_nothing(project, affectgap):
    port = free_port()
    serving = Serving(project, port)
    try:
        serving.wait_for(line="training: not due")
        page = f"http://127.0.0.1:{port}/api/health"
        for origin, allowed in ((f"http://localhost:{port}", True), ("http://elsewhere", False)):
            answer = requests.get(page, headers={"Origin": origin}, timeout=10)
            assert ("access-control-allow-origin" in answer.headers) is allowed, origin
        second = affectgap(project, "serve", "--port", str(free_port()))
        assert second.returncode == 2
        assert second.stderr.endswith("another `affectgap serve` stands by here\n")

        (project / "data" / "ledger.db").unlink()  # now no pass has trained
        fire(port)
        serving.wait_for(process="stage.py")
        shown = affectgap(project, "status").stdout
        assert "a pass is at work" in shown and "next look    2" in shown, shown

        run = serving.wait_for(process="prefect.engine")
        below = [run, *run.children(recursive=True)]
        run.kill()
        assert not psutil.wait_procs(below, timeout=15)[1]
        serving.wait_for(line="done again: inbox run")
        serving.wait_for(process="stage.py")

        serving.process.kill()
        serving.process.wait()
        serving.assert_nothing_is_left()

        serving = Serving(project, port)
        serving.wait_for(line="closed: inbox run")
        serving.wait_for(process="stage.py")
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(timeout=60) == 0
        serving.assert_nothing_is_left()
    finally:
        serving.process.kill()
        serving.process.wait()
    ledger = Ledger(project / "data" / "ledger.db")
    assert set(ledger.passes()["state"]) <= {"died", "running"}
    assert len(ledger.close_dead_passes()) <= 1
