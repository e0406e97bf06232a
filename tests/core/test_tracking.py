import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from nasty_names import NASTY

from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.tracking import mlflow_runs


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    before = os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield Paths(root)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


def runs(paths):
    client, experiment = mlflow_runs.open_store(paths)
    return client, client.search_runs([experiment])


def test_a_stage_logs_what_it_returned_under_the_pipeline_run(paths, monkeypatch):
    figure = paths.root / "figure.png"
    figure.write_bytes(b"png")
    with mlflow_runs.open_run(paths, "pipeline", {}, "pipeline") as parent:
        monkeypatch.setenv(mlflow_runs.PARENT_VARIABLE, parent.run_id)
        many = {f"p{number}": number for number in range(230)}
        with mlflow_runs.open_run(
            paths, "train", {"a": {"b": 1}, "c@[18+]": 2, **many}, "stage"
        ) as run:
            curve = [(1, 0.5), (2, 0.25)]
            run.log_result(StageResult({"valid_recall_score": 0.9}, {"loss": curve}, [figure]))
            mlflow_runs.write_run_record(paths, "train", run)
    client, _ = runs(paths)
    stage = client.get_run(run.run_id)
    assert stage.info.status == "FINISHED"
    assert stage.data.tags["mlflow.parentRunId"] == parent.run_id
    assert stage.data.params["a.b"] == "1"
    (named,) = [name for name in stage.data.params if name.startswith("c")]
    assert stage.data.params[named] == "2" and named.startswith("c--18---")
    assert len(stage.data.params) == 232
    assert stage.data.metrics["valid_recall_score"] == 0.9
    assert [m.value for m in client.get_metric_history(run.run_id, "loss")] == [0.5, 0.25]
    assert [a.path for a in client.list_artifacts(run.run_id)] == ["figure.png"]
    assert mlflow_runs.read_run_record(paths, "train") == run.run_id


def test_a_stage_that_raises_ends_as_failed(paths):
    with (
        pytest.raises(ValueError, match="boom"),
        mlflow_runs.open_run(paths, "x", {}, "stage") as run,
    ):
        raise ValueError("boom")
    client, _ = runs(paths)
    assert client.get_run(run.run_id).info.status == "FAILED"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_of_a_killed_process_does_not_stay_running(paths, number):
    code = (
        "import sys, time; from pathlib import Path;"
        "from tasks.core.tracking import mlflow_runs as tracking;"
        "from tasks.core.paths import Paths\n"
        "with tracking.open_run(Paths(Path(sys.argv[1])), 'killed', {}, 'stage') as run:\n"
        "    print(run.run_id, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(paths.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    assert mlflow_runs.close_dead_runs(paths) == 0, "a living run was closed"
    time.sleep(0.2)
    process.send_signal(number)
    process.wait(timeout=60)
    assert mlflow_runs.close_dead_runs(paths) == (1 if number == signal.SIGKILL else 0)
    client, _ = runs(paths)
    assert client.get_run(run_id).info.status == "KILLED"


OPENS = (
    "import sys; from pathlib import Path; from tasks.core.tracking import mlflow_runs as tracking;"
    "from tasks.core.paths import Paths; print('opens', flush=True);"
    "print(tracking.open_store(Paths(Path(sys.argv[1])))[1])"
)


def opens_the_store(root):
    return subprocess.Popen(
        [sys.executable, "-c", OPENS, str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_a_store_that_another_one_holds_for_a_while_is_waited_for(paths):
    runs(paths)
    with closing(sqlite3.connect(paths.mlruns / "mlflow.db", isolation_level=None)) as held:
        held.execute("BEGIN EXCLUSIVE")
        process = opens_the_store(paths.root)
        assert process.stdout.readline() == "opens\n"
        time.sleep(9)  # SQLite gives up after 5 s by itself
        held.execute("ROLLBACK")
    assert process.communicate(timeout=120)[0].strip()
    assert process.returncode == 0


def test_processes_that_start_together_share_one_new_store(tmp_path):
    started = [opens_the_store(tmp_path) for _ in range(2)]
    answers = {process.communicate(timeout=120)[0].split()[-1] for process in started}
    assert answers == {"1"}
    assert all(process.returncode == 0 for process in started)


def test_names_of_groups_stay_apart_and_none_ends_a_stage(paths):
    names = [f"recall.{name}" for name in (*NASTY, "a@b", "a-b")]
    with mlflow_runs.open_run(paths, "audit", {}, "stage") as run:
        run.log_result(StageResult(metrics={name: float(at) for at, name in enumerate(names)}))
        run.log_tags({name: name for name in names if "\udcff" not in name})
        logged = run.client.get_run(run.run_id).data.metrics
    assert sorted(logged.values()) == [float(at) for at in range(len(names))]
