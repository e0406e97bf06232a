"""The secret of a project's servers, and the names that they answer to."""

import json
import os
import stat

import pytest

from flows.access import (
    SECRET_FILE,
    SERVING,
    SERVING_UI,
    allowed_hosts,
    announce_server,
    existing_server_secret,
    server_secret,
)
from flows.daemon.status import ui_lines
from flows.outages import outage_message
from tasks.core.errors import UserError
from tasks.core.paths import Paths


@pytest.fixture(autouse=True)
def without_an_own_secret(monkeypatch):
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)


def test_a_secret_is_made_once_for_this_account_alone(tmp_path):
    assert existing_server_secret(tmp_path) == ""
    made = server_secret(tmp_path)
    assert server_secret(tmp_path) == existing_server_secret(tmp_path) == made
    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600
    assert os.listdir(tmp_path / ".prefect") == ["auth-string"]
    assert made != server_secret(tmp_path / "another")


def test_a_secret_that_others_could_read_or_write_is_replaced(tmp_path):
    made = server_secret(tmp_path)
    file = tmp_path / SECRET_FILE
    file.chmod(0o644)
    assert existing_server_secret(tmp_path) == ""
    assert server_secret(tmp_path) != made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    target = tmp_path / "planted"
    target.write_text("affectgap:known to others")
    target.chmod(0o600)
    file.unlink()
    file.symlink_to(target)
    assert "known" not in server_secret(tmp_path)
    assert target.read_text() == "affectgap:known to others"


def test_an_operators_own_secret_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "affectgap:of the operator")
    assert (
        server_secret(tmp_path) == existing_server_secret(tmp_path) == "affectgap:of the operator"
    )
    assert list(tmp_path.iterdir()) == []


def test_hosts_are_this_machines_names_and_those_that_are_allowed(monkeypatch):
    monkeypatch.delenv("AFFECTGAP_ALLOWED_HOSTS", raising=False)
    assert allowed_hosts() == ["127.0.0.1", "localhost"]
    monkeypatch.setenv("AFFECTGAP_ALLOWED_HOSTS", "lab.example.org, gpu-1")
    assert allowed_hosts() == ["127.0.0.1", "localhost", "lab.example.org", "gpu-1"]
    for wrong in ("*", "*.example.org", "http://lab", "lab:4200"):
        monkeypatch.setenv("AFFECTGAP_ALLOWED_HOSTS", wrong)
        with pytest.raises(UserError, match=r"AFFECTGAP_ALLOWED_HOSTS: .* is no host name"):
            allowed_hosts()


def test_status_shows_pages_and_secret_only_of_servers_that_run_here(tmp_path):
    paths, secret = Paths(tmp_path), server_secret(tmp_path)
    with pytest.raises(UserError, match="no server of this project runs; start"):
        ui_lines(paths)
    with announce_server(paths.at(SERVING), "http://127.0.0.1:4200/api", own=True):
        lines = ui_lines(paths)
        assert lines[:2] == ["runs         http://127.0.0.1:4200", f"secret       {secret}"]
        with announce_server(paths.at(SERVING_UI), "http://127.0.0.1:5000", own=True):
            assert ui_lines(paths)[1] == "models       http://127.0.0.1:5000"
    elsewhere = announce_server(
        paths.at(SERVING), "http://elsewhere/api", own=False
    )  # with its own secret
    with elsewhere, pytest.raises(UserError):
        ui_lines(paths)
    dead = {"process": f"{os.uname().nodename} 1 x", "url": "http://127.0.0.1:4200/api"}
    paths.at(SERVING).write_text(json.dumps(dead))
    with pytest.raises(UserError):
        ui_lines(paths)


def test_a_server_that_asks_for_a_secret_is_no_server_that_is_away(monkeypatch):
    from prefect.exceptions import PrefectException

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    said = PrefectException("Client error '401 Unauthorized' for url")
    assert "set PREFECT_API_AUTH_STRING to the one that" in outage_message(said)
