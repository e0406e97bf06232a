"""The rules table: the measures that are compared, their margins and outcomes.

Overall recall, recall of a few groups named in advance, the Brier score and the share of flipped
predictions can stop a version, if harm is significant and a change beyond the margin is not
excluded. Every other group is listed with its interval. Every version is held to floors, the first
one only to floors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tasks.gate.compare import ALL_CHANGES, CHALLENGER, CHAMPION, Compared, Named, membership
from tasks.gate.decision import (
    ALL,
    BEST,
    CALIBRATION,
    COLUMNS,
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
    PASS,
    ROBUSTNESS,
    UNSEEN,
    rounded,
)
from tasks.gate.families import Size, Tested, Verdict, is_enough, size_of
from tasks.gate.figures import FIGURES, Figures
from tasks.gate.limits import effective_people
from tasks.gate.rejection_reasons import NO_NUMBER, NOT_IN_DATA, TOO_FEW, change_words, figure_words
from tasks.gate.score import KINDS
from tasks.gate.settings import Params

PART_OF_ALL = f"counts in “{ALL_CHANGES}”"
_ROUNDING = 1e-9
_WORDS = {
    FAIL: "harm is shown, and more than the margin is not ruled out",
    HELD: "harm is shown by this look alone, and not once all looks are counted",
    PASS: "more than the margin is ruled out",
}
Row = dict[str, Any]
Key = tuple[str, str, str]


def rules_table(
    compared: Compared,
    seen: Mapping[str, frozenset[str] | None],
    params: Params,
    tests: Sequence[Tested],
) -> pd.DataFrame:
    """Judge every rule; one row per rule and group, with the columns of a decision's table.

    `seen` has, for each side, the subjects of its `seen.csv`; None if the file is empty. `tests`
    is empty for the first model.
    """
    verdicts = _by_row(tests)
    rows: list[Row] = []
    for part in (FROZEN, NEW):
        mask = (compared.images["part"] == part).to_numpy()
        if mask.any():
            judge = _Part(compared, mask, part, params, verdicts)
            rows += [{**row, "part": part} for row in judge.rows()]
        elif part == FROZEN:
            rows.append({**_nothing_frozen(), "part": part})
        if mask.any() or part == FROZEN:
            rows.append({**_unseen(compared.images[mask], seen), "part": part})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table = table.astype({"n": int, "subjects": int}).fillna({"note": "", "method": ""})
    return rounded(table)


class _Part:
    """The rows of the frozen or of the new images."""

    def __init__(
        self,
        compared: Compared,
        mask: np.ndarray,
        part: str,
        params: Params,
        verdicts: Mapping[Key, Verdict],
    ) -> None:
        self.compared = compared
        self.part = part
        self.params = params
        self.verdicts = verdicts
        self.figures = Figures(compared.images[mask], compared.sides, params)
        self.paired = self.figures.paired
        self.members = {name: members[mask] for name, members in compared.members.items()}

    def rows(self) -> list[Row]:
        """Return the part's rows; those that can stop a version come first."""
        recall = self._recall()
        if self.part == NEW:
            return recall
        return [*recall, *self._best(), *self._others()]

    def _recall(self) -> list[Row]:
        """Return overall recall, and recall of the named and of all other groups."""
        images = self.figures.images
        groups = [name for name in self.compared.groups if self.part == FROZEN or self._has(name)]
        listed = membership(images, groups)
        named = [self.members[one.name] for one in self.compared.named]
        masks = np.stack([np.ones(len(images), dtype=bool), *named, *listed.T], axis=1)
        table = self.figures.recall(masks).to_dict("records")
        overall, of_named, others = table[0], table[1 : 1 + len(named)], table[1 + len(named) :]
        rows = [self._overall(overall)]
        rows += [
            self._named(one, figures)
            for one, figures in zip(self.compared.named, of_named, strict=True)
            if self.part == FROZEN or figures["n"]
        ]
        named_masks = {mask.tobytes() for mask in named}  # the same images under another name
        names = {one.name for one in self.compared.named}
        for name, mask, figures in zip(groups, listed.T, others, strict=True):
            if name not in names and not (mask.any() and mask.tobytes() in named_masks):
                rows.append(self._listed(name, figures))
        return rows

    def _has(self, group: str) -> bool:
        return bool((self.figures.images["group"] == group).any())

    def _overall(self, figures: Row) -> Row:
        if self.part == NEW:
            return self._judged(GROUP, ALL, figures, self.params.margins.overall, None)
        floor = self.params.absolute_limits.overall
        row = self._judged(OVERALL, ALL, figures, self.params.margins.overall, floor)
        if is_enough(_size(figures), self.params):
            return row
        return {**row, "outcome": FAIL, "note": f"{TOO_FEW}: {self._need()}"}

    def _named(self, group: Named, figures: Row) -> Row:
        floor = self.params.absolute_limits.worst_group if self.part == FROZEN else None
        if is_enough(_size(figures), self.params):
            return self._judged(GROUP, group.name, figures, self.params.margins.group, floor)
        note = NOT_IN_DATA
        if self.compared.in_data[group.name]:
            note = f"too small to judge: {self._need()}"
        limit = self.params.margins.group if self.paired else floor
        return _row(GROUP, group.name, figures, limit, NOT_JUDGED, note)

    def _listed(self, name: str, figures: Row) -> Row:
        """Return the row of a group that is not named; on frozen images a floor applies."""
        if not is_enough(_size(figures), self.params):
            note = f"too small to judge: {self._need()}"
            return _row(GROUP, name, figures, np.nan, NOT_JUDGED, note)
        floor = self.params.absolute_limits.worst_group
        why = self._below(GROUP, figures, floor) if self.part == FROZEN else ""
        outcome = FAIL if why else LISTED if self.paired else PASS
        limit = floor if outcome != LISTED else np.nan
        return _row(GROUP, name, figures, limit, outcome, why)

    def _best(self) -> list[Row]:
        """Return each named group against the former champion from which it fell most."""
        rows = []
        for one in self.compared.named:
            verdict = self.verdicts.get((BEST, self.part, one.name))
            if verdict is None:
                continue
            comparison = verdict.comparison
            size = comparison.size
            figures: Row = dict.fromkeys(FIGURES, np.nan)
            figures |= {"n": int(size.sum()), "subjects": int((size > 0).sum())}
            figures |= {"effective": float(effective_people(size[:, None])[0])}
            figures |= {"champion": comparison.champion, "challenger": comparison.challenger}
            row = self._judged(BEST, one.name, figures, comparison.margin, None)
            note = f"the version once in use against which it fell most is {comparison.note}"
            rows.append({**row, "note": f"{note}; {row['note']}"})
        return rows

    def _others(self) -> list[Row]:
        """Return the Brier score, and the flips over all and per kind of perturbation."""
        margins, floors = self.params.margins, self.params.absolute_limits
        brier = self.figures.mean("brier")
        flips = self.figures.mean(ALL_CHANGES, answered=True)
        rows = [
            self._judged(CALIBRATION, ALL, brier, margins.calibration, floors.calibration),
            self._judged(ROBUSTNESS, ALL_CHANGES, flips, margins.robustness, floors.robustness),
        ]
        for kind in KINDS:
            figures = self.figures.mean(kind, answered=True)
            rows.append(_row(ROBUSTNESS, kind, figures, margins.robustness, LISTED, PART_OF_ALL))
        return rows

    def _judged(
        self, rule: str, group: str, figures: Row, margin: float, floor: float | None
    ) -> Row:
        """Judge a figure by its floor and, if there is a current model, by its margin."""
        below = "" if floor is None else self._below(rule, figures, floor)
        limit = floor if below or not self.paired else margin
        if not np.isfinite(figures[CHALLENGER]):
            return _row(rule, group, figures, limit, FAIL, NO_NUMBER)
        verdict = self.verdicts.get((rule, self.part, group))
        if verdict is not None and (not below or verdict.outcome == FAIL):
            outcome, note = _outcome(rule, verdict)
            note = f"{note}; {below}" if below else note
            return _row(rule, group, figures | _limits(rule, verdict), margin, outcome, note)
        if below or not self.paired:
            return _row(rule, group, figures, limit, FAIL if below else PASS, below)
        small = not is_enough(_size(figures), self.params)
        note = f"too small to judge: {self._need()}" if small else NO_NUMBER
        return _row(rule, group, figures, limit, NOT_JUDGED if small else FAIL, note)

    def _below(self, rule: str, figures: Row, floor: float) -> str:
        """Return a note if a figure misses its floor, otherwise ""."""
        harm = -1.0 if rule in HIGHER_IS_BETTER else 1.0
        # This direction of the comparison makes NaN fail.
        if harm * (figures[CHALLENGER] - floor) <= _ROUNDING:
            return ""
        side = "below" if harm < 0 else "above"
        reaches = harm * (figures["own_low" if harm > 0 else "own_high"] - floor) <= 0
        sure = "; its interval reaches the floor" if reaches else ""
        return f"{side} the floor of {figure_words(rule, floor)} on these pictures{sure}"

    def _need(self) -> str:
        return need_words(self.params)


def need_words(params: Params) -> str:
    """Return the required numbers of images and subjects of a group, in words."""
    return f"{params.min_n} pictures of {params.min_subjects} effective people are needed"


def _by_row(tests: Sequence[Tested]) -> dict[Key, Verdict]:
    """Return the verdict of each row; of several former champions the most severe one."""
    verdicts: dict[Key, Verdict] = {}
    for test in tests:
        for one in test.verdicts:
            key = one.comparison.rule, one.comparison.part, one.comparison.group
            if key not in verdicts or _severity(one) < _severity(verdicts[key]):
                verdicts[key] = one
    return verdicts


def _severity(verdict: Verdict) -> tuple[int, float]:
    """Return a sort key; the most severe comes first."""
    return (FAIL, HELD, NOT_SHOWN, PASS).index(verdict.outcome), verdict.high


def _limits(rule: str, verdict: Verdict) -> Row:
    """Return the change and limits of a verdict, in the orientation of the table."""
    one, low, high = verdict.comparison, verdict.low, verdict.high
    if rule not in HIGHER_IS_BETTER:
        low, high = -high, -low
    looks = ", all looks counted" if verdict.outcome == FAIL else ""
    method = f"joint limits of {verdict.family} comparisons{looks}"
    change = one.challenger - one.champion
    return {"change": change, "ci_low": low, "ci_high": high, "method": method}


def _outcome(rule: str, verdict: Verdict) -> tuple[str, str]:
    """Return the outcome of a verdict and its note."""
    outcome, note = verdict.outcome, _WORDS.get(verdict.outcome, "")
    if outcome == NOT_SHOWN or (outcome == HELD and verdict.high >= 0):
        worst = verdict.low if rule in HIGHER_IS_BETTER else -verdict.low
        note = (
            f"neither harm nor its absence is shown: {change_words(rule, worst)} is not ruled out"
        )
        one = verdict.comparison
        if outcome == HELD and one.change.sum() < -one.margin * one.size.sum():
            note += ", and the fall is beyond the margin"
    elif outcome == PASS and verdict.high < 0:
        note = f"worse, but {note}"
    return outcome, note


def _row(rule: str, group: str, figures: Row, limit: float | None, outcome: str, note: str) -> Row:
    values = {name: figures[name] for name in FIGURES}
    names = {"rule": rule, "group": group, "margin": limit, "outcome": outcome, "note": note}
    return values | names


def _size(figures: Row) -> Size:
    return Size(int(figures["n"]), int(figures["subjects"]), float(figures["effective"]))


def _nothing_frozen() -> Row:
    empty = dict.fromkeys(FIGURES, np.nan) | {"n": 0, "subjects": 0, "effective": 0, "method": ""}
    note = "no picture is left that the model in use was judged on: nothing can be compared"
    return _row(OVERALL, ALL, empty, np.nan, FAIL, note)


def _unseen(images: pd.DataFrame, seen: Mapping[str, frozenset[str] | None]) -> Row:
    """Count the test subjects that each model was trained on or chosen by."""
    subjects = set(images["subject_id"])
    overlap = {
        side: np.nan if names is None else float(len(subjects & names))
        for side, names in seen.items()
    }
    figures: Row = dict.fromkeys(FIGURES, np.nan) | overlap | {"method": ""}
    figures |= {"n": len(images), "subjects": len(subjects)}
    figures["effective"] = size_of(images["subject_id"]).effective
    if np.isnan(overlap[CHALLENGER]):
        note = "the challenger keeps no ids of whom it was trained on: it cannot be shown"
        return _row(UNSEEN, ALL, figures, 0.0, FAIL, note)
    notes = []
    if overlap[CHALLENGER]:
        notes.append("the challenger was trained on, or chosen by, people of the test")
    if overlap.get(CHAMPION):
        notes.append("the model in use has seen people of the test, which is in its favour")
    outcome = FAIL if overlap[CHALLENGER] else PASS
    return _row(UNSEEN, ALL, figures, 0.0, outcome, "; ".join(notes))
