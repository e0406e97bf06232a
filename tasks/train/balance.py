"""Balanced epochs: each combination of recorded properties comes equally often.

A cell is one combination of the values of the columns in `balance`: `[emotion]` balances the
classes, `[age_band, gender, emotion]` the groups too. An epoch has as many pictures as there are;
of a small cell they come several times, each changed in a way of its own, and of a large one not
all come in every epoch.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.core.errors import DataError, ParamsError
from tasks.core.labels import UNKNOWN


def cells_of(rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Give each picture the number of its cell.

    Parameters
    ----------
    rows
        Rows of the split table. A missing value is the value `unknown`, and that is one as any
        other: those pictures together come as often as a known group.
    columns
        Columns of it; empty: all pictures are of cell 0.

    Returns
    -------
    np.ndarray
        `(N,)` int64 from 0, in the order of the values.

    Raises
    ------
    ParamsError
        Where there is no such column.
    DataError
        Where a column is unknown for every picture, so that there is nothing to balance by.
    """
    missing = [column for column in columns if column not in rows]
    if missing:
        raise ParamsError(
            f"balance: there is no column {', '.join(missing)}; "
            f"the columns are {', '.join(map(str, rows.columns))}"
        )
    if not columns:
        return np.zeros(len(rows), dtype=np.int64)
    values = rows[list(columns)].astype("str").where(rows[list(columns)].notna(), UNKNOWN)
    unknown = [column for column in columns if (values[column] == UNKNOWN).all()]
    if unknown:
        raise DataError(
            f"balance: {', '.join(unknown)} is unknown for all {len(rows)} training pictures; "
            "take it out of balance"
        )
    return values.groupby(list(columns), sort=True).ngroup().to_numpy(dtype=np.int64)


def draw_balanced(
    rows: np.ndarray, cells: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw rows so that the cells come equally often.

    Parameters
    ----------
    rows
        `(M,)` integers to draw from, M at least 1.
    cells
        `(M,)` integers: the cell of each of them.
    n
        How many are drawn.
    rng
        The only source of chance.

    Returns
    -------
    np.ndarray
        `(n,)`, cell by cell, so to be shuffled: the cells come equally often to within one
        (which ones come once more is drawn), and within a cell none comes a further time before
        all came.
    """
    places = np.argsort(cells, kind="stable")
    _, starts = np.unique(cells[places], return_index=True)
    pools = np.split(rows[places], starts[1:])
    wanted = np.full(len(pools), n // len(pools))
    if n % len(pools):
        wanted[rng.permutation(len(pools))[: n % len(pools)]] += 1
    drawn = [_rounds(pool, size, rng) for pool, size in zip(pools, wanted, strict=True)]
    return np.concatenate(drawn)


def _rounds(pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n of a pool: all of it once in an order of chance, then all once more, and so on."""
    parts = [rng.permutation(pool) for _ in range(-(-n // len(pool)))]
    return np.concatenate([pool[:0], *parts])[:n]
