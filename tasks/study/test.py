"""Stage `study_test`: the winner on the test split, with a ledger of every such look.

Reads study/tables/winners.json, the winner's models of every seed below study/results,
data/split.parquet and the crops; writes study/test.csv: mean recall over emotions and accuracy, of
all test pictures and by age band and gender, with intervals for other people and other seeds. No
other stage of a study reads a picture of the test split, and nothing is chosen after it. A study
whose winner changes looks again: study/test_looks.csv counts, and later looks have wider intervals
(see `tasks.study.test_looks`).
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.errors import DataError
from tasks.core.labels import ALL
from tasks.core.models.checkpoint import load_seen, load_spec
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
from tasks.study.scores import Score, accuracy_score, mean_recall_score, people_of
from tasks.study.test_looks import (
    LOOKS,
    Look,
    add_look,
    digest,
    images_digest,
    level_of,
    level_words,
    now,
    number_of,
    read_looks,
)

TEST = "study/test.csv"
RECALL, ACCURACY = "mean_recall", "accuracy"
COLUMNS = ["dimension", "group", "measure", "value", "se", "ci_low", "ci_high", "pictures"]
COLUMNS += ["people", "emotions", "seeds", "also_trained_on", "left_out", "look", "confidence"]
COLUMNS += ["interval_level", "method"]
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
    look = _look(paths, winners, folders, pictures)
    correct = _right(recognisers, pictures, paths.crop_shards)
    people = set().union(*(load_seen(folder)["subject_id"] for folder in folders))
    also = int(pictures["subject_id"].isin(people).sum())
    notes = {"also_trained_on": also, "left_out": int((~known).sum())}
    notes |= {"look": look.look}
    found = pd.DataFrame(_rows(pictures, correct, params, look.look)).assign(**notes)[COLUMNS]
    recall = float(found.loc[found["measure"] == RECALL, "value"].iloc[0])  # of all pictures
    # First: a look that ends here is repeated as the same look, and is never left out.
    add_look(paths.at(LOOKS), replace(look, mean_recall=recall))
    write_csv(found, paths.at(TEST))
    return _result(found, paths.at(TEST))


def _look(paths: Paths, winners: list[str], folders: list[Path], pictures: pd.DataFrame) -> Look:
    """Return the look that asks these models about these test pictures, without its figure."""
    named = zip(winners, folders, strict=True)
    models = digest(f"{key} {load_spec(folder).version}" for key, folder in named)
    images = images_digest(pictures)
    number = number_of(read_looks(paths.at(LOOKS)), models, images)
    counts = (len(pictures), len(np.unique(people_of(pictures))))
    return Look(number, now(), " ".join(winners), models, images, *counts, float("nan"))


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
    pictures: pd.DataFrame, correct: np.ndarray, params: Params, look: int
) -> Iterator[dict[str, object]]:
    """Yield one row a group and measure."""
    level = level_of(look, params.confidence)
    at_level = params.model_copy(update={"confidence": level})
    groups = [(ALL, ALL, np.ones(len(pictures), dtype=bool))]
    for dimension in _DIMENSIONS:
        values = pictures[dimension].astype(str)
        groups += [(dimension, name, (values == name).to_numpy()) for name in sorted(set(values))]
    for dimension, group, inside in groups:
        part, right = pictures[inside], correct[inside]
        for measure, score_of in ((RECALL, mean_recall_score), (ACCURACY, accuracy_score)):
            score = score_of(part, right, at_level)
            yield {
                "dimension": dimension,
                "group": group,
                "measure": measure,
                "value": score.mean,
                "emotions": part["emotion"].nunique(),
                "seeds": correct.shape[1],
                "confidence": params.confidence,
                "interval_level": level,
                **_figures(score),
                "method": score.method + level_words(look, params.confidence),
            }


def _figures(score: Score) -> dict[str, object]:
    names = ("se", "ci_low", "ci_high", "pictures", "people")
    return {name: getattr(score, name) for name in names}


def _result(found: pd.DataFrame, path: Path) -> StageResult:
    whole = found[found["dimension"] == ALL].set_index("measure")
    recall = whole.loc[RECALL]
    return StageResult(
        {f"test_{name}": float(whole.loc[name, "value"]) for name in (RECALL, ACCURACY)},
        artifacts=[path],
        summary=f"mean recall {recall['value']:.1%} ({recall['ci_low']:.1%} to "
        f"{recall['ci_high']:.1%}) on {recall['pictures']} test pictures, look {recall['look']}",
    )
