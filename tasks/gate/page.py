"""A decision as a self-contained HTML page without scripts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.gap_sentences import percent, points
from tasks.core.labels import DRAWN_NOTICE
from tasks.core.plotting.html import render
from tasks.gate.decision import (
    ALL,
    BEST,
    CALIBRATION,
    FAIL,
    FROZEN,
    GROUP,
    HELD,
    HIGHER_IS_BETTER,
    LISTED,
    NEW,
    NOT_JUDGED,
    NOT_SHOWN,
    OVERALL,
    ROBUSTNESS,
    UNSEEN,
    Decision,
)
from tasks.gate.error_rates import POWER
from tasks.gate.rejection_reasons import change_words, figure_words, is_floor
from tasks.gate.rules import PART_OF_ALL

WIDTH, HEIGHT = 168, 20  # px
_REACH = 0.25  # of a share or the Brier score, to each side; values beyond are drawn at the edge
_TEMPLATES = Path(__file__).parent / "templates"
_WORDS = {"pass": "passed", FAIL: "failed", NOT_JUDGED: "not judged"}
_WORDS |= {NOT_SHOWN: "not shown", HELD: "waits", LISTED: "listed"}
_TONES = {"pass": "ok", FAIL: "bad", HELD: "bad"}
_PARTS = {
    FROZEN: "The same test pictures as the model in use was judged on",
    NEW: "Test pictures that came since",
}
_NAMES = {
    OVERALL: "Recall, all pictures",
    GROUP: "Recall",
    BEST: "Recall, against the best version ever in use",
    CALIBRATION: "Brier score",
    ROBUSTNESS: "Answers that flip",
    UNSEEN: "Test people seen in training",
}
_MOST_CARDS = 8


@dataclass(frozen=True)
class Mark:
    """Positions in px from the left; `margin` is on the harmful side of `zero`."""

    zero: float
    margin: float
    point: float
    low: float | None
    high: float | None
    better: str


def mark_of(row: pd.Series) -> Mark | None:
    """Return the positions of a rule's change, interval and margin; None if there is no change."""
    if pd.isna(row["change"]):
        return None
    recall = row["rule"] in HIGHER_IS_BETTER

    def at(value: float) -> float:
        clipped = min(max(value / _REACH, -1.0), 1.0)
        return round((WIDTH - 8) / 2 * (1 + clipped) + 4, 1)

    limits = [None if pd.isna(row[name]) else at(row[name]) for name in ("ci_low", "ci_high")]
    edge = at(-1.0 if recall else 1.0)  # a listed row has no margin
    margin = edge if pd.isna(row["margin"]) else at(-row["margin"] if recall else row["margin"])
    side = "right" if recall else "left"
    return Mark(at(0.0), margin, at(row["change"]), limits[0], limits[1], side)


@dataclass(frozen=True)
class Row:
    """A row of the page's table; `mark` draws the change with its interval and margin."""

    name: str
    detail: str
    n: str
    champion: str
    challenger: str
    change: str
    interval: str
    joint: bool
    margin: str
    outcome: str
    tone: str
    note: str
    mark: Mark | None


def page(decision: Decision) -> str:
    """Return a decision as HTML; the same decision gives the same bytes."""
    confidence = float(decision.params["confidence"])
    parts = [part for part in (FROZEN, NEW) if (decision.table["part"] == part).any()]
    notice = decision.notice
    drawn = notice.startswith(DRAWN_NOTICE)
    values = {
        "title": _title(decision),
        "passed": decision.passed,
        "first": decision.champion is None,
        "reasons": decision.reasons,
        "challenger": decision.challenger,
        "champion": decision.champion,
        "banner": DRAWN_NOTICE if drawn else "",
        "credit": notice.removeprefix(DRAWN_NOTICE).lstrip(" ·") if drawn else notice,
        "cards": _cards(decision),
        "parts": [(_heading(decision, part), _rows(decision, part)) for part in parts],
        "too_small": _too_small(decision.table),
        "needs_a_person": decision.needs_a_person,
        "waits": decision.waits,
        "errors": list(error_lines(decision.errors)),
        "confidence": f"{100 * confidence:g}\u202f%",
        "counts": [(name, number) for name, number in decision.counts.items() if number],
        "params": decision.params,
        "rate": percent(float(decision.params["error_rate"])),
        "by": " × ".join(name.replace("_", " ") for name in decision.params["by"]),
        "several": len(decision.params["by"]) > 1,
        "notice": notice,
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
    tone = _TONES.get(row["outcome"], "soft")
    part_of_all = row["note"] == PART_OF_ALL
    group = "" if row["group"] == ALL else row["group"]
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
        joint=row["method"].startswith("joint"),
        margin="" if part_of_all or pd.isna(row["margin"]) else _limit(row, paired),
        outcome="" if part_of_all else _WORDS[row["outcome"]],
        tone=tone,
        note=row["note"],
        mark=mark_of(row) if paired and rule != UNSEEN else None,
    )


def _limit(row: pd.Series, paired: bool) -> str:
    """Return the margin with its sign, or the floor, in words."""
    rule, recall = row["rule"], row["rule"] in HIGHER_IS_BETTER
    if rule == UNSEEN:
        return "0"
    if not paired or is_floor(row):
        return f"{'≥' if recall else '≤'} {figure_words(rule, row['margin'])}"
    change = change_words(rule, -row["margin"] if recall else row["margin"])
    return change.removesuffix(" points")


def _counted(row: pd.Series) -> str:
    return f"{row['n']} ({row['subjects']})" if row["n"] else "none"


def error_lines(errors: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield one sentence per error rate of the gate on the test set."""
    if not errors:
        return
    looks, equal = errors["looks"], errors["equal"]
    yield (
        f"A version as good as the one in use is refused in {percent(equal['refused'])} and waits "
        f"for a person in {percent(equal['held'])} of {equal['simulations']:,} simulated decisions "
        f"(Monte Carlo error {points(equal['error'])} points)."
    )
    for harm in errors["harm"]:
        group = f"{harm['group']} ({harm['people']} test people)"
        chance = percent(POWER).replace(".0", "")
        if harm["points"] is None:
            yield (
                f"No loss of recall in {group} is refused with a chance of {chance}, however large."
            )
        else:
            yield (
                f"A loss of {points(harm['points'])} points of recall in {group} is refused with a "
                f"chance of {chance} ({harm['simulations']:,} simulated decisions, Monte Carlo "
                "error 2.0 points); a smaller one more often gets through."
            )
    count = f"{looks:.1f}".removesuffix(".0")
    yield (
        f"Looks at these test people, this one included: {count}. An equally good version may be "
        f"refused with a chance of {percent(errors['spent'])} now ({percent(errors['rate'])} at "
        "the first look); between the two it waits for a person."
    )


def _cards(decision: Decision) -> list[tuple[str, str, str, str]]:
    """Return value, label, detail and tone of the measures that can stop the version."""
    cards = []
    frozen = decision.table[decision.table["part"] == FROZEN]
    for _, row in frozen.iterrows():
        rule, group = row["rule"], row["group"]
        if rule in (BEST, UNSEEN) or row["outcome"] in (LISTED, NOT_JUDGED):
            continue
        if pd.isna(row["challenger"]):
            continue
        value = figure_words(rule, row["challenger"])
        if decision.champion is not None:
            value = f"{figure_words(rule, row['champion'])} → {value}"
        tone = {"pass": "gain", FAIL: "gap", HELD: "gap"}.get(row["outcome"], "")
        detail = f"{row['n']} pictures of {row['subjects']} people{_span(row, decision)}"
        name = f"{_NAMES[rule]}, {group}" if rule == GROUP else _NAMES[rule]
        cards.append((value, name, detail, tone))
    return cards[:_MOST_CARDS]


def _span(row: pd.Series, decision: Decision) -> str:
    """Return the interval in words, to follow a figure."""
    words = figure_words if decision.champion is None else change_words
    low, high = (words(row["rule"], row[name]) for name in ("ci_low", "ci_high"))
    if is_floor(row):
        low, high = (figure_words(row["rule"], row[name]) for name in ("own_low", "own_high"))
    name = "change" if words is change_words and not is_floor(row) else "interval"
    return f"; {name} {low.removesuffix(' points')} to {high}" if low and high else ""


def _too_small(table: pd.DataFrame) -> Sequence[str]:
    """Return one line for each group that could not be judged."""
    rows = table[(table["rule"] == GROUP) & (table["outcome"] == NOT_JUDGED)]
    return [
        f"{'all new people' if row['group'] == 'all' else row['group']} ({row['part']}: "
        f"{row['n']} pictures of {row['subjects']} people"
        + (f", recall {percent(row['challenger'])})" if row["n"] else ")")
        for _, row in rows.iterrows()
    ]
