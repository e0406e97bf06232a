"""Versions whose serving code has a known defect: listed by `models`, renewed in place."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from registered_project import LABELS, draw_faces
from typer.testing import CliRunner

from flows import project_commands
from flows.registry.model_table import models_table, reregister_command
from tasks.core.errors import ModelError
from tasks.core.paths import Paths
from tasks.core.tracking.mlflow_runs import open_store
from tasks.register import registry
from tasks.register.versions import NAME


@pytest.fixture(scope="module")
def old(registered, tmp_path_factory):
    """A project whose version in use was registered with code of revision 1."""
    paths = Paths(tmp_path_factory.mktemp("old"))
    shutil.copytree(registered.root, paths.root, dirs_exist_ok=True)
    with closing(sqlite3.connect(paths.mlruns / "mlflow.db")) as store, store:
        for column in ("runs.artifact_uri", "model_versions.source"):
            table, name = column.split(".")
            moved = f"replace({name}, '{registered.root}', '{paths.root}')"
            store.execute(f"UPDATE {table} SET {name} = {moved}")
    registry.promote(paths, 1, None)
    open_store(paths)[0].delete_model_version_tag(NAME, "1", "serving_code")
    detector = stored(paths) / "code" / "tasks" / "crop" / "face_detector.py"
    detector.write_text(detector.read_text() + "\nraise ImportError('the old code')\n")
    return paths


def stored(paths):
    client, _ = open_store(paths)
    run = client.get_run(registry.champion(paths).run_id)
    return Path(run.info.artifact_uri.removeprefix("file://")) / "model"


def test_models_names_the_version_and_the_command_renews_its_code_alone(old, monkeypatch):
    before, artifacts = registry.champion(old), stored(old) / "artifacts"
    files = {path: path.read_bytes() for path in artifacts.rglob("*") if path.is_file()}
    assert "several clients ask at once" in models_table(old).caption
    assert "version 1 (champion, challenger); renew it: affectgap" in models_table(old).caption

    monkeypatch.setattr(project_commands, "_project", lambda: old)
    output = (
        CliRunner().invoke(project_commands.operations_app, ["models", "--reregister", "1"]).output
    )
    assert output.startswith(f"version 1 ({before.digest}) (champion, challenger) has today's")

    after = registry.champion(old)
    assert "--reregister" not in models_table(old).caption
    assert (after.number, after.digest, after.aliases) == (1, before.digest, before.aliases)
    changed = {name for name, text in after.tags.items() if before.tags.get(name) != text}
    assert changed == {"serving_code", "serving_code_renewed_at"}
    assert {path: path.read_bytes() for path in artifacts.rglob("*") if path.is_file()} == files
    served = mlflow.pyfunc.load_model(str(stored(old)))  # the old code cannot be imported
    rows = served.predict(pd.DataFrame({"image": draw_faces(1)}))
    assert rows["emotion"][0] in LABELS and rows["model_version"][0] == before.digest


def test_an_unknown_version_and_a_damaged_one_are_refused(old):
    with pytest.raises(ModelError, match="there is no version 7"):
        reregister_command(old, 7)
    shutil.rmtree(old.work("registry", "1"), ignore_errors=True)
    weights = stored(old) / "artifacts" / "model" / "crop.json"
    weights.write_text(json.dumps({"margin": 9}))
    with pytest.raises(ModelError, match=r"version 1 is damaged in the store: crop\.json"):
        reregister_command(old, 1)
