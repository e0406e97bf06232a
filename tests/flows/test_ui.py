"""`affectgap ui`: MLflow's pages for whoever has the secret, and nobody else."""

import os
import socket
import subprocess
import time

import pytest
import requests
from rich.console import Console
from whole_way import REPOSITORY, RUN, environment

from flows.ui import serve_pages
from tasks.core.errors import UserError
from tasks.core.paths import Paths


def test_a_server_elsewhere_has_pages_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="names a server, which has pages of its own"):
        serve_pages(Paths(tmp_path), 5000, Console())


def test_a_port_that_is_taken_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=r"is taken; `affectgap ui --port N` takes another"):
            serve_pages(Paths(tmp_path), port, Console())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_only_the_secret_opens_mlflows_pages(tmp_path):
    root = tmp_path / "why? 100%"
    (root / "tasks").mkdir(parents=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "log").open("wb") as log:
        started = subprocess.Popen(
            [*RUN, "ui", "--port", str(port)],
            cwd=root,
            env=environment(REPOSITORY),
            stdout=log,
            stderr=log,
        )
    api = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/experiments/search?max_results=9"
    try:
        status = 0
        while not status:
            assert started.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.3)
            try:
                status = requests.get(api, timeout=60).status_code
            except requests.ConnectionError:
                continue
        assert status == 401
        auth = tuple((root / ".prefect/auth-string").read_text().strip().split(":"))
        found = requests.get(api, auth=auth, timeout=60).json()["experiments"]
        assert "affectgap" in {one["name"] for one in found}
        assert requests.get(f"http://127.0.0.1:{port}/", auth=auth, timeout=60).ok
        for path in ("", "health", "graphql", "version", "get-artifact", "static-files/x", "docs"):
            answer = requests.get(f"http://127.0.0.1:{port}/{path}", timeout=60)
            assert answer.status_code == 401, path
        foreign = {"Host": f"elsewhere:{port}"}
        assert requests.get(api, auth=auth, headers=foreign, timeout=60).status_code == 400
        shown = subprocess.run(
            [*RUN, "status", "--ui"],
            cwd=root,
            env=environment(REPOSITORY),
            capture_output=True,
            text=True,
        )
        assert auth[1] in shown.stdout and f":{port}" in shown.stdout, shown.stderr
    finally:
        started.terminate()
        started.wait(timeout=60)
    assert sorted(os.listdir(tmp_path)) == ["log", root.name]
    assert "Traceback" not in (tmp_path / "log").read_text()
