"""Sentences about gaps between groups: the largest one in `gaps.csv`, or that none is significant.

A gap is reported only if it was tested (enough images on both sides) and its p-value, corrected for
all tests along the same dimension, is below `ALPHA`. Otherwise the sentence says that no gap could
be shown, which does not mean that there is none.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tasks.core.labels import ALL

ALPHA = 0.05
UNCORRECTED_ONLY = "not shown after correction for all comparisons"
_MOST_DECIMALS = 4
BETWEEN = " \N{MULTIPLICATION SIGN} "  # separates the columns of an intersection, and their values
_PEOPLE = {
    ("age_band", "child"): "children",
    ("age_band", "adolescent"): "adolescents",
    ("age_band", "adult"): "adults",
    ("gender", "female"): "people recorded as female",
    ("gender", "male"): "people recorded as male",
}


def largest_gap(
    gaps: pd.DataFrame, model: str, single_emotions: bool, protocol: str = "held_out"
) -> pd.Series | None:
    """Return the row of `gaps.csv` with a model's largest significant gap, or None.

    It is oriented so that `a` is the group with the lower recall (`gap` is negative).
    `single_emotions` selects comparisons on one emotion; otherwise those pooled over emotions.
    """
    if gaps.empty:
        return None
    rows = gaps[(gaps["model"] == model) & (gaps["protocol"] == protocol)]
    rows = rows[(rows["emotion"] != ALL) == single_emotions]
    rows = rows[could_be_shown(rows)]
    if rows.empty:
        return None
    return turned(rows.iloc[int(rows["gap"].abs().argmax())])


def could_be_shown(rows: pd.DataFrame) -> pd.Series:
    """Return which gaps are tested, with a corrected p below `ALPHA` and an interval without 0."""
    excludes_0 = (rows["ci_low"] > 0) | (rows["ci_high"] < 0)
    return rows["enough_n"].astype(bool) & (rows["p_adjusted"] < ALPHA) & excludes_0


def turned(row: pd.Series) -> pd.Series:
    """Orient a comparison so that `a` is the group with the lower recall."""
    if row["gap"] <= 0:
        return row
    swapped = row.copy()
    for name in ("group", "n", "correct", "recall", "subjects"):
        swapped[f"{name}_a"], swapped[f"{name}_b"] = row[f"{name}_b"], row[f"{name}_a"]
    swapped["gap"], swapped["ci_low"], swapped["ci_high"] = (
        -row["gap"],
        -row["ci_high"],
        -row["ci_low"],
    )
    return swapped


def people(dimension: str, group: str) -> str:
    """Return a noun phrase for a group, as in "pictures of …"."""
    words = f"people with {dimension} {group} (as recorded)".replace("_", " ")
    return _PEOPLE.get((dimension, group), words)


def percent(share: float) -> str:
    """Format a share from 0 to 1 as a percentage with one decimal."""
    return f"{100 * share:.1f}\u202f%"


def points(share: float, signed: bool = False) -> str:
    """Format a difference of shares in percentage points with one decimal.

    A difference that would round to 0 gets more decimals, so that the sign of a limit is visible.
    """
    value = 100 * share
    decimals = 1
    while 0 < abs(value) < 0.5 * 10**-decimals and decimals < _MOST_DECIMALS:
        decimals += 1
    if 0 < abs(value) < 0.5 * 10**-decimals:
        return f"just {'above' if value > 0 else 'below'} 0"
    value = abs(value) if value == 0 else value  # no negative zero
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    return text.replace("-", "\u2212")


def not_shown(row: Mapping[str, Any]) -> str:
    """Return the verdict on a difference whose corrected p-value is too large.

    The interval is not corrected for the other comparisons and may exclude 0. The verdict then says
    so instead of contradicting it.
    """
    if row["ci_low"] > 0 or row["ci_high"] < 0:
        return f"was {UNCORRECTED_ONLY}"
    return "could not be shown"


def gap_sentence(row: pd.Series, model: str) -> str:
    """Describe a gap, oriented by `turned`, in a sentence with its counts and interval.

    `model` is a noun phrase such as "the base model".
    """
    what = "pictures" if row["emotion"] == ALL else f"pictures labelled {row['emotion']}"
    within = "" if row["dataset"] == ALL else f" in {row['dataset']}"
    side_a = people(row["dimension"], row["group_a"])
    side_b = people(row["dimension"], row["group_b"])
    text = (
        f"{model} reads {percent(row['recall_a'])} of the {what} of {side_a} correctly "
        f"({row['correct_a']} of {row['n_a']}) and {percent(row['recall_b'])} of those of {side_b} "
        f"({row['correct_b']} of {row['n_b']}){within}: a gap of {points(-row['gap'])} percentage "
        f"points ({100 * row['confidence']:g}\u202f% interval {points(-row['ci_high'])} to "
        f"{points(-row['ci_low'])})."
    )
    return text[0].upper() + text[1:]


def worst_intersection(
    table: pd.DataFrame, model: str, protocol: str = "held_out"
) -> pd.Series | None:
    """Return the row of `intersections.csv` that is significantly and furthest below the rest."""
    if table.empty:
        return None
    rows = table[(table["model"] == model) & (table["protocol"] == protocol)]
    rows = rows[rows["enough_n"].astype(bool) & (rows["p_adjusted"] < ALPHA)]
    rows = rows[rows["difference_high"] < 0]
    return None if rows.empty else rows.iloc[int(rows["difference"].argmin())]


def intersection_words(dimensions: str, group: str) -> str:
    """Return a noun phrase for an intersection, such as "children recorded as male"."""
    names, values = dimensions.split(BETWEEN), group.split(BETWEEN)
    words = [_PEOPLE.get(pair, "") for pair in zip(names, values, strict=False)]
    if len(names) != len(values) or not all(words):
        return f"people with {dimensions} {group} (as recorded)".replace("_", " ")
    first, *others = words
    return " ".join([first, *(word.removeprefix("people ") for word in others)])


def intersection_sentence(row: pd.Series, model: str) -> str:
    """Describe an intersection whose recall is below that of the rest; `model` as above."""
    who = intersection_words(row["dimensions"], row["group"])
    level = f"{100 * row['confidence']:g}\u202f%"
    text = (
        f"{model} reads {percent(row['recall'])} of the pictures of {who} correctly "
        f"({row['correct']} of {row['n']}) and {percent(row['recall_rest'])} of the other pictures "
        f"({row['correct_rest']} of {row['n_rest']}): {points(-row['difference'])} percentage "
        f"points less ({level} limits, for all groups of several columns at once, "
        f"{points(-row['difference_high'])} to {points(-row['difference_low'])}). If the "
        f"differences between its columns' groups added up, {percent(row['expected'])} would be "
        "expected."
    )
    return text[0].upper() + text[1:]


def no_gap_sentence(
    gaps: pd.DataFrame, model: str, protocol: str = "held_out", dimension: str | None = None
) -> str:
    """Return a sentence that no gap could be shown, with the minimum detectable effect.

    `dimension` restricts it to the rows of `gaps.csv` along that dimension; None: all.
    """
    rows = gaps[(gaps["model"] == model) & (gaps["protocol"] == protocol)]
    rows = rows if dimension is None else rows[rows["dimension"] == dimension]
    rows = rows[rows["enough_n"].astype(bool)]
    along = "" if dimension is None else f" by {dimension.replace('_', ' ')}"
    if rows.empty:
        return (
            f"No two groups{along} have enough pictures of enough people to be compared, so "
            "nothing can be said about gaps."
        )
    many = f"{len(rows)} comparison{'s' if len(rows) > 1 else ''}"
    return (
        f"No gap between groups{along} could be shown in {many}."
        f"{uncorrected_sentence(rows, 'gap')} That is no evidence that there is none: "
        f"{_could_have(rows)}."
    )


def uncorrected_sentence(rows: pd.DataFrame, what: str, nothing: int = 0) -> str:
    """Return a sentence on intervals that exclude `nothing` where no test is significant.

    `what` names a comparison, such as "gap". The sentence starts with a space; it is "" where no
    interval excludes `nothing`.
    """
    count = int(((rows["ci_low"] > nothing) | (rows["ci_high"] < nothing)).sum())
    if not count:
        return ""
    one = count == 1
    return (
        f" The interval{'' if one else 's'} of {count} exclude{'s' if one else ''} {nothing}, but "
        f"{f'this {what} was' if one else f'these {what}s were'} {UNCORRECTED_ONLY}."
    )


def _could_have(rows: pd.DataFrame) -> str:
    """Describe the minimum detectable effects of the tested comparisons."""
    least, most = rows["mde"].min(), rows["mde"].max()
    if pd.isna(least):
        return "the intervals say how large a gap could still be"
    ends = [points(share) if share <= 1 else "more than 100" for share in (least, most)]
    size = " to ".join(dict.fromkeys(ends))
    depends = ", depending on the comparison" if " to " in size else ""
    return (
        f"the smallest gap that could have been shown is {size} percentage points{depends} (with a "
        f"probability of {100 * rows['power'].iloc[0]:g}\u202f%)"
    )
