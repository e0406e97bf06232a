"""Finding cells of the audit's cube: which groups a table of the report shows, and their rows."""

from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd

from tasks.core.labels import ALL

_CROSSED_AT_MOST = 12  # cells of the first two dimensions that a table still lists


def group_list(table: pd.DataFrame, by: Sequence[str], crossed: bool) -> list[dict[str, str]]:
    """Return the groups that a table lists, each as dimension to value; the first is everyone.

    Parameters
    ----------
    table
        A cube with a column `dataset` and the columns `by`.
    by
        The dimensions.
    crossed
        Whether the cells of the first two dimensions follow.
    """
    values = {name: [v for v in dict.fromkeys(table[name]) if v != ALL] for name in by}
    groups: list[dict[str, str]] = [{}]
    groups += [{name: value} for name in by for value in values[name]]
    if crossed and len(by) >= 2:
        pairs = product(values[by[0]], values[by[1]])
        cells = [{by[0]: first, by[1]: second} for first, second in pairs]
        cells = [cell for cell in cells if not pick(table, by, cell).empty]
        groups += cells if len(cells) <= _CROSSED_AT_MOST else []
    return groups


def pick(
    table: pd.DataFrame, by: Sequence[str], where: Mapping[str, str], **others: str
) -> pd.DataFrame:
    """Return the rows of one group over all data sets, with further columns held to a value."""
    keep = table["dataset"] == others.pop("dataset", ALL)
    for name in by:
        keep &= table[name] == where.get(name, ALL)
    for name, value in others.items():
        keep &= table[name] == value
    return table[keep]
