"""Stage `study_choose`: what a study chose, and its tables.

Reads study/runs, study/results and params.yaml; writes study/tables (see `tasks.study.tables`;
study.json holds what stands for the whole study, winners.json the keys of the runs whose models are
tested) and study/chosen.yaml, the params.yaml whose section `train` is the winner's, for `affectgap
use study/chosen.yaml`. Only validation pictures have a part in it.
"""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.errors import DataError
from tasks.core.files import write_text
from tasks.core.params import load_yaml
from tasks.core.paths import Paths
from tasks.core.result import StageResult
from tasks.core.tables import write_csv
from tasks.study import settings
from tasks.study.arms import Run
from tasks.study.chosen_params import chosen_text
from tasks.study.plan import (
    Decision,
    Progress,
    epochs_of_grid,
    epochs_trained,
    progress,
    winning_runs,
)
from tasks.study.results import read_results
from tasks.study.tables import study_tables

TABLES, CHOSEN, RESULTS = "study/tables", "study/chosen.yaml", "study/results"
STUDY = "study.json"  # beside the tables
WINNERS = "winners.json"  # apart, so that the test is done again for other winners alone
MACHINE_KEYS = {"side_by_side"}  # settings that change nothing that is told


class Params(settings.Params):
    """Section `study` of params.yaml."""


def run(params: Params, paths: Paths) -> StageResult:
    """Decide from the results and write the tables.

    Raises
    ------
    DataError
        Where runs are missing, or were trained with another recipe than params ask for.
    """
    train = load_yaml(paths.params)["train"]
    results = read_results(paths.at(RESULTS))
    found = progress(params, train, results, lambda run: _is_as_planned(run, paths))
    if found.wanted:
        keys = ", ".join(run.key for run in found.wanted)
        raise DataError(f"study: not trained yet: {keys}; run `affectgap study`")
    tables = study_tables(params, found.decisions, found.runs, results)
    whole = _whole(params, found)
    winners = winning_runs(params, found.decisions)
    _write(paths.at(TABLES), tables, {STUDY: whole, WINNERS: [run.key for run in winners]})
    text = chosen_text(paths.params.read_text(encoding="utf-8"), winners[0].train)
    write_text(paths.at(CHOSEN), text)
    return StageResult(
        {name: float(whole[name]) for name in ("epochs", "epochs_of_grid", "score")},
        artifacts=[paths.at(TABLES), paths.at(CHOSEN)],
        summary=f"{_said(found.decisions)}; {whole['epochs']} epochs of {whole['epochs_of_grid']}",
    )


def _is_as_planned(run: Run, paths: Paths) -> bool:
    """Whether a run was trained as params ask for it now; raises DataError where it was not."""
    path = paths.study_run(run.key)
    if not path.is_file() or load_yaml(path) != run.content():
        raise DataError(f"study: {run.key} was trained with another recipe; run `affectgap study`")
    return True


def _whole(params: Params, found: Progress) -> dict[str, Any]:
    """Return what stands for the whole study."""
    last = found.decisions[-1]
    recipe, score = last.chosen.train, last.stands[-1].scores[last.choice.name]
    return {
        "settings": params.model_dump(exclude=MACHINE_KEYS),
        "backbone": recipe["backbone"],
        "loss": recipe["loss"]["name"],
        "optimiser": recipe["optimiser"]["name"],
        "learning_rate": recipe["learning_rate"],
        "score": score.mean,
        "ci_low": None if math.isnan(score.ci_low) else score.ci_low,
        "ci_high": None if math.isnan(score.ci_high) else score.ci_high,
        "parameters": score.parameters,
        "epochs": epochs_trained(found.runs),
        "epochs_of_grid": epochs_of_grid(params, found.decisions),
    }


def _said(decisions: tuple[Decision, ...]) -> str:
    return ", ".join(decision.choice.name for decision in decisions)


def _write(folder: Path, tables: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, table in tables.items():
        write_csv(table, folder / f"{name}.csv")
    for name, content in facts.items():
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        write_text(folder / name, text + "\n")
