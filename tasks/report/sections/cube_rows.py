"""Selects groups and their rows from the audit's tables."""

from collections.abc import Sequence
from itertools import product

import pandas as pd

from tasks.core.labels import ALL

Group = dict[str, str]  # dimension to value; empty for everyone
GroupRow = tuple[Group, pd.Series]
_MAX_CROSSED_CELLS = 12  # limit on the cells of the first two dimensions


def group_list(table: pd.DataFrame, by: Sequence[str], crossed: bool) -> list[Group]:
    """Return the groups that a table lists, each as dimension to value; the first is everyone.

    With `crossed`, the cells of the first two dimensions follow, unless there are too many.
    """
    values = {name: [v for v in dict.fromkeys(table[name]) if v != ALL] for name in by}
    groups: list[Group] = [{}]
    groups += [{name: value} for name in by for value in values[name]]
    if crossed and len(by) >= 2:
        pairs = product(values[by[0]], values[by[1]])
        cells = [{by[0]: first, by[1]: second} for first, second in pairs]
        cells = [cell for cell in cells if not pick(table, by, cell).empty]
        groups += cells if len(cells) <= _MAX_CROSSED_CELLS else []
    return groups


def pick(table: pd.DataFrame, by: Sequence[str], group: Group, **others: str) -> pd.DataFrame:
    """Return the rows of one group, over all data sets unless `dataset` is given."""
    mask = table["dataset"] == others.pop("dataset", ALL)
    for name in by:
        mask &= table[name] == group.get(name, ALL)
    for name, value in others.items():
        mask &= table[name] == value
    return table[mask]


def group_rows(table: pd.DataFrame, by: Sequence[str], crossed: bool) -> list[GroupRow]:
    """Return the rows of every group that a table lists, over all data sets."""
    groups = [] if table.empty else group_list(table, by, crossed)
    return [(group, row) for group in groups for _, row in pick(table, by, group).iterrows()]
