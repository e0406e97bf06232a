"""A decision as one page that a person can read: no other file, no script, no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.core.headline import percent
from tasks.core.labels import DRAWN_NOTICE
from tasks.core.render import render
from tasks.gate.decision import (
    BEST,
    CALIBRATION,
    FAIL,
    FROZEN,
    GROUP,
    HIGHER_IS_BETTER,
    NEW,
    NOT_JUDGED,
    OVERALL,
    ROBUSTNESS,
    UNSEEN,
    WORST,
    Decision,
)
from tasks.gate.interval_mark import Mark, mark_of
from tasks.gate.reasons import change_words, figure_words
from tasks.gate.rules import PART_OF_ALL

_TEMPLATES = Path(__file__).parent / "templates"
_WORDS = {"pass": "passed", FAIL: "failed", NOT_JUDGED: "not judged"}
_PARTS = {
    FROZEN: "The same test pictures as the model in use was judged on",
    NEW: "Test pictures that came since",
}
_NAMES = {
    OVERALL: "Recall, all pictures",
    GROUP: "Recall",
    BEST: "Recall, against the best version ever in use",
    WORST: "Recall of the worst group",
    CALIBRATION: "Brier score",
    ROBUSTNESS: "Answers that flip",
    UNSEEN: "Test people seen in training",
}


@dataclass(frozen=True)
class Row:
    """A rule as it is shown; `mark` draws the change with its interval and margin."""

    name: str
    detail: str
    n: str
    champion: str
    challenger: str
    change: str
    interval: str
    margin: str
    outcome: str
    tone: str
    note: str
    mark: Mark | None


def page(decision: Decision) -> str:
    """Return a decision as HTML; the same decision gives the same bytes."""
    confidence = float(decision.params["confidence"])
    parts = [part for part in (FROZEN, NEW) if (decision.table["part"] == part).any()]
    drawn = decision.notice.startswith(DRAWN_NOTICE)
    values = {
        "title": _title(decision),
        "passed": decision.passed,
        "first": decision.champion is None,
        "reasons": decision.reasons,
        "challenger": decision.challenger,
        "champion": decision.champion,
        "banner": DRAWN_NOTICE if drawn else "",
        "credit": decision.notice.removeprefix(DRAWN_NOTICE).lstrip(" ·")
        if drawn
        else decision.notice,
        "cards": _cards(decision),
        "parts": [(_heading(decision, part), _rows(decision, part)) for part in parts],
        "too_small": _too_small(decision.table),
        "needs_a_person": decision.needs_a_person,
        "confidence": f"{100 * confidence:g}\u202f%",
        "counts": [(name, number) for name, number in decision.counts.items() if number],
        "params": decision.params,
        "by": " × ".join(name.replace("_", " ") for name in decision.params["by"]),
        "several": len(decision.params["by"]) > 1,
        "notice": decision.notice,
        "decision_id": decision.decision_id,
        "test_set": decision.test_set,
    }
    return render(_TEMPLATES, "decision.html.j2", values)


def _title(decision: Decision) -> str:
    number = decision.challenger.version
    if decision.needs_a_person:
        return f"Version {number} waits for a person"
    if not decision.passed:
        return f"Version {number} is refused"
    if decision.champion is None:
        return f"Version {number}, the first, may be used"
    return f"Version {number} may replace version {decision.champion.version}"


def _heading(decision: Decision, part: str) -> str:
    return _PARTS[part] if decision.champion is not None else "The test pictures"


def _rows(decision: Decision, part: str) -> list[Row]:
    table = decision.table[decision.table["part"] == part]
    paired = decision.champion is not None
    return [_row(row, paired) for _, row in table.iterrows()]


def _row(row: pd.Series, paired: bool) -> Row:
    rule, limits = row["rule"], (row["ci_low"], row["ci_high"])
    words = change_words if paired else figure_words
    low, high = (words(rule, value).removesuffix(" points") for value in limits)
    tone = {FAIL: "bad", NOT_JUDGED: "soft"}.get(row["outcome"], "ok")
    part_of_all = row["note"] == PART_OF_ALL
    group = "" if row["group"] == "all" else row["group"]
    if rule == GROUP and not group:
        group = "all new people"
    return Row(
        name=_NAMES[rule],
        detail=group,
        n=_counted(row),
        champion=figure_words(rule, row["champion"]) or "–",
        challenger=figure_words(rule, row["challenger"]) or "–",
        change="" if not paired else change_words(rule, row["change"]).removesuffix(" points"),
        interval=f"{low} to {high}" if low and high else "",
        margin="" if part_of_all or pd.isna(row["margin"]) else _limit(row, paired),
        outcome="" if part_of_all else _WORDS[row["outcome"]],
        tone=tone,
        note=row["note"],
        mark=mark_of(row) if paired and rule != UNSEEN else None,
    )


def _limit(row: pd.Series, paired: bool) -> str:
    """Say how far a figure may go: the margin with its sign, or the floor."""
    rule, recall = row["rule"], row["rule"] in HIGHER_IS_BETTER
    if rule == UNSEEN:
        return "0"
    if not paired:
        return f"{'≥' if recall else '≤'} {figure_words(rule, row['margin'])}"
    change = change_words(rule, -row["margin"] if recall else row["margin"])
    return change.removesuffix(" points")


def _counted(row: pd.Series) -> str:
    return f"{row['n']} ({row['subjects']})" if row["n"] else "none"


def _cards(decision: Decision) -> list[tuple[str, str, str, str]]:
    """Return the four figures that matter most: value, label, detail and tone."""
    cards = []
    for rule in (OVERALL, WORST, CALIBRATION, ROBUSTNESS):
        rows = decision.table[(decision.table["rule"] == rule) & (decision.table["part"] == FROZEN)]
        if rows.empty or pd.isna(rows["challenger"].iloc[0]):
            continue
        row = rows.iloc[0]
        value = figure_words(rule, row["challenger"])
        if decision.champion is not None:
            value = f"{figure_words(rule, row['champion'])} → {value}"
        tone = {FAIL: "gap", NOT_JUDGED: ""}.get(row["outcome"], "gain")
        detail = f"{row['n']} pictures of {row['subjects']} people{_span(row, decision)}"
        cards.append((value, _NAMES[rule], detail, tone))
    return cards


def _span(row: pd.Series, decision: Decision) -> str:
    """Return the interval as it is put behind a figure."""
    words = figure_words if decision.champion is None else change_words
    low, high = (words(row["rule"], row[name]) for name in ("ci_low", "ci_high"))
    what = "interval" if decision.champion is None else "change"
    return f"; {what} {low.removesuffix(' points')} to {high}" if low and high else ""


def _too_small(table: pd.DataFrame) -> Sequence[str]:
    """Name the groups that could not be judged."""
    rows = table[(table["rule"] == GROUP) & (table["outcome"] == NOT_JUDGED)]
    return [
        f"{'all new people' if row['group'] == 'all' else row['group']} ({row['part']}: "
        f"{row['n']} pictures of {row['subjects']} people"
        + (f", recall {percent(row['challenger'])})" if row["n"] else ")")
        for _, row in rows.iterrows()
    ]
