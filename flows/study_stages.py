"""study/dvc.yaml and study/runs/*.yaml: the graph of a study, written as far as it is known.

Which runs there are follows from what came out of those before, so that this part of the graph
cannot be written by hand. It stands in a file of its own, which `dvc repro` and `affectgap run` do
not read; `dvc repro study/dvc.yaml` makes a whole study again without Prefect.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tasks.core.errors import UserError
from tasks.core.files import write_text
from tasks.core.imported_files import imported_files
from tasks.core.params import load_yaml
from tasks.core.paths import STUDY_OUTS, STUDY_RUN, Paths
from tasks.core.stages import MODULES
from tasks.study.arms import Run

FILE = "study/dvc.yaml"
_HEADING = """\
# Written by `affectgap study`, from params.yaml and from what came out: do not edit.
# `dvc repro study/dvc.yaml` makes the study again.
"""
_RUN_HEADING = "# Written by `affectgap study`: what one run trains, and how. Do not edit.\n"
_PICTURES = ["data/split.parquet", "data/crops"]
# What the test reads of section `study`.
TEST_KEYS = ("group", "confidence", "resamples", "resampling_seed")
_WHOLE_ROOMS = ("tasks/study", "tasks/report")  # they read files beside their code


def target_of(stage: str) -> str:
    """Return the name by which DVC knows a stage of a study, such as `study_run@KEY`."""
    return f"{FILE}:{stage}"


def run_stage(key: str) -> str:
    """Return the name of a run's stage."""
    return f"{STUDY_RUN}@{key}"


def write_stages(paths: Paths, runs: Sequence[Run], winners: Iterable[str] | None) -> None:
    """Write the runs' files and the stages; a file that says the same already stays as it is.

    Parameters
    ----------
    paths
        The project's paths.
    runs
        Every run so far, in the order of the plan.
    winners
        Keys of the runs whose models are tested; None while the plan is not finished. The stages
        that read every result are written only then.
    """
    for run in runs:
        _write_if_new(paths.study_run(run.key), run_text(run))
    _write_if_new(paths.at(FILE), stages_text(paths.root, runs, winners))


def is_written(paths: Paths, runs: Sequence[Run], winners: Iterable[str] | None) -> bool:
    """Tell whether `write_stages` has nothing to write."""
    texts = {paths.study_run(run.key): run_text(run) for run in runs}
    texts[paths.at(FILE)] = stages_text(paths.root, runs, winners)
    return all(says(path, text) for path, text in texts.items())


def known_runs(paths: Paths) -> set[str]:
    """Return the keys of the runs in study/dvc.yaml, none where there is no such file.

    Where the code has come to import other files, the file is brought up to date first, so that DVC
    can be asked which results hold.

    Raises
    ------
    UserError
        Where the file has no runs to read: somebody changed it by hand.
    """
    if not paths.at(FILE).is_file():
        return set()
    try:
        runs = load_yaml(paths.at(FILE))["stages"][STUDY_RUN]
        written, known = runs["do"], set(runs["foreach"])
    except (KeyError, TypeError):
        raise UserError(
            f"{FILE}: is not as `affectgap study` wrote it; delete it and run `affectgap study` "
            "(results stay)"
        ) from None
    how = _how_to_run(paths.root)
    if written != how:
        stages = {STUDY_RUN: {"foreach": runs["foreach"], "do": how}}
        write_text(paths.at(FILE), _HEADING + _dump({"stages": stages}))
    return known


def remove_leftovers(paths: Paths, runs: Sequence[Run]) -> None:
    """Remove what belongs to no run of the plan; results stay in DVC's cache.

    Gone are files and results of earlier plans, and the progress of runs that were not continued.
    """
    keys = {run.key for run in runs}
    for path in paths.at("study/runs").glob("*.yaml"):
        if path.stem not in keys:
            path.unlink()
    for folder in paths.at("study/results").glob("*"):
        if folder.name not in keys and folder.is_dir():
            shutil.rmtree(folder)
    shutil.rmtree(paths.at("work/study"), ignore_errors=True)


def run_text(run: Run) -> str:
    """Return the text of a run's file."""
    return _RUN_HEADING + _dump(run.content())


def stages_text(root: Path, runs: Sequence[Run], winners: Iterable[str] | None) -> str:
    """Return the text of study/dvc.yaml; see `write_stages`."""
    # One stage a run. What goes on from an earlier rung comes after it, the others at once.
    after = {run.key: {"after": _after(run)} for run in runs}
    stages: dict[str, Any] = {STUDY_RUN: {"foreach": after, "do": _how_to_run(root)}}
    if winners is not None:
        deps, params = _following_inputs(runs, winners)
        for name, outs in STUDY_OUTS.items():
            stages[name] = {
                "wdir": "..",
                "cmd": f"exec .venv/bin/python -m tasks {name}",
                "deps": [*deps[name], *_code(root, name)],
                "params": params[name],
                "outs": [*outs, f"study/run_records/{name}.json"],
            }
    return _HEADING + _dump({"stages": stages})


def _how_to_run(root: Path) -> dict[str, Any]:
    return {
        "wdir": "..",
        "cmd": f"exec .venv/bin/python -m tasks {STUDY_RUN} ${{key}}",
        "deps": [
            _file("${key}"),
            "${item.after}",
            *_PICTURES,
            "given",
            *_code(root, STUDY_RUN),
        ],
        "outs": ["study/results/${key}"],
    }


def _after(run: Run) -> str:
    # The history alone: unlike result.json it is the same when the same run is made again.
    if run.before:
        return f"study/results/{run.before}/history.csv"
    return _file(run.key)


def _file(key: str) -> str:
    return f"study/runs/{key}.yaml"


def _following_inputs(
    runs: Sequence[Run], winners: Iterable[str]
) -> tuple[dict[str, list[str]], dict[str, list[Any]]]:
    """Return the data and the params that the stages after the runs depend on."""
    models = [f"study/results/{key}/model" for key in winners]
    results = [file for run in runs for file in (_file(run.key), f"study/results/{run.key}")]
    deps = {
        "study_choose": results,
        "study_test": ["study/tables/winners.json", *models, *_PICTURES],
        "study_report": ["study/tables", *STUDY_OUTS["study_test"], "data/split.parquet"],
    }
    # All of it: the one writes a params.yaml with the winner, the other shows every setting. The
    # test split is asked again for what changes the answer alone.
    whole: list[Any] = [{"params.yaml": None}]
    tested = [f"study.{key}" for key in TEST_KEYS]
    return deps, {"study_choose": whole, "study_test": tested, "study_report": whole}


def _code(root: Path, stage: str) -> list[str]:
    files = imported_files(root, MODULES[stage])
    return sorted({_room_of(file) or file for file in files})


def _room_of(file: str) -> str | None:
    return next((room for room in _WHOLE_ROOMS if file.startswith(f"{room}/")), None)


def _dump(content: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return text


def says(path: Path, text: str) -> bool:
    """Tell whether a file holds just this text."""
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _write_if_new(path: Path, text: str) -> None:
    if not says(path, text):
        write_text(path, text)
