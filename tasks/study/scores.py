"""An arm's validation score with an interval for other people and other seeds.

The score of `better` is the mean recall over the emotions at the last epoch, averaged over the
seeds. Two things would make it differ if the study were done again: other people on the pictures,
and other seeds. Both are in its standard error: the variance between draws of people (cluster
bootstrap: a person is drawn with all pictures of theirs, and with what every seed's network
answered), and the variance between the seeds' scores divided by their number. Student's t takes
its degrees of freedom from both (F. E. Satterthwaite 1946, Biometrics Bulletin 2, 110-114). What a
seed does on one picture alone is in both parts. Simulated (tests/study/test_study_coverage.py), a
nominal 95 % interval held the truth in 92 to 95 % of the cases with three seeds and in 87 to 93 %
with two; an interval that knows of people alone held it in 45 to 83 % where seeds differ.

The score of `published` is the best accuracy of any epoch, as the published study has it. Choosing
the best of many epochs on the pictures that it is then told for is optimistic, and the interval,
Wilson's for pictures that are taken as independent, does not know of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from tasks.core.errors import DataError
from tasks.core.intervals import wilson
from tasks.study.results import Result
from tasks.study.settings import PUBLISHED, Params

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

_DRAWN_AT_ONCE = 1_000_000  # people in all draws held at once: 16 MB


@dataclass(frozen=True)
class Score:
    """A figure from 0 to 1 with what is known of its uncertainty.

    Attributes
    ----------
    mean
        The score.
    se
        Its standard error, from people and seeds.
    people_se, seeds_se
        The two parts; `seeds_se` is NaN for one seed.
    ci_low, ci_high
        The interval at the level of the settings.
    by_seed
        Each seed's own score, in the order of the seeds.
    people, pictures
        Whom and what it was counted on.
    parameters
        Numbers that the network learns.
    method
        How it was reckoned.
    """

    mean: float
    se: float
    people_se: float
    seeds_se: float
    ci_low: float
    ci_high: float
    by_seed: tuple[float, ...]
    people: int
    pictures: int
    parameters: int
    method: str


def score_of(results: Sequence[Result], settings: Params) -> Score:
    """Score an arm from its runs, one a seed, all until the same epoch.

    Raises
    ------
    DataError
        Where the seeds were validated on different pictures, or on none.
    """
    if settings.protocol == PUBLISHED:
        return _published(results[0], settings.confidence)
    pictures, correct = _beside_each_other(results)
    return mean_recall_score(pictures, correct, settings, results[0].parameters)


def mean_recall_score(
    pictures: pd.DataFrame, correct: np.ndarray, settings: Params, parameters: int = 0
) -> Score:
    """Score answers: mean recall over emotions, averaged over seeds.

    Parameters
    ----------
    pictures
        One row a picture: `emotion, subject_id, subject_known, image_id`. Pictures whose subject is
        not known count as people of their own.
    correct
        `(pictures, seeds)` booleans: which answers are right.
    settings
        Confidence and the draws of people.
    parameters
        Of the network.
    """
    emotions, emotion = np.unique(pictures["emotion"], return_inverse=True)
    cells = np.eye(len(emotions))[emotion]
    return _clustered(pictures, correct, cells, settings, parameters)


def accuracy_score(
    pictures: pd.DataFrame, correct: np.ndarray, settings: Params, parameters: int = 0
) -> Score:
    """Score answers: the share that is right, averaged over seeds; see `mean_recall_score`."""
    return _clustered(pictures, correct, np.ones((len(pictures), 1)), settings, parameters)


def people_of(pictures: pd.DataFrame) -> np.ndarray:
    """Return who is on each picture, `(pictures,)` int64; an unknown one is of its own."""
    known = pictures["subject_known"].astype(str).str.lower() == "true"
    own = "picture " + pictures["image_id"].astype(str)
    who = ("person " + pictures["subject_id"].astype(str)).where(known, own)
    return np.unique(who.to_numpy(dtype=str), return_inverse=True)[1]


def _clustered(
    pictures: pd.DataFrame,
    correct: np.ndarray,
    cells: np.ndarray,
    settings: Params,
    parameters: int,
) -> Score:
    """Average the shares of right answers in cells, `(pictures, K)`, over cells and seeds."""
    person = people_of(pictures)
    people = int(person.max()) + 1
    by_seed = tuple(float(_shares(cells, column)) for column in correct.T)
    mean = float(np.mean(by_seed))
    people_se = _people_se(person, people, cells, correct.mean(axis=1), settings)
    seeds = len(by_seed)
    seeds_se = float(np.std(by_seed, ddof=1) / np.sqrt(seeds)) if seeds > 1 else float("nan")
    counted = (people, len(pictures), parameters)
    if mean in (0.0, 1.0):  # draws of people who are all alike tell no variance
        return _all_alike(mean, by_seed, counted, settings.confidence)
    known = 0.0 if np.isnan(seeds_se) else seeds_se
    se = float(np.hypot(people_se, known))
    parts = people_se**4 / max(people - 1, 1) + known**4 / max(seeds - 1, 1)
    freedom = se**4 / parts if parts else float("inf")
    reach = float(t.ppf((1 + settings.confidence) / 2, freedom)) * se
    low, high = max(mean - reach, 0.0), min(mean + reach, 1.0)
    method = BOTH if seeds > 1 else PEOPLE_ALONE
    return Score(mean, se, people_se, seeds_se, low, high, by_seed, *counted, method)


def _shares(cells: np.ndarray, correct: np.ndarray) -> float:
    """Average the shares of right answers over cells."""
    return float((cells.T @ correct / cells.sum(axis=0)).mean())


def _people_se(
    person: np.ndarray, people: int, cells: np.ndarray, right: np.ndarray, settings: Params
) -> float:
    """Return the standard deviation of the score between draws of people."""
    if people < 2:
        return float("nan")
    there, correct = np.zeros((2, people, cells.shape[1]))
    np.add.at(there, person, cells)
    np.add.at(correct, person, cells * right[:, None])
    rng = np.random.default_rng(settings.resampling_seed)
    at_once = max(1, _DRAWN_AT_ONCE // people)  # the same draws, however many at once
    sizes = [
        min(at_once, settings.resamples - done) for done in range(0, settings.resamples, at_once)
    ]
    drawn = np.concatenate([_drawn(rng, size, there, correct) for size in sizes])
    # Draws vary by (people - 1) / people of what samples do.
    return float(drawn.std(ddof=1) * np.sqrt(people / (people - 1)))


def _drawn(
    rng: np.random.Generator, size: int, there: np.ndarray, correct: np.ndarray
) -> np.ndarray:
    """Score `size` draws of people from what each has in the cells, `(people, K)` each."""
    people = len(there)
    draws = rng.multinomial(people, np.full(people, 1 / people), size=size).astype(np.float64)
    counted = draws @ there
    shares = np.full(counted.shape, np.nan)
    np.divide(draws @ correct, counted, out=shares, where=counted > 0)
    return np.nanmean(shares, axis=1)


def _wilson(share: float, n: int, confidence: float) -> tuple[float, float]:
    low, high = wilson(np.array([share * n]), np.array([n]), confidence)
    return float(low[0]), float(high[0])


def _all_alike(
    mean: float, by_seed: tuple[float, ...], counted: tuple[int, int, int], confidence: float
) -> Score:
    people = counted[0]
    low, high = (
        float(end[0]) for end in wilson(np.array([mean * people]), np.array([people]), confidence)
    )
    se = (high - low) / 2 / float(norm.ppf((1 + confidence) / 2))
    return Score(mean, se, se, float("nan"), low, high, by_seed, *counted, ALL_ALIKE)


def _published(result: Result, confidence: float) -> Score:
    """Take the best epoch's accuracy, and Wilson's interval as if pictures were independent."""
    best = float(result.history["valid_accuracy_score"].max())
    n = int(result.facts["validation_pictures"])
    low, high = _wilson(best, n, confidence)
    se = float(np.sqrt(best * (1 - best) / n))
    people = len(np.unique(people_of(result.validation))) if len(result.validation) else 0
    counted = (people, n, result.parameters)
    return Score(best, se, se, float("nan"), low, high, (best,), *counted, BEST_EPOCH)


def _beside_each_other(results: Sequence[Result]) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the pictures and `(pictures, seeds)` which answers are right."""
    tables = [result.validation.set_index("image_id") for result in results]
    first = tables[0]
    if first.empty:
        raise DataError(f"{results[0].key}: has no validation picture; choose another study.group")
    for result, table in zip(results, tables, strict=True):
        if set(table.index) != set(first.index):
            raise DataError(
                f"{result.key}: was validated on other pictures than {results[0].key}; run "
                "`affectgap study` again"
            )
    answers = [table.loc[first.index] for table in tables]
    correct = np.column_stack([(a["y_pred"] == a["emotion"]).to_numpy() for a in answers])
    return first.reset_index(), correct
