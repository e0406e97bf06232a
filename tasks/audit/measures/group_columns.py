"""Columns that can be compared by group: few enough groups, numbers cut into bins.

Columns of another system's file with arbitrary names, kept apart from the audit's columns.

A user may compare the groups of a column called `n`, `recall` or `index`, names that the audit's
tables use themselves. While tables are made, such a column has a name that no file can have. In the
tables it gets its original name back, prefixed with `by_` where a table has that name already.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from tasks.core.errors import UserError
from tasks.core.labels import ALL, UNKNOWN

Limits = Mapping[str, Sequence[float]]

# Pairs of groups grow with the square: 50 groups are 1,225 pairs for every emotion and model.
_MOST_GROUPS = 50
_MOST_WITH_SMALL = 200  # where at least half of the groups have enough images to be tested
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_MARK = "\x1f"  # a control character, which `predictions_table` takes out of every header
_HIDDEN = re.compile(f"{_MARK}([^{_MARK}]*){_MARK}")
_ADDED_LATER = ("notice", ALL)  # a column of the files, and the word for a pooled dimension


def parse_bins(options: Sequence[str]) -> dict[str, list[float]]:
    """Read options such as `age_years=10,18`.

    Raises
    ------
    UserError
        One line for an option of another form, limits that do not ascend, or a column named twice.
    """
    bins: dict[str, list[float]] = {}
    for option in options:
        name, _, text = option.rpartition("=")
        name = name.strip().lower()
        try:
            limits = [float(part) for part in text.split(",")]
        except ValueError:
            limits = []
        if not name or not limits or not np.isfinite(limits).all():
            raise UserError(f"--bins {option}: write COLUMN=LIMIT,LIMIT, such as age_years=10,18")
        if sorted(set(limits)) != limits:
            raise UserError(f"--bins {option}: the limits must ascend")
        if name in bins:
            raise UserError(f"--bins {option}: the column {name} has bins already")
        bins[name] = limits
    return bins


def binned(numbers: pd.Series, limits: Sequence[float]) -> pd.Series:
    """Cut numbers into bins; a limit belongs to the bin above it, and a missing number to none."""
    ends = [f"{limit:g}" for limit in limits]
    names = [f"under {ends[0]}"]
    names += [f"{low} to under {high}" for low, high in pairwise(ends)]
    names += [f"{ends[-1]} and over"]
    place = np.searchsorted(limits, numbers.to_numpy(dtype=float), side="right")
    values = np.array(names, dtype=object)[np.minimum(place, len(limits))]
    return pd.Series(values, numbers.index, dtype="str").where(numbers.notna(), UNKNOWN)


def natural_order(value: str) -> tuple[float, bool, str]:
    """Return a key that sorts groups by the first number in their names, `under 5` before `5`."""
    number = _NUMBER.search(value)
    return float(number[0]) if number else np.inf, not value.startswith("under "), value


def check_group_counts(frame: pd.DataFrame, names: Mapping[str, str], min_images: int) -> None:
    """Reject columns with too many groups, whose comparison takes hours and shows nothing.

    `names` maps a column to its name in messages; `min_images` is the number that a group needs to
    be tested. The UserError offers bins where the values are numbers.
    """
    for column, name in names.items():
        values = frame[column][frame[column] != UNKNOWN].dropna()
        sizes = values.value_counts()
        enough = int((sizes >= min_images).sum())
        most = _MOST_WITH_SMALL if 2 * enough >= len(sizes) else _MOST_GROUPS
        if enough <= _MOST_GROUPS and len(sizes) <= most:
            continue
        message = (
            f"column {name} has {len(sizes)} values, {enough} of them in {min_images} rows or "
        )
        message += f"more; at most {_MOST_GROUPS} groups can be compared"
        numbers = pd.to_numeric(values, errors="coerce")
        if numbers.notna().all():
            limits = ",".join(f"{limit:.3g}" for limit in _thirds(numbers))
            raise UserError(f"{message}; cut it into bins, such as --bins {name}={limits}")
        example = ", ".join(map(repr, map(str, sizes.index[:3])))
        raise UserError(f"{message} (such as {example}); give it fewer groups or another name")


def _thirds(numbers: pd.Series) -> list[float]:
    return sorted({float(f"{limit:.3g}") for limit in np.quantile(numbers, [1 / 3, 2 / 3])})


def hidden(name: str) -> str:
    """Return the name under which a user's column takes part."""
    return f"{_MARK}{name}{_MARK}"


def is_hidden(name: str) -> bool:
    """Return whether a name is one that `hidden` made."""
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
