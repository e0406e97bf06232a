"""Two models' answers to the same pictures, side by side; what cannot be compared is counted."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.core.labels import UNKNOWN
from tasks.gate.changes import KINDS
from tasks.gate.decision import FROZEN, NEW
from tasks.gate.score import FLIPS, Scores

CHAMPION, CHALLENGER = "champion", "challenger"
ALL_CHANGES = "all small changes"
CROSS = " × "


@dataclass(frozen=True)
class Compared:
    """Pictures that every model answered.

    Attributes
    ----------
    pictures
        One row a picture: `image_id, subject_id, subject_known, part, group` (null where a value of
        it is unknown), and for each side `correct_<side>, brier_<side>` and `<kind>_<side>`.
    sides
        `challenger`, and `champion` where there is one.
    counts
        Test pictures by what became of them.
    groups
        Every group that occurs, in order; some may have no test picture.
    """

    pictures: pd.DataFrame
    sides: tuple[str, ...]
    counts: Mapping[str, int]
    groups: tuple[str, ...]


def compare(
    split: pd.DataFrame,
    frozen: pd.Series,
    challenger: Scores,
    champion: Scores | None,
    by: Sequence[str],
) -> Compared:
    """Lay the models' answers to the test pictures side by side.

    Parameters
    ----------
    split
        The split table; its test pictures are compared, its other rows only name groups.
    frozen
        `image_id` of the pictures that the champion was judged on.
    challenger, champion
        Their answers; a picture that one has none for (no face in its crop) is left out.
    by
        What makes a group.
    """
    groups = group_names(split, by)
    test = split[split["split"] == "test"].assign(group=groups)
    test["part"] = np.where(test["image_id"].isin(frozen), FROZEN, NEW)
    scores = {CHALLENGER: challenger} | ({CHAMPION: champion} if champion else {})
    cut = _in_all(test["image_id"], [one.table["image_id"] for one in scores.values()])
    known = _in_all(test["emotion"], [one.labels for one in scores.values()])
    used = test[cut & known].reset_index(drop=True)
    columns = ["image_id", "subject_id", "subject_known", "part", "group"]
    sides = [_answers(used, one).add_suffix(f"_{side}") for side, one in scores.items()]
    counts = {
        "test pictures": len(test),
        "compared": len(used),
        "left out: no face found for one of the models": int((~cut).sum()),
        "left out: a label that one of the models lacks": int((cut & ~known).sum()),
        "in no group: age, gender or the like unknown": int(used["group"].isna().sum()),
        "frozen pictures that are no longer there": int((~frozen.isin(test["image_id"])).sum()),
    }
    names = tuple(sorted(groups.dropna().unique()))
    return Compared(pd.concat([used[columns], *sides], axis=1), tuple(scores), counts, names)


def group_names(table: pd.DataFrame, by: Sequence[str]) -> "pd.Series[str]":
    """Name each picture's group, such as "child × female"; null where a value is unknown."""
    values = table[list(by)].astype("object")
    unknown = values.isna().any(axis=1) | (values == UNKNOWN).any(axis=1)
    return values.astype("str").agg(CROSS.join, axis=1).mask(unknown)


def digest_of(compared: Compared, split: pd.DataFrame) -> str:
    """Digest the compared pictures with their parts, people and labels."""
    columns = ["image_id", "part", "subject_id", "group"]
    rows = compared.pictures[columns].merge(split[["image_id", "emotion"]], on="image_id")
    text = rows.sort_values("image_id").to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def _answers(pictures: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """Return `correct`, `brier` and the flips by kind and over all changes, in the order given."""
    own = pictures[["image_id", "emotion"]].merge(scores.table, on="image_id", how="left")
    probabilities = own[[f"p_{label}" for label in scores.labels]].to_numpy(dtype=float)
    wanted = own["emotion"].to_numpy()[:, None] == np.array(scores.labels, dtype=object)
    kinds = own[[f"{FLIPS}{kind}" for kind in KINDS]].to_numpy(dtype=float)
    figures = {
        "correct": (own["y_pred"] == own["emotion"]).to_numpy(),
        # G. W. Brier 1950, Mon. Weather Rev. 78, 1-3, as there: from 0 to 2 over all labels.
        "brier": ((probabilities - wanted) ** 2).sum(axis=1),
        ALL_CHANGES: kinds.mean(axis=1),
    }
    return pd.DataFrame(figures | {kind: kinds[:, place] for place, kind in enumerate(KINDS)})


def _in_all(values: pd.Series, allowed: Sequence[object]) -> "pd.Series[bool]":
    inside = pd.Series(True, index=values.index)
    for one in allowed:
        inside &= values.isin(list(one))  # type: ignore[call-overload]
    return inside
