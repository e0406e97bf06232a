"""The generated graph of a study: what its stages depend on, and that nothing else sees it."""

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
import yaml

from flows.pipeline.dvc_graph import changed_stages, stage_graph
from flows.pipeline.dvc_repair import repair_after_crash
from flows.study.dvc_stages import (
    FILE,
    read_known_runs,
    remove_leftovers,
    stages_text,
    write_stages,
)
from tasks.core.cache.source_files import imported_files
from tasks.core.errors import UserError
from tasks.core.paths import STUDY_OUTS, STUDY_RUN, Paths
from tasks.core.stages import MODULES
from tasks.core.tracking.versions import input_digests
from tasks.study.candidates import Run

REPOSITORY = Path(__file__).parents[2]
STAGES = (STUDY_RUN, *STUDY_OUTS)


def run(slug: str, until: int, before: str | None = None) -> Run:
    train = {"backbone": "compact", "epochs": 6}
    return Run(f"{slug}-s1-e{until}", "backbones", slug, 1, until, train, before)


SHORT = run("backbones-compact_0.5", 2)
LONG = run("backbones-compact_0.5", 6, SHORT.key)
OTHER = run("backbones-lenet5", 6)
RUNS = [SHORT, LONG, OTHER]


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph("tasks", cache_dir=None)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_just_the_modules_that_it_imports(imports, stage):
    start = MODULES[stage]
    modules = {m for m in imports.find_upstream_modules(start) if m.startswith("tasks.")} | {start}
    needed = {str(Path(*m.split(".")).with_suffix(".py")) for m in modules}
    needed = {file for file in needed if (REPOSITORY / file).is_file()}
    assert set(imported_files(REPOSITORY, start)) == needed

    entry = yaml.safe_load(stages_text(REPOSITORY, RUNS, [LONG.key]))["stages"][stage]
    named = {Path(dep) for dep in entry.get("do", entry)["deps"] if dep.startswith("tasks/")}
    missing = {f for f in needed if not named & {Path(f), *Path(f).parents}}
    idle = {d for d in named if not any(d in (Path(f), *Path(f).parents) for f in needed)}
    assert (missing, idle) == (set(), set())
    assert all((REPOSITORY / path).exists() for path in named)


def test_a_rung_comes_after_the_one_that_it_goes_on_from(toy):
    # With a pattern that hides the folder, DVC would not find the stages that git does see.
    shutil.copy(REPOSITORY / ".gitignore", toy)
    write_stages(Paths(toy), RUNS, [LONG.key])
    from dvc.repo import Repo

    with Repo(str(toy)) as repo:
        graph = repo.index.graph
    before = {
        stage.name: {upstream.name for upstream in graph.successors(stage)} for stage in graph
    }
    short, long, other = (f"{STUDY_RUN}@{one.key}" for one in RUNS)
    assert before[long] == {short}
    assert before[short] == before[other] == set()
    assert before["study_choose"] == {short, long, other}
    assert before["study_test"] == {"study_choose", long}
    assert before["study_report"] == {"study_choose", "study_test"}


def test_stages_of_a_study_are_nobody_elses(toy, affectgap):
    (toy / "study").mkdir()
    marked = {"wdir": "..", "cmd": "touch done.txt", "deps": ["a.txt"], "outs": ["done.txt"]}
    (toy / FILE).write_text(yaml.safe_dump({"stages": {"s": marked}}))
    assert set(stage_graph(toy, None)) == {"a", "b@x", "b@y", "c"}
    assert set(changed_stages(toy, None)) == {"a", "b@x", "b@y", "c"}
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=toy, check=False)
    assert done.returncode == 0
    assert changed_stages(toy, None) == {}
    assert set(changed_stages(toy, None, FILE)) == {f"{FILE}:s"}
    assert "up to date" in affectgap(toy, "run", "--quiet").stdout
    assert not (toy / "done.txt").exists()


def test_a_torn_lock_of_a_study_is_mended(toy):
    (toy / "study").mkdir()
    (toy / "study" / "dvc.lock").write_text("schema: '2.0'\nstag")
    (mended,) = repair_after_crash(toy)
    assert mended.startswith("study/dvc.lock was torn")
    assert list(repair_after_crash(toy)) == []


def test_until_the_plan_is_finished_nothing_is_chosen_or_tested(tmp_path):
    paths = Paths(tmp_path)
    write_stages(paths, [SHORT], None)
    assert set(yaml.safe_load(paths.at(FILE).read_text())["stages"]) == {STUDY_RUN}
    assert read_known_runs(paths) == {SHORT.key}
    assert yaml.safe_load(paths.study_run(SHORT.key).read_text())["until"] == 2
    before = paths.at(FILE).stat().st_mtime_ns
    write_stages(paths, [SHORT], None)
    assert paths.at(FILE).stat().st_mtime_ns == before  # the same text is not written again


def test_the_test_split_is_asked_again_for_what_changes_the_answer_alone():
    stages = yaml.safe_load(stages_text(REPOSITORY, RUNS, [LONG.key]))["stages"]
    tested = stages["study_test"]
    data = [dep for dep in tested["deps"] if not dep.startswith("tasks/")]
    models = f"study/results/{LONG.key}/model"
    assert data == ["study/tables/winners.json", models, "data/split.parquet", "data/crops"]
    keys = ["study.subset", "study.confidence", "study.resamples", "study.resampling_seed"]
    assert tested["params"] == keys
    chosen = set(stages["study_choose"]["deps"])
    assert {f"study/runs/{one.key}.yaml" for one in RUNS} <= chosen
    assert "study/chosen.yaml" not in stages["study_report"]["deps"]


@pytest.mark.parametrize(
    "stages",
    [
        {},
        {"stages": {}},
        {"stages": {STUDY_RUN: {}}},
        {"stages": {STUDY_RUN: {"do": {}}}},
        {"stages": 3},
    ],
)
def test_a_file_that_was_changed_by_hand_is_told_in_one_line(tmp_path, stages):
    paths = Paths(tmp_path)
    write_stages(paths, RUNS, None)
    paths.at(FILE).write_text(yaml.safe_dump(stages))
    with pytest.raises(UserError, match=r"study/dvc\.yaml: is not as .* wrote it; delete it and"):
        read_known_runs(paths)


def test_a_file_that_names_other_code_is_brought_up_to_date(tmp_path):
    paths = Paths(tmp_path)
    write_stages(paths, RUNS, [LONG.key])
    stages = yaml.safe_load(paths.at(FILE).read_text())
    stages["stages"][STUDY_RUN]["do"]["deps"].append("tasks/gone.py")
    paths.at(FILE).write_text(yaml.safe_dump(stages))
    assert read_known_runs(paths) == {one.key for one in RUNS}
    assert "tasks/gone.py" not in paths.at(FILE).read_text()


def test_what_no_run_of_the_plan_owns_is_removed(tmp_path):
    paths = Paths(tmp_path)
    write_stages(paths, RUNS, None)
    for key in (OTHER.key, "backbones-old-s1-e2"):
        paths.study_result(key).mkdir(parents=True)
    paths.study_run("backbones-old-s1-e2").write_text("")
    paths.at("work/study/backbones-old-s1").mkdir(parents=True)
    remove_leftovers(paths, RUNS)
    assert {path.stem for path in paths.at("study/runs").iterdir()} == {one.key for one in RUNS}
    assert [path.name for path in paths.at("study/results").iterdir()] == [OTHER.key]
    assert not paths.at("work/study").exists()


def test_a_runs_inputs_are_known_by_their_digests(tmp_path):
    paths = Paths(tmp_path)
    write_stages(paths, RUNS, [LONG.key])
    history = paths.study_result(SHORT.key) / "history.csv"
    history.parent.mkdir(parents=True)
    history.write_text("epoch\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    found = input_digests(paths, f"{STUDY_RUN}@{LONG.key}")
    assert set(found) == {f"study/runs/{LONG.key}.yaml", f"study/results/{SHORT.key}/history.csv"}
