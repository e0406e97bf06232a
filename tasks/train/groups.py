"""Which groups of validation pictures can be the worst: one rule for every choice.

A group is a value of one column. It counts where the value is known and it has enough pictures; a
checkpoint, coefficient or strategy must not hang on one picture. Where no group counts, all
pictures together do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.core.labels import ALL, UNKNOWN


@dataclass(frozen=True)
class Group:
    """Pictures that have one value of one column.

    Attributes
    ----------
    dimension, name
        The column and the value; both `all` for all pictures together.
    members
        `(N,)` booleans: which of the rows are of it.
    counts
        Whether it can be the worst.
    """

    dimension: str
    name: str
    members: np.ndarray
    counts: bool


def groups_of(rows: pd.DataFrame, by: Sequence[str], min_n: int) -> list[Group]:
    """List the groups of pictures, those that do not count among them.

    Parameters
    ----------
    rows
        One row a picture, with the columns of `by`; a missing value is an unknown one.
    by
        Columns, each of which makes groups of its own; empty: all pictures are one group.
    min_n
        A group with fewer pictures does not count.
    """
    groups = []
    for column in by:
        values = rows[column].astype("str").where(rows[column].notna(), UNKNOWN)
        for name in sorted(values.unique()):
            members = (values == name).to_numpy(dtype=bool)
            counts = name != UNKNOWN and int(members.sum()) >= min_n
            groups.append(Group(column, name, members, counts))
    if not any(group.counts for group in groups):
        groups.append(Group(ALL, ALL, np.ones(len(rows), dtype=bool), True))
    return groups


def counting_groups(rows: pd.DataFrame, by: Sequence[str], min_n: int) -> np.ndarray:
    """Return `(N, G)` booleans, a column for each group that counts; see `groups_of`."""
    return np.column_stack([g.members for g in groups_of(rows, by, min_n) if g.counts])
