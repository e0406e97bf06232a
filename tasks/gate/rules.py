"""The rules: which figures are compared, how much worse they may be, and what came of each.

A rule fails where the new model is worse by more than its margin, or where the interval of the
change lies wholly on the harmful side: a small harm that is sure, and a large one that is not, both
stop it. The first model is held to floors. A group of too few pictures or people is not judged, and
stands in the table all the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tasks.gate.changes import KINDS
from tasks.gate.compare import ALL_CHANGES, CHALLENGER, CHAMPION, Compared
from tasks.gate.decision import (
    CALIBRATION,
    COLUMNS,
    FAIL,
    FROZEN,
    GROUP,
    NEW,
    NOT_JUDGED,
    OVERALL,
    PASS,
    ROBUSTNESS,
    UNSEEN,
    WORST,
    rounded,
)
from tasks.gate.figures import FIGURES, Figures
from tasks.gate.settings import Params

ALL = "all"
HIGHER_IS_BETTER: tuple[str, ...] = (OVERALL, GROUP, WORST)
PART_OF_ALL = f"counts in “{ALL_CHANGES}”"
_ROUNDING = 1e-9


def rules_table(
    compared: Compared, seen: Mapping[str, frozenset[str] | None], params: Params
) -> pd.DataFrame:
    """Judge every rule.

    Parameters
    ----------
    compared
        Both models' answers.
    seen
        For each side the people that its `seen.csv` names; None where it names nobody.
    params
        The section `promote`.

    Returns
    -------
    pandas.DataFrame
        One row a rule and group, with `tasks.gate.decision.COLUMNS`, figures as they are kept.
    """
    rows: list[dict[str, Any]] = []
    for part in (FROZEN, NEW):
        pictures = compared.pictures[compared.pictures["part"] == part]
        if len(pictures):
            figures = Figures(pictures, compared.sides, params)
            judge = _frozen if part == FROZEN else _new
            rows += [{**row, "part": part} for row in judge(figures, compared, params)]
        elif part == FROZEN:
            rows.append({**_nothing_frozen(), "part": part})
        if len(pictures) or part == FROZEN:
            rows.append({**_unseen(pictures, seen), "part": part})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return rounded(table.astype({"n": int, "subjects": int}).fillna({"note": ""}))


def _frozen(figures: Figures, compared: Compared, params: Params) -> list[dict[str, Any]]:
    """Judge the pictures that the model in use was judged on."""
    limit = params.margins if figures.paired else params.floors
    overall = figures.recall(None).iloc[0].to_dict()
    rows = [_judged(OVERALL, ALL, overall, limit.overall, figures.paired)]
    group = params.margins.group if figures.paired else params.floors.worst_group
    rows += _groups(figures, compared.groups, group, params)
    rows.append(_worst(figures, rows, limit.worst_group, params))
    rows.append(_judged(CALIBRATION, ALL, figures.mean("brier"), limit.calibration, figures.paired))
    flips = figures.mean(ALL_CHANGES)
    rows.append(_judged(ROBUSTNESS, ALL_CHANGES, flips, limit.robustness, figures.paired))
    for kind in KINDS:
        listed = PART_OF_ALL
        rows.append(_listed(ROBUSTNESS, kind, figures.mean(kind), limit.robustness, listed))
    return rows


def _new(figures: Figures, compared: Compared, params: Params) -> list[dict[str, Any]]:
    """Judge what came since: all of it as one group, and each group that it has."""
    own = [name for name in compared.groups if (figures.pictures["group"] == name).any()]
    margin = params.margins.group
    whole = _enough_or_listed(figures.recall(None).iloc[0], ALL, margin, figures.paired, params)
    return [whole, *_groups(figures, own, margin, params)]


def _groups(
    figures: Figures, groups: Sequence[str], limit: float, params: Params
) -> list[dict[str, Any]]:
    if not groups:
        return []
    table = figures.recall(groups)
    return [
        _enough_or_listed(row, name, limit, figures.paired, params)
        for name, (_, row) in zip(groups, table.iterrows(), strict=True)
    ]


def _enough_or_listed(
    row: pd.Series, name: str, limit: float, paired: bool, params: Params
) -> dict[str, Any]:
    """Judge a group, or say that it is too small."""
    if row["n"] >= params.min_n and row["subjects"] >= params.min_subjects:
        return _judged(GROUP, name, row.to_dict(), limit, paired)
    need = f"too small to judge: {params.min_n} pictures of {params.min_subjects} people are needed"
    return _listed(GROUP, name, row.to_dict(), limit, need)


def _worst(
    figures: Figures, rows: Sequence[Mapping[str, Any]], limit: float, params: Params
) -> dict[str, Any]:
    """Judge the worst of the groups that are large enough."""
    large = [row["group"] for row in rows if row["rule"] == GROUP and row["outcome"] != NOT_JUDGED]
    if not large:
        empty = dict.fromkeys(FIGURES, np.nan) | {"n": 0, "subjects": 0}
        return _listed(WORST, ALL, empty, limit, "no group is large enough to judge")
    found, names = figures.worst_recall(large)
    row = _judged(WORST, ALL, found, limit, figures.paired)
    said = f"worst is {names[CHALLENGER]}"
    said += f" (of the model in use: {names[CHAMPION]})" if figures.paired else ""
    return {**row, "note": "; ".join(filter(None, [said, row["note"]]))}


def _judged(
    rule: str, group: str, figures: Mapping[str, Any], limit: float, paired: bool
) -> dict[str, Any]:
    """Hold a figure to its margin, or of the first model to its floor."""
    harm = -1.0 if rule in HIGHER_IS_BETTER else 1.0
    if paired:
        beyond = harm * figures["change"] > limit + _ROUNDING
        sure = figures["ci_high"] < 0 if harm < 0 else figures["ci_low"] > 0
        why = ["worse by more than the margin"] * beyond
        why += ["the whole interval is on the harmful side"] * bool(sure)
    else:
        why = ["beyond the floor"] * bool(harm * (figures[CHALLENGER] - limit) > _ROUNDING)
    outcome = FAIL if why else PASS
    return _row(rule, group, figures, limit, outcome, "; ".join(why))


def _listed(
    rule: str, group: str, figures: Mapping[str, Any], limit: float, note: str
) -> dict[str, Any]:
    return _row(rule, group, figures, limit, NOT_JUDGED, note)


def _row(
    rule: str, group: str, figures: Mapping[str, Any], limit: float, outcome: str, note: str
) -> dict[str, Any]:
    own = {name: figures[name] for name in FIGURES}
    names = {"rule": rule, "group": group, "margin": limit, "outcome": outcome, "note": note}
    return own | names


def _nothing_frozen() -> dict[str, Any]:
    empty = dict.fromkeys(FIGURES, np.nan) | {"n": 0, "subjects": 0}
    note = "no picture is left that the model in use was judged on: nothing can be compared"
    return _row(OVERALL, ALL, empty, np.nan, FAIL, note)


def _unseen(pictures: pd.DataFrame, seen: Mapping[str, frozenset[str] | None]) -> dict[str, Any]:
    """Compare the people of the test pictures with those that each model kept as seen."""
    people = set(pictures["subject_id"])
    met = {
        side: np.nan if names is None else float(len(people & names))
        for side, names in seen.items()
    }
    figures = dict.fromkeys(FIGURES, np.nan) | met
    figures |= {"n": len(pictures), "subjects": len(people)}
    if np.isnan(met[CHALLENGER]):
        note = "the challenger keeps no ids of whom it was trained on: it cannot be shown"
        return _row(UNSEEN, ALL, figures, 0.0, FAIL, note)
    notes = []
    if met[CHALLENGER]:
        notes.append("the challenger was trained on, or chosen by, people of the test")
    if met.get(CHAMPION):
        notes.append("the model in use has seen people of the test, which is in its favour")
    outcome = FAIL if met[CHALLENGER] else PASS
    return _row(UNSEEN, ALL, figures, 0.0, outcome, "; ".join(notes))
