"""Intersections: groups of several columns at once, such as boys of an age band.

Each is compared with all other images whose groups are known, on the emotions that both have, in
one family per model and protocol (`max_t`). The table also gives the recall that the columns
predict with additive effects, and the recall shrunken towards that: the fewer subjects a group has,
the more (R. E. Fay, R. A. Herriot 1979, J. Am. Stat. Assoc. 74, 269-277; the variance that the
columns leave unexplained as in R. C. Paule, J. Mandel 1982, J. Res. Natl. Bur. Stand. 87, 377-385).
Images whose subject is unknown are counted and left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from tasks.audit.measures.group_cube import codes, values_in_order
from tasks.audit.measures.max_t import MANY_SUBJECTS, Against, max_t_tests, variance_of_sums
from tasks.audit.settings import Settings
from tasks.core.gap_sentences import BETWEEN
from tasks.core.labels import UNKNOWN, in_order
from tasks.core.statistics.clusters import effective, whole
from tasks.core.statistics.recalls import BySubject

COLUMNS = [
    "model",
    "protocol",
    "dimensions",
    "group",
    "n",
    "correct",
    "recall",
    "ci_low",
    "ci_high",
    "subjects",
    "effective_subjects",
    "n_unknown",
    "expected",
    "recall_shrunken",
    "n_rest",
    "correct_rest",
    "recall_rest",
    "subjects_rest",
    "difference",
    "difference_low",
    "difference_high",
    "confidence",
    "p_value",
    "p_adjusted",
    "enough_n",
    "left_out_emotions",
    "family",
    "method",
]
_REFERENCES = {
    "permutation": "whole subjects permuted between the group and the rest",
    "normal": f"normal distribution, for {MANY_SUBJECTS} effective subjects or more on both sides",
    "t": "Student's t clustered by subject, because subjects are in the group and in the rest",
}


def intersections_table(judged: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Compare every intersection with the rest.

    `judged` has one row per model, protocol and image, with `correct` and `subject_known`.

    The table has one row per intersection of 2 to `depth` columns. `recall` is over all emotions,
    with its interval `ci_low, ci_high`. `difference` is recall minus that of the rest, on the
    emotions that both have; `difference_low, difference_high` hold for all tested intersections of
    the model and protocol at once. They and the p-values are empty where `enough_n` is false.
    `expected` is what the columns predict without an interaction.
    """
    parts = []
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        cells = _cells(part.reset_index(drop=True), settings)
        if cells is not None:
            table = _figures(cells, settings)
            parts.append(table.assign(model=model, protocol=protocol))
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(parts, ignore_index=True)[COLUMNS]


@dataclass(frozen=True)
class _Cells:
    """The intersections of one model and protocol, and what each is compared with."""

    names: pd.DataFrame  # dimensions, group, left_out_emotions, n_unknown
    design: list[np.ndarray]  # for each choice of columns: the levels of its cells, `(cells, size)`
    sides: Against


def _cells(part: pd.DataFrame, settings: Settings) -> _Cells | None:
    """Return the intersections of one model and protocol, in the order of the columns."""
    collector = _Collector(_Images.of(part))
    levels, coded = {}, {}
    for name in settings.by:
        groups = [value for value in values_in_order(part, name) if value != UNKNOWN]
        if len(groups) > 1:
            levels[name], coded[name] = groups, codes(part[name], groups)
    for size in range(2, settings.depth + 1):
        for columns in combinations(levels, size):
            collector.add(columns, [levels[name] for name in columns], [coded[c] for c in columns])
    return collector.done() if collector.names else None


@dataclass(frozen=True)
class _Images:
    """Columns of the images as arrays."""

    subject: np.ndarray  # from 0; -1 where it is not known
    emotion: np.ndarray
    emotions: list[str]
    correct: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, part: pd.DataFrame) -> "_Images":
        known = part["subject_known"].to_numpy(dtype=bool)
        subject = np.full(len(part), -1)
        subject[known] = pd.factorize(part["subject_id"][known])[0]
        emotions = in_order(part["emotion"])
        correct = part["correct"].to_numpy(dtype=float)
        return cls(subject, codes(part["emotion"], emotions), emotions, correct, known)


class _Collector:
    """Collects intersections, one choice of columns after the other."""

    def __init__(self, images: _Images) -> None:
        self.images = images
        self.names: list[dict[str, object]] = []
        self.design: list[np.ndarray] = []
        self.entries: list[np.ndarray] = []
        self.universe: list[int] = []
        self.universes: dict[bytes, int] = {}
        self.sums: list[np.ndarray] = []

    def add(
        self,
        columns: Sequence[str],
        levels: Sequence[Sequence[str]],
        coded: Sequence[np.ndarray],
    ) -> None:
        """Add the intersections of some columns that can be compared with a rest."""
        images, sizes = self.images, [len(values) for values in levels]
        inside = np.logical_and.reduce([values >= 0 for values in coded])
        cell = np.ravel_multi_index([np.maximum(values, 0) for values in coded], sizes)
        there = inside & images.known
        k, e = int(np.prod(sizes)), len(images.emotions)
        counts = np.bincount(cell[there] * e + images.emotion[there], minlength=k * e)
        counts = counts.reshape(k, e)
        shared = (counts > 0) & (counts.sum(axis=0) > counts)
        unknown = np.bincount(cell[inside & ~images.known], minlength=k)
        used = np.flatnonzero(shared.any(axis=1))
        if not len(used):
            return
        place = np.stack(np.unravel_index(used, sizes), axis=1)
        rank = np.full(k, -1)
        rank[used] = len(self.names) + np.arange(len(used))
        for which, values in zip(used, place, strict=True):
            left_out = (counts.sum(axis=0) > 0) & ~shared[which]
            self.names.append(
                {
                    "dimensions": BETWEEN.join(columns),
                    "group": BETWEEN.join(
                        names[v] for names, v in zip(levels, values, strict=True)
                    ),
                    "left_out_emotions": " ".join(np.array(images.emotions)[left_out]),
                    "n_unknown": int(unknown[which]),
                }
            )
            self.universe.append(self._universe(there, ~left_out, columns))
        rows = np.flatnonzero(there)
        rows = rows[shared[cell[rows], images.emotion[rows]]]
        entries = (images.subject[rows], rank[cell[rows]], images.correct[rows])
        self.entries.append(np.stack(entries))
        self.design.append(place)

    def _universe(self, there: np.ndarray, emotions: np.ndarray, columns: Sequence[str]) -> int:
        """Return the number of a set of images: of known groups, with one of some emotions."""
        # Columns that are known for all images share a universe.
        key = ("" if there.all() else BETWEEN.join(columns)).encode() + emotions.tobytes()
        if key not in self.universes:
            inside = there & emotions[self.images.emotion]
            self.universes[key] = len(self.sums)
            people, of = int(self.images.subject.max()) + 1, self.images.subject[inside]
            weights = (np.ones(len(of)), self.images.correct[inside])
            self.sums.append(np.stack([np.bincount(of, w, people) for w in weights]))
        return self.universes[key]

    def done(self) -> _Cells:
        """Return all of them, with images summed over subjects."""
        subject, column, correct = np.concatenate(self.entries, axis=1)
        k = len(self.names)
        key, place = np.unique((subject * k + column).astype(np.int64), return_inverse=True)
        n, right = np.bincount(place).astype(float), np.bincount(place, weights=correct)
        every = np.stack(self.sums, axis=2)
        sides = Against(key // k, key % k, n, right, every[0], every[1], np.array(self.universe))
        return _Cells(pd.DataFrame(self.names), self.design, sides)


def _figures(cells: _Cells, settings: Settings) -> pd.DataFrame:
    """Return the figures of one model and protocol, of images of known subjects."""
    sides = cells.sides
    group, rest = sides.sums(), sides.sums_of_rest()
    recall = group[1] / group[0]
    by_subject = BySubject(sides.subject, sides.column, sides.n, sides.correct, len(recall))
    low, high, _ = by_subject.limits(recall, settings.confidence)
    table = cells.names.assign(
        n=whole(group[0]),
        correct=whole(group[1]),
        recall=recall,
        ci_low=low,
        ci_high=high,
        subjects=whole(group[5]),
        effective_subjects=effective(group[0], group[2]),
        n_rest=whole(rest[0]),
        correct_rest=whole(rest[1]),
        recall_rest=rest[1] / rest[0],
        subjects_rest=whole(rest[5]),
        difference=recall - rest[1] / rest[0],
        confidence=settings.confidence,
    )
    number = np.minimum(table["effective_subjects"], effective(rest[0], rest[2]))
    table["enough_n"] = settings.enough(table[["n", "n_rest"]].min(axis=1), number)
    return _tested(_shrunken(table, cells), sides, settings)


def _shrunken(table: pd.DataFrame, cells: _Cells) -> pd.DataFrame:
    """Add what the columns let expect, and recalls that are shrunken towards it."""
    variance, recall = variance_of_sums(cells.sides.sums()), table["recall"].to_numpy()
    estimates, start = [], 0
    for levels in cells.design:
        cells_of_choice = slice(start, start + len(levels))
        start += len(levels)
        dummies = pd.get_dummies(pd.DataFrame(levels).astype("category"), drop_first=True)
        design = np.column_stack([np.ones(len(levels)), dummies.to_numpy(float)])
        estimates.append(
            np.stack(_additive(recall[cells_of_choice], variance[cells_of_choice], design))
        )
    expected, weight = np.concatenate(estimates, axis=1)
    expected = np.clip(expected, 0, 1)
    return table.assign(expected=expected, recall_shrunken=expected + weight * (recall - expected))


def _tested(table: pd.DataFrame, sides: Against, settings: Settings) -> pd.DataFrame:
    """Add the tests of what has enough images and subjects on both sides."""
    place = np.flatnonzero(table["enough_n"])
    figures = ["difference_low", "difference_high", "p_value", "p_adjusted"]
    table[figures] = np.nan
    table["family"] = (
        f"{len(place)} groups against the rest, with at least {settings.least_words()} on each side"
    )
    table["method"] = f"not tested: fewer than {settings.least_words()} on a side"
    if len(place):
        tested = max_t_tests(
            sides.part(place), settings.confidence, settings.resamples, settings.seed
        )
        rows = table.index[place]
        table.loc[rows, figures] = tested[["low", "high", "p_value", "p_adjusted"]].to_numpy()
        table.loc[rows, "method"] = [
            f"max-T over the family (Westfall & Young 1993): {_REFERENCES[name]}; the limits of "
            "difference hold for the whole family at once"
            for name in tested["reference"]
        ]
    return table


def _additive(
    recall: np.ndarray, variance: np.ndarray, design: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit effects that add up; return them, and how much of each recall's own is kept."""

    def fitted(spread: float) -> tuple[np.ndarray, float]:
        weights = 1 / np.sqrt(variance + spread)
        effects = np.linalg.lstsq(design * weights[:, None], recall * weights, rcond=None)[0]
        middle = design @ effects
        return middle, float((((recall - middle) * weights) ** 2).sum())

    freedom = len(recall) - np.linalg.matrix_rank(design)
    low, high = 0.0, 1.0
    if freedom < 1 or fitted(low)[1] <= freedom:
        return fitted(low)[0], np.zeros(len(recall)) if freedom > 0 else np.ones(len(recall))
    for _ in range(40):  # Paule and Mandel: the spread at which the residuals are as expected
        spread = (low + high) / 2
        low, high = (spread, high) if fitted(spread)[1] > freedom else (low, spread)
    return fitted(high)[0], high / (high + variance)
