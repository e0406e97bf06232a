"""Gaps in recall at a common mix: what of a gap is left if both groups showed the same images.

A group that was shown more of a hard emotion, or with the mouth open more often, is read less well
for that alone. Direct standardization (J. L. Fleiss, B. Levin, M. C. Paik 2003, Statistical Methods
for Rates and Proportions, on the standardization of rates) takes each group's recall in each
stratum, such as each emotion, and weights the strata alike for both groups: by the images of both
together. Only strata that both groups have can be compared; how much of each group's images they
hold is told beside the gap. Numbers, such as the face's size, are cut into thirds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.audit.measures.group_cube import codes, values_in_order
from tasks.audit.settings import MANY_COLUMNS, Settings, factor_values
from tasks.core.labels import ALL, EMOTIONS, UNKNOWN
from tasks.core.statistics.cluster_bootstrap import Resampled, ratio, share_interval
from tasks.core.statistics.simultaneous import difference_limits
from tasks.core.tables import RAW

COLUMNS = [
    "model",
    "protocol",
    "dataset",
    "dimension",
    "group_a",
    "group_b",
    "emotion",
    "standardized_to",
    "n_a",
    "n_b",
    "share_a",
    "share_b",
    "recall_a",
    "recall_b",
    "gap",
    "ci_low",
    "ci_high",
    "confidence",
    "method",
]
_METHOD = (
    "{what} Interval: from those of both recalls (bootstrap of people, log-odds, Student's t) and "
    "how these vary together (Zou and Donner 2008), so that it is built around the gap; the mix "
    "stays as observed, and a draw in which a side has nobody in a stratum weighs the other strata "
    "up."
)
_RAW = "Recall over all pictures of the emotions that both groups have."
_MIXED = (
    "Direct standardization: recall in each stratum, weighted by both groups' pictures in it, over "
    "strata that both have."
)
_THIRDS = " Cut into thirds: {names}."
_COUNTED = (
    "{what} Interval of Newcombe's kind, each person of a side counted once where nothing varies "
    "between its people or it is one person."
)
_THIN = " These strata hold less than half of a group's pictures: the rest is not compared."
_APART = " Not taken with the others, as no stratum would have both groups: {names}."
_COLUMNS_AT_ONCE = 4000  # of the draws, 8 bytes each and draw


@dataclass(frozen=True)
class _Question:
    """One comparison: which images (row numbers), of which side, in which stratum."""

    names: dict[str, str]
    rows: np.ndarray  # (m,) numbers of images
    of_b: np.ndarray  # (m,) booleans
    stratum: np.ndarray  # (m,) integers; −1: not known, in no stratum
    mixed: bool = True  # False: the raw gap
    apart: tuple[str, ...] = ()  # columns that could not be taken together with the others


def standardized_table(judged: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Compare every pair of groups raw, and at the common mix of each column and of all.

    Parameters
    ----------
    judged
        One row per model, protocol and image: `model, protocol, dataset, subject_id, emotion,
        correct`, the columns of `settings.by`, and those of `settings.standardize_to` that there
        are. Images of an unknown value are in no stratum of that column.
    settings
        Of them: by, standardize_to, confidence, resamples, seed.

    Returns
    -------
    pandas.DataFrame
        One row per comparison. `standardized_to` names the columns whose mix is common; columns
        that are missing, unknown for every image, or the dimension itself make no row. `n_a` and
        `n_b` count the images in strata that both groups have, `share_a` and `share_b` are their
        share of each group's images; without any such stratum the figures are empty. All columns
        are taken together in their order, less those with which no stratum would have both groups
        (such as a column that one data set records beside one that only another does; `method`
        names them). `gap` is `recall_a` minus `recall_b`, from -1 to 1. Rows of a single emotion
        are standardized to the other columns; there are none where there is no other column or no
        common stratum. With more than `MANY_COLUMNS` compared columns, only gaps over all emotions
        are compared: raw, at the mix of emotions and at the mix of all columns.
    """
    rows: list[dict[str, Any]] = []
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        datasets = values_in_order(part, "dataset")
        for dataset in [ALL, *datasets] if len(datasets) > 1 else [ALL]:
            within = part if dataset == ALL else part[part["dataset"] == dataset]
            names = {"model": model, "protocol": protocol, "dataset": dataset}
            rows += [names | row for row in _of_part(within.reset_index(drop=True), settings)]
    return pd.DataFrame(rows, columns=COLUMNS)


def strata(part: pd.DataFrame, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Code each column's strata: integers, −1 for unknown; numbers in thirds of their images."""
    coded = {}
    for name in columns:
        values = factor_values(part, name)
        if values is None or values.isna().all():
            continue
        if pd.api.types.is_numeric_dtype(values):
            limits = np.quantile(values.dropna(), [1 / 3, 2 / 3])
            third = np.searchsorted(limits, values.to_numpy(), side="left")
            coded[name] = np.where(values.isna(), -1, third)
        else:
            coded[name] = pd.factorize(values, sort=True)[0]
    return coded


def _of_part(part: pd.DataFrame, settings: Settings) -> Iterator[dict[str, Any]]:
    """Answer the questions of one model, protocol and data set, many in one go."""
    coded = strata(part, settings.standardize_to)
    numeric = [name for name in coded if pd.api.types.is_numeric_dtype(factor_values(part, name))]
    sampled = Resampled(part["subject_id"], settings.resamples, settings.seed)
    waiting: list[_Question] = []
    size = 0
    for question in _questions(part, coded, settings):
        waiting.append(question)
        size += 4 * (question.stratum.max(initial=-1) + 1)
        if size > _COLUMNS_AT_ONCE:
            yield from _answers(part, sampled, waiting, numeric, settings)
            waiting, size = [], 0
    if waiting:
        yield from _answers(part, sampled, waiting, numeric, settings)


def with_limits_of_gaps(table: pd.DataFrame, gaps: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the interval of `gaps.csv` for gaps that are not standardized.

    Both are of the same images; two intervals of one figure would not agree to the digit.
    """
    keys = ["model", "protocol", "dimension", "group_a", "group_b", "emotion"]
    figures = ["ci_low", "ci_high", "method"]
    across = gaps[gaps["dataset"] == ALL].drop_duplicates(keys).set_index(keys)[figures]
    raw = np.flatnonzero(table["standardized_to"] == RAW)
    if not len(raw) or across.empty:
        return table
    found = across.reindex(pd.MultiIndex.from_frame(table.iloc[raw][keys]))
    there = found["method"].notna().to_numpy()
    table = table.astype({"method": object})
    table.loc[table.index[raw[there]], figures] = found[there].to_numpy()
    return table


def _questions(
    part: pd.DataFrame, coded: dict[str, np.ndarray], settings: Settings
) -> Iterator[_Question]:
    """List what is asked: pairs of groups, emotions, and mixes."""
    emotions = codes(part["emotion"], EMOTIONS)
    for dimension in settings.by:
        known = [name for name in values_in_order(part, dimension) if name != UNKNOWN]
        group = codes(part[dimension], known)
        for (code_a, group_a), (code_b, group_b) in combinations(enumerate(known), 2):
            side_a, side_b = group == code_a, group == code_b
            shared = np.intersect1d(emotions[side_a], emotions[side_b])
            names = {"dimension": dimension, "group_a": group_a, "group_b": group_b}
            others = {name: code for name, code in coded.items() if name != dimension}
            rows = np.flatnonzero(side_a | side_b)
            few = len(settings.by) <= MANY_COLUMNS
            alone = [*others] if few else [name for name in others if name == "emotion"]
            pooled = names | {"emotion": ALL}
            yield from _mixes(pooled, rows, side_b, others, (emotions, shared), alone)
            others.pop("emotion", None)
            for code in shared if others and few else []:
                only = rows[emotions[rows] == code]
                named = names | {"emotion": EMOTIONS[code]}
                yield from _mixes(named, only, side_b, others, (emotions, [code]), [*others])


def _mixes(
    names: dict[str, str],
    rows: np.ndarray,
    side_b: np.ndarray,
    coded: dict[str, np.ndarray],
    emotions: tuple[np.ndarray, Sequence[int] | np.ndarray],
    alone: Sequence[str],
) -> Iterator[_Question]:
    """Ask for the raw gap, the mix of each column of `alone`, and that of all columns together."""
    of_image, shared = emotions
    own_b = side_b[rows]
    every = np.where(np.isin(of_image[rows], shared), 0, -1)  # one stratum
    yield _Question(names | {"standardized_to": RAW}, rows, own_b, every, False)
    for name in alone:
        mix = _finer(every, coded[name][rows])
        yield _Question(names | {"standardized_to": name}, rows, own_b, mix)
    taken, apart, stratum = [], [], every
    for name, code in coded.items():
        finer = _finer(stratum, code[rows])
        if np.intersect1d(finer[own_b & (finer >= 0)], finer[~own_b & (finer >= 0)]).size:
            taken.append(name)
            stratum = finer
        else:  # nothing would be left to compare
            apart.append(name)
    if len(taken) > 1:
        words = {"standardized_to": ", ".join(taken)}
        yield _Question(names | words, rows, own_b, stratum, apart=tuple(apart))


def _finer(stratum: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Cut strata by a further column; −1 where either is not known."""
    finer = np.full(len(stratum), -1)
    inside = (stratum >= 0) & (code >= 0)
    if inside.any():
        key = stratum[inside] * (code.max() + 1) + code[inside]
        there = np.bincount(key) > 0
        finer[inside] = (np.cumsum(there) - 1)[key]
    return finer


def _answers(
    part: pd.DataFrame,
    sampled: Resampled,
    questions: Sequence[_Question],
    numeric: Sequence[str],
    settings: Settings,
) -> Iterator[dict[str, Any]]:
    """Draw people once for several questions."""
    correct = part["correct"].to_numpy(dtype=bool)
    cells = [_cells(question, correct, sampled) for question in questions]
    distinct, places = _distinct_columns(cells)
    drawn = sampled.sums_of_people(distinct)
    for question, own, place in zip(questions, cells, places, strict=True):
        draws = drawn[:, place].reshape(len(drawn), 4, -1)
        figures = _figures(question, own, draws, sampled, settings.confidence)
        if not figures["n_a"] and question.names["emotion"] != ALL:
            continue
        method = _words(question, figures, numeric)
        yield question.names | figures | {"method": method}


def _cells(question: _Question, correct: np.ndarray, sampled: Resampled) -> sparse.csc_array:
    """Return each person's images and correct ones by stratum.

    `(people, 4 × strata)`: columns n_a, correct_a, n_b, correct_b.
    """
    size = int(question.stratum.max(initial=0)) + 1
    inside = question.stratum >= 0
    rows = question.rows[inside]
    person, right = sampled.codes[rows], correct[rows]
    column = 2 * size * question.of_b[inside] + question.stratum[inside]
    person = np.concatenate([person, person[right]])
    column = np.concatenate([column, column[right] + size])
    entries = (np.ones(len(person)), (person, column))
    return sparse.csc_array(entries, shape=(sampled.people, 4 * size))


def _distinct_columns(
    cells: Sequence[sparse.csc_array],
) -> tuple[sparse.csc_array, list[np.ndarray]]:
    """Return the columns that differ, and the place of each question's columns among them.

    A group is in several pairs, so that most of its sums are asked for more than once.
    """
    seen: dict[bytes, int] = {}
    distinct, places = [], []
    for own in cells:
        firsts, place = [], []
        for number, (start, end) in enumerate(pairwise(own.indptr)):
            key = own.indices[start:end].tobytes() + own.data[start:end].tobytes()
            if key not in seen:
                seen[key] = len(seen)
                firsts.append(number)
            place.append(seen[key])
        distinct.append(own[:, firsts])
        places.append(np.array(place))
    return sparse.csc_array(sparse.hstack(distinct)), places


def _figures(
    question: _Question,
    cells: sparse.csc_array,
    draws: np.ndarray,
    sampled: Resampled,
    confidence: float,
) -> dict[str, Any]:
    """Return one comparison's figures; `draws` is `(resamples, 4, strata)`."""
    sums = np.add.reduceat(np.append(cells.data, 0.0), cells.indptr[:-1])
    n_a, correct_a, n_b, correct_b = np.where(np.diff(cells.indptr), sums, 0.0).reshape(4, -1)
    common = (n_a > 0) & (n_b > 0)
    sizes = np.bincount(question.of_b, minlength=2)
    figures: dict[str, Any] = {
        "n_a": int(n_a[common].sum()),
        "n_b": int(n_b[common].sum()),
        "share_a": n_a[common].sum() / sizes[0],
        "share_b": n_b[common].sum() / sizes[1],
        "confidence": confidence,
    }
    if not common.any():
        return figures
    mix = (n_a + n_b)[common]
    recall_a = correct_a[common] / n_a[common] @ mix / mix.sum()
    recall_b = correct_b[common] / n_b[common] @ mix / mix.sum()
    recalls = np.array([recall_a, recall_b])
    used = (question.stratum >= 0) & common[question.stratum]
    persons = np.array(
        [_persons(sampled, question.rows[used & (question.of_b == of_b)]) for of_b in (False, True)]
    )
    low, high, drawn = _limits(draws[:, :, common], mix, recalls, persons, confidence)
    return figures | {
        "recall_a": recall_a,
        "recall_b": recall_b,
        "gap": recall_a - recall_b,
        "ci_low": low,
        "ci_high": high,
        "drawn": drawn,
    }


def _limits(
    draws: np.ndarray, mix: np.ndarray, recalls: np.ndarray, persons: np.ndarray, confidence: float
) -> tuple[float, float, bool]:
    """Return a gap's interval, and whether the draws tell it.

    They do not where a side is read all right or all wrong, or is one person: then each person of
    that side is counted once, as for the gaps of `gaps.csv`.
    """
    sides = _recalls(draws, mix)
    low, high, drawn = share_interval(recalls, sides, persons, confidence)
    together = _correlation(sides) if drawn.all() else 0.0
    limits = ((low[side], high[side]) for side in (0, 1))
    down, up = difference_limits(recalls[0], next(limits), recalls[1], next(limits), together)
    return float(down), float(up), bool(drawn.all())


def _correlation(sides: np.ndarray) -> float:
    """Return how both recalls vary together over draws, `(resamples, 2)`; 0 where one is still."""
    there = sides[np.isfinite(sides).all(axis=1)]
    if len(there) < 2 or (there.std(axis=0) < 1e-9).any():
        return 0.0
    return float(np.corrcoef(there, rowvar=False)[0, 1])


def _persons(sampled: Resampled, rows: np.ndarray) -> int:
    """Count the people of some images."""
    return int(np.count_nonzero(np.bincount(sampled.codes[rows])))


def _recalls(draws: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """Return each draw's recalls at the mix `(strata,)`, over the strata that it has on both sides.

    `(resamples, 4, strata)` in, `(resamples, 2)` out.
    """
    side_a, side_b = ratio(draws[:, 1], draws[:, 0]), ratio(draws[:, 3], draws[:, 2])
    there = np.isfinite(side_a) & np.isfinite(side_b)
    return np.column_stack(
        [ratio(np.where(there, side, 0.0) @ mix, there @ mix) for side in (side_a, side_b)]
    )


def _words(question: _Question, figures: dict[str, Any], numeric: Sequence[str]) -> str:
    """Say how the figures came about, and what to beware of."""
    columns = question.names["standardized_to"].split(", ")
    cut = [name for name in columns if name in numeric]
    what = _MIXED + (_THIRDS.format(names=", ".join(cut)) if cut else "")
    what += _APART.format(names=", ".join(question.apart)) if question.apart else ""
    what = what if question.mixed else _RAW
    thin = question.mixed and min(figures["share_a"], figures["share_b"]) < 0.5
    method = _METHOD if figures.get("drawn", True) else _COUNTED
    return method.format(what=what) + (_THIN if thin else "")
