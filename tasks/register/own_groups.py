"""Recall by group as a model's own run measured it on held-out pictures (`groups.csv`)."""

from pathlib import Path

import pandas as pd

from tasks.core.labels import ALL, HELD_OUT, UNKNOWN
from tasks.core.tables import read_csv

MODEL = "finetuned"  # the model that a run registers
_DIMENSIONS = ("age_band", "gender")


def own_groups(groups: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `groups.csv` on the registered model, held out, all emotions and sets."""
    wanted = (groups["model"] == MODEL) & (groups["protocol"] == HELD_OUT)
    pooled = (groups["dataset"] == ALL) & (groups["emotion"] == ALL)
    return groups[wanted & pooled]


def worst_group_tags(file: Path) -> dict[str, str]:
    """Return tags for a version on its group of age band and gender with the lowest recall.

    Group, recall, interval, pictures and people, as in {"worst_group": "child female",
    "worst_recall": "0.6100", "worst_low": …, "worst_high": …, "worst_n": …, "worst_people": …}. A
    group with an unknown part is none. Empty where the file is not there or names no group.
    """
    if not file.is_file():
        return {}
    groups = own_groups(read_csv(file))
    crossed = groups[~groups[list(_DIMENSIONS)].isin([ALL, UNKNOWN]).any(axis=1)]
    if crossed.empty:
        return {}
    worst = crossed.sort_values("recall", kind="stable").iloc[0]
    return {
        "worst_group": " ".join(worst[name] for name in _DIMENSIONS),
        "worst_recall": f"{worst['recall']:.4f}",
        "worst_low": f"{worst['ci_low']:.4f}",
        "worst_high": f"{worst['ci_high']:.4f}",
        "worst_n": str(worst["n"]),
        "worst_people": str(worst["subjects"]),
    }
