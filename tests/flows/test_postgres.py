"""Passes with MLflow's server and Prefect on an own Postgres, set up as docs/scaling.md says.

The manual's own lines are carried out. Clients of Postgres take its port from PGPORT, and the
password from PGPASSFILE, so that only the port of MLflow's server is another one here.
"""

import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import requests
import yaml
from batches import draw_batch, mark_ready
from moto.server import ThreadedMotoServer
from pass_world import EMOTIONS, SIZE_PX, kill, run, small_project, start, wait_until
from whole_way import REPOSITORY

from tasks.core.paths import Paths

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

COMPOSE = REPOSITORY / "docs" / "deploy" / "compose.yaml"
PASSWORD = "a password of this test"
_AWAY_S = 3  # of a restart: calls of commands, MLflow's server and Prefect's meet it
OF_SERVERS = {"runs", "registered_models", "model_versions", "flow_run", "task_run"}  # tables


class Postgres:
    """A server of our own on 127.0.0.1, with its data in a folder of its own."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder, self.binaries, self.port = folder, binaries, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        other = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self._as: dict[str, Any] = other if os.geteuid() == 0 else {}  # root it refuses to serve
        secrets = folder / "pgpass"
        secrets.write_text(f"127.0.0.1:{self.port}:*:*:{PASSWORD}\n")
        secrets.chmod(0o600)
        self.environment = {"PGPORT": str(self.port), "PGPASSFILE": str(secrets)}

    def make(self) -> None:
        """Make its data; raises where the binaries cannot be run."""
        word = self.folder / "word"
        word.write_text(PASSWORD)
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        if self._as:
            owner = pwd.getpwnam("postgres").pw_uid
            for path in (self.folder, data, word):
                os.chown(path, owner, -1)
        how = ("--auth=scram-sha-256", "--username=postgres", f"--pwfile={word}")
        command = [self.binaries / "initdb", "--pgdata", data, *how]
        subprocess.run(command, cwd=self.folder, capture_output=True, check=True, **self._as)

    def start(self) -> None:
        """Start it; raises RuntimeError with its log where it does not answer."""
        command = [self.binaries / "postgres", "-D", self.folder / "data", "-p", str(self.port)]
        for setting in ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"):
            command += ["-c", setting]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which end it
                **self._as,
            )
        wait_until(lambda: self._answers() or self.process.poll() is not None, 60)
        if not self._answers():
            raise RuntimeError((self.folder / "log").read_text())

    def stop(self) -> None:
        """End this server, and what is connected to it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # "fast": without waiting for clients
            self.process.wait(60)
            self.process = None

    def rows(self, database: str, question: str) -> list[tuple[Any, ...]]:
        with closing(self._connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(question)
            return cursor.fetchall()

    def drop(self, database: str) -> None:
        """Drop a database, whoever is connected to it."""
        with closing(self._connect("postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"DROP DATABASE {database} WITH (FORCE)")

    def _connect(self, database: str) -> Any:
        secrets = self.environment["PGPASSFILE"]
        where = {"host": "127.0.0.1", "port": self.port, "dbname": database}
        return psycopg2.connect(user="postgres", passfile=secrets, connect_timeout=5, **where)

    def _answers(self) -> bool:
        try:
            self._connect("postgres").close()
        except psycopg2.OperationalError:
            return False
        return True


@dataclass(frozen=True)
class Site:
    """A project whose commands have these settings, and what stands behind it."""

    paths: Paths
    settings: dict[str, str]
    postgres: Postgres
    administrator: dict[str, str]  # the environment of Postgres's own commands
    folder: Path

    def run(self, *command: str, code: int = 0) -> str:
        return run(self.paths, *command, code=code, **self.settings)

    def start(self, *command: str) -> subprocess.Popen[str]:
        return start(self.paths, *command, **self.settings)

    def runs(self, *states: str) -> list[str]:
        """Return the names of MLflow's runs in these states."""
        found = self.postgres.rows("mlflow", "SELECT status, name FROM runs ORDER BY start_time")
        return [name for state, name in found if state in states]

    def passes_of_serve(self) -> list[str]:
        """Return the states of the looks into the inbox that began."""
        found = self.postgres.rows(
            "prefect",
            "SELECT flow_run.state_type FROM flow_run JOIN deployment ON deployment.id = "
            "deployment_id WHERE deployment.name = 'inbox' AND start_time IS NOT NULL",
        )
        return [state for (state,) in found]

    def aliases(self) -> dict[str, int]:
        question = "SELECT alias, version FROM registered_model_aliases WHERE name = 'affectgap'"
        return dict(self.postgres.rows("mlflow", question))


def folder_of_binaries() -> Path | None:
    """Return where Postgres is: Debian's newest, or what is on the path."""
    debian = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    found = max(debian, key=lambda path: int(path.parts[-3]), default=shutil.which("postgres"))
    return Path(found).parent if found else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lines_of_the_manual(containing: str) -> list[str]:
    """Return the commands of the block of docs/scaling.md that holds these words."""
    text = (REPOSITORY / "docs" / "scaling.md").read_text(encoding="utf-8")
    (block,) = (one for one in re.findall(r"```\n(.*?)```", text, re.S) if containing in one)
    return block.replace("\\\n", " ").splitlines()


def carry_out(line: str, environment: dict[str, str], folder: Path) -> None:
    """Run a line of the manual in a shell; a password that it asks for is given."""
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        input=f"{PASSWORD}\n{PASSWORD}\n",
        capture_output=True,
        text=True,
        start_new_session=True,  # no terminal: it asks its standard input
        check=False,
    )
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    binaries = folder_of_binaries()
    if binaries is None:
        pytest.skip("no Postgres is installed: `apt-get install postgresql`")
    # Not one of pytest's own folders, which are closed to the user whom Postgres runs as.
    folder = Path(tempfile.mkdtemp(prefix="affectgap-postgres-"))
    server = Postgres(folder, binaries)
    try:
        try:
            server.make()
            server.start()
        except (OSError, LookupError, RuntimeError, subprocess.CalledProcessError) as error:
            pytest.skip(f"Postgres of {binaries} cannot be started here: {error}")
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """An S3 server with compose.yaml's buckets; what MLflow's server is told of it.

    It is behind a proxy, so that, as in compose.yaml, clients of MLflow's server do not know the
    name that the server calls it by.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    proxy = "http://{}:{}".format(*server.get_host_and_port())
    compose = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    buckets = compose["services"]["buckets"]
    told = {**buckets["environment"], "http_proxy": proxy, "NO_PROXY": "", "no_proxy": ""}
    told |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    command = [sys.executable, *buckets["command"][1:]]
    subprocess.run(command, env={**os.environ, **told}, check=True, timeout=120)
    yield told
    server.stop()


@contextmanager
def mlflow_server(
    line: str, port: int, environment: dict[str, str], folder: Path
) -> Iterator[None]:
    """Run the manual's line, with one worker in place of four, until it is no longer needed."""
    log = folder / "mlflow.log"
    with log.open("wb") as said:
        server = subprocess.Popen(
            [*shlex.split(line), "--workers", "1"],
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )

    def answers() -> bool:
        assert server.poll() is None, log.read_text()
        try:
            return requests.get(f"http://127.0.0.1:{port}/health", timeout=2).ok
        except requests.RequestException:
            return False

    try:
        assert wait_until(answers, 180), log.read_text()
        yield
    finally:
        family = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
        for process in family:
            process.kill()
        server.wait(20)


@pytest.fixture(scope="module")
def site(postgres, s3, tmp_path_factory) -> Iterator[Site]:
    """A project that follows the manual, with a model in use after its first pass."""
    folder, port = tmp_path_factory.mktemp("site"), free_port()
    path = f"{Path(sys.executable).parent}:{postgres.binaries}:{os.environ['PATH']}"
    common = {**os.environ, **postgres.environment, "PATH": path, "DO_NOT_TRACK": "true"}
    administrator = {**common, "PGHOST": "127.0.0.1", "PGUSER": "postgres"}
    settings, server = dict(postgres.environment), ""
    for line in lines_of_the_manual("--backend-store-uri"):
        line = line.replace("5000", str(port))
        if line.startswith(("createuser ", "createdb ")):
            carry_out(line, administrator, folder)
        elif line.startswith("mlflow server "):
            server = line
        elif line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            settings[name] = value
        else:
            assert line == "affectgap serve"
    assert set(settings) == {
        *postgres.environment,
        "MLFLOW_TRACKING_URI",
        "PREFECT_API_DATABASE_CONNECTION_URL",
    }
    with mlflow_server(server, port, {**common, **s3}, folder):
        paths = small_project(folder / "clone")
        one = Site(paths, settings, postgres, administrator, folder)
        said = one.run("retrain", "--quiet")
        assert "version 1 passed the gate and is put into use" in said
        yield one


def said_of(site: Site) -> str:
    return site.paths.at("work/said.txt").read_text(encoding="utf-8")


def send(paths: Paths, name: str, first: int) -> None:
    folder = paths.inbox / name
    mark_ready(draw_batch(folder, first, 6, emotions=EMOTIONS, size_px=SIZE_PX))


def objects_of_mlflow(s3: dict[str, str]) -> list[str]:
    """Return the names of MLflow's objects, below `artifacts` of its bucket."""
    bucket = f"{s3['http_proxy']}/affectgap-mlflow?list-type=2&prefix=artifacts/"
    return re.findall("<Key>artifacts/(.*?)</Key>", requests.get(bucket, timeout=10).text)


def tables_in_files(root: Path) -> set[str]:
    """Return the names of all tables in SQLite files below a folder."""
    found = set()
    for path in root.rglob("*"):
        if path.is_file() and path.open("rb").read(15) == b"SQLite format 3":
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
                found |= {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    return found


def test_what_a_pass_leaves_is_in_postgres_and_in_no_file(site, s3):
    stages = {"draw", "ingest", "check", "crop", "split", "register"}  # `train` is made up there
    assert {*stages, "retrain"} <= set(site.runs("FINISHED"))
    assert site.runs("RUNNING", "FAILED", "KILLED") == []
    assert site.aliases() == {"champion": 1, "challenger": 1}
    ((source, digest),) = site.postgres.rows(
        "mlflow",
        "SELECT source, value FROM model_versions JOIN model_version_tags USING (name, version) "
        "WHERE key = 'digest' AND version = 1",
    )
    assert source.startswith("mlflow-artifacts:/") and len(digest) == 12
    assert f"{source.removeprefix('mlflow-artifacts:/')}/MLmodel" in objects_of_mlflow(s3)
    flows = site.postgres.rows(
        "prefect",
        "SELECT flow.name, flow_run.state_type FROM flow_run JOIN flow ON flow.id = flow_id",
    )
    assert flows == [("retrain", "COMPLETED")]
    tasks = site.postgres.rows("prefect", "SELECT name, state_type FROM task_run")
    assert {state for _, state in tasks} == {"COMPLETED"}
    assert {"ingest", "train", "register"} <= {name for name, _ in tasks}

    in_files = tables_in_files(site.paths.root)
    assert "events" in in_files  # the ledger's, so the others would have been seen as well
    assert not in_files & OF_SERVERS


def test_a_killed_pass_is_closed_and_the_next_outlives_a_restart_of_postgres(site):
    send(site.paths, "spring", 101)
    killed = site.start("retrain", "--quiet")
    assert wait_until(lambda: len(site.runs("RUNNING")) > 1)  # the pass's own, and a stage's
    assert kill(killed)
    said = site.run("doctor")
    assert "runs of processes that are gone; ended as KILLED" in said
    assert site.runs("RUNNING") == [] and "retrain" in site.runs("KILLED")

    port = str(free_port())
    serving = site.start("serve", "--port", port)
    assert wait_until(lambda: len(site.runs("RUNNING")) > 1, 300), said_of(site)
    site.postgres.stop()
    time.sleep(_AWAY_S)
    site.postgres.start()
    assert wait_until(lambda: site.passes_of_serve() == ["COMPLETED"], 300), said_of(site)
    assert site.aliases() == {"champion": 2, "challenger": 2, "previous": 1}
    names = site.postgres.rows("prefect", "SELECT name FROM deployment ORDER BY name")
    assert names == [("full-audit",), ("inbox",)]
    status = site.run("status")
    assert re.search(r"in use +version 2 .*before it version 1", status)
    assert re.search(r"next look +\d{4}-", status)
    serving.send_signal(signal.SIGTERM)
    serving.wait(60)

    assert "version 1 (" in site.run("rollback", "--why", "a test", "--by", "someone")
    assert site.aliases() == {"champion": 1, "challenger": 2}
    models = site.run("models")
    assert re.search("^2 +challenger ", models, re.M) and re.search("^1 +champion ", models, re.M)
    assert site.run("doctor") == "nothing to mend\n"
    assert not tables_in_files(site.paths.root) & OF_SERVERS


def test_a_dump_of_the_database_brings_back_runs_and_registry(site):
    """By the manual's lines; MLflow's server runs on meanwhile."""
    before, runs = site.run("models"), site.runs("FINISHED")
    dump, restore = lines_of_the_manual("pg_dump")
    carry_out(dump, site.administrator, site.folder)
    site.postgres.drop("mlflow")
    carry_out(restore, site.administrator, site.folder)
    assert (site.run("models"), site.runs("FINISHED")) == (before, runs)
    assert site.run("doctor") == "nothing to mend\n"


def test_a_database_that_is_away_is_one_line_and_is_used_again_when_it_is_back(site):
    before = site.run("models")
    site.postgres.stop()
    try:
        assert re.search("^in use +cannot be read: Mlflow", site.run("status", code=1))
        (line,) = site.run("retrain", "--now", "--quiet", code=1).splitlines()
        assert line.startswith(f"error: {site.settings['MLFLOW_TRACKING_URI']}: MLflow does not")
    finally:
        site.postgres.start()
    assert site.run("models") == before
