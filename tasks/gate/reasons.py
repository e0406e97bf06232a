"""Why a version is refused: a sentence a rule that failed, with the group and the figure."""

import pandas as pd

from tasks.core.headline import percent, points
from tasks.gate.compare import CHALLENGER, Compared
from tasks.gate.decision import (
    BEST,
    CALIBRATION,
    FAIL,
    GROUP,
    HIGHER_IS_BETTER,
    NEW,
    OVERALL,
    ROBUSTNESS,
    UNSEEN,
    WORST,
)

NO_NUMBER = "the figure is no number"  # notes of rules
TOO_FEW = "too few to judge"
_OF_PART = {NEW: "new test pictures", "frozen": "frozen test pictures"}


def reasons(table: pd.DataFrame, confidence: float) -> tuple[str, ...]:
    """Say every rule that failed.

    Parameters
    ----------
    table
        What `rules_table` returned.
    confidence
        Level of its intervals.
    """
    failed = table[table["outcome"] == FAIL]
    return tuple(_sentence(row, confidence) for _, row in failed.iterrows())


def losses(compared: Compared) -> tuple[str, ...]:
    """Say what the challenger cannot answer: labels that it lost, pictures it finds no face in."""
    told = [
        f"It cannot answer {label} any more: {number} pictures with that label count as read wrong."
        for label, number in compared.lost.items()
    ]
    missed = int(compared.pictures[f"answer_{CHALLENGER}"].isna().sum())
    if missed:
        told.append(f"It finds no face in {missed} test pictures: they count as read wrong.")
    return tuple(told)


def _sentence(row: pd.Series, confidence: float) -> str:
    on = f"{row['n']} {_OF_PART[row['part']]} of {row['subjects']} people"
    if row["rule"] == UNSEEN:
        return f"{_capital(row['note'])}: {_people(row)} (on {on})."
    if row["note"] == NO_NUMBER:
        return f"{_what(row)} cannot be judged: {NO_NUMBER} ({on})."
    if pd.isna(row["challenger"]):
        return f"{_capital(row['note'])}."
    if row["note"].startswith(TOO_FEW):
        return f"{_capital(TOO_FEW)}: {on}; {row['note'].removeprefix(TOO_FEW + ': ')}."
    if pd.isna(row["change"]):
        side = "below" if row["rule"] in HIGHER_IS_BETTER else "above"
        figure = figure_words(row["rule"], row["challenger"])
        floor = figure_words(row["rule"], row["margin"])
        return f"{_what(row)} is {figure}, {side} the floor of {floor} ({on})."
    moved = "fell" if row["change"] < 0 else "rose" if row["change"] > 0 else "stayed"
    from_to = " to ".join(
        figure_words(row["rule"], row[side]) for side in ("champion", "challenger")
    )
    ends = [change_words(row["rule"], row[name]) for name in ("ci_low", "ci_high")]
    span = f"{100 * confidence:g}\u202f% interval {ends[0].removesuffix(' points')} to {ends[1]}"
    change = change_words(row["rule"], row["change"])
    return f"{_what(row)} {moved} from {from_to} ({change}; {span}; {on}): {row['note']}."


def _what(row: pd.Series) -> str:
    if row["rule"] in (GROUP, BEST):
        whom = "all new people" if row["group"] == "all" else f"{row['group']} (as recorded)"
        return f"Recall of {whom}"
    return {
        OVERALL: "Overall recall",
        WORST: "Recall of the worst group",
        CALIBRATION: "The Brier score",
        ROBUSTNESS: f"The share of answers that flip under {row['group']}",
    }[row["rule"]]


def _people(row: pd.Series) -> str:
    if pd.isna(row["challenger"]):
        return "so that the figures may flatter it"
    number = int(row["challenger"])
    return f"{number} {'person' if number == 1 else 'people'}"


def figure_words(rule: str, value: float) -> str:
    """Write a figure of a rule; "" where there is none."""
    if pd.isna(value):
        return ""
    if rule == UNSEEN:
        return str(int(value))
    return f"{value:.3f}" if rule == CALIBRATION else percent(value)


def change_words(rule: str, value: float) -> str:
    """Write a change of a rule's figure, or a limit of its interval; "" where there is none."""
    if pd.isna(value):
        return ""
    if rule == CALIBRATION:
        return f"{value:+.3f}".replace("-", "\u2212")
    return f"{points(value, signed=True)} points"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
