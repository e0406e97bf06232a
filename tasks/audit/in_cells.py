"""Which picture is in which cell: a group's pictures of one stratum, bin or answer."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse


def in_cells(cell: np.ndarray, cells: int, weight: np.ndarray | None = None) -> sparse.csr_array:
    """Return cells as columns, for sums over pictures (`Resampled.sums`, `People.by_person`).

    Parameters
    ----------
    cell
        `(n,)` integers below `cells`; −1 for a picture that is in none.
    cells
        How many there are.
    weight
        `(n,)` numbers or booleans that are summed; None counts pictures.

    Returns
    -------
    scipy.sparse.csr_array
        `(n, cells)` float64, at most one entry a row.
    """
    rows = np.flatnonzero(cell >= 0)
    values = np.ones(len(rows)) if weight is None else np.asarray(weight, dtype=float)[rows]
    return sparse.csr_array((values, (rows, cell[rows])), shape=(len(cell), cells))


def codes(values: pd.Series, names: Sequence[str]) -> np.ndarray:
    """Return each value's place among the names, `(n,)` integers; −1 for a value that is none."""
    return pd.Index(list(names), dtype=object).get_indexer(values.astype(object))


def column_sums(members: sparse.csr_array) -> np.ndarray:
    """Sum over all pictures: `(cells,)` float64."""
    return np.asarray(members.sum(axis=0), dtype=float).ravel()
