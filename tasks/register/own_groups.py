"""Recall by group as a model's own run measured it on held-out pictures (`groups.csv`)."""

from pathlib import Path

import pandas as pd

from tasks.core.labels import ALL, HELD_OUT, UNKNOWN

MODEL = "finetuned"  # the model that a run registers
_DIMENSIONS = ("age_band", "gender")


def own_groups(groups: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `groups.csv` on the registered model, held out, all emotions and sets."""
    wanted = (groups["model"] == MODEL) & (groups["protocol"] == HELD_OUT)
    pooled = (groups["dataset"] == ALL) & (groups["emotion"] == ALL)
    return groups[wanted & pooled]


def worst_group(file: Path) -> tuple[str, float]:
    """Return the group of age band and gender with the lowest recall, as ("child female", .61).

    A group with an unknown part is none. ("", nan) where the file is not there or names no group.
    """
    if not file.is_file():
        return "", float("nan")
    groups = own_groups(pd.read_csv(file))
    crossed = groups[~groups[list(_DIMENSIONS)].isin([ALL, UNKNOWN]).any(axis=1)]
    if crossed.empty:
        return "", float("nan")
    worst = crossed.sort_values("recall", kind="stable").iloc[0]
    return " ".join(worst[name] for name in _DIMENSIONS), float(worst["recall"])
