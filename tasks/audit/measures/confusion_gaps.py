"""Confusions that one group has and another has not, such as disgust that is read as anger.

Two groups may have the same recall and yet be read wrongly in different ways: recall does not show
it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.audit.measures.group_cube import codes, column_sums, in_cells, values_in_order
from tasks.audit.settings import Settings
from tasks.core.labels import UNKNOWN, in_order
from tasks.core.statistics.cluster_bootstrap import Resampled
from tasks.core.statistics.differences import Sides, differences
from tasks.core.statistics.hypothesis_tests import corrected
from tasks.core.statistics.recalls import BySubject, selected

# Both recognizers and people mistake these for each other most, so that they are always shown.
ALWAYS: tuple[tuple[str, str], ...] = (("disgust", "anger"), ("anger", "disgust"))
COLUMNS = [
    "model",
    "protocol",
    "dimension",
    "group_a",
    "group_b",
    "emotion",
    "y_pred",
    "n_a",
    "share_a",
    "n_b",
    "share_b",
    "gap",
    "ci_low",
    "ci_high",
    "p_value",
    "p_adjusted",
    "correction",
    "confidence",
    "method",
    "effective_subjects_a",
    "effective_subjects_b",
    "n_unknown_a",
    "n_unknown_b",
]
_SIDES = [f"{name}_{side}" for name in ("effective_subjects", "n_unknown") for side in "ab"]
_FIGURES = ["share_a", "share_b", "gap", "ci_low", "ci_high", "p_value", "method", *_SIDES]
_CELL = ["group_a", "group_b", "emotion", "y_pred"]
_METHOD = (
    "{how}; p_adjusted: over the {tested} cells of this model, protocol and dimension that have at "
    "least {least} of the emotion on both sides and an answer in either group"
)
_AT_ONCE = 500  # comparisons, so that many groups need no more memory than few


@dataclass(frozen=True)
class _Counts:
    """One dimension's images, by group and emotion, and by answer too."""

    group: np.ndarray  # (n,) codes; −1: unknown
    emotion: np.ndarray  # (n,) codes
    answer: np.ndarray  # (n,) codes
    groups: Sequence[str]
    emotions: Sequence[str]
    answers: Sequence[str]

    def images(self) -> sparse.csr_array:
        """`(n, groups × emotions)`."""
        cell = self.group * len(self.emotions) + self.emotion
        cells = len(self.groups) * len(self.emotions)
        return in_cells(np.where(self.group < 0, -1, cell), cells)

    def answered(self) -> sparse.csr_array:
        """`(n, groups × emotions × answers)`."""
        cell = self.group * len(self.emotions) + self.emotion
        cell = cell * len(self.answers) + self.answer
        cells = len(self.groups) * len(self.emotions) * len(self.answers)
        return in_cells(np.where(self.group < 0, -1, cell), cells)


def confusion_gaps_table(judged: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Compare how often two groups' images of one emotion are read as another.

    `judged` has one row per model, protocol and image: `model, protocol, subject_id, emotion,
    y_pred`, the columns of `settings.by`, and `subject_known` where there is one.

    The table has one row per cell: of the `n_a` images of `emotion` in group a, the share `share_a`
    was read as `y_pred`; likewise b. `gap` is a minus b, from -1 to 1. Cells with fewer than
    `min_n` images or `min_subjects` effective subjects on a side have no row, nor have answers that
    neither group got. Disgust read as anger, and the reverse, always have a row (then with an empty
    `p_adjusted`). `p_adjusted` is corrected over the cells of a model, protocol and dimension.
    """
    parts = []
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        sampled = Resampled(part["subject_id"], settings.resamples, settings.seed)
        known = _known(part)
        for dimension in settings.by:
            cells = _of_dimension(part, dimension, sampled, known, settings)
            if not cells.empty:
                names = {"model": model, "protocol": protocol, "dimension": dimension}
                parts.append(cells.assign(**names))
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.concat(parts, ignore_index=True)
    settled = {"confidence": settings.confidence, "correction": settings.correction}
    return table.assign(**settled)[COLUMNS].astype({"n_a": "int64", "n_b": "int64"})


def _known(part: pd.DataFrame) -> np.ndarray:
    """Return whose images are known to be theirs."""
    if "subject_known" in part.columns:
        return part["subject_known"].to_numpy(dtype=bool)
    return np.ones(len(part), dtype=bool)


def _of_dimension(
    part: pd.DataFrame,
    dimension: str,
    sampled: Resampled,
    known: np.ndarray,
    settings: Settings,
) -> pd.DataFrame:
    """Compare the groups of one dimension of one model and protocol."""
    counts = _counts(part, dimension)
    images, answered = counts.images(), counts.answered()
    of_known = selected(images, known)
    people = BySubject.of(sampled, of_known, of_known).effective
    cells = pd.DataFrame(list(_cells(counts, column_sums(of_known), people, settings)))
    if cells.empty:
        return cells
    there = cells[(cells["n_a"] > 0) & (cells["n_b"] > 0)]
    found = []
    for start in range(0, len(there), _AT_ONCE):
        some = there.iloc[start : start + _AT_ONCE]
        sides = [
            Sides(images[:, some[f"of_{side}"]], answered[:, some[f"read_{side}"]]) for side in "ab"
        ]
        pair = some.groupby(["group_a", "group_b"], sort=False).ngroup().to_numpy()
        figures = differences(sampled, *sides, known, settings.confidence, "groups", pair)
        found.append(figures.set_index(some.index))
    if found:
        figures = pd.concat(found).rename(columns={"recall_a": "share_a", "recall_b": "share_b"})
        cells = cells.join(figures[_FIGURES])
        cells.loc[figures.index, ["n_a", "n_b"]] = figures[["n_a", "n_b"]]
    named = list(dict.fromkeys([*cells.columns, *_FIGURES]))
    return _corrected(cells.reindex(columns=named), settings)


def _counts(part: pd.DataFrame, dimension: str) -> _Counts:
    groups = [name for name in values_in_order(part, dimension) if name != UNKNOWN]
    emotions, answers = in_order(part["emotion"]), in_order(part["y_pred"])
    return _Counts(
        codes(part[dimension], groups),
        codes(part["emotion"], emotions),
        codes(part["y_pred"], answers),
        groups,
        emotions,
        answers,
    )


def _cells(
    counts: _Counts, known_n: np.ndarray, people: np.ndarray, settings: Settings
) -> Iterator[dict[str, object]]:
    """List the cells to compare: names, sizes, and their columns in both matrices.

    Whether there is enough in them goes by images of known subjects, and effective subjects.
    """
    sizes, reads = column_sums(counts.images()), column_sums(counts.answered())
    n_emotions, n_answers = len(counts.emotions), len(counts.answers)
    for (a, group_a), (b, group_b) in combinations(enumerate(counts.groups), 2):
        for (e, emotion), (y, answer) in product(
            enumerate(counts.emotions), enumerate(counts.answers)
        ):
            if emotion == answer:
                continue
            of = [group * n_emotions + e for group in (a, b)]
            read = [cell * n_answers + y for cell in of]
            n_a, n_b = (int(sizes[cell]) for cell in of)
            enough = settings.enough(known_n[of].min(), people[of].min())
            enough = bool(enough) and reads[read].sum() > 0
            if enough or (emotion, answer) in ALWAYS:
                yield {
                    **dict(zip(_CELL, (group_a, group_b, emotion, answer), strict=True)),
                    **{"n_a": n_a, "n_b": n_b, "of_a": of[0], "of_b": of[1]},
                    **{"read_a": read[0], "read_b": read[1], "enough": enough},
                }


def _corrected(cells: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Correct the p-values of one dimension, which are one family."""
    tested = cells["enough"] & cells["p_value"].notna()
    adjusted = corrected(cells["p_value"], tested, settings.correction)
    words = [
        _METHOD.format(how=how, tested=int(tested.sum()), least=settings.least_words())
        if isinstance(how, str)
        else f"a side has no picture of {emotion}"
        for how, emotion in zip(cells["method"], cells["emotion"], strict=True)
    ]
    return cells.assign(p_adjusted=adjusted, method=words)
