"""Balanced epochs: each combination of recorded properties occurs equally often.

A cell is one combination of values of the columns in `balance`: `[emotion]` balances the classes,
`[age_band, gender, emotion]` the groups too. An epoch has as many samples as there are images.
Images of a small cell are repeated, each time with a different augmentation; of a large cell only a
part is drawn in each epoch.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.core.errors import DataError, ParamsError
from tasks.core.labels import UNKNOWN


def cells_of(rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Return the cell number of each image, `(N,)` int64 from 0 in the order of the values.

    All images are in cell 0 if there are no columns. A missing value counts as the value `unknown`,
    which forms cells like any other value.

    Raises
    ------
    ParamsError
        If a column does not exist.
    DataError
        If a column is unknown for every image.
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


def sample_balanced(
    rows: np.ndarray, cells: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw `n` of `rows` so that the cells occur equally often.

    `rows` and `cells` are `(M,)`, M at least 1. The result `(n,)` is sorted by cell, so shuffle it.
    Counts per cell differ by at most one (which cells get the extra one is random), and no row of a
    cell is repeated before all its rows were drawn.
    """
    by_cell = np.argsort(cells, kind="stable")
    _, starts = np.unique(cells[by_cell], return_index=True)
    pools = np.split(rows[by_cell], starts[1:])
    wanted = np.full(len(pools), n // len(pools))
    if n % len(pools):
        wanted[rng.permutation(len(pools))[: n % len(pools)]] += 1
    samples = [
        _draw_permutations(pool, size, rng) for pool, size in zip(pools, wanted, strict=True)
    ]
    return np.concatenate(samples)


def _draw_permutations(pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n rows: repeated permutations of the pool, the last one cut off."""
    parts = [rng.permutation(pool) for _ in range(-(-n // len(pool)))]
    return np.concatenate([pool[:0], *parts])[:n]
