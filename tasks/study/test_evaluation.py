"""Stage `study_test`: the winner on the test split, with a ledger of test evaluations ("looks").

Reads study/tables/winners.json, the winner's models of every seed below study/results,
data/split.parquet and the crops. Writes study/test.csv: mean recall over emotions and accuracy, of
all test images and by age band and gender, with intervals for other subjects and other seeds. No
other stage of a study reads an image of the test split.

The ledger study/test_looks.csv has one row per winner and set of test images. The first test result
of a study took no part in any choice. Whoever reads it, changes the study and tests again selects
on test images, a little more each time. So every look is recorded, and the intervals share their
error: look k gets 6 / (pi^2 k^2) of it, which adds up to all of it over any number of looks (alpha
spending over a sequence of tests, as in D. P. Foster and R. A. Stine 2008, J. R. Stat. Soc. B 70,
429-444). The intervals of all looks then hold jointly at the level of the settings.

The ledger is no output of DVC, which removes outputs before it makes them again; git tracks it.
Rows are only appended. The same models on the same images are the same look.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.errors import DataError
from tasks.core.imaging.shards import read_crops
from tasks.core.labels import ALL
from tasks.core.models.checkpoint import load_seen, load_spec
from tasks.core.models.device import make_deterministic
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.models.spec import select_rows
from tasks.core.parallel.progress import track
from tasks.core.params import DEVICE, load_yaml
from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.tables import read_csv, read_table, write_csv
from tasks.study import settings
from tasks.study.results import MODEL, accuracy_score, mean_recall_score, people_of

LOOKS = "study/test_looks.csv"
_DIGEST_LENGTH = 16
_TEXT_COLUMNS = ("at", "winner", "models", "images")
TEST = "study/test.csv"
RECALL, ACCURACY = "mean_recall", "accuracy"
COLUMNS = ["dimension", "group", "measure", "value", "se", "ci_low", "ci_high", "images"]
COLUMNS += ["people", "emotions", "seeds", "also_trained_on", "left_out", "look", "confidence"]
COLUMNS += ["interval_level", "method"]
_SCORE_COLUMNS = ("se", "ci_low", "ci_high", "images", "people")
_DIMENSIONS = ("age_band", "gender")
_BATCH = 64


@dataclass(frozen=True)
class Look:
    """One row of the ledger.

    Attributes
    ----------
    look
        Its number, from 1.
    at
        Time in UTC.
    winner
        Keys of the runs whose models were tested.
    models, images
        Digests of these models' weights, and of the test images with their labels.
    pictures, people
        Number of test images and of subjects.
    mean_recall
        NaN before it is known.
    """

    look: int
    at: str
    winner: str
    models: str
    images: str
    pictures: int
    people: int
    mean_recall: float


def digest(parts: Iterable[str]) -> str:
    """Return a digest of texts that does not depend on their order."""
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:_DIGEST_LENGTH]


def images_digest(table: pd.DataFrame) -> str:
    """Return a digest of test images by `image_id` and `emotion`."""
    return digest(table["image_id"].astype(str) + " " + table["emotion"].astype(str))


def read_looks(path: Path) -> list[Look]:
    """Read the ledger; empty if there is no file yet.

    Raises
    ------
    DataError
        If the file is no ledger, or rows are missing.
    """
    if not path.is_file():
        return []
    names = [field.name for field in fields(Look)]
    try:
        table = read_csv(path, dtype=dict.fromkeys(_TEXT_COLUMNS, "str"), keep_default_na=False)
        rows = [Look(**dict(zip(names, row, strict=True))) for row in _typed_rows(table[names])]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({error}); restore it from git") from None
    if [look.look for look in rows] != list(range(1, len(rows) + 1)):
        raise DataError(f"{path}: looks are missing or changed; restore it from git")
    return rows


def _typed_rows(table: pd.DataFrame) -> Iterable[tuple[object, ...]]:
    numbers = {"look": int, "pictures": int, "people": int, "mean_recall": float}
    return table.astype(numbers).itertuples(index=False, name=None)


def number_of(looks: Sequence[Look], models: str, images: str) -> int:
    """Return the number of the look with these models and images, an earlier or the next one."""
    same = (look.look for look in looks if (look.models, look.images) == (models, images))
    return next(same, len(looks) + 1)


def add_look(path: Path, look: Look) -> None:
    """Append a look to the ledger, unless it is there already."""
    looks = read_looks(path)
    if number_of(looks, look.models, look.images) <= len(looks):
        return
    write_csv(pd.DataFrame([asdict(each) for each in (*looks, look)]), path)


def now() -> str:
    """Return the current time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def level_of(look: int, confidence: float) -> float:
    """Return the level of a look's intervals such that those of all looks hold at `confidence`."""
    return 1 - (1 - confidence) * 6 / (math.pi * look) ** 2


def level_words(look: int, confidence: float) -> str:
    """Describe a look's level, for the column `method`."""
    return (
        f"; look {look} at test images: each interval has the level "
        f"{100 * level_of(look, confidence):.2f} %, so that those of all looks together hold at "
        f"{100 * confidence:g} %"
    )


class Params(settings.Params):
    """Section `study` of params.yaml."""


def run(params: Params, paths: Paths) -> StageResult:
    """Evaluate the winner's models on the test split.

    Raises
    ------
    DataError
        If the test split has no image of the study's group with a label that the models know.
    """
    winners = json.loads(paths.at("study/tables/winners.json").read_text(encoding="utf-8"))
    folders = [paths.at(f"study/results/{key}/{MODEL}") for key in winners]
    device = str(load_yaml(paths.params)[DEVICE])
    recognizers = [EmotionClassifier.load(folder, device, _BATCH) for folder in folders]
    for recognizer in recognizers:
        make_deterministic(recognizer.device)
    table = read_table(paths.split)
    rows = select_rows(table[table["split"] == "test"], params.subset, "study.subset")
    known = rows["emotion"].isin(recognizers[0].labels)
    images = rows[known].reset_index(drop=True)
    if images.empty:
        raise DataError("study.subset: no test picture shows an emotion that the winner knows")
    look = _look(paths, winners, folders, images)
    correct = _correct(recognizers, images, paths.crop_shards)
    trained_on = set().union(*(load_seen(folder)["subject_id"] for folder in folders))
    notes = {
        "also_trained_on": int(images["subject_id"].isin(trained_on).sum()),
        "left_out": int((~known).sum()),
        "look": look.look,
    }
    table = pd.DataFrame(_rows(images, correct, params, look.look)).assign(**notes)[COLUMNS]
    recall = float(table.loc[table["measure"] == RECALL, "value"].iloc[0])  # of all images
    # The ledger comes first: a run that is interrupted here repeats the same look.
    add_look(paths.at(LOOKS), replace(look, mean_recall=recall))
    write_csv(table, paths.at(TEST))
    return _result(table, paths.at(TEST))


def _look(paths: Paths, winners: list[str], folders: list[Path], images: pd.DataFrame) -> Look:
    """Return the ledger row for these models and test images, without its recall."""
    named = zip(winners, folders, strict=True)
    models = digest(f"{key} {load_spec(folder).version}" for key, folder in named)
    image_digest = images_digest(images)
    number = number_of(read_looks(paths.at(LOOKS)), models, image_digest)
    counts = (len(images), len(np.unique(people_of(images))))
    return Look(number, now(), " ".join(winners), models, image_digest, *counts, float("nan"))


def _correct(
    recognizers: list[EmotionClassifier], images: pd.DataFrame, shards: Path
) -> np.ndarray:
    """Return which predictions are correct, `(images, models)` booleans."""
    labels = np.array([recognizer.labels for recognizer in recognizers])
    answers: list[list[str]] = [[] for _ in recognizers]
    crops = track(read_crops(images, shards), len(images), "study_test")
    while batch := list(islice(crops, _BATCH)):
        for index, recognizer in enumerate(recognizers):
            predicted = recognizer.predict(np.stack(batch)).argmax(axis=1)
            answers[index] += list(labels[index][predicted])
    emotion = images["emotion"].to_numpy(dtype=str)
    return np.column_stack([np.array(answer) == emotion for answer in answers])


def _rows(
    images: pd.DataFrame, correct: np.ndarray, params: Params, look: int
) -> Iterator[dict[str, object]]:
    """Yield one row per group and measure."""
    level = level_of(look, params.confidence)
    at_level = params.model_copy(update={"confidence": level})
    groups = [(ALL, ALL, np.ones(len(images), dtype=bool))]
    for dimension in _DIMENSIONS:
        values = images[dimension].astype(str)
        groups += [(dimension, name, (values == name).to_numpy()) for name in sorted(set(values))]
    for dimension, group, mask in groups:
        part = images[mask]
        for measure, score_of in ((RECALL, mean_recall_score), (ACCURACY, accuracy_score)):
            score = score_of(part, correct[mask], at_level)
            yield {
                "dimension": dimension,
                "group": group,
                "measure": measure,
                "value": score.mean,
                "emotions": part["emotion"].nunique(),
                "seeds": correct.shape[1],
                "confidence": params.confidence,
                "interval_level": level,
                **{name: getattr(score, name) for name in _SCORE_COLUMNS},
                "method": score.method + level_words(look, params.confidence),
            }


def _result(table: pd.DataFrame, path: Path) -> StageResult:
    overall = table[table["dimension"] == ALL].set_index("measure")
    recall = overall.loc[RECALL]
    return StageResult(
        {f"test_{name}": float(overall.loc[name, "value"]) for name in (RECALL, ACCURACY)},
        artifacts=[path],
        summary=f"mean recall {recall['value']:.1%} ({recall['ci_low']:.1%} to "
        f"{recall['ci_high']:.1%}) on {recall['images']} test pictures, look {recall['look']}",
    )
