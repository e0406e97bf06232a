"""Nothing of this project looks a name up: no telemetry, no update check, however it is started."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lookups import foreign_names, watch
from whole_way import REPOSITORY, RUN, environment, fresh_clone

LOOK_UP = "import socket; socket.getaddrinfo('{}', 80)"


def test_the_hook_sees_a_look_up(tmp_path):
    """Else the tests below could not fail."""
    watched = watch(environment(REPOSITORY), tmp_path / "names")
    for name in ("127.0.0.1", "localhost", "elsewhere.invalid"):
        subprocess.run([sys.executable, "-c", LOOK_UP.format(name)], env=watched, check=False)
    (line,) = foreign_names(tmp_path / "names")
    assert line.startswith("elsewhere.invalid\t")


@pytest.mark.parametrize("package", ["tasks", "flows"])
def test_telemetry_is_off_as_soon_as_a_package_is_imported(package):
    told = f"import {package}, os; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    told += "; print(os.environ['DO_NOT_TRACK'], os.environ['PREFECT_SERVER_ANALYTICS_ENABLED'])"
    clean = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"], "DO_NOT_TRACK": "0"}
    done = subprocess.run(
        [sys.executable, "-c", told], env=clean, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["true", "true", "false"]


@pytest.fixture
def clone(tmp_path):
    folder = fresh_clone(tmp_path / "clone", "quick")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["draw"] |= {"size_px": 128, "images_per_emotion": 1}
    params["draw"]["subjects"] = {"adult": 2, "adolescent": 0, "child": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def says(folder: Path, watched: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=watched, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_stage_typed_by_hand_looks_no_name_up(clone, tmp_path):
    """It has nothing of make's or the command's environment; before, MLflow asked for its own."""
    watched = watch(environment(clone), tmp_path / "names")
    assert "data/raw" in says(clone, watched, sys.executable, "-m", "tasks", "ingest")
    assert foreign_names(tmp_path / "names") == set()
    for name in (".dvc", ".cache", "mlruns"):  # and closes what git and DVC made
        assert stat.S_IMODE((clone / name).stat().st_mode) == 0o700, name


@pytest.mark.long
def test_no_command_looks_a_name_up(clone, tmp_path):
    names = tmp_path / "names"
    watched = watch(environment(clone), names)
    assert "draw: " in says(clone, watched, sys.executable, "-m", "dvc", "repro", "-s", "draw")
    assert "check" in says(clone, watched, *RUN, "run", "check", "--quiet")
    for arguments in (("status",), ("models",), ("doctor",), ("intake",), ("lineage", "drawn/D1")):
        assert "Traceback" not in says(clone, watched, *RUN, *arguments), arguments
    assert len(os.listdir(clone / ".cache/dvc/repo")) == 2  # of `dvc` by itself, and of commands
    assert names.read_text()  # the flow's server, at least
    assert foreign_names(names) == set()
