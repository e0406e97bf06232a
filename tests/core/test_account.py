"""An account with a bare number, as in a container, has a name and a home all the same."""

import getpass
import os
import pwd
from pathlib import Path

import pytest

from tasks.core.parallel.process import name_account


@pytest.fixture
def nobody(monkeypatch):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        os.environ.pop(name, None)


def test_an_account_without_an_entry_gets_a_name_and_a_home(nobody, tmp_path):
    name_account(tmp_path)
    assert getpass.getuser() == f"uid-{os.geteuid()}"
    assert Path.home() == tmp_path / ".cache/home"


def test_what_the_environment_says_stays(nobody, tmp_path):
    os.environ.update(LOGNAME="kim", HOME="/home/kim")
    name_account(tmp_path)
    assert (getpass.getuser(), str(Path.home())) == ("kim", "/home/kim")
