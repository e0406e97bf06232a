"""A whole study on pictures laid out as the 6 Emotions set is: killed, gone on, asked again."""

import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from whole_way import RUN, call, environment, fresh_clone

from flows.pipeline.dvc_graph import stage_graph
from tasks.core.params import load_yaml
from tasks.core.paths import STAGE_OUTS, STUDY_OUTS, Paths
from tasks.core.tracking import mlflow_runs
from tasks.draw.action_units import Style
from tasks.draw.plan import ImageName, RenderSpec
from tasks.draw.render import RenderJob, draw_images
from tasks.study.results import read_results

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

CLASSES = {
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "pain": "pain",
    "sad": "sadness",
}
EACH = 14  # pictures a class
# What makes the study small: nothing else of the preset is changed.
SMALLER = {
    "check": {"min_rows": 50, "min_per_group": 5},
    "train": {"init": "random", "input_size_px": 32, "batch_size": 16},
    "study": {
        "seeds": [1, 2],
        "epochs": 2,
        "backbones": ["lenet5", "compact", "mini_xception"],
        "init_by_backbone": {},
        "losses": ["cross_entropy", "mse"],
        "optimizers": ["sgd"],
        "learning_rates": {"sgd": [0.01]},
        "halving": {"min_epochs": 1, "reduction_factor": 2, "first_seeds": 1},
        "resamples": 100,
    },
}


def lay_out(folder: Path) -> None:
    """Draw pictures into a folder a class, of people whom nothing names."""
    style = Style(intensity_mean=0.85, intensity_sd=0.1, unit_mixing=0.05)
    number = 0
    for name, emotion in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for take in range(EACH):
            number += 1
            gender = "female" if take % 2 else "male"
            image = ImageName(f"D{number:04}", 10, gender, emotion, 1)
            (drawn,) = draw_images([RenderJob(RenderSpec(image, "child", number), style, 7, 192)])
            (folder / name / f"{take}.jpg").write_bytes(drawn.jpeg)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    folder = fresh_clone(tmp_path_factory.mktemp("study") / "clone", "six-emotions")
    content = load_yaml(folder / "params.yaml")
    for section, changed in SMALLER.items():
        content[section] |= changed
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    lay_out(folder.parent / "six")
    call(folder, *RUN, "intake", str(folder.parent / "six"), "--dataset", "six-emotions")
    return folder


def untracked(folder: Path) -> set[str]:
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return {line[3:].strip('"') for line in done.stdout.splitlines()}


def runs_of(folder: Path) -> list:
    client, experiment = mlflow_runs.open_store(Paths(folder))
    return client.search_runs([experiment], max_results=500)


def kill_in_a_run_that_goes_on(folder: Path) -> None:
    """Start a study, and kill it with all its processes in its second rung."""
    study = subprocess.Popen(
        [*RUN, "study", "--quiet"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not goes_on(study.pid):
            assert study.poll() is None, "the study ended before it could be killed"
            time.sleep(0.05)
        time.sleep(random.Random(3).uniform(0, 4))
        family = psutil.Process(study.pid).children(recursive=True)
    finally:
        study.kill()
        study.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def goes_on(pid: int) -> bool:
    """Tell whether a run of the second rung is at work."""
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if re.search(r"-m tasks study_run \S+-e2", " ".join(process.cmdline())):
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def test_a_killed_study_goes_on_and_ends_with_its_report(clone):
    before = untracked(clone)
    kill_in_a_run_that_goes_on(clone)
    done = {path.parent.name for path in clone.glob("study/results/*/run.json")}
    assert done, "no run was finished before the kill"
    said = call(clone, *RUN, "study", "--quiet").stdout

    paths = Paths(clone)
    results = read_results(paths.at("study/results"))
    planned = set(load_yaml(clone / "study" / "dvc.yaml")["stages"]["study_run"]["foreach"])
    assert set(results) == planned == {path.stem for path in clone.glob("study/runs/*.yaml")}
    assert all((clone / out).exists() for outs in STUDY_OUTS.values() for out in outs)
    assert not (clone / "work" / "study").exists()
    assert "report:" in said and "affectgap use study/chosen.yaml" in said

    runs = runs_of(clone)
    studies = [run for run in runs if run.data.tags["affectgap.kind"] == "study"]
    assert sorted(run.info.status for run in studies) == ["FINISHED", "KILLED"]
    (last,) = [run for run in studies if run.info.status == "FINISHED"]
    finished = [run for run in runs if run.info.status == "FINISHED"]
    for key in planned:
        (made,) = [run for run in finished if run.info.run_name == f"study_run@{key}"]
        assert len(made.data.metrics) > 3, key
        kind = "reused" if key in done else "stage"
        assert last.data.tags[f"{kind}.study_run-{key}"] == made.info.run_id, key
        assert made.data.tags["mlflow.parentRunId"] in {run.info.run_id for run in studies}

    new = untracked(clone) - before
    expected = r"study/(dvc\.(yaml|lock)|runs/.*\.yaml|test_looks\.csv)|dvc\.lock"
    assert all(re.fullmatch(expected, file) for file in new)


def test_the_winner_is_the_models_that_were_tested(clone):
    winners = json.loads((clone / "study" / "tables" / "winners.json").read_text())
    test = pd.read_csv(clone / "study" / "test.csv", keep_default_na=False)
    split = pd.read_parquet(clone / "data" / "split.parquet")
    everyone = test[test["dimension"] == "all"]
    assert set(everyone["images"]) == {int((split["split"] == "test").sum())}
    assert len(winners) == 2
    assert all((clone / "study/results" / key / "model").is_dir() for key in winners)


def test_a_second_study_trains_nothing_and_says_so(clone):
    before = len(runs_of(clone))
    said = call(clone, *RUN, "study", "--quiet").stdout
    assert "The study is up to date" in said
    assert len(runs_of(clone)) == before
    again = call(clone, sys.executable, "-m", "dvc", "repro", "study/dvc.yaml").stdout
    assert "up to date" in again


def test_the_project_itself_is_as_before(clone):
    assert set(stage_graph(clone, None)) == set(STAGE_OUTS)
    assert "up to date" in call(clone, *RUN, "run", "split", "--quiet").stdout
    whole = json.loads((clone / "study" / "tables" / "study.json").read_text())
    call(clone, *RUN, "use", "study/chosen.yaml")
    train = load_yaml(clone / "params.yaml")["train"]
    assert (train["backbone"], train["loss"]["name"]) == (whole["backbone"], whole["loss"])
    assert "up to date" in call(clone, *RUN, "run", "split", "--quiet").stdout
