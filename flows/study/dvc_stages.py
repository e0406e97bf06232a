"""Writes study/dvc.yaml and study/runs/*.yaml: the graph of a study, as far as it is known.

Which runs there are depends on the results of earlier ones, so this part of the graph cannot be
written by hand. It is in a file of its own, which `dvc repro` and `affectgap run` do not read; `dvc
repro study/dvc.yaml` repeats a whole study without Prefect.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tasks.core.cache.source_files import imported_files
from tasks.core.errors import UserError
from tasks.core.files import write_text
from tasks.core.params import load_yaml
from tasks.core.paths import STUDY_OUTS, STUDY_RUN, Paths
from tasks.core.stages import MODULES
from tasks.study.candidates import Run

FILE = "study/dvc.yaml"
_HEADING = """\
# Written by `affectgap study`, from params.yaml and from what came out: do not edit.
# `dvc repro study/dvc.yaml` makes the study again.
"""
_RUN_HEADING = "# Written by `affectgap study`: what one run trains, and how. Do not edit.\n"
_IMAGES = ["data/split.parquet", "data/crops"]
# Keys of section `study` that the test stage reads.
TEST_KEYS = ("subset", "confidence", "resamples", "resampling_seed")
_WHOLE_PACKAGES = ("tasks/study", "tasks/report")  # they read data files in the package


def target_of(stage: str) -> str:
    """Return DVC's name of a stage of a study, such as `study_run@KEY`."""
    return f"{FILE}:{stage}"


def run_stage(key: str) -> str:
    """Return the name of a run's stage."""
    return f"{STUDY_RUN}@{key}"


def write_stages(paths: Paths, runs: Sequence[Run], winners: Iterable[str] | None) -> None:
    """Write the files of all `runs` so far, and the stages; unchanged files are not touched.

    `winners` are the keys of the runs whose models are tested; None while the plan is unfinished.
    The stages that read all results are written only once it is finished.
    """
    for run in runs:
        _write_if_changed(paths.study_run(run.key), run_text(run))
    _write_if_changed(paths.at(FILE), stages_text(paths.root, runs, winners))


def is_written(paths: Paths, runs: Sequence[Run], winners: Iterable[str] | None) -> bool:
    """Return whether `write_stages` has nothing to write."""
    texts = {paths.study_run(run.key): run_text(run) for run in runs}
    texts[paths.at(FILE)] = stages_text(paths.root, runs, winners)
    return all(has_text(path, text) for path, text in texts.items())


def read_known_runs(paths: Paths) -> set[str]:
    """Return the keys of the runs in study/dvc.yaml; empty if there is no such file.

    If the code now imports other files, the stages' dependencies are updated first, so that DVC can
    tell which results are valid. Raises UserError if the file was edited by hand.
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
    current = _run_template(paths.root)
    if written != current:
        stages = {STUDY_RUN: {"foreach": runs["foreach"], "do": current}}
        write_text(paths.at(FILE), _HEADING + _dump({"stages": stages}))
    return known


def remove_leftovers(paths: Paths, runs: Sequence[Run]) -> None:
    """Remove files and results of runs outside the plan, and the progress of unfinished runs.

    Results stay in DVC's cache.
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
    # One stage per run. A run that continues an earlier rung depends on it.
    after = {run.key: {"after": _after(run)} for run in runs}
    stages: dict[str, Any] = {STUDY_RUN: {"foreach": after, "do": _run_template(root)}}
    if winners is not None:
        deps, params = _final_inputs(runs, winners)
        for name, outs in STUDY_OUTS.items():
            stages[name] = {
                "wdir": "..",
                "cmd": f"exec .venv/bin/python -m tasks {name}",
                "deps": [*deps[name], *_code(root, name)],
                "params": params[name],
                "outs": [*outs, f"study/run_records/{name}.json"],
            }
    return _HEADING + _dump({"stages": stages})


def _run_template(root: Path) -> dict[str, Any]:
    return {
        "wdir": "..",
        "cmd": f"exec .venv/bin/python -m tasks {STUDY_RUN} ${{key}}",
        "deps": [
            _file("${key}"),
            "${item.after}",
            *_IMAGES,
            "given",
            *_code(root, STUDY_RUN),
        ],
        "outs": ["study/results/${key}"],
    }


def _after(run: Run) -> str:
    # Only the history: unlike result.json, it is identical when a run is repeated.
    if run.before:
        return f"study/results/{run.before}/history.csv"
    return _file(run.key)


def _file(key: str) -> str:
    return f"study/runs/{key}.yaml"


def _final_inputs(
    runs: Sequence[Run], winners: Iterable[str]
) -> tuple[dict[str, list[str]], dict[str, list[Any]]]:
    """Return the data and the params that the stages after the runs depend on."""
    models = [f"study/results/{key}/model" for key in winners]
    results = [file for run in runs for file in (_file(run.key), f"study/results/{run.key}")]
    deps = {
        "study_choose": results,
        "study_test": ["study/tables/winners.json", *models, *_IMAGES],
        "study_report": ["study/tables", *STUDY_OUTS["study_test"], "data/split.parquet"],
    }
    # All params: study_choose writes a params.yaml with the winner, study_report shows every
    # setting. The test split is used again only for params that change the result.
    all_params: list[Any] = [{"params.yaml": None}]
    test_params = [f"study.{key}" for key in TEST_KEYS]
    return deps, {"study_choose": all_params, "study_test": test_params, "study_report": all_params}


def _code(root: Path, stage: str) -> list[str]:
    files = imported_files(root, MODULES[stage])
    return sorted({_whole_package_of(file) or file for file in files})


def _whole_package_of(file: str) -> str | None:
    return next((package for package in _WHOLE_PACKAGES if file.startswith(f"{package}/")), None)


def _dump(content: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return text


def has_text(path: Path, text: str) -> bool:
    """Return whether a file holds exactly this text."""
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _write_if_changed(path: Path, text: str) -> None:
    if not has_text(path, text):
        write_text(path, text)
