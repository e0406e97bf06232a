"""Sample of images to explain: held out, classified correctly, spread over a group's subjects.

The sample of a cell depends only on the seed and on the images of that cell, so new images of
another group do not change it.
"""

import hashlib
from collections.abc import Hashable, Sequence

import pandas as pd

from tasks.core.errors import ParamsError
from tasks.core.labels import UNKNOWN, in_order


def select_held_out(predictions: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Select held-out predictions whose emotion is one of the model's classes.

    Returns
    -------
    pandas.DataFrame
        The selected rows, with text in the columns `by` ("unknown" where empty) and a new column
        `correct` (bool).

    Raises
    ------
    ParamsError
        If the table lacks a column of `by`.
    """
    for column in by:
        if column not in predictions.columns:
            known = ", ".join(predictions.columns)
            raise ParamsError(f"explain.by: the table has no column '{column}' (it has {known})")
    classes = [name[2:] for name in predictions.columns if name.startswith("p_")]
    rows = predictions[~predictions["seen_in_training"] & predictions["emotion"].isin(classes)]
    groups = {
        column: rows[column].astype("str").where(rows[column].notna(), UNKNOWN) for column in by
    }
    return rows.assign(**groups, correct=rows["y_pred"] == rows["emotion"])


def choose(
    held_out: pd.DataFrame, by: Sequence[str], images_per_group: int, seed: int
) -> pd.DataFrame:
    """Sample up to `images_per_group` images of each cell (emotion and group).

    Within a cell, the order is random: first one image of every subject, then every subject's
    second image, and so on.

    Parameters
    ----------
    held_out
        The result of `select_held_out`.

    Returns
    -------
    pandas.DataFrame
        The chosen rows, in the order of `held_out`.
    """
    cell = ["emotion", *by]
    correct = held_out[held_out["correct"]]
    correct = correct.assign(_key=[_sort_key(seed, image_id) for image_id in correct["image_id"]])
    ordered = correct.sort_values(["_key", "image_id"])
    ordered = ordered.assign(_round=ordered.groupby([*cell, "subject_id"]).cumcount())
    ordered = ordered.sort_values(["_round", "_key", "image_id"])
    chosen = ordered.groupby(cell).head(images_per_group)
    return held_out.loc[held_out.index.isin(chosen.index)]


def cells_of(held_out: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """List all combinations of the emotions and groups that occur.

    Returns
    -------
    pandas.DataFrame
        Columns `emotion`, those of `by`, `n_held_out` and `n_available` (held out and classified
        correctly), with age groups in the order of age and other groups by name.
    """
    cell = ["emotion", *by]
    counts = held_out.groupby(cell, observed=True)["correct"].agg(["size", "sum"])
    emotions = held_out[["emotion"]].drop_duplicates()
    groups = held_out[list(by)].drop_duplicates()
    cells = groups.merge(emotions, how="cross")
    ranks: dict[Hashable, dict[str, int]] = {column: _ranks(held_out, column) for column in by}
    ranks["emotion"] = {name: rank for rank, name in enumerate(in_order(emotions["emotion"]))}
    cells = cells.sort_values(
        [*by, "emotion"], key=lambda values: values.map(ranks[str(values.name)])
    )
    counts = counts.reindex(pd.MultiIndex.from_frame(cells[cell]), fill_value=0)
    return (
        cells[cell]
        .assign(
            n_held_out=counts["size"].to_numpy(dtype="int64"),
            n_available=counts["sum"].to_numpy(dtype="int64"),
        )
        .reset_index(drop=True)
    )


def _ranks(held_out: pd.DataFrame, column: str) -> dict[str, int]:
    """Return the rank of a column's values: age bands by median age if recorded, else by name."""
    if column == "age_band" and "age_years" in held_out:
        ages = held_out.groupby(column)["age_years"].median().fillna(float("inf"))
        names = sorted(ages.index, key=lambda name: (ages[name], name))
    else:
        names = sorted(held_out[column].unique())
    names = [name for name in names if name != UNKNOWN] + [UNKNOWN]
    return {name: rank for rank, name in enumerate(names)}


def _sort_key(seed: int, image_id: str) -> str:
    return hashlib.sha256(f"{seed}/{image_id}".encode()).hexdigest()
