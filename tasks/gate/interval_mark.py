"""A change with its interval and margin as a small drawing: where it lies is seen at a glance."""

from dataclasses import dataclass

import pandas as pd

from tasks.gate.decision import CALIBRATION, HIGHER_IS_BETTER

WIDTH, HEIGHT = 168, 20  # px
_REACH = 0.25  # of a share, to each side; what lies beyond is drawn at the edge
_REACH_BRIER = 0.25


@dataclass(frozen=True)
class Mark:
    """Places in px from the left; `harm_to` is where the margin ends, on the harmful side of 0."""

    zero: float
    margin: float
    point: float
    low: float | None
    high: float | None
    better: str


def mark_of(row: pd.Series) -> Mark | None:
    """Place a rule's change, interval and margin; None where there is no change."""
    if pd.isna(row["change"]):
        return None
    reach = _REACH_BRIER if row["rule"] == CALIBRATION else _REACH
    recall = row["rule"] in HIGHER_IS_BETTER

    def at(value: float) -> float:
        inside = min(max(value / reach, -1.0), 1.0)
        return round((WIDTH - 8) / 2 * (1 + inside) + 4, 1)

    limits = [None if pd.isna(row[name]) else at(row[name]) for name in ("ci_low", "ci_high")]
    far = at(-1.0 if recall else 1.0)  # a listed row has no margin
    margin = far if pd.isna(row["margin"]) else at(-row["margin"] if recall else row["margin"])
    side = "right" if recall else "left"
    return Mark(at(0.0), margin, at(row["change"]), limits[0], limits[1], side)
