"""Stage `study_test`: the winner on the test split, once.

Reads study/tables/winners.json, the winner's models of every seed below study/results,
data/split.parquet and the crops; writes study/test.csv: mean recall over emotions and accuracy, of
all test pictures and by age band and gender, with intervals for other people and other seeds. No
other stage of a study reads a picture of the test split, and nothing is chosen after it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.errors import DataError
from tasks.core.labels import ALL
from tasks.core.models.checkpoint import load_seen
from tasks.core.models.device import make_repeatable
from tasks.core.models.recogniser import Recogniser
from tasks.core.params import load_yaml
from tasks.core.paths import Paths
from tasks.core.progress import track
from tasks.core.result import StageResult
from tasks.core.selection import select_rows
from tasks.core.shards import read_crops
from tasks.core.tables import read_table, write_csv
from tasks.study import settings
from tasks.study.results import MODEL
from tasks.study.scores import Score, accuracy_score, mean_recall_score

TEST = "study/test.csv"
RECALL, ACCURACY = "mean_recall", "accuracy"
COLUMNS = ["dimension", "group", "measure", "value", "se", "ci_low", "ci_high", "pictures"]
COLUMNS += ["people", "emotions", "seeds", "also_trained_on", "left_out", "confidence", "method"]
_DIMENSIONS = ("age_band", "gender")
_BATCH = 64


class Params(settings.Params):
    """Section `study` of params.yaml."""


def run(params: Params, paths: Paths) -> StageResult:
    """Ask the winner's models about the test split and write what came out.

    Raises
    ------
    DataError
        Where the test split has no picture of the study's group with a label that is known.
    """
    winners = json.loads(paths.at("study/tables/winners.json").read_text(encoding="utf-8"))
    folders = [paths.at(f"study/results/{key}/{MODEL}") for key in winners]
    device = str(load_yaml(paths.params)["train"]["device"])
    recognisers = [Recogniser.load(folder, device, _BATCH) for folder in folders]
    for recogniser in recognisers:
        make_repeatable(recogniser.device)
    table = read_table(paths.split)
    rows = select_rows(table[table["split"] == "test"], params.group, "study.group")
    known = rows["emotion"].isin(recognisers[0].labels)
    pictures = rows[known].reset_index(drop=True)
    if pictures.empty:
        raise DataError("study.group: no test picture shows an emotion that the winner knows")
    correct = _right(recognisers, pictures, paths.crop_shards)
    people = set().union(*(load_seen(folder)["subject_id"] for folder in folders))
    also = int(pictures["subject_id"].isin(people).sum())
    notes = {"also_trained_on": also, "left_out": int((~known).sum())}
    found = pd.DataFrame(_rows(pictures, correct, params)).assign(**notes)[COLUMNS]
    write_csv(found, paths.at(TEST))
    return _result(found, paths.at(TEST))


def _right(recognisers: list[Recogniser], pictures: pd.DataFrame, shards: Path) -> np.ndarray:
    """Return `(pictures, models)`: which answers are right."""
    labels = np.array([recogniser.labels for recogniser in recognisers])
    answers: list[list[str]] = [[] for _ in recognisers]
    batch: list[np.ndarray] = []

    def ask() -> None:
        crops = np.stack(batch)
        for place, recogniser in enumerate(recognisers):
            found = recogniser.predict(crops).argmax(axis=1)
            answers[place] += list(labels[place][found])
        batch.clear()

    for crop in track(read_crops(pictures, shards), len(pictures), "study_test"):
        batch.append(crop)
        if len(batch) == _BATCH:
            ask()
    if batch:
        ask()
    emotion = pictures["emotion"].to_numpy(dtype=str)
    return np.column_stack([np.array(answer) == emotion for answer in answers])


def _rows(
    pictures: pd.DataFrame, correct: np.ndarray, params: Params
) -> Iterator[dict[str, object]]:
    """Yield one row a group and measure."""
    groups = [(ALL, ALL, np.ones(len(pictures), dtype=bool))]
    for dimension in _DIMENSIONS:
        values = pictures[dimension].astype(str)
        groups += [(dimension, name, (values == name).to_numpy()) for name in sorted(set(values))]
    for dimension, group, inside in groups:
        part, right = pictures[inside], correct[inside]
        for measure, score_of in ((RECALL, mean_recall_score), (ACCURACY, accuracy_score)):
            score = score_of(part, right, params)
            yield {
                "dimension": dimension,
                "group": group,
                "measure": measure,
                "value": score.mean,
                "emotions": part["emotion"].nunique(),
                "seeds": correct.shape[1],
                "confidence": params.confidence,
                **_figures(score),
            }


def _figures(score: Score) -> dict[str, object]:
    names = ("se", "ci_low", "ci_high", "pictures", "people", "method")
    return {name: getattr(score, name) for name in names}


def _result(found: pd.DataFrame, path: Path) -> StageResult:
    whole = found[found["dimension"] == ALL].set_index("measure")
    recall = whole.loc[RECALL]
    return StageResult(
        {f"test_{name}": float(whole.loc[name, "value"]) for name in (RECALL, ACCURACY)},
        artifacts=[path],
        summary=f"mean recall {recall['value']:.1%} ({recall['ci_low']:.1%} to "
        f"{recall['ci_high']:.1%}) on {recall['pictures']} test pictures",
    )
