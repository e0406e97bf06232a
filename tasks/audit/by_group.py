"""The audit of one or more models' predictions: from one row a picture to the five tables.

Two protocols: `held_out` judges a model on pictures that it was not trained on; `all` judges it on
every picture, those of its training included, as published studies do. Labels that a model does
not have are left out and counted.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd

from tasks.audit.cube import dimensions, pool, values_in_order
from tasks.audit.gaps import gaps_table
from tasks.audit.paired import paired_table
from tasks.core.errors import DataError, ParamsError
from tasks.core.intervals import WILSON, wilson
from tasks.core.labels import ALL, EMOTIONS, UNKNOWN, in_order

HELD_OUT = "held_out"
PROTOCOLS: tuple[str, ...] = (HELD_OUT, ALL)
_NEEDED = ("image_id", "dataset", "subject_id", "emotion", "split", "model", "y_pred")


def model_labels(frame: pd.DataFrame) -> dict[str, list[str] | None]:
    """Return the emotions that each model can answer: its `p_<emotion>` columns that hold values.

    None for a model without any such column (another system's predictions): it is not known.
    """
    columns = [f"p_{name}" for name in EMOTIONS if f"p_{name}" in frame.columns]
    found: dict[str, list[str] | None] = {}
    for model, part in frame.groupby("model", sort=False):
        own = [name.removeprefix("p_") for name in columns if part[name].notna().any()]
        found[str(model)] = own or None
    return found


def prepare(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Add what the tables count, after checking that the columns are there.

    Parameters
    ----------
    frame
        One row a model and picture.
    by
        The columns whose groups are compared.

    Returns
    -------
    pandas.DataFrame
        The columns that the tables need, with `correct` and `named` (the model has the picture's
        label), booleans; groups that are not recorded are called "unknown".

    Raises
    ------
    ParamsError
        For a column of `by` that the predictions lack.
    DataError
        For a missing column, an empty table, or a picture that a model has twice.
    """
    absent = [name for name in by if name not in frame.columns]
    if absent:
        known = ", ".join(map(str, frame.columns))
        raise ParamsError(f"audit.by: the predictions have no column {absent} (they have {known})")
    missing = [name for name in (*_NEEDED, "seen_in_training") if name not in frame.columns]
    if missing:
        raise DataError(f"the predictions lack the columns {missing}")
    if frame.empty:
        raise DataError("the predictions hold no row: there is nothing to audit")
    twice = frame.duplicated(["model", "image_id"])
    if twice.any():
        raise DataError(f"the predictions hold picture {frame['image_id'][twice].iloc[0]} twice")
    carried = [name for name in (*_NEEDED, "seen_in_training", "age_years") if name in frame]
    table = frame[list(dict.fromkeys([*carried, *by]))].copy()
    for name in {"dataset", *by}:
        table[name] = table[name].astype("str").where(table[name].notna(), UNKNOWN)
        table[name] = table[name].replace(ALL, "all (recorded)")  # `all` means pooled
    labels = model_labels(frame)
    table["correct"] = table["y_pred"] == table["emotion"]
    table["named"] = [
        labels[model] is None or emotion in labels[model]
        for emotion, model in zip(table["emotion"], table["model"], strict=True)
    ]
    return table


def audit_predictions(
    frame: pd.DataFrame,
    by: Sequence[str],
    confidence: float,
    min_n: int,
    pair: tuple[str, str],
) -> dict[str, pd.DataFrame]:
    """Audit predictions by group.

    Parameters
    ----------
    frame
        One row a model and picture: `image_id, dataset, subject_id, emotion, split, model, y_pred,
        seen_in_training`, the columns of `by`, and `p_<emotion>` for the labels a model has.
    by
        Columns whose groups are compared, such as `[age_band, gender]`.
    confidence
        Level of every interval, between 0 and 1.
    min_n
        Pictures that a group needs on each side for a comparison to be tested.
    pair
        The two models of `before_after`; the table is empty where one is absent.

    Returns
    -------
    dict
        Tables `counts`, `groups`, `gaps`, `before_after` and `confusion`.

    Raises
    ------
    ParamsError, DataError
        See `prepare`.
    """
    table = prepare(frame, by)
    judged = by_protocol(table[table["named"]])
    if judged.empty:
        raise DataError("no picture has a label that its model can answer: nothing to audit")
    return {
        "counts": counts_table(table, by),
        "groups": groups_table(judged, by, confidence),
        "gaps": gaps_table(judged, by, confidence, min_n),
        "before_after": paired_table(table[table["named"]], by, confidence, min_n, pair),
        "confusion": confusion_table(judged, by, model_labels(frame)),
    }


def by_protocol(table: pd.DataFrame) -> pd.DataFrame:
    """Stack the rows of both protocols under each other, with a column `protocol`."""
    held_out = table[~table["seen_in_training"].astype(bool)]
    return pd.concat(
        [held_out.assign(protocol=HELD_OUT), table.assign(protocol=ALL)], ignore_index=True
    )


def groups_table(judged: pd.DataFrame, by: Sequence[str], confidence: float) -> pd.DataFrame:
    """Return recall with its Wilson interval for every cell of the cube.

    Columns: `model, protocol, dataset, age_band, gender, emotion, n, correct, recall, ci_low,
    ci_high`, then further dimensions, `subjects`, `confidence` and `method`. For `emotion=all`,
    recall is the share of all pictures of the group that are read correctly.
    """
    cube = pool(judged, ["dataset", *by, "emotion"], ["model", "protocol"], ["correct"])
    low, high = wilson(cube["correct"].to_numpy(), cube["n"].to_numpy(), confidence)
    cube = with_all(cube, by).assign(
        recall=cube["correct"] / cube["n"],
        ci_low=low,
        ci_high=high,
        confidence=confidence,
        method=WILSON,
    )
    first = ["model", "protocol", "dataset", "age_band", "gender", "emotion"]
    figures = ["n", "correct", "recall", "ci_low", "ci_high"]
    further = [name for name in by if name not in first]
    return cube[[*first, *figures, *further, "subjects", "confidence", "method"]]


def counts_table(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return pictures and subjects of every cell and split, with how many a model leaves out.

    `held_out` counts pictures that the model was not trained on; `left_out` those whose label it
    does not have.
    """
    marked = table.assign(
        left_out=~table["named"], held_out=~table["seen_in_training"].astype(bool)
    )
    cube = pool(
        marked, ["dataset", *by, "emotion", "split"], ["model"], ["held_out", "left_out"]
    ).rename(columns={"n": "pictures"})
    cube = with_all(cube, by)
    return cube[["model", *dimensions(by), "split", "pictures", "subjects", "held_out", "left_out"]]


def confusion_table(
    judged: pd.DataFrame, by: Sequence[str], labels: Mapping[str, Sequence[str] | None]
) -> pd.DataFrame:
    """Return what each emotion was read as, overall and for every group of each dimension.

    Columns: `model, protocol, dimension, group, emotion, y_pred, n, n_emotion, share`; the first
    dimension is `all`. `share` is `n` over `n_emotion`, the pictures of that emotion in the group;
    answers that a model has but did not give are listed with 0.
    """
    parts = []
    for model, of_model in judged.groupby("model", sort=False):
        answers = in_order([*(labels[str(model)] or of_model["emotion"]), *of_model["y_pred"]])
        for protocol, dimension in product(PROTOCOLS, (ALL, *by)):
            rows = of_model[of_model["protocol"] == protocol]
            for group in [ALL] if dimension == ALL else values_in_order(rows, dimension):
                part = rows if dimension == ALL else rows[rows[dimension] == group]
                if not part.empty:
                    cells = _confusion(part, answers)
                    parts.append(
                        cells.assign(
                            model=model, protocol=protocol, dimension=dimension, group=group
                        )
                    )
    columns = ["model", "protocol", "dimension", "group", "emotion", "y_pred"]
    return pd.concat(parts, ignore_index=True)[[*columns, "n", "n_emotion", "share"]]


def _confusion(part: pd.DataFrame, answers: Sequence[str]) -> pd.DataFrame:
    """Count one group's answers: one row a cell of the matrix."""
    matrix = pd.crosstab(part["emotion"], part["y_pred"])
    matrix = matrix.reindex(index=in_order(part["emotion"]), columns=answers, fill_value=0)
    cells = matrix.stack().rename("n").reset_index()
    cells["n_emotion"] = cells.groupby("emotion")["n"].transform("sum")
    return cells.assign(share=cells["n"] / cells["n_emotion"])


def with_all(cube: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Add the contract's dimensions that are not compared, as pooled."""
    pooled = {name: ALL for name in dimensions(by) if name not in cube.columns}
    return cube.assign(**pooled)
