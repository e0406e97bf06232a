"""Two passes for real, and what they left: status, full audit, a tag that brings it back."""

import hashlib
import os
import subprocess
import sys

import pandas as pd
import pytest
from batches import draw_batch, mark_ready
from pass_world import EMOTIONS, SIZE_PX, git, run, small_project

from flows.ledger.ledger import Ledger
from flows.retraining.full_audit import full_audit
from flows.retraining.trigger_policy import Params
from tasks.core.params import load_section
from tasks.core.paths import Paths

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

KEPT = ("data/raw/arrived", "models/finetuned", "reports/tables", "data/split.parquet")


def digests(paths: Paths) -> dict[str, str]:
    found = {}
    for name in KEPT:
        folder = paths.at(name)
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if path.is_file():
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[str(path.relative_to(paths.root))] = digest
    return found


def send(paths: Paths, name: str, first: int) -> None:
    folder = paths.inbox / name
    mark_ready(draw_batch(folder, first, 6, emotions=EMOTIONS, size_px=SIZE_PX))


def test_two_passes_and_what_they_left(tmp_path):
    paths = small_project(tmp_path / "clone")
    send(paths, "spring", 101)
    said = run(paths, "retrain", "--quiet")
    assert "spring: accepted: 18 pictures of 6 people" in said
    assert "version 1 passed the gate and is put into use" in said
    first = digests(paths)
    send(paths, "summer", 201)
    said = run(paths, "retrain", "--quiet")
    assert "training: 18 new pictures (from 6 on)" in said
    assert "version 2 passed the gate and is put into use" in said
    assert digests(paths) != first
    assert run(paths, "retrain", "--quiet").startswith("training: not due: 0 of 6 new pictures")

    trainings = Ledger(paths.ledger).trainings()
    seen = list(trainings[["batch", "pass_id", "version"]].itertuples(index=False, name=None))
    assert seen == [("spring", 1, 1), ("spring", 2, 2), ("summer", 2, 2)]
    author = load_section(paths.params, "retrain", Params).author
    assert set(git(paths.root, "log", "-2", "--format=%an <%ae>").splitlines()) == {author}
    status = run(paths, "status")
    assert "in use       version 2" in status and "before it version 1" in status
    assert "trained: version 2 promoted" in status

    assert_the_audit_is_of_everything(paths)
    git(paths.root, "checkout", "-q", "affectgap-1")
    dvc = [sys.executable, "-m", "dvc", "checkout", "--quiet"]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    subprocess.run(dvc, cwd=paths.root, check=True, env=environment)
    assert digests(paths) == first


def assert_the_audit_is_of_everything(paths: Paths) -> None:
    (line,) = full_audit(paths)
    folder = paths.at(line.rpartition(": ")[2]).parent
    predictions = pd.read_csv(folder / "predictions.csv")
    split = pd.read_parquet(paths.split).set_index("image_id")
    assert set(split.index) <= set(predictions["image_id"])
    assert set(predictions["model"]) == {"version 2"}
    groups = pd.read_csv(folder / "groups.csv", keep_default_na=False)
    pooled = groups[(groups[["age_band", "gender", "emotion", "dataset"]] == "all").all(axis=1)]
    held_out = split.loc[split["split"] == "test"].index
    test = predictions[predictions["image_id"].isin(held_out)]
    right = int((test["y_pred"] == test["emotion"]).sum())
    row = pooled[pooled["protocol"] == "held_out"].iloc[0]
    assert (row["n"], row["correct"]) == (len(test), right)
