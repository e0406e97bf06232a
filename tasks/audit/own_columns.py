"""Columns of another system's file whose names nobody can foresee, kept apart from ours.

A user may compare the groups of a column called `n`, `recall` or `index`, names that the audit's
tables use themselves. While tables are made, such a column has a name that no file can have; in the
tables it gets its own name back, with `by_` before it where a table has that name already.
"""

import re
from collections.abc import Iterable, Mapping

import pandas as pd

from tasks.core.labels import ALL

_MARK = "\x1f"  # a control character, which `predictions_table` takes out of every header
_HIDDEN = re.compile(f"{_MARK}([^{_MARK}]*){_MARK}")
_ADDED_LATER = ("notice", ALL)  # a column of the files, and the word for a pooled dimension


def hidden(name: str) -> str:
    """Return the name under which a user's column takes part."""
    return f"{_MARK}{name}{_MARK}"


def is_hidden(name: str) -> bool:
    """Whether this is such a name."""
    return name.startswith(_MARK)


def shown_names(tables: Mapping[str, pd.DataFrame], columns: Iterable[str]) -> dict[str, str]:
    """Return, for the user's columns (plain names), the names that they have in the tables."""
    taken = {name for table in tables.values() for name in table.columns} | {*_ADDED_LATER}
    names: dict[str, str] = {}
    for column in columns:
        name = column
        while name in taken:
            name = f"by_{name}"
        names[column] = name
        taken.add(name)
    return names


def with_shown_names(
    tables: Mapping[str, pd.DataFrame], names: Mapping[str, str]
) -> dict[str, pd.DataFrame]:
    """Return the tables with the user's columns named for readers, in headers and in cells."""
    if not names:
        return dict(tables)
    return {key: _shown(table, names) for key, table in tables.items()}


def _shown(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    def in_words(text: str) -> str:
        return _HIDDEN.sub(lambda match: names.get(match[1], match[1]), text)

    renamed = table.rename(columns=in_words)
    for column in renamed.select_dtypes(include=["object", "str"]):
        cells = renamed[column]
        texts = [cell for cell in cells.unique() if isinstance(cell, str) and _MARK in cell]
        if texts:
            renamed[column] = cells.replace({text: in_words(text) for text in texts})
    return renamed
