"""The weekly full audit as the flow that `serve` runs: what it brings up to date and writes."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from inbox_world import new_project

from flows.daemon import scheduled_flows
from flows.retraining import full_audit
from tasks.core.paths import Paths
from tasks.core.tracking import mlflow_runs

N = 24  # pictures, of which one has no face and so no answer
LABELS = ("anger", "happiness")


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """A project with version 3 in use, whose split table is not up to date."""
    paths = new_project(tmp_path / "project", **{"resamples: 1000": "resamples: 50"})
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(scheduled_flows, "_begin", lambda root: Paths(Path(root)))
    monkeypatch.setattr(full_audit, "champion", lambda paths: SimpleNamespace(number=3))
    monkeypatch.setattr(full_audit, "changed_stages", lambda root, target: {target: "new data"})

    def reproduce(paths, target, changed, console, quiet):
        answers(changed[target]).to_json(paths.root / f"{target}.json")

    monkeypatch.setattr(full_audit, "reproduce", reproduce)
    monkeypatch.setattr(
        full_audit, "_predictions", lambda paths, _: pd.read_json(paths.root / "split.json")
    )
    return paths


def answers(dataset: str) -> pd.DataFrame:
    """What a model says to pictures of two groups: every third one of children is read wrong."""
    rows = [
        {
            "image_id": f"{n:016x}",
            "subject_id": f"drawn/p{n // 2}",
            "dataset": dataset,
            "age_band": ("adult", "child")[n % 2],
            "gender": ("female", "male")[n // 2 % 2],
            "emotion": LABELS[n // 4 % 2],
            "model": "version 3",
            "seen_in_training": n % 4 == 0,
            "y_pred": LABELS[(n // 4 + (n % 6 == 1)) % 2] if n else "",
        }
        for n in range(N)
    ]
    return pd.DataFrame(rows)


def test_it_audits_everything_and_writes_tables_figures_and_a_run(paths, capsys):
    state = scheduled_flows.run_full_audit.fn(str(paths.root))
    folder = paths.at(f"reports/full_audit/{datetime.now(UTC):%Y-%m-%d}")
    line = f"full audit: version 3 on {N - 1} pictures, 1 more without an answer: {folder}/audit.md"
    assert state.is_completed() and state.message == line
    assert capsys.readouterr().out == f"{line}\n"
    # Of what was brought up to date just before, all of it.
    kept = pd.read_csv(folder / "predictions.csv", dtype="str", keep_default_na=False)
    assert len(kept) == N and set(kept["dataset"]) == {"new data"}
    groups = pd.read_csv(folder / "groups.csv", keep_default_na=False)
    pooled = (groups[["dataset", "gender", "emotion"]] == "all").all(axis=1)
    counted = groups[pooled & (groups["age_band"] != "all") & (groups["protocol"] == "all")]
    found = counted.set_index("age_band")[["n", "correct"]].to_dict("index")
    assert found == {"adult": {"n": 11, "correct": 11}, "child": {"n": 12, "correct": 8}}
    assert "child" in (folder / "audit.md").read_text() and list(folder.glob("*.png"))

    client, experiment = mlflow_runs.open_store(paths)
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED" and run.info.run_name == "full_audit"
    assert run.data.params == {"version": "3"}
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"audit.md", "groups.csv"} <= logged


def test_without_a_model_it_fails_in_one_line(paths, monkeypatch, capsys):
    monkeypatch.setattr(full_audit, "champion", lambda paths: None)
    state = scheduled_flows.run_full_audit.fn(str(paths.root))
    told = "no model is in use; `affectgap retrain` trains the first one"
    assert state.is_failed() and state.message == told
    assert capsys.readouterr().out == f"error: {told}\n"
    assert not paths.at("reports").exists()
