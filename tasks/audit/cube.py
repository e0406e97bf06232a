"""The full cube of groups: every combination of pooled and unpooled dimensions that has pictures.

A pooled dimension says `all`. Rows are sorted with `all` first, emotions in the vocabulary's
order and age bands from young to old.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import pandas as pd

from tasks.core.labels import ALL, EMOTIONS, GENDERS, SPLITS, UNKNOWN

# Where no ages are recorded, bands of these names still come in this order.
_BANDS = ("infant", "toddler", "child", "adolescent", "teenager", "young adult", "adult", "senior")


def dimensions(by: Sequence[str]) -> list[str]:
    """Return the columns that name a group: the contract's first, then further ones of `by`."""
    first = ["dataset", "age_band", "gender", "emotion"]
    return first + [name for name in by if name not in first]


def values_in_order(frame: pd.DataFrame, column: str) -> list[str]:
    """Return a column's values as they are to be shown; "unknown" comes last.

    Age bands are ordered by the median age of their pictures where ages are recorded.
    """
    values = sorted(frame[column].unique())
    known: Sequence[str] = ()
    if column in ("emotion", "y_pred"):
        known = EMOTIONS
    elif column == "gender":
        known = GENDERS
    elif column == "split":
        known = SPLITS
    elif column == "age_band":
        known = _BANDS
        if "age_years" in frame and frame["age_years"].notna().any():
            known = list(frame.groupby("age_band")["age_years"].median().sort_values().index)
    rank = {value: index for index, value in enumerate(known)}
    return sorted(values, key=lambda value: (value == UNKNOWN, rank.get(value, len(rank)), value))


def cells(
    frame: pd.DataFrame, dims: Sequence[str], never_pooled: Sequence[str] = ()
) -> Iterator[tuple[list[str], "pd.api.typing.DataFrameGroupBy"]]:
    """Yield, for every subset of `dims`, the subset and the frame grouped by it.

    Parameters
    ----------
    frame
        One row a picture (and model).
    dims
        Dimensions that are pooled in turn.
    never_pooled
        Columns that every grouping keeps, at least one.
    """
    for size in range(len(dims) + 1):
        for kept in combinations(dims, size):
            names = [*never_pooled, *kept]
            yield names, frame.groupby(names, sort=False)


def pool(
    frame: pd.DataFrame, dims: Sequence[str], never_pooled: Sequence[str], sums: Sequence[str]
) -> pd.DataFrame:
    """Sum columns over every cell of the cube and count its pictures and subjects.

    Parameters
    ----------
    frame
        One row a picture and model, with `subject_id` and the columns named.
    dims
        Dimensions that are pooled in turn.
    never_pooled
        Columns that every row keeps, at least one.
    sums
        Columns to sum (booleans count).

    Returns
    -------
    pandas.DataFrame
        `never_pooled`, `dims`, `n`, `subjects` and `sums`; one row a cell with pictures, sorted.
    """
    parts = []
    for names, grouped in cells(frame, dims, never_pooled):
        part = grouped[list(sums)].sum().astype("int64")
        part["n"] = grouped.size()
        part["subjects"] = grouped["subject_id"].nunique()
        part = part.reset_index()
        for name in dims:
            if name not in names:
                part[name] = ALL
        parts.append(part)
    columns = [*never_pooled, *dims, "n", "subjects", *sums]
    table = pd.concat(parts, ignore_index=True)[columns]
    return sort_cells(table, frame, [*never_pooled, *dims])


def sort_cells(table: pd.DataFrame, frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Sort rows by `columns`, each in the order in which its values in `frame` are shown."""
    keys = {}
    for column in columns:
        rank = {value: index for index, value in enumerate(_shown(frame, column))}
        keys[column] = table[column].map(rank)
    index = pd.DataFrame(keys).sort_values(list(columns), kind="stable").index
    return table.loc[index].reset_index(drop=True)


def _shown(frame: pd.DataFrame, column: str) -> list[str]:
    if column == "model":  # in the order of training
        return list(dict.fromkeys(frame[column]))
    if column == "protocol":
        return ["held_out", "all"]
    return [ALL, *values_in_order(frame, column)]
