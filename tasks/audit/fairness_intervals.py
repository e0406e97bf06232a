"""How sure the fairness figures are: intervals of the worst and best group and of their distance.

The two groups are those that came out as worst and best; that they were picked for it is not
accounted for, so that the distance is likely too large where there are many groups. Whether it
could be chance is in `gaps.csv`, which tests every pair.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.audit.settings import Settings
from tasks.core.statistics.difference import Sides, differences
from tasks.core.statistics.recalls import shares
from tasks.core.statistics.resample import Resampled

COLUMNS = [
    "n_worst",
    "subjects_worst",
    "worst_ci_low",
    "worst_ci_high",
    "n_best",
    "subjects_best",
    "best_ci_low",
    "best_ci_high",
    "difference_ci_low",
    "difference_ci_high",
    "confidence",
    "method",
]
_PICKED = "; the groups were picked as the extremes, which the intervals do not account for"


def with_intervals(
    rows: Sequence[dict[str, Any]], known: pd.DataFrame, dimension: str, settings: Settings
) -> list[dict[str, Any]]:
    """Add `COLUMNS` to the fairness figures of one model, protocol and dimension.

    Parameters
    ----------
    rows
        `metric, emotion` and, where two groups could be compared, `worst_group, best_group`.
    known
        One row a picture whose group is known: the dimension, `emotion, y_pred`, and `subject_id,
        subject_known` (without `subject_id`, each picture stands for a person of its own).
    dimension
        The column of the groups.
    settings
        Of them: confidence, resamples, seed.

    Returns
    -------
    list of dict
        The rows in their order; those without two groups stay as they are.
    """
    places = [place for place, row in enumerate(rows) if "worst_group" in row]
    if not places:
        return list(rows)
    compared = [rows[place] for place in places]
    people = known.get("subject_id", pd.Series(np.arange(len(known)), index=known.index))
    who = known.get("subject_known", pd.Series("subject_id" in known, index=known.index))
    who = who.to_numpy(dtype=bool)
    sampled = Resampled(people, settings.resamples, settings.seed)
    sides = {side: _side(compared, known, dimension, f"{side}_group") for side in ("worst", "best")}
    apart = differences(sampled, sides["best"], sides["worst"], who, settings.confidence, "groups")
    table = pd.DataFrame({"confidence": settings.confidence, "method": apart["method"] + _PICKED})
    # A rate of false answers is best where it is lowest: the distance is told without a sign.
    turned = (apart["gap"] < 0).to_numpy()
    table["difference_ci_low"] = np.where(turned, -apart["ci_high"], apart["ci_low"])
    table["difference_ci_high"] = np.where(turned, -apart["ci_low"], apart["ci_high"])
    for side, own in sides.items():
        figures = shares(sampled, own.members, own.hits, who, settings.confidence)
        table[f"n_{side}"], table[f"subjects_{side}"] = figures["n"], figures["subjects"]
        table[f"{side}_ci_low"], table[f"{side}_ci_high"] = figures["ci_low"], figures["ci_high"]
    out = list(rows)
    for place, record in zip(places, table[COLUMNS].to_dict("records"), strict=True):
        out[place] = out[place] | record
    return out


def _side(rows: Sequence[dict[str, Any]], known: pd.DataFrame, dimension: str, group: str) -> Sides:
    """Return which pictures each figure divides by, and which of them it counts."""
    emotion, answer = known["emotion"].to_numpy(), known["y_pred"].to_numpy()
    groups = known[dimension].to_numpy()
    members, hits = [], []
    for row in rows:
        own = groups == row[group]
        if row["metric"] == "recall":
            counted = answer == emotion
        else:
            own = own & ((emotion == row["emotion"]) == (row["metric"] == "true_positive_rate"))
            counted = answer == row["emotion"]
        members.append(own)
        hits.append(own & counted)
    return Sides(
        *(sparse.csr_array(np.column_stack(part).astype(float)) for part in (members, hits))
    )
