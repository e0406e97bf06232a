"""Stage `study_choose`: the tables of a study and the params of its winner.

Reads study/runs, study/results and params.yaml. Writes study/tables (see `tasks.study.tables`):
study.json holds the summary, winners.json the keys of the runs whose models are tested. Also writes
study/chosen.yaml, the params.yaml with the winner's section `train`, for `affectgap use
study/chosen.yaml`. Only validation images take part.
"""

import io
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml.comments import CommentedMap

from tasks.core import safe_yaml
from tasks.core.commented_yaml import round_trip
from tasks.core.errors import DataError
from tasks.core.files import write_text
from tasks.core.params import DEVICE, load_yaml
from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.tables import write_csv
from tasks.study import settings
from tasks.study.candidates import Run, base_recipe
from tasks.study.plan import Progress, epochs_of_grid, epochs_trained, progress, winning_runs
from tasks.study.results import read_results
from tasks.study.tables import study_tables

_SECTION = "train"
TABLES, CHOSEN, RESULTS = "study/tables", "study/chosen.yaml", "study/results"
STUDY = "study.json"  # beside the tables
WINNERS = "winners.json"  # a file of its own, so that the test reruns only for other winners
MACHINE_KEYS = {"max_parallel"}  # settings that do not change the results


def chosen_text(text: str, recipe: Mapping[str, Any]) -> str:
    """Return the params file `text` with `recipe` as its section `train`, comments preserved."""
    yaml_format = round_trip()
    document = yaml_format.load(text)
    _update(document[_SECTION], safe_yaml.load(text)[_SECTION], recipe)
    out = io.StringIO()
    yaml_format.dump(document, out)
    return out.getvalue()


def _update(node: CommentedMap, current: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Change the values of `node` that differ; `current` holds its values as PyYAML reads them."""
    for key in [key for key in current if key not in wanted]:
        del node[key]
    for key, value in wanted.items():
        old = current.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and key != "subset":
            _update(node[key], old, value)
        elif key not in current or old != value:
            # PyYAML reads YAML 1.1, where 1e-05 is a string, ruamel.yaml 1.2, where it is a number.
            # PyYAML reads the result, so that its spelling is used.
            spelling = yaml.safe_dump(value, default_flow_style=True, width=10_000)
            node[key] = round_trip().load(spelling)


class Params(settings.Params):
    """Section `study` of params.yaml."""


def run(params: Params, paths: Paths) -> StageResult:
    """Decide from the results and write the tables.

    Raises
    ------
    DataError
        If runs are missing or were trained with another recipe than params say.
    """
    train = base_recipe(load_yaml(paths.params))
    results = read_results(paths.at(RESULTS))
    state = progress(params, train, results, lambda run: _is_as_planned(run, paths))
    if state.wanted:
        keys = ", ".join(run.key for run in state.wanted)
        raise DataError(f"study: not trained yet: {keys}; run `affectgap study`")
    tables = study_tables(params, state.decisions, state.runs, results)
    summary = _summary(params, state)
    winners = winning_runs(params, state.decisions)
    _write(paths.at(TABLES), tables, {STUDY: summary, WINNERS: [run.key for run in winners]})
    recipe = {key: value for key, value in winners[0].train.items() if key != DEVICE}
    text = chosen_text(paths.params.read_text(encoding="utf-8"), recipe)
    write_text(paths.at(CHOSEN), text)
    choices = ", ".join(decision.choice.name for decision in state.decisions)
    return StageResult(
        {name: float(summary[name]) for name in ("epochs", "epochs_of_grid", "score")},
        artifacts=[paths.at(TABLES), paths.at(CHOSEN)],
        summary=f"{choices}; {summary['epochs']} epochs of {summary['epochs_of_grid']}",
    )


def _is_as_planned(run: Run, paths: Paths) -> bool:
    """Return True; raise DataError if a run was trained with another recipe than params say."""
    path = paths.study_run(run.key)
    if not path.is_file() or load_yaml(path) != run.content():
        raise DataError(f"study: {run.key} was trained with another recipe; run `affectgap study`")
    return True


def _summary(params: Params, state: Progress) -> dict[str, Any]:
    """Return the content of study.json."""
    last = state.decisions[-1]
    recipe, score = last.chosen.train, last.rungs[-1].scores[last.choice.name]
    return {
        "settings": params.model_dump(exclude=MACHINE_KEYS),
        "backbone": recipe["backbone"],
        "loss": recipe["loss"]["name"],
        "optimizer": recipe["optimizer"]["name"],
        "learning_rate": recipe["learning_rate"],
        "score": score.mean,
        "ci_low": None if math.isnan(score.ci_low) else score.ci_low,
        "ci_high": None if math.isnan(score.ci_high) else score.ci_high,
        "parameters": score.parameters,
        "epochs": epochs_trained(state.runs),
        "epochs_of_grid": epochs_of_grid(params, state.decisions),
    }


def _write(folder: Path, tables: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, table in tables.items():
        write_csv(table, folder / f"{name}.csv")
    for name, content in facts.items():
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        write_text(folder / name, text + "\n")
