"""Choosing rows by groups named in params, such as `{age_band: [child], gender: [female]}`."""

from collections.abc import Mapping, Sequence

import pandas as pd

from tasks.core.errors import ParamsError


def select_rows(
    table: pd.DataFrame, groups: Mapping[str, Sequence[str]], where: str
) -> pd.DataFrame:
    """Keep the rows whose columns hold one of the wanted values; an empty mapping keeps all.

    Parameters
    ----------
    table
        One row a picture.
    groups
        Column to wanted values; columns are combined with "and".
    where
        The params key, for the message.

    Raises
    ------
    ParamsError
        For a column that the table lacks, or a selection that keeps nothing.
    """
    chosen = pd.Series(True, index=table.index)
    for column, values in groups.items():
        if column not in table.columns:
            known = ", ".join(table.columns)
            raise ParamsError(f"{where}: the table has no column '{column}' (it has {known})")
        chosen &= table[column].isin(list(values))
    if not chosen.any():
        present = {column: sorted(table[column].dropna().unique()) for column in groups}
        raise ParamsError(
            f"{where}: no picture is in {dict(groups)}; the table has {present}; name another "
            "group, add pictures of more people, or try another split.seed"
        )
    return table[chosen]
