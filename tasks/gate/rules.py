"""The rules: which figures are compared, how much worse they may be, and what came of each.

A rule fails where the new model is worse by more than its margin, or where the interval of the
change lies wholly on the harmful side: a small harm that is sure, and a large one that is not, both
stop it. Every model is held to floors (the first to nothing else), and each group to the best
version that was ever in use. A group of too few pictures or people is not judged, and stands in the
table all the same; with too few frozen pictures on the whole, nothing is promoted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tasks.gate.best_ever import best_ever
from tasks.gate.changes import KINDS
from tasks.gate.compare import ALL_CHANGES, CHALLENGER, CHAMPION, Compared
from tasks.gate.decision import (
    BEST,
    CALIBRATION,
    COLUMNS,
    FAIL,
    FROZEN,
    GROUP,
    HIGHER_IS_BETTER,
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
from tasks.gate.reasons import NO_NUMBER, TOO_FEW, figure_words
from tasks.gate.settings import Params

ALL = "all"
PART_OF_ALL = f"counts in “{ALL_CHANGES}”"
_ROUNDING = 1e-9


def rules_table(
    compared: Compared,
    seen: Mapping[str, frozenset[str] | None],
    params: Params,
    earlier: Mapping[int, pd.Series],
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
    earlier
        Answers of versions once in use, as for `best_ever`.

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
            own = judge(figures, compared, params)
            own += _best_ever(figures, compared, params, earlier) if part == FROZEN else []
            rows += [{**row, "part": part} for row in own]
        elif part == FROZEN:
            rows.append({**_nothing_frozen(), "part": part})
        if len(pictures) or part == FROZEN:
            rows.append({**_unseen(pictures, seen), "part": part})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return rounded(table.astype({"n": int, "subjects": int}).fillna({"note": ""}))


def _frozen(figures: Figures, compared: Compared, params: Params) -> list[dict[str, Any]]:
    """Judge the pictures that the model in use was judged on."""
    limit, floors = params.margins if figures.paired else params.floors, params.floors
    overall = figures.recall(None).iloc[0].to_dict()
    row = _judged(OVERALL, ALL, overall, limit.overall, figures.paired, floors.overall)
    enough = overall["n"] >= params.min_n and overall["subjects"] >= params.min_subjects
    rows = [row if enough else {**row, "outcome": FAIL, "note": f"{TOO_FEW}: {_need(params)}"}]
    group = params.margins.group if figures.paired else params.floors.worst_group
    rows += _groups(figures, compared.groups, group, params)
    rows.append(_worst(figures, rows, limit.worst_group, params))
    brier = figures.mean("brier")
    rows.append(
        _judged(CALIBRATION, ALL, brier, limit.calibration, figures.paired, floors.calibration)
    )
    flips, most = figures.mean(ALL_CHANGES, answered=True), floors.robustness
    rows.append(_judged(ROBUSTNESS, ALL_CHANGES, flips, limit.robustness, figures.paired, most))
    for kind in KINDS:
        own = figures.mean(kind, answered=True)
        rows.append(_listed(ROBUSTNESS, kind, own, limit.robustness, PART_OF_ALL))
    return rows


def _best_ever(
    figures: Figures, compared: Compared, params: Params, earlier: Mapping[int, pd.Series]
) -> list[dict[str, Any]]:
    """Judge each group against the best version for it that was once in use."""
    rows = []
    for best in best_ever(figures.pictures, compared.groups, earlier, params):
        row = _judged(BEST, best.group, best.figures, params.margins.group, paired=True)
        said = f"the best of the versions once in use is version {best.version}"
        rows.append({**row, "note": "; ".join(filter(None, [said, row["note"]]))})
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
    return _listed(GROUP, name, row.to_dict(), limit, f"too small to judge: {_need(params)}")


def _need(params: Params) -> str:
    return f"{params.min_n} pictures of {params.min_subjects} people are needed"


def _worst(
    figures: Figures, rows: Sequence[Mapping[str, Any]], limit: float, params: Params
) -> dict[str, Any]:
    """Judge the worst of the groups that are large enough."""
    large = [row["group"] for row in rows if row["rule"] == GROUP and row["outcome"] != NOT_JUDGED]
    if not large:
        empty = dict.fromkeys(FIGURES, np.nan) | {"n": 0, "subjects": 0}
        return _listed(WORST, ALL, empty, limit, "no group is large enough to judge")
    found, names = figures.worst_recall(large)
    row = _judged(WORST, ALL, found, limit, figures.paired, params.floors.worst_group)
    said = f"worst is {names[CHALLENGER]}"
    said += f" (of the model in use: {names[CHAMPION]})" if figures.paired else ""
    return {**row, "note": "; ".join(filter(None, [said, row["note"]]))}


def _judged(
    rule: str,
    group: str,
    figures: Mapping[str, Any],
    limit: float,
    paired: bool,
    floor: float | None = None,
) -> dict[str, Any]:
    """Hold a figure to its margin (of the first model: `limit` is the floor) and to a floor."""
    harm = -1.0 if rule in HIGHER_IS_BETTER else 1.0
    why, least = [], floor if paired else limit
    # Each is asked the way round that a figure that is no number fails.
    if paired and not harm * figures["change"] <= limit + _ROUNDING:
        why.append("worse by more than the margin")
    if paired and (figures["ci_high"] < 0 if harm < 0 else figures["ci_low"] > 0):
        why.append("the whole interval is on the harmful side")
    if least is not None and not harm * (figures[CHALLENGER] - least) <= _ROUNDING:
        side = "below" if harm < 0 else "above"
        why.append(f"{side} the floor of {figure_words(rule, least)}")
    if why and pd.isna(figures["change"] if paired else figures[CHALLENGER]):
        why = [NO_NUMBER]
    return _row(rule, group, figures, limit, FAIL if why else PASS, "; ".join(why))


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
