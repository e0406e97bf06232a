"""Positive predictive value and false-discovery rate by group.

Recall starts from the label: how many of its images are found. A predictive value starts from the
answer: of the images of a group that are read as anger, how many are labeled so? That depends on
how common the emotion is among the group's images; `ppv_equal_prevalence` is what it would be if
every emotion of the group were equally common (T. F. Heston 2011, "Standardizing predictive values
in diagnostic imaging research", J. Magn. Reson. Imaging 33, 505).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.audit.measures.group_cube import values_in_order
from tasks.audit.settings import Settings
from tasks.core.labels import ALL, UNKNOWN, in_order
from tasks.core.statistics.clusters import People
from tasks.core.statistics.hypothesis_tests import added
from tasks.core.statistics.recalls import BySubject, selected, shares

COLUMNS = [
    "model",
    "protocol",
    "dimension",
    "group",
    "emotion",
    "n_predicted",
    "correct",
    "ppv",
    "ci_low",
    "ci_high",
    "fdr",
    "fdr_ci_low",
    "fdr_ci_high",
    "n_emotion",
    "prevalence",
    "ppv_equal_prevalence",
    "equal_ci_low",
    "equal_ci_high",
    "difference",
    "difference_low",
    "difference_high",
    "subjects",
    "effective_subjects",
    "n_unknown",
    "confidence",
    "method",
]
_DEPENDS = (
    "; difference: ppv less that of the dimension's other groups, both limits added in squares "
    "(Zou & Donner 2008), not tested; ppv depends on how common the emotion is in the group "
    "(prevalence), ppv_equal_prevalence does not: it weights every emotion of the group alike"
)


@dataclass(frozen=True)
class _Answer:
    """The images of a group that are read as one emotion."""

    dimension: str
    group: str
    emotion: str
    rows: np.ndarray
    weights: np.ndarray  # one over the number of the group's images with the image's label
    n_emotion: int
    n_group: int
    others: np.ndarray  # the images of the dimension's other groups that are read so


def predictive_values_table(judged: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return the share of right ones among each group's answers, for every emotion.

    `judged` has one row per model, protocol and image: `emotion, y_pred, correct, subject_id,
    subject_known` and the columns of `settings.by`, without images whose label the model lacks.

    The table has one row per group and emotion that is answered there; the first dimension is
    `all`. `ppv` is `correct` of `n_predicted`, `fdr` the rest. `n_emotion` and `prevalence` count
    the group's images with that label. `difference` is from the other groups of the dimension, and
    empty where these never give the answer.
    """
    parts = []
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        part = part.reset_index(drop=True)
        answers = list(_answers(part, settings.by))
        table = _figures(part, answers, settings.confidence)
        parts.append(table.assign(model=model, protocol=protocol, confidence=settings.confidence))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _answers(part: pd.DataFrame, by: list[str]) -> Iterator[_Answer]:
    """Yield the answers of one model and protocol, groups in their order."""
    code, names = pd.factorize(part["emotion"])
    answer = part["y_pred"].to_numpy(dtype=object)
    for dimension in (ALL, *by):
        pooled = dimension == ALL
        values = np.full(len(part), ALL, object) if pooled else part[dimension].to_numpy(object)
        groups = [ALL] if pooled else values_in_order(part, dimension)
        of_answer = {name: np.flatnonzero(answer == name) for name in set(answer)}
        of_answer = {name: rows[values[rows] != UNKNOWN] for name, rows in of_answer.items()}
        for group in groups:
            if group == UNKNOWN:
                continue
            rows = np.flatnonzero(values == group)
            sizes = np.bincount(code[rows], minlength=len(names))
            for emotion in in_order(set(answer[rows])):
                read_so = of_answer[emotion]
                inside = values[read_so] == group
                weights = 1 / sizes[code[read_so[inside]]]
                n_emotion = int(sizes[names == emotion].sum())
                yield _Answer(
                    dimension,
                    group,
                    emotion,
                    read_so[inside],
                    weights,
                    n_emotion,
                    len(rows),
                    read_so[~inside],
                )


def _figures(part: pd.DataFrame, answers: list[_Answer], confidence: float) -> pd.DataFrame:
    people, known = People(part["subject_id"]), part["subject_known"].to_numpy(dtype=bool)
    correct = part["correct"].to_numpy(dtype=bool)
    members = _columns([answer.rows for answer in answers], len(part))
    table = shares(people, members, selected(members, correct), known, confidence)
    weighted = members.copy()
    order = np.argsort(np.concatenate([answer.rows for answer in answers]), kind="stable")
    weighted.data = np.concatenate([answer.weights for answer in answers])[order]
    right = selected(weighted, correct)
    equal = np.asarray(right.sum(axis=0)) / np.asarray(weighted.sum(axis=0))
    sums = BySubject.of(people, selected(weighted, known), selected(right, known))
    low, high, _ = sums.limits(equal, confidence)
    names = pd.DataFrame(
        {
            name: [getattr(answer, name) for answer in answers]
            for name in ("dimension", "group", "emotion", "n_emotion")
        }
    )
    sizes = np.array([answer.n_group for answer in answers])
    table = table.assign(**_differences(table, answers, people, correct, known, confidence))
    return pd.concat([names, table], axis=1).assign(
        n_predicted=table["n"],
        ppv=table["recall"],
        fdr=1 - table["recall"],
        fdr_ci_low=1 - table["ci_high"],
        fdr_ci_high=1 - table["ci_low"],
        prevalence=names["n_emotion"] / sizes,
        ppv_equal_prevalence=equal,
        equal_ci_low=low,
        equal_ci_high=high,
        method=table["method"] + _DEPENDS,
    )


def _differences(
    table: pd.DataFrame,
    answers: list[_Answer],
    people: People,
    correct: np.ndarray,
    known: np.ndarray,
    confidence: float,
) -> dict[str, np.ndarray]:
    """Compare each group's answers with the same answers in the dimension's other groups."""
    names = ("difference", "difference_low", "difference_high")
    out = {name: np.full(len(answers), np.nan) for name in names}
    there = np.array([len(answer.others) > 0 for answer in answers])
    if there.any():
        others = [answer.others for answer in answers if len(answer.others)]
        members = _columns(others, len(correct))
        rest = shares(people, members, selected(members, correct), known, confidence)
        groups = table[there]
        sides = [
            (side["recall"].to_numpy(), (side["ci_low"].to_numpy(), side["ci_high"].to_numpy()))
            for side in (groups, rest)
        ]
        low, high = added(*sides[0], *sides[1])
        gap = sides[0][0] - sides[1][0]
        for name, values in zip(names, (gap, low, high), strict=True):
            out[name][there] = np.clip(values, -1, 1)
    return out


def _columns(rows: list[np.ndarray], images: int) -> sparse.csr_array:
    """Return `(images, k)` zeros and ones from the images of each column."""
    columns = np.repeat(np.arange(len(rows)), [len(column) for column in rows])
    entries = (np.ones(len(columns)), (np.concatenate(rows), columns))
    return sparse.csr_array(entries, shape=(images, len(rows)))
