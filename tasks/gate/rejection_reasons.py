"""Reasons to refuse or hold a version: one sentence per rule, with group, figure and limits."""

import pandas as pd

from tasks.core.gap_sentences import percent, points
from tasks.gate.compare import CHALLENGER, Compared, Named
from tasks.gate.decision import (
    BEST,
    CALIBRATION,
    FAIL,
    FROZEN,
    GROUP,
    HELD,
    NEW,
    NOT_JUDGED,
    OVERALL,
    ROBUSTNESS,
    UNSEEN,
)
from tasks.gate.settings import Params

NOT_IN_DATA = "no picture of it is in the data"
NO_NUMBER = "the figure is no number"  # notes of rules
TOO_FEW = "too few to judge"
_OF_PART = {NEW: "new test pictures", "frozen": "frozen test pictures"}


def reasons(table: pd.DataFrame, confidence: float) -> tuple[str, ...]:
    """Return one sentence for every failed rule in the result of `rules_table`."""
    return tuple(_sentences(table, FAIL, confidence))


def waits(table: pd.DataFrame, named: tuple[Named, ...], params: Params) -> tuple[str, ...]:
    """Return one sentence for every reason why a person must approve the version."""
    sentences = _sentences(table, HELD, params.confidence)
    groups = table[(table["rule"] == GROUP) & (table["part"] == FROZEN)].set_index("group")
    new = table[(table["rule"] == GROUP) & (table["part"] == NEW)]
    on_new = set(new.loc[new["outcome"] != NOT_JUDGED, "group"])
    small = {
        one.name: groups.loc[one.name]
        for one in named
        if one.name in groups.index
        and groups.loc[one.name, "outcome"] == NOT_JUDGED
        and one.name not in on_new
    }
    if len(small) == len(named):
        sentences.append(
            "No group named in promote.protected has enough test people to tell whether it is "
            "harmed."
        )
    for one in named if params.not_judged == "wait" else ():
        if one.needed_by and one.name in small and small[one.name]["note"] != NOT_IN_DATA:
            sentences.append(_unjudged(one, small[one.name], params))
    return tuple(sentences)


def _sentences(table: pd.DataFrame, outcome: str, confidence: float) -> list[str]:
    rows = table[table["outcome"] == outcome]
    return [_sentence(row, confidence) for _, row in rows.iterrows()]


def _unjudged(group: Named, row: pd.Series, params: Params) -> str:
    """Return a sentence on what a required group lacks to be judged."""
    size = f"{row['n']} frozen test pictures of {row['subjects']} people"
    if row["n"] and row["effective"] < row["subjects"] - 0.05:
        size += f", who count as {row['effective']:.1f} since some have many more pictures"
    return (
        f"Whether {group.name} ({' and '.join(group.needed_by)}) is harmed cannot be told: {size}; "
        f"{params.min_n} pictures of {params.min_subjects} people are needed."
    )


def is_floor(row: pd.Series) -> bool:
    """Return whether a row is about a missed floor, not about a change."""
    return str(row["note"]).startswith(("below the floor", "above the floor"))


def losses(compared: Compared) -> tuple[str, ...]:
    """Return sentences on the challenger's missing predictions: lost labels, no face found."""
    sentences = [
        f"It cannot answer {label} any more: {number} pictures with that label count as read wrong."
        for label, number in compared.lost.items()
    ]
    missed = int(compared.images[f"answer_{CHALLENGER}"].isna().sum())
    if missed:
        sentences.append(f"It finds no face in {missed} test pictures: they count as read wrong.")
    return tuple(sentences)


def _sentence(row: pd.Series, confidence: float) -> str:
    on = f"{row['n']} {_OF_PART[row['part']]} of {row['subjects']} people"
    if row["rule"] == UNSEEN:
        return f"{_capital(row['note'])}: {_people(row)} (on {on})."
    if row["note"] == NO_NUMBER:
        return f"{_subject(row)} cannot be judged: {NO_NUMBER} ({on})."
    if pd.isna(row["challenger"]):
        return f"{_capital(row['note'])}."
    if row["note"].startswith(TOO_FEW):
        return f"{_capital(TOO_FEW)}: {on}; {row['note'].removeprefix(TOO_FEW + ': ')}."
    if pd.isna(row["change"]) or is_floor(row):
        figure = figure_words(row["rule"], row["challenger"])
        ends = [figure_words(row["rule"], row[name]) for name in ("own_low", "own_high")]
        span = f"{_level(confidence)} interval {ends[0]} to {ends[1]}"
        return f"{_subject(row)} is {figure} ({span}; {on}), {row['note']}."
    moved = "fell" if row["change"] < 0 else "rose" if row["change"] > 0 else "stayed"
    from_to = " to ".join(
        figure_words(row["rule"], row[side]) for side in ("champion", "challenger")
    )
    ends = [change_words(row["rule"], row[name]) for name in ("ci_low", "ci_high")]
    span = f"{row['method']} {ends[0].removesuffix(' points')} to {ends[1]}"
    change = change_words(row["rule"], row["change"])
    return f"{_subject(row)} {moved} from {from_to} ({change}; {span}; {on}): {row['note']}."


def _level(confidence: float) -> str:
    return f"{100 * confidence:g}\u202f%"


def _subject(row: pd.Series) -> str:
    if row["rule"] in (GROUP, BEST):
        group = "all new people" if row["group"] == "all" else f"{row['group']} (as recorded)"
        return f"Recall of {group}"
    return {
        OVERALL: "Overall recall",
        CALIBRATION: "The Brier score",
        ROBUSTNESS: f"The share of answers that flip under {row['group']}",
    }[row["rule"]]


def _people(row: pd.Series) -> str:
    if pd.isna(row["challenger"]):
        return "so that the figures may flatter it"
    number = int(row["challenger"])
    return f"{number} {'person' if number == 1 else 'people'}"


def figure_words(rule: str, value: float) -> str:
    """Format a rule's figure; "" for NaN."""
    if pd.isna(value):
        return ""
    if rule == UNSEEN:
        return str(int(value))
    return f"{value:.3f}" if rule == CALIBRATION else percent(value)


def change_words(rule: str, value: float) -> str:
    """Format a change of a rule's figure, or a limit of its interval; "" for NaN."""
    if pd.isna(value):
        return ""
    if rule == CALIBRATION:
        return f"{value:+.3f}".replace("-", "\u2212")
    return f"{points(value, signed=True)} points"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
