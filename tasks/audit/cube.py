"""The full cube of groups: every combination of pooled and unpooled dimensions that has pictures.

A pooled dimension says `all`. Rows are sorted with `all` first, emotions in the vocabulary's
order and age bands from young to old.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.audit.group_sizes import natural_order
from tasks.audit.own_columns import is_hidden
from tasks.core.labels import ALL, EMOTIONS, GENDERS, SPLITS, UNKNOWN
from tasks.core.statistics.people import People, whole

# Where no ages are recorded, bands of these names still come in this order.
_BANDS = ("infant", "toddler", "child", "adolescent", "teenager", "young adult", "adult", "senior")


def dimensions(by: Sequence[str]) -> list[str]:
    """Return the columns that name a group: the contract's first, then further ones of `by`."""
    first = ["dataset", "age_band", "gender", "emotion"]
    return first + [name for name in by if name not in first]


def values_in_order(frame: pd.DataFrame, column: str) -> list[str]:
    """Return a column's values as they are to be shown; "unknown" comes last.

    Age bands are ordered by the median age of their pictures where ages are recorded; the groups of
    a user's own column by the number in their names.
    """
    values = sorted(frame[column].unique(), key=natural_order if is_hidden(column) else None)
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
    return sorted(values, key=lambda value: (value == UNKNOWN, rank.get(value, len(rank))))


def cell_members(frame: pd.DataFrame, dims: Sequence[str]) -> tuple[pd.DataFrame, sparse.csr_array]:
    """Return every cell of the cube that has pictures, and which pictures are in it.

    Parameters
    ----------
    frame
        One row a picture.
    dims
        Dimensions that are pooled in turn.

    Returns
    -------
    cells
        One row a cell, columns `dims`: values, or `all` where the dimension is pooled.
    members
        `(pictures, cells)` zeros and ones: which picture is in which cell.
    """
    coded = {name: pd.factorize(frame[name]) for name in dims}
    parts, columns, total = [], [], 0
    for kept in _subsets(dims):
        key = np.zeros(len(frame), dtype=np.int64)
        for name in kept:
            codes, values = coded[name]
            key = key * len(values) + codes
        _, first, cell = np.unique(key, return_index=True, return_inverse=True)
        part = frame.iloc[first][list(kept)]
        parts.append(part.assign(**{name: ALL for name in dims if name not in kept}))
        columns.append(cell + total)
        total += len(first)
    rows = np.tile(np.arange(len(frame)), len(columns))
    entries = (np.ones(len(rows)), (rows, np.concatenate(columns)))
    members = sparse.csr_array(entries, shape=(len(frame), total))
    return pd.concat(parts, ignore_index=True)[list(dims)], members


def _subsets(dims: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in range(len(dims) + 1):
        yield from combinations(dims, size)


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
    for kept, part in frame.groupby(list(never_pooled), sort=False):
        cells, members = cell_members(part, dims)
        figures = {
            **dict(zip(never_pooled, kept, strict=True)),
            "n": whole(members.sum(axis=0)),
            "subjects": People(part["subject_id"]).count(members),
            **{name: whole(part[name].to_numpy(dtype=float) @ members) for name in sums},
        }
        parts.append(cells.assign(**figures))
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
