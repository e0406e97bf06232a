"""`affectgap serve` for real, on toy stages: schedule, event, runs that die, and how it ends."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import psutil
import pytest
import requests
from httpx import ConnectError
from lookups import foreign_names, watch
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import get_current_settings
from typer.testing import CliRunner
from whole_way import environment

from flows.daemon import daemon, run_supervisor
from flows.ledger.ledger import Ledger
from flows.pipeline import prefect_server
from flows.project_commands import operations_app
from flows.retraining import trigger_policy
from tasks.core.errors import AffectGapError, ParamsError, UserError
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.terminal import Console

REPOSITORY = Path(__file__).parents[2]
SERVE = [sys.executable, "-c", "from flows.cli import main; main()", "serve", "--port"]

TOY_STAGE = """
import time
from tasks.core.parallel.process import die_with_parent, starter_pid
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
                env={**watch(environment(REPOSITORY), root / "names"), "PYTHONUNBUFFERED": "1"},
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


def fire(port: int, secret: str) -> None:
    event = {
        "event": "affectgap.data.arrived",
        "occurred": datetime.now(UTC).isoformat(),
        "id": str(uuid.uuid4()),
        "resource": {"prefect.resource.id": "site.3"},
        "payload": {},
    }
    api = f"http://127.0.0.1:{port}/api/events"
    assert requests.post(api, json=[event], timeout=10).status_code == 401
    auth = tuple(secret.split(":"))
    requests.post(api, json=[event], auth=auth, timeout=10).raise_for_status()


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
            prefect_server.scheduling_server(tmp_path, port).__enter__()

    def refuse(self, address):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(UserError, match=r"port 80 of 127.0.0.1 \(Permission denied\); "):
        prefect_server.scheduling_server(tmp_path, 80).__enter__()


def test_two_projects_do_not_take_each_others_work(monkeypatch):
    client = MagicMock()
    client.__enter__.return_value = client
    monkeypatch.setattr(run_supervisor, "get_client", lambda sync_client: client)
    known = {"inbox/inbox": SimpleNamespace(parameters={"root": "/srv/other"})}

    def read(name):
        if name not in known:
            raise ObjectNotFound(KeyError(name))
        return known[name]

    client.read_deployment_by_name = read
    run_supervisor.assert_deployments_ours({"full-audit": "/srv/mine"})
    run_supervisor.assert_deployments_ours({"inbox": "/srv/other"})
    with pytest.raises(UserError, match=r"^this Prefect server serves /srv/other: give each"):
        run_supervisor.assert_deployments_ours({"full-audit": "/srv/mine", "inbox": "/srv/mine"})


def test_that_a_run_is_done_again_is_said_once(monkeypatch):
    """Its repeat may wait for long; a look comes every ten seconds."""
    died = SimpleNamespace(id="1", name="fox", state_type=StateType.CRASHED, tags=[])
    waiting, client = [], MagicMock()
    client.__enter__.return_value = client
    client.read_flow_run = lambda id: died

    def again(deployment, idempotency_key, tags):
        waiting.append(SimpleNamespace(idempotency_key=idempotency_key, expected_start_time=None))

    client.create_flow_run_from_deployment = again
    monkeypatch.setattr(run_supervisor, "get_client", lambda sync_client: client)

    def runs(client, deployment, states, newest_first=True):
        return [died] if StateType.CRASHED in states else waiting

    monkeypatch.setattr(run_supervisor, "_runs", runs)
    assert run_supervisor.supervise({"inbox": "id"}, False) == ["done again: inbox run fox"]
    assert run_supervisor.supervise({"inbox": "id"}, False) == []
    assert len(waiting) == 1


def test_a_server_elsewhere_is_asked_whose_it_is_before_anything_is_put_there(
    tmp_path, monkeypatch
):
    params = load_section(REPOSITORY / "params.yaml", "retrain", trigger_policy.Params)
    deployments = daemon._deployments(Paths(tmp_path), params)

    def refuse(roots):
        assert roots == dict.fromkeys(("inbox", "full-audit"), str(tmp_path))
        raise UserError("of another project")

    monkeypatch.setattr(daemon, "assert_deployments_ours", refuse)
    with pytest.raises(UserError, match="of another project"):
        asyncio.run(daemon._stand_by(deployments, None, Console()))
    for name in ("API", "SERVER"):  # Prefect's older name and its newer one
        monkeypatch.setenv(f"PREFECT_{name}_DATABASE_CONNECTION_URL", "postgresql+asyncpg://site/x")
        assert not daemon._has_own_database(Mock())  # its own server, a database that others share
        monkeypatch.delenv(f"PREFECT_{name}_DATABASE_CONNECTION_URL")
    assert daemon._has_own_database(Mock())


def deployed(root: Path, **changes):
    """What `serve` makes of params, by name: the deployment and its active schedules."""
    params = load_section(REPOSITORY / "params.yaml", "retrain", trigger_policy.Params)
    made = daemon._deployments(Paths(root), params.model_copy(update=changes))
    return {
        one.name: (one, [entry.schedule for entry in one.schedules if entry.active is not False])
        for one in made
    }


def next_times(schedule, n=2):
    """When Prefect's server would run a cron schedule, from a Saturday on."""
    known = CronSchedule(**schedule.model_dump())
    times = asyncio.run(known.get_dates(n, datetime(2026, 11, 28, 12, tzinfo=UTC)))
    return [time.astimezone(UTC).isoformat(timespec="minutes") for time in times]


def test_what_params_say_of_looks_and_audits_is_what_is_scheduled(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")  # of the machine: it decides nothing
    time.tzset()
    try:
        made = deployed(tmp_path, poll_minutes=7.5, cron="30 */6 * * *")
        inbox, (interval, cron) = made["inbox"]
        audit, (weekly,) = made["full-audit"]
        assert interval.interval == timedelta(minutes=7.5)
        assert (cron.cron, cron.timezone) == ("30 */6 * * *", "UTC")
        assert next_times(cron) == ["2026-11-28T12:30+00:00", "2026-11-28T18:30+00:00"]
        assert (weekly.cron, weekly.timezone) == ("0 3 * * 0", "UTC")  # Sundays at three
        assert next_times(weekly) == ["2026-11-29T03:00+00:00", "2026-12-06T03:00+00:00"]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert inbox.entrypoint == "flows.daemon.scheduled_flows.poll_inbox" and inbox.triggers
    assert audit.entrypoint == "flows.daemon.scheduled_flows.run_full_audit" and not audit.triggers
    assert inbox.parameters == audit.parameters == {"root": str(tmp_path)}
    assert daemon._when(inbox).startswith(
        "every 7.5 minutes, at '30 */6 * * *' (cron, UTC), at the"
    )
    assert daemon._when(audit) == "at '0 3 * * 0' (cron, UTC)"


def test_without_an_interval_or_a_cron_line_nothing_is_scheduled(tmp_path):
    made = deployed(tmp_path, poll_minutes=None, cron=None, full_audit_cron=None)
    assert [schedules for _, schedules in made.values()] == [[], []]
    assert daemon._when(made["full-audit"][0]) == "never"
    for key in ("cron", "full_audit_cron"):
        with pytest.raises(ParamsError, match=rf"retrain\.{key}: is no cron line .*'at night'"):
            deployed(tmp_path, **{key: "at night"})


def test_the_reason_why_a_standing_server_died_stays_in_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(prefect_server, "answers", lambda url: True)
    monkeypatch.setattr(prefect_server, "_MAX_LOG_BYTES", 1000)
    started = prefect_server.subprocess.Popen

    def dies(command, **more):
        return started([sys.executable, "-c", "print('why it died')"], **more)

    monkeypatch.setattr(prefect_server.subprocess, "Popen", dies)
    for standing in (True, False, True):  # `affectgap run` beside it has a server of its own
        one = prefect_server.Server(tmp_path, 4321, standing)
        with suppress(AffectGapError):  # it may be gone before it is asked
            one.start()
        one._process.wait()
    logs = tmp_path / ".prefect"
    kept = (logs / "standing-server.log").read_text()
    assert kept.count("why it died") == kept.count(" UTC: started\n") == 2
    assert (logs / "server.log").read_text().count("why it died") == 1
    (logs / "standing-server.log").write_text("x" * 2000)
    with suppress(AffectGapError):
        one.start()
    one._process.wait()
    assert (logs / "standing-server.log").stat().st_size < 100
    assert (logs / "standing-server.log.1").read_text() == "x" * 2000


@pytest.mark.parametrize(
    ("unit", "clone"),
    [("affectgap.service", "/srv/affectgap"), ("affectgap-worker@.service", "/srv/affectgap-%i")],
)
def test_a_unit_writes_its_cache_where_it_may_and_waits_for_the_doctor(unit, clone):
    lines = (REPOSITORY / "docs" / "deploy" / unit).read_text().splitlines()
    assert "ProtectHome=true" in lines and f"ReadWritePaths={clone}" in lines
    assert f"Environment=AFFECTGAP_CACHE={clone}/.cache" in lines and "UMask=0077" in lines
    if any(line.startswith("ExecStartPre=") for line in lines):  # its time is the start's too
        assert "TimeoutStartSec=infinity" in lines


def test_a_page_of_another_address_may_not_read_the_server(tmp_path, monkeypatch):
    told = {}

    class Process:
        def __init__(self, command, env, **more):
            told.update(env, command=" ".join(command))

        def poll(self):
            return None

    monkeypatch.setattr(prefect_server.subprocess, "Popen", Process)
    monkeypatch.setattr(prefect_server, "answers", lambda url: True)
    prefect_server.Server(tmp_path, 4321, standing=True).start()
    allowed = told["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    assert allowed == "http://127.0.0.1:4321,http://localhost:4321"


@pytest.mark.parametrize("standing", [True, False])
def test_a_server_asks_for_a_secret_that_no_command_line_shows(tmp_path, monkeypatch, standing):
    told = {}

    class Process:
        poll = staticmethod(lambda: None)

        def __init__(self, command, env, **more):
            told.update(env, command=" ".join(command))

        terminate = wait = lambda self, timeout=None: None

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    monkeypatch.setattr(prefect_server.subprocess, "Popen", Process)
    monkeypatch.setattr(prefect_server, "answers", lambda url: True)
    one = prefect_server.Server(tmp_path, 4321, standing)
    with prefect_server._running(one):  # what this process and its children ask with
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
    secret = told["PREFECT_SERVER_API_AUTH_STRING"]
    assert settings["PREFECT_API_AUTH_STRING"] == secret and len(secret) > 40
    assert secret.partition(":")[2] not in told["command"]
    file = tmp_path / ".prefect/auth-string"
    assert file.is_file() == standing  # nobody else has to know that of one command
    assert prefect_server.Server(tmp_path, 4321, standing).secret != secret or standing


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AffectGapError("server.log: it did not start"), "server.log: it did not start"),
        (ConnectError("no\nroute"), "http://site/api: Prefect does not answer (no route); is"),
        (RuntimeError("Failed to reach API at x"), "http://site/api: Prefect does not answer (Fa"),
    ],
)
def test_what_ends_serve_is_told_in_one_line(error, told, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://site/api")
    for raised in (error, ExceptionGroup("tasks", [error])):
        with pytest.raises(AffectGapError) as caught, daemon._in_one_line():
            raise raised
        assert str(caught.value).startswith(told)
    with pytest.raises(ExceptionGroup), daemon._in_one_line():  # a defect is shown whole
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
        foreign = requests.get(page, headers={"Host": f"elsewhere:{port}"}, timeout=10)
        assert foreign.status_code == 400  # a page whose name resolves to this machine
        settings = requests.get(f"http://127.0.0.1:{port}/ui-settings", timeout=10).json()
        assert settings["auth"] == "BASIC"  # Prefect's page asks for the secret
        second = affectgap(project, "serve", "--port", str(free_port()))
        assert second.returncode == 2
        assert second.stderr.endswith("another `affectgap serve` runs here\n")

        (project / "data" / "ledger.db").unlink()  # now no pass has trained
        secret = (project / ".prefect/auth-string").read_text().strip()
        fire(port, secret)
        serving.wait_for(process="stage.py")
        shown = affectgap(project, "status").stdout
        assert "a pass is at work" in shown and "next look    2" in shown, shown
        weekly = r"full audit \d{4}-\d\d-\d\d 03:00 UTC"  # Prefect's scheduler may need a moment
        for _ in range(20):
            if re.search(weekly, shown):
                break
            shown = affectgap(project, "status").stdout
        assert re.search(weekly, shown), shown

        shown = affectgap(project, "status", "--ui").stdout
        assert secret in shown and f"127.0.0.1:{port}" in shown
        run = serving.wait_for(process="prefect.engine")
        words = [word for process in psutil.process_iter() for word in _command(process)]
        assert not any(secret.partition(":")[2] in word for word in words)
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
    assert foreign_names(project / "names") == set()
