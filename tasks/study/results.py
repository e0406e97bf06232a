"""Results of runs, and validation scores of candidates with intervals.

The stage `study_run` writes the result of a run to study/results/<key>/.

The score of `better` is the mean recall over the emotions at the last epoch, averaged over the
seeds. A repeated study would have other subjects and other seeds, and its standard error covers
both: the variance between draws of subjects (cluster bootstrap: a subject is drawn with all images
and with the predictions of every seed's network), and the variance between the seeds' scores
divided by their number. Student's t takes its degrees of freedom from both (F. E. Satterthwaite
1946, Biometrics Bulletin 2, 110-114). The variation of a seed on a single image is in both parts.
In simulations (tests/study/test_study_coverage.py), a nominal 95 % interval covered the truth in
92 to 95 % of the cases with three seeds and in 87 to 93 % with two; an interval from subjects only
covered it in 45 to 83 % where seeds differ.

The score of `published` is the best accuracy of any epoch, as in the published study. It is
optimistic, since the best of many epochs is chosen on the images that it is reported for. The
interval, Wilson's for independent images, does not account for that.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from tasks.core.errors import DataError
from tasks.core.statistics.recalls import wilson
from tasks.core.tables import read_csv
from tasks.study.settings import PUBLISHED, Params

RESULT, HISTORY, VALIDATION = "result.json", "history.csv", "validation.csv"
MODEL = "model"  # folder of the model, if the run went to the end
_REQUIRED = ("round", "arm", "seed", "until", "epochs", "parameters", "train_seconds")
BOTH = "mean over seeds; t interval from people (cluster bootstrap) and seeds"
PEOPLE_ALONE = (
    "one seed; t interval from people alone (cluster bootstrap): how much another seed would "
    "change is not in it"
)
ALL_ALIKE = (
    "every picture answered alike: Wilson score interval with each person counted once; what seeds "
    "would change is not in it"
)
BEST_EPOCH = (
    "best validation accuracy of any epoch, one seed; Wilson score interval with every picture "
    "counted as independent: optimistic"
)
_DRAWN_AT_ONCE = 1_000_000  # subjects in a block of draws: 16 MB


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes
    ----------
    facts
        `result.json`: `round, arm, seed, until, epochs, backbone, parameters, train_seconds,
        images_per_second, input_size_px, device, kept_epoch, valid_recall_score,
        valid_accuracy_score, valid_loss, train_images, validation_images`, and `failed` (one
        line if the training could not go on; the validation figures are then not read).
    history
        One row per epoch: `epoch, train_loss, valid_loss, valid_recall_score,
        valid_accuracy_score`.
    validation
        One row per validation image at the selected epoch: `image_id, subject_id, subject_known,
        age_band, gender, emotion, y_pred`.
    """

    key: str
    facts: Mapping[str, Any]
    history: pd.DataFrame
    validation: pd.DataFrame

    @property
    def failed(self) -> str:
        """Return why the training could not go on; "" if it could."""
        return str(self.facts.get("failed") or "")

    @property
    def parameters(self) -> int:
        """Return the number of trainable parameters."""
        return int(self.facts["parameters"])


def read_results(folder: Path) -> dict[str, Result]:
    """Read the results of all finished runs below study/results, by key.

    Raises
    ------
    DataError
        If a result cannot be read.
    """
    paths = sorted(folder.glob(f"*/{RESULT}"))
    return {path.parent.name: read_result(path.parent) for path in paths}


def read_result(folder: Path) -> Result:
    """Read the result of one run; see `read_results`."""
    try:
        facts = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        missing = [name for name in _REQUIRED if name not in facts]
        if missing:
            raise DataError(f"{folder / RESULT}: lacks {', '.join(missing)}")
        history = read_csv(folder / HISTORY)
        words = dict.fromkeys(("image_id", "subject_id", "emotion", "y_pred"), "str")
        validation = read_csv(folder / VALIDATION, dtype=words, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: is no finished run ({error}); delete it") from None
    return Result(folder.name, facts, history, validation)


@dataclass(frozen=True)
class Score:
    """A score from 0 to 1 with its uncertainty.

    Attributes
    ----------
    se
        Standard error, from subjects (`people_se`) and seeds (`seeds_se`, NaN for one seed).
    by_seed
        The score of each seed, in the order of the seeds.
    people, pictures
        Number of subjects and images behind the score.
    parameters
        Trainable parameters of the network.
    method
        Method of the interval, for readers.
    """

    mean: float
    se: float
    people_se: float
    seeds_se: float
    ci_low: float
    ci_high: float
    by_seed: tuple[float, ...]
    people: int
    images: int
    parameters: int
    method: str


def score_of(results: Sequence[Result], settings: Params) -> Score:
    """Score a candidate from its runs, one per seed, all until the same epoch.

    Raises
    ------
    DataError
        If the seeds were validated on different images, or on none.
    """
    if settings.protocol == PUBLISHED:
        return _published(results[0], settings.confidence)
    images, correct = _align(results)
    return mean_recall_score(images, correct, settings, results[0].parameters)


def mean_recall_score(
    images: pd.DataFrame, correct: np.ndarray, settings: Params, parameters: int = 0
) -> Score:
    """Score predictions: mean recall over emotions, averaged over seeds.

    Parameters
    ----------
    pictures
        Columns `emotion, subject_id, subject_known, image_id`. Each image of an unknown subject
        counts as a subject of its own.
    correct
        `(images, seeds)` booleans.
    """
    emotions, emotion = np.unique(images["emotion"], return_inverse=True)
    cells = np.eye(len(emotions))[emotion]
    return _clustered(images, correct, cells, settings, parameters)


def accuracy_score(
    images: pd.DataFrame, correct: np.ndarray, settings: Params, parameters: int = 0
) -> Score:
    """Score predictions: accuracy, averaged over seeds; see `mean_recall_score`."""
    return _clustered(images, correct, np.ones((len(images), 1)), settings, parameters)


def people_of(images: pd.DataFrame) -> np.ndarray:
    """Return the subject's number for each image, int64; an unknown subject is one of its own."""
    known = images["subject_known"].astype(str).str.lower() == "true"
    image_names = "picture " + images["image_id"].astype(str)
    names = ("person " + images["subject_id"].astype(str)).where(known, image_names)
    return np.unique(names.to_numpy(dtype=str), return_inverse=True)[1]


def _clustered(
    images: pd.DataFrame,
    correct: np.ndarray,
    cells: np.ndarray,
    settings: Params,
    parameters: int,
) -> Score:
    """Average the accuracy in cells, given as indicators `(images, K)`, over cells and seeds."""
    subject = people_of(images)
    subjects = int(subject.max()) + 1
    by_seed = tuple(float(_mean_accuracy(cells, column)) for column in correct.T)
    mean = float(np.mean(by_seed))
    people_se = _subjects_se(subject, subjects, cells, correct.mean(axis=1), settings)
    seeds = len(by_seed)
    seeds_se = float(np.std(by_seed, ddof=1) / np.sqrt(seeds)) if seeds > 1 else float("nan")
    counts = (subjects, len(images), parameters)
    if mean in (0.0, 1.0):  # the bootstrap has no variance here
        return _all_equal(mean, by_seed, counts, settings.confidence)
    known = 0.0 if np.isnan(seeds_se) else seeds_se
    se = float(np.hypot(people_se, known))
    parts = people_se**4 / max(subjects - 1, 1) + known**4 / max(seeds - 1, 1)
    freedom = se**4 / parts if parts else float("inf")
    reach = float(t.ppf((1 + settings.confidence) / 2, freedom)) * se
    low, high = max(mean - reach, 0.0), min(mean + reach, 1.0)
    method = BOTH if seeds > 1 else PEOPLE_ALONE
    return Score(mean, se, people_se, seeds_se, low, high, by_seed, *counts, method)


def _mean_accuracy(cells: np.ndarray, correct: np.ndarray) -> float:
    return float((cells.T @ correct / cells.sum(axis=0)).mean())


def _subjects_se(
    subject: np.ndarray, subjects: int, cells: np.ndarray, accuracy: np.ndarray, settings: Params
) -> float:
    """Return the bootstrap standard error over subjects; NaN for a single one."""
    if subjects < 2:
        return float("nan")
    total, correct = np.zeros((2, subjects, cells.shape[1]))
    np.add.at(total, subject, cells)
    np.add.at(correct, subject, cells * accuracy[:, None])
    rng = np.random.default_rng(settings.resampling_seed)
    block = max(1, _DRAWN_AT_ONCE // subjects)  # does not change the draws
    sizes = [min(block, settings.resamples - done) for done in range(0, settings.resamples, block)]
    scores = np.concatenate([_resampled_scores(rng, size, total, correct) for size in sizes])
    # The bootstrap variance is (n - 1) / n of the sampling variance.
    return float(scores.std(ddof=1) * np.sqrt(subjects / (subjects - 1)))


def _resampled_scores(
    rng: np.random.Generator, size: int, total: np.ndarray, correct: np.ndarray
) -> np.ndarray:
    """Score `size` draws of subjects from the counts of each in the cells, `(subjects, K)`."""
    n = len(total)
    draws = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
    drawn_total = draws @ total
    shares = np.full(drawn_total.shape, np.nan)
    np.divide(draws @ correct, drawn_total, out=shares, where=drawn_total > 0)
    return np.nanmean(shares, axis=1)


def _wilson(share: float, n: int, confidence: float) -> tuple[float, float]:
    low, high = wilson(np.array([share * n]), np.array([n]), confidence)
    return float(low[0]), float(high[0])


def _all_equal(
    mean: float, by_seed: tuple[float, ...], counts: tuple[int, int, int], confidence: float
) -> Score:
    """Return the score where all predictions are right, or all wrong."""
    low, high = _wilson(mean, counts[0], confidence)
    se = (high - low) / 2 / float(norm.ppf((1 + confidence) / 2))
    return Score(mean, se, se, float("nan"), low, high, by_seed, *counts, ALL_ALIKE)


def _published(result: Result, confidence: float) -> Score:
    """Return the best epoch's accuracy, with Wilson's interval as if images were independent."""
    best = float(result.history["valid_accuracy_score"].max())
    n = int(result.facts["validation_images"])
    low, high = _wilson(best, n, confidence)
    se = float(np.sqrt(best * (1 - best) / n))
    subjects = len(np.unique(people_of(result.validation))) if len(result.validation) else 0
    counts = (subjects, n, result.parameters)
    return Score(best, se, se, float("nan"), low, high, (best,), *counts, BEST_EPOCH)


def _align(results: Sequence[Result]) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the images, and which predictions are correct, `(images, seeds)`."""
    tables = [result.validation.set_index("image_id") for result in results]
    first = tables[0]
    if first.empty:
        raise DataError(f"{results[0].key}: has no validation picture; choose another study.subset")
    for result, table in zip(results, tables, strict=True):
        if set(table.index) != set(first.index):
            raise DataError(
                f"{result.key}: was validated on other pictures than {results[0].key}; run "
                "`affectgap study` again"
            )
    aligned = [table.loc[first.index] for table in tables]
    correct = np.column_stack([(t["y_pred"] == t["emotion"]).to_numpy() for t in aligned])
    return first.reset_index(), correct
