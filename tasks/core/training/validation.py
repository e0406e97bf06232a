"""Scores of models on the validation split by group, for choosing coefficient and strategy.

The test split is never read here.

Images of one subject tend to be classified alike. The design effect is the resulting increase of
the variance of a share; the number of images divided by it is the effective sample size.

One rule decides which groups are eligible for worst-group selection. A group is one value of one
column. It is eligible if the value is known and it has enough images, so that a selection never
depends on a single image. If no group is eligible, all images together form the group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import nn

from tasks.core.errors import DataError, ParamsError
from tasks.core.labels import ALL, UNKNOWN
from tasks.core.models.device import choose_device, make_deterministic
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import Paths
from tasks.core.tables import read_table
from tasks.core.training.data.dataset import ImageDataset, load_images

_ROUNDING = 1e-12  # a smaller variance is rounding error


def effective_sample_size(correct: np.ndarray, subjects: pd.Series) -> float:
    """Return the effective sample size of N images of several subjects.

    `right` is `(N,)` booleans, N at least 1: whether each image was classified correctly. The
    result is N divided by the design effect of the ratio estimator, at most N. It is NaN if the
    variance cannot be estimated: one subject, a share of 0 or 1, or equal residuals of all
    subjects.
    """
    n, share = len(correct), float(np.mean(correct))
    residuals = pd.Series(correct.astype(float) - share).groupby(subjects.to_numpy()).sum()
    n_subjects = len(residuals)
    if n_subjects < 2:
        return float("nan")
    variance = n_subjects / (n_subjects - 1) * float((residuals**2).sum()) / n**2
    if variance < _ROUNDING or share in (0.0, 1.0):
        return float("nan")
    return min(float(n), share * (1 - share) / variance)


@dataclass(frozen=True)
class EvalGroup:
    """Images with one value of one column.

    Attributes
    ----------
    dimension, name
        The column and the value; both `all` for all images together.
    members
        `(N,)` booleans: the rows of the group.
    counts
        Whether the group is eligible as the worst.
    """

    dimension: str
    name: str
    members: np.ndarray
    counts: bool


def groups_of(rows: pd.DataFrame, by: Sequence[str], min_n: int) -> list[EvalGroup]:
    """List the groups of the images, including ineligible ones.

    `rows` has one row per image; missing values count as unknown. Groups with fewer than `min_n`
    images are ineligible. If `by` is empty, all images are one group.
    """
    groups = []
    for column in by:
        values = rows[column].astype("str").where(rows[column].notna(), UNKNOWN)
        for name in sorted(values.unique()):
            members = (values == name).to_numpy(dtype=bool)
            counts = name != UNKNOWN and int(members.sum()) >= min_n
            groups.append(EvalGroup(column, name, members, counts))
    if not any(group.counts for group in groups):
        groups.append(EvalGroup(ALL, ALL, np.ones(len(rows), dtype=bool), True))
    return groups


def eligible_groups(rows: pd.DataFrame, by: Sequence[str], min_n: int) -> np.ndarray:
    """Return `(N, G)` booleans, one column per eligible group; see `groups_of`."""
    return np.column_stack([g.members for g in groups_of(rows, by, min_n) if g.counts])


def mean_recall_score(targets: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean recall over the classes that occur in `targets`, `(N,)` with N at least 1."""
    correct = targets == predicted
    return float(np.mean([correct[targets == label].mean() for label in np.unique(targets)]))


def worst_recall_score(targets: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> float:
    """Return the lowest mean recall over the groups.

    `targets` and `predicted` are `(N,)`, N at least 1. `groups` is `(N, G)` booleans, G at least 1:
    the members of each eligible group (see `tasks.core.training.validation`).
    """
    return min(mean_recall_score(targets[members], predicted[members]) for members in groups.T)


@dataclass(frozen=True)
class Validation:
    """The validation images with an emotion of the model: rows and pixels."""

    rows: pd.DataFrame
    images: ImageDataset

    def seen(self, stage: str) -> pd.DataFrame:
        """Return the images for `seen.csv`, as used by a stage to choose."""
        return self.rows[["image_id", "subject_id"]].assign(stage=stage, role="validation")


@dataclass(frozen=True)
class ValidationScore:
    """Validation scores of a model.

    Attributes
    ----------
    groups
        One row per group: `dimension, group, n, subjects, known_n` (images with a known
        subject), `correct, worth` (effective sample size), `recall_score` (mean recall over the
        emotions) and `counts` (whether it is eligible as the worst).
    worst_group
        "<dimension> <group>" of the lowest `recall_score`.
    worst, mean
        Lowest and mean `recall_score` of the eligible groups, from 0 to 1.
    correct
        `(N,)` booleans in the order of the rows.
    """

    groups: pd.DataFrame
    worst_group: str
    worst: float
    mean: float
    correct: np.ndarray

    @property
    def rank(self) -> tuple[float, float]:
        """Return the sort key of verdicts: the worst group, then the mean."""
        return self.worst, self.mean


def load_validation(paths: Paths, spec: ModelSpec, by: Sequence[str], where: str) -> Validation:
    """Load the validation split's images at a model's input size.

    Images of an emotion that the model lacks are excluded. `by` are the group columns and `where`
    is their params key, for messages.

    Raises
    ------
    ParamsError
        If the split table lacks a column.
    DataError
        If no validation image has a label of the model.
    """
    table = read_table(paths.split)
    for column in by:
        if column not in table.columns:
            raise ParamsError(f"{where}: the split table has no column '{column}'")
    rows = table[(table["split"] == "validation") & table["emotion"].isin(spec.labels)]
    if rows.empty:
        raise DataError(
            f"{paths.split}: no validation picture shows {', '.join(spec.labels)}; add pictures of "
            "more people or try another split.seed"
        )
    return Validation(rows, load_images(rows, paths, spec))


def score_by_group(
    module: nn.Module,
    spec: ModelSpec,
    validation: Validation,
    by: Sequence[str],
    min_n: int,
    device: str,
    batch_size: int,
) -> ValidationScore:
    """Predict the validation images and score the groups.

    Groups with fewer than `min_n` images are ineligible; see `groups_of`.
    """
    torch_device = choose_device(device)
    make_deterministic(torch_device)
    classifier = EmotionClassifier(spec, module, torch_device, batch_size)
    images = validation.images
    parts = [
        classifier.predict_prepared(images.batch(rows)).argmax(axis=1)
        for rows in images.in_parts(batch_size)
    ]
    predicted = np.array(spec.labels)[np.concatenate(parts)]
    return score_groups(validation.rows, predicted, by, min_n)


def score_groups(
    rows: pd.DataFrame, y_pred: np.ndarray, by: Sequence[str], min_n: int
) -> ValidationScore:
    """Score predictions, `(N,)` names, for `rows` by group; see `judge`."""
    scored = rows.assign(y_pred=y_pred)
    table = pd.DataFrame([_score(scored, group) for group in groups_of(rows, by, min_n)])
    eligible = table[table["counts"]]
    worst = eligible.iloc[int(np.nanargmin(eligible["recall_score"]))]
    worst_group = ALL if worst["dimension"] == ALL else f"{worst['dimension']} {worst['group']}"
    mean = float(eligible["recall_score"].mean())
    correct = scored["y_pred"].to_numpy() == scored["emotion"].to_numpy()
    return ValidationScore(table, worst_group, float(worst["recall_score"]), mean, correct)


def _score(scored: pd.DataFrame, group: EvalGroup) -> dict[str, object]:
    members = scored[group.members]
    truth, predicted = members["emotion"].to_numpy(), members["y_pred"].to_numpy()
    return {
        "dimension": group.dimension,
        "group": group.name,
        "n": len(members),
        "subjects": int(members["subject_id"].nunique()),
        "known_n": int(members["subject_known"].sum()),
        "correct": int((truth == predicted).sum()),
        "worth": effective_sample_size(truth == predicted, members["subject_id"]),
        "recall_score": mean_recall_score(truth, predicted),
        "counts": group.counts,
    }
