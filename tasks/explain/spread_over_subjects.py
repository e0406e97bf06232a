"""Which pictures are explained: held out, read correctly, and spread over the subjects of a group.

A choice depends on the seed and on the pictures of its own cell alone, so that new pictures of
another group leave it as it was.
"""

import hashlib
from collections.abc import Hashable, Sequence

import pandas as pd

from tasks.core.errors import ParamsError
from tasks.core.labels import UNKNOWN, in_order


def held_out_pictures(predictions: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Keep the pictures that the model has not seen and whose emotion it can name.

    Parameters
    ----------
    predictions
        A model's table of predictions.
    by
        Columns whose values make the groups.

    Returns
    -------
    pandas.DataFrame
        The rows kept, with text in the columns `by` ("unknown" where empty) and a column
        `correct` (bool).

    Raises
    ------
    ParamsError
        For a column that the table lacks.
    """
    for column in by:
        if column not in predictions.columns:
            known = ", ".join(predictions.columns)
            raise ParamsError(f"explain.by: the table has no column '{column}' (it has {known})")
    nameable = [name[2:] for name in predictions.columns if name.startswith("p_")]
    kept = predictions[~predictions["seen_in_training"] & predictions["emotion"].isin(nameable)]
    texts = {
        column: kept[column].astype("str").where(kept[column].notna(), UNKNOWN) for column in by
    }
    return kept.assign(**texts, correct=kept["y_pred"] == kept["emotion"])


def choose(
    held_out: pd.DataFrame, by: Sequence[str], pictures_per_group: int, seed: int
) -> pd.DataFrame:
    """Choose the pictures to explain in each cell (emotion and group).

    The order within a cell is random by the seed: first one picture of every subject, then every
    subject's second picture, and so on; the first `pictures_per_group` are taken.

    Parameters
    ----------
    held_out
        As `held_out_pictures` returns it.
    by
        Columns whose values make the groups.
    pictures_per_group
        Most pictures of a cell.
    seed
        Of the random order.

    Returns
    -------
    pandas.DataFrame
        The chosen rows, in the table's order.
    """
    cell = ["emotion", *by]
    correct = held_out[held_out["correct"]]
    correct = correct.assign(_draw=[_draw(seed, image_id) for image_id in correct["image_id"]])
    drawn = correct.sort_values(["_draw", "image_id"])
    drawn = drawn.assign(_turn=drawn.groupby([*cell, "subject_id"]).cumcount())
    taken = drawn.sort_values(["_turn", "_draw", "image_id"]).groupby(cell).head(pictures_per_group)
    return held_out.loc[held_out.index.isin(taken.index)]


def cells_of(held_out: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """List the cells: every emotion that occurs, for every group that occurs.

    Returns
    -------
    pandas.DataFrame
        Columns `emotion`, those of `by`, `n_held_out` (pictures the model had not seen) and
        `n_available` (those that it read correctly); groups in the order of age, then of name.
    """
    cell = ["emotion", *by]
    counts = held_out.groupby(cell, observed=True)["correct"].agg(["size", "sum"])
    emotions = held_out[["emotion"]].drop_duplicates()
    groups = held_out[list(by)].drop_duplicates()
    cells = groups.merge(emotions, how="cross")
    places: dict[Hashable, dict[str, int]] = {column: _places(held_out, column) for column in by}
    places["emotion"] = {name: place for place, name in enumerate(in_order(emotions["emotion"]))}
    cells = cells.sort_values(
        [*by, "emotion"], key=lambda values: values.map(places[str(values.name)])
    )
    numbers = counts.reindex(pd.MultiIndex.from_frame(cells[cell]), fill_value=0)
    return (
        cells[cell]
        .assign(
            n_held_out=numbers["size"].to_numpy(dtype="int64"),
            n_available=numbers["sum"].to_numpy(dtype="int64"),
        )
        .reset_index(drop=True)
    )


def _places(held_out: pd.DataFrame, column: str) -> dict[str, int]:
    """Give numbers to a column's values for sorting: age bands by age, where ages are recorded."""
    if column == "age_band" and "age_years" in held_out:
        ages = held_out.groupby(column)["age_years"].median().fillna(float("inf"))
        names = sorted(ages.index, key=lambda name: (ages[name], name))
    else:
        names = sorted(held_out[column].unique())
    names = [name for name in names if name != UNKNOWN] + [UNKNOWN]
    return {name: place for place, name in enumerate(names)}


def _draw(seed: int, image_id: str) -> str:
    return hashlib.sha256(f"{seed}/{image_id}".encode()).hexdigest()
