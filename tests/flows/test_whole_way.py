"""The whole way on the small drawn cohort and on real photographs, undisturbed and killed."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from whole_way import RUN, call, environment, fresh_clone

from flows.pipeline.dvc_graph import changed_stages
from tasks.core.labels import DRAWN_NOTICE
from tasks.core.paths import EVALUATED, MODELS, STAGE_OUTS, Paths
from tasks.core.tracking import mlflow_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KILLED_IN = ("draw", "ingest", "crop", "train", "finetune", "choose", "explain base", "report")


def tables(folder: Path) -> dict[str, bytes]:
    found = [*folder.glob("data/**/*.parquet"), *folder.glob("data/rejects/*.csv")]
    found += [*folder.glob("reports/tables/*.csv"), *folder.glob("models/*/*.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = fresh_clone(tmp_path_factory.mktemp("drawn") / "clone", "quick")
    done = call(folder, *RUN, "run", "--quiet")
    return folder, done.stdout


def test_the_run_says_what_it_found_and_where(drawn):
    folder, said = drawn
    assert "recall on held-out pictures" in said
    assert DRAWN_NOTICE in said
    assert str(folder / "reports" / "report.html") in said.replace("\n", "")
    missing = [out for outs in STAGE_OUTS.values() for out in outs if not (folder / out).exists()]
    assert not missing


def test_the_second_run_does_nothing_but_say_so(drawn):
    folder, _ = drawn
    before = {path: path.stat().st_mtime_ns for path in folder.glob("reports/**/*")}
    said = call(folder, *RUN, "run", "--quiet").stdout
    assert "up to date" in said
    assert {path: path.stat().st_mtime_ns for path in folder.glob("reports/**/*")} == before


TRAINING = {"train", "finetune", "interpolate", "choose"}
RERUNS = {  # a file that is edited: the stages that DVC then runs again by themselves
    "flows/cli.py": set(),
    "flows/datasets/catalog.py": set(),
    "flows/intake/inbox.py": set(),
    "tasks/draw/scene.py": {"draw"},
    "tasks/ingest/labels_csv.py": {"ingest"},
    "tasks/ingest/adapters/kdef.py": {"ingest"},
    "tasks/check/suites.py": {"check"},
    "tasks/crop/face_detector.py": {"crop"},
    "tasks/split/stage.py": {"split"},
    "tasks/train/pretrained/weights.py": {"train"},
    "tasks/finetune/strategies.py": {"finetune"},
    "tasks/interpolate/stage.py": {"interpolate"},
    "tasks/choose/stage.py": {"choose"},
    "tasks/evaluate/stage.py": {"evaluate"},
    "tasks/audit/measures/gaps.py": {"audit"},
    "tasks/explain/overlay.py": {"explain"},
    "tasks/report/page.py": {"report"},
    "tasks/core/training/trainer.py": TRAINING,
    "tasks/core/models/checkpoint.py": {*TRAINING, "evaluate", "explain"},
    "tasks/core/statistics/cluster_bootstrap.py": {"choose", "audit", "report"},
    "tasks/core/spreadsheets/cells.py": {"ingest"},
}


@pytest.fixture(scope="module")
def stages_changed_by(drawn):
    """Return which stages DVC finds changed, in a finished run, while a file is edited."""
    folder, _ = drawn

    def changed_by(file: str) -> set[str]:
        path = folder / file
        text = path.read_text(encoding="utf-8") if path.is_file() else None
        path.write_text((text or '"""New."""\n') + "\n# edited\n", encoding="utf-8")
        try:
            status = changed_stages(folder, None)
        finally:
            if text is None:
                path.unlink()
            else:
                path.write_text(text, encoding="utf-8")
        return {
            stage.split("@")[0]
            for stage, changes in status.items()
            for change in changes
            if any(dep.startswith("tasks/") for dep in change.get("changed deps", {}))
        }

    return changed_by


@pytest.mark.parametrize("file", RERUNS)
def test_an_edit_reruns_the_stages_that_it_concerns(stages_changed_by, file):
    assert stages_changed_by(file) == RERUNS[file]


def test_every_stage_is_among_those_edits():
    assert {stage.split("@")[0] for stage in STAGE_OUTS} == set().union(*RERUNS.values())


def test_the_report_is_one_offline_file_with_the_notice(drawn):
    folder, _ = drawn
    html = (folder / "reports" / "report.html").read_text()
    assert DRAWN_NOTICE in html
    loads = re.findall(
        r"""(?:src|href)=["'](?!data:|#|http://127\.0\.0\.1:5000/#/)([^"']+)""", html
    )
    assert not [target for target in loads if target.startswith(("http", "//", "/"))]


def assert_groups_agree(folder: Path, model: str) -> None:
    """Recompute every row of groups.csv from the predictions, by counting."""
    predictions = pd.read_parquet(folder / "data" / "predictions" / f"{model}.parquet")
    groups = pd.read_csv(folder / "reports" / "tables" / "groups.csv", keep_default_na=False)
    dimensions = {"dataset", "age_band", "gender", "emotion", "ethnicity"} & set(groups.columns)
    rows = groups[groups["model"] == model]
    assert set(rows["protocol"]) == {"held_out", "all"}
    for row in rows.to_dict("records"):
        part = predictions
        if row["protocol"] == "held_out":
            part = part[~part["seen_in_training"]]
        for column in dimensions:
            if row[column] != "all":
                part = part[part[column].fillna("unknown") == row[column]]
        correct = int((part["emotion"] == part["y_pred"]).sum())
        assert (row["n"], row["correct"]) == (len(part), correct), row
        assert row["recall"] == pytest.approx(correct / len(part), abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_groups_agree_with_the_predictions(drawn, model):
    folder, _ = drawn
    assert_groups_agree(folder, model)


def test_no_held_out_image_had_a_part_in_training(drawn):
    folder, _ = drawn
    split = pd.read_parquet(folder / "data" / "split.parquet").set_index("image_id")
    everyone = {"adult", "adolescent", "child"}
    bands = {  # whose training and whose validation pictures had a part
        "base": ({"adult"}, {"adult"}),
        "naive": ({"adult", "child"}, {"adult", "child"}),
        "replay": (everyone, everyone),
        "interpolate": ({"adult", "child"}, everyone),  # the coefficient was chosen by all
    }
    choice = pd.read_csv(folder / "reports" / "tables" / "choice.csv")
    (chosen,) = set(choice.loc[choice["chosen"], "strategy"])
    bands["finetuned"] = (bands[chosen][0], everyone)  # the strategy was chosen by all
    for model, (trained, validated) in bands.items():
        predictions = pd.read_parquet(folder / "data" / "predictions" / f"{model}.parquet")
        seen = predictions.set_index("image_id")["seen_in_training"]
        expected = (split["age_band"].isin(trained) & (split["split"] == "train")) | (
            split["age_band"].isin(validated) & (split["split"] == "validation")
        )
        assert np.array_equal(seen.loc[split.index], expected), model


def test_a_strategy_that_params_leave_out_is_said_and_predicts_nothing(drawn):
    folder, _ = drawn
    for name in ("head", "distill"):
        assert [path.name for path in (folder / "models" / name).iterdir()] == ["skipped.json"]
    rows = {
        name: len(pd.read_parquet(folder / "data" / "predictions" / f"{name}.parquet"))
        for name in EVALUATED
    }
    assert rows.pop("head") == rows.pop("distill") == 0
    assert set(rows.values()) == {rows["base"]} != {0}


def test_every_stage_is_nested_under_the_pipeline_run(drawn):
    folder, _ = drawn
    client, experiment = mlflow_runs.open_store(Paths(folder))
    runs = client.search_runs([experiment], max_results=200)
    (pipeline,) = [run for run in runs if run.data.tags["affectgap.kind"] == "pipeline"]
    stages = {run.info.run_name: run for run in runs if run is not pipeline}
    assert set(stages) == set(STAGE_OUTS)
    for name, run in stages.items():
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == pipeline.info.run_id
        assert run.data.params, name
        assert pipeline.data.tags[f"stage.{name.replace('@', '-')}"] == run.info.run_id
    assert any(key.startswith("input.") for key in stages["crop"].data.tags)
    artefacts = {a.path for a in client.list_artifacts(pipeline.info.run_id)}
    assert {"report.html", "metrics.json", "figures", "tables"} <= artefacts
    metrics = json.loads((folder / "reports" / "metrics.json").read_text())
    assert metrics


def wait_for_stage(run: subprocess.Popen, stage: str) -> bool:
    """Wait until a stage's process is there; False when the run ends before."""
    while run.poll() is None:
        try:
            for process in psutil.Process(run.pid).children(recursive=True):
                if f"-m tasks {stage}" in " ".join(process.cmdline()):
                    return True
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.05)
    return False


@pytest.mark.long  # five minutes; test_reproduce kills runs of a few stages
def test_killed_in_many_stages_then_dvc_alone_gives_the_same_tables(drawn, tmp_path):
    undisturbed, _ = drawn
    folder = fresh_clone(tmp_path / "killed", "quick")
    moments = random.Random(5)
    killed = 0
    for stage in KILLED_IN:
        run = subprocess.Popen(
            [*RUN, "run", "--quiet"],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if wait_for_stage(run, stage):
            time.sleep(moments.uniform(0, 12 if stage == "train" else 6))
        try:
            family = psutil.Process(run.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        killed += run.poll() is None
        run.kill()
        run.wait()
        _, alive = psutil.wait_procs(family, timeout=20)
        orphans = [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert not orphans, [p.cmdline() for p in orphans]
    assert killed >= 5
    call(folder, sys.executable, "-m", "dvc", "repro")
    expected, found = tables(undisturbed), tables(folder)
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    mlflow_runs.close_dead_runs(Paths(folder))
    client, experiment = mlflow_runs.open_store(Paths(folder))
    assert not client.search_runs([experiment], "attributes.status = 'RUNNING'")


def test_real_photographs_show_the_gap_by_themselves(tmp_path):
    assets = os.environ.get("AFFECTGAP_ASSETS")
    if not assets:
        pytest.skip("AFFECTGAP_ASSETS is unset: no photographs")
    folder = fresh_clone(tmp_path / "london", "london")
    call(folder, *RUN, "intake", str(Path(assets) / "london"), "--dataset", "london")
    call(folder, *RUN, "run", "--quiet")
    predictions = pd.read_parquet(folder / "data" / "predictions" / "base.parquet")
    assert len(predictions) >= 202
    assert not predictions["seen_in_training"].any()
    right = predictions["emotion"] == predictions["y_pred"]
    recall = right.groupby(predictions["emotion"]).mean()
    assert recall["neutral"] > 0.8
    smiles = predictions[predictions["emotion"] == "happiness"]
    by_gender = right[smiles.index].groupby(smiles["gender"]).mean()
    assert by_gender["female"] - by_gender["male"] > 0.15
    for model in MODELS:
        assert_groups_agree(folder, model)
    metrics = json.loads((folder / "reports" / "metrics.json").read_text())
    gap = metrics["largest_gap_of_an_emotion"]
    assert (gap["dimension"], gap["emotion"], gap["group_a"]) == ("gender", "happiness", "male")
    assert -gap["gap"] == pytest.approx(by_gender["female"] - by_gender["male"], abs=1e-6)
    html = (folder / "reports" / "report.html").read_text()
    assert "CC BY 4.0" in html
    assert DRAWN_NOTICE not in html
    rejects = pd.read_csv(folder / "data" / "rejects" / "ingest.csv")
    assert rejects["reason"].tolist() == ["hidden"] * 3
