"""The database is where it is said to be, whatever the project's folder is called."""

import pytest
from sqlalchemy import create_engine, text

from tasks.core.paths import Paths, sqlite_url
from tasks.core.tracking import mlflow_runs

ODD = "a?b%20c'd#e & ü"


@pytest.mark.parametrize("name", ["plain", "two words", "100%", "why?", "a#b", ODD])
def test_the_file_is_made_in_its_folder(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    engine = create_engine(sqlite_url(folder / "x.db"))
    with engine.begin() as connection:
        connection.execute(text("create table t (a int)"))
    engine.dispose()
    assert (folder / "x.db").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_plain_path_has_the_address_that_it_always_had(tmp_path):
    assert sqlite_url(tmp_path / "x.db") == f"sqlite:///{tmp_path}/x.db"
    assert sqlite_url(tmp_path / "x.db", "aiosqlite") == f"sqlite+aiosqlite:///{tmp_path}/x.db"


@pytest.mark.slow
def test_mlflow_keeps_runs_and_artefacts_inside_such_a_project(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / ODD
    root.mkdir()
    monkeypatch.chdir(root)
    paths = Paths(root)
    (root / "note.txt").write_text("kept")
    with mlflow_runs.open_run(paths, "a stage", {"a": 1}, "stage") as run:
        run.log_artifact(root / "note.txt")
    assert [path.name for path in tmp_path.iterdir()] == [ODD]
    assert sorted(path.name for path in root.iterdir()) == ["mlruns", "note.txt"]
    (kept,) = paths.mlruns.rglob("note.txt")
    assert kept.read_text() == "kept"
    assert [file.path for file in run.client.list_artifacts(run.run_id)] == ["note.txt"]
