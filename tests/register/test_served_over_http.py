"""The version in use, served by MLflow's own server from the registry, by a process of its own."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
from registered_project import CROP, LABELS, draw_faces, write_small_model

from tasks.core.images import decode
from tasks.core.models.recogniser import Recogniser
from tasks.crop.all_faces import cut_all_faces
from tasks.register import registry

REPOSITORY = Path(__file__).parents[2]
CLI = [sys.executable, "-c", "from flows.cli import main; main()"]
pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(port, content):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(content).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read(), parse_constant=pytest.fail)["predictions"]


@pytest.fixture
def serve(project, tmp_path):
    """Start a server as the manual says, from a folder that is no project; ends it afterwards."""
    scripts = str(Path(sys.executable).parent)
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment = {
        **kept,
        "PATH": f"{scripts}:{kept['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{project.mlruns / 'mlflow.db'}",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    port, log = free_port(), tmp_path / "server.log"
    command = ["mlflow", "models", "serve", "-m", "models:/affectgap@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    (tmp_path / "elsewhere").mkdir()
    server = subprocess.Popen(
        command,
        cwd=tmp_path / "elsewhere",
        env=environment,
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield lambda: wait_for(server, port, log)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(20)


def wait_for(server, port, log):
    until = time.monotonic() + 240
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
            return port
        except (URLError, OSError):
            time.sleep(0.3)
    raise AssertionError(log.read_text()[-3000:])


@pytest.fixture
def second(project):
    """A second version; the first is in use."""
    registry.promote(project, 1, None)
    write_small_model(project.model("finetuned"), seed=2)
    return registry.register_challenger(project, project.model("finetuned"), {})


def test_what_is_in_use_answers_over_http(second, project, serve, tmp_path):
    registry.promote(project, 2, 1)
    faces = draw_faces(2)
    (tmp_path / "face.jpg").write_bytes(faces[1])
    text = base64.b64encode(faces[0]).decode()
    port = serve()
    given = [text, str(tmp_path / "face.jpg"), "nowhere.jpg"]
    rows = post(port, {"dataframe_records": [{"image": image} for image in given]})
    assert [row["row"] for row in rows] == [0, 1, 2]
    assert {row["model_version"] for row in rows} == {second.digest}
    assert abs(sum(rows[0][f"p_{label}"] for label in LABELS) - 1) < 1e-5
    assert rows[2]["emotion"] is None and rows[2]["note"].startswith("unreadable")
    assert post(port, {"inputs": {"image": [text, text]}})[1]["emotion"] == rows[0]["emotion"]
    with pytest.raises(HTTPError) as error:
        post(port, {"dataframe_records": [{"picture": text}]})
    assert error.value.code == 400
    recogniser = Recogniser.load(registry.fetch(project, 2), "cpu")
    wanted = recogniser.predict(cut_all_faces(decode(faces[0], 10**7), CROP).crops)[0]
    assert all(abs(rows[0][f"p_{k}"] - p) < 1e-5 for k, p in zip(LABELS, wanted, strict=True))


def test_the_commands_list_and_roll_back(second, project):
    project.at("dvc.yaml").write_text("stages: {}\n")
    project.at("tasks").mkdir()
    registry.promote(project, 2, 1)

    def call(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}
        return subprocess.run(
            [*CLI, *arguments], cwd=project.root, env=environment, capture_output=True, text=True
        )

    newest = call("models").stdout.splitlines()[1].split()
    assert newest[0] == "2" and newest[1].startswith("champion") and second.digest in newest
    done = call("rollback", "--why", "complaints", "--by", "A. Weber")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("version 1") and "is in use again; version 2" in done.stdout
    assert registry.champion(project).number == 1
    again = call("rollback", "--why", "more")
    assert again.returncode == 2 and again.stderr.startswith("error: version 1 is in use and there")
    assert len(again.stderr.splitlines()) == 1
