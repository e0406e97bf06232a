"""Judging models on the validation split, group by group; what coefficient and strategy rest on.

The test split is never read here. Which groups count, `tasks.train.groups` says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import nn

from tasks.core.errors import DataError, ParamsError
from tasks.core.labels import ALL
from tasks.core.models.device import choose_device, make_repeatable
from tasks.core.models.recogniser import Recogniser
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import Paths
from tasks.core.tables import read_table
from tasks.train.design_effect import worth
from tasks.train.groups import Group, groups_of
from tasks.train.pictures import Pictures, load_pictures
from tasks.train.recall import mean_recall_score


@dataclass(frozen=True)
class Validation:
    """The validation pictures that show an emotion of the model: rows and pixels."""

    rows: pd.DataFrame
    pictures: Pictures

    def seen(self, stage: str) -> pd.DataFrame:
        """List the pictures for `seen.csv`, as used by a stage to choose."""
        return self.rows[["image_id", "subject_id"]].assign(stage=stage, role="validation")


@dataclass(frozen=True)
class Verdict:
    """How a model did.

    Attributes
    ----------
    groups
        One row a group: `dimension, group, n, subjects, known_n` (pictures whose subject is
        known), `correct, worth` (how many pictures of as many people tell as much),
        `recall_score` (the mean of the emotions' recalls) and `counts` (whether it can be the
        worst).
    worst_group
        "<dimension> <group>" of the lowest `recall_score`.
    worst, mean
        The lowest `recall_score` and the mean of those that count, from 0 to 1.
    correct
        `(N,)` booleans, in the order of the rows: which answers are right.
    """

    groups: pd.DataFrame
    worst_group: str
    worst: float
    mean: float
    correct: np.ndarray

    @property
    def rank(self) -> tuple[float, float]:
        """Return what verdicts are compared by: the worst group, then the mean."""
        return self.worst, self.mean


def load_validation(paths: Paths, spec: ModelSpec, by: Sequence[str], where: str) -> Validation:
    """Find the validation split's pictures at a model's input size.

    Parameters
    ----------
    paths
        The project's paths.
    spec
        The model; pictures of an emotion that it lacks are left out.
    by
        Columns that the groups will come from.
    where
        The params key of `by`, for the message.

    Raises
    ------
    ParamsError
        For a column that the split table lacks.
    DataError
        Where the split holds no picture with a label of the model.
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
    return Validation(rows, load_pictures(rows, paths, spec))


def judge(
    module: nn.Module,
    spec: ModelSpec,
    validation: Validation,
    by: Sequence[str],
    min_n: int,
    device: str,
    batch_size: int,
) -> Verdict:
    """Ask a model about the validation pictures and score its groups.

    Parameters
    ----------
    module, spec
        The model.
    validation
        What it is asked about.
    by
        Columns, each of which makes groups of its own; empty: all pictures are one group.
    min_n
        A group with fewer pictures does not count.
    device, batch_size
        Where it runs, and pictures at once.
    """
    chosen = choose_device(device)
    make_repeatable(chosen)
    recogniser = Recogniser(spec, module, chosen, batch_size)
    pictures = validation.pictures
    parts = [
        recogniser.predict_prepared(pictures.batch(rows)).argmax(axis=1)
        for rows in pictures.in_parts(batch_size)
    ]
    answers = np.array(spec.labels)[np.concatenate(parts)]
    return score_groups(validation.rows, answers, by, min_n)


def score_groups(rows: pd.DataFrame, y_pred: np.ndarray, by: Sequence[str], min_n: int) -> Verdict:
    """Score a model's answers, `(N,)` names, about `rows`, group by group; see `judge`."""
    scored = rows.assign(y_pred=y_pred)
    table = pd.DataFrame([_score(scored, group) for group in groups_of(rows, by, min_n)])
    counting = table[table["counts"]]
    worst = counting.loc[counting["recall_score"].idxmin()]
    named = ALL if worst["dimension"] == ALL else f"{worst['dimension']} {worst['group']}"
    mean = float(counting["recall_score"].mean())
    correct = scored["y_pred"].to_numpy() == scored["emotion"].to_numpy()
    return Verdict(table, named, float(worst["recall_score"]), mean, correct)


def _score(scored: pd.DataFrame, group: Group) -> dict[str, object]:
    part = scored[group.members]
    truth, answers = part["emotion"].to_numpy(), part["y_pred"].to_numpy()
    return {
        "dimension": group.dimension,
        "group": group.name,
        "n": len(part),
        "subjects": int(part["subject_id"].nunique()),
        "known_n": int(part["subject_known"].sum()),
        "correct": int((truth == answers).sum()),
        "worth": worth(truth == answers, part["subject_id"]),
        "recall_score": mean_recall_score(truth, answers),
        "counts": group.counts,
    }
