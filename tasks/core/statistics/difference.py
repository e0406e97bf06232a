"""The difference between two recalls: of two groups, or of two models on the same pictures.

One way for both, because both have people who stand behind several pictures. The interval comes
from the cluster bootstrap, the p-value from the people's influence on the difference. Where the
draws cannot tell, because a side is read all right or all wrong, or is of one person alone, each
person is counted once.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.core.statistics.comparisons import (
    added,
    clustered_variance,
    newcombe_paired,
    score_test,
    t_test,
)
from tasks.core.statistics.people import whole
from tasks.core.statistics.recalls import selected
from tasks.core.statistics.resample import Resampled, percentile_interval, ratio, share_interval
from tasks.core.statistics.unknown_people import NOBODY_KNOWN, SOME_UNKNOWN

DRAWN = (
    "interval: percentiles of a cluster bootstrap by subject, widened for few people; "
    "p: t test of the difference, clustered by subject"
)
COUNTED = (
    "interval of Newcombe's kind and score test, each person counted once, because nothing varies "
    "between people or one side is one person"
)
_AT_ONCE = 1 << 22  # entries of (people, comparisons)
Kind = Literal["groups", "models"]


@dataclass(frozen=True)
class Sides:
    """One side of `k` comparisons: `(pictures, k)` which pictures, and which of them are right."""

    members: sparse.csr_array
    hits: sparse.csr_array

    @classmethod
    def of(cls, members: sparse.csr_array, correct: np.ndarray) -> "Sides":
        """Make a side from its pictures and `(pictures,)` booleans."""
        return cls(members, selected(members, correct))

    def part(self, place: np.ndarray) -> "Sides":
        """Keep some of the comparisons."""
        return Sides(self.members[:, place], self.hits[:, place])

    def figures(self, sampled: Resampled, side: str) -> pd.DataFrame:
        """Count pictures, correct ones and people, and divide."""
        n, correct = whole(self.members.sum(axis=0)), whole(self.hits.sum(axis=0))
        figures = {"n": n, "correct": correct, "recall": correct / n}
        figures["subjects"] = sampled.count(self.members)
        return pd.DataFrame(figures).add_suffix(f"_{side}")


def differences(
    sampled: Resampled, a: Sides, b: Sides, known: np.ndarray, confidence: float, kind: Kind
) -> pd.DataFrame:
    """Compare pairs of recalls.

    Parameters
    ----------
    sampled
        The people of the pictures, drawn again and again.
    a, b
        The sides of `k` comparisons; none is empty.
    known
        `(pictures,)` booleans: whether it is known who is in the picture.
    confidence
        Level of the intervals.
    kind
        `groups`: different pictures on both sides. `models`: the same pictures, read twice.

    Returns
    -------
    pandas.DataFrame
        `(k, …)`: `n, correct, recall, subjects` of each side (`_a`, `_b`), `gap` (a minus b),
        `ci_low, ci_high, p_value, method`, and `error, df`: the standard error of the gap and its
        degrees of freedom. `p_value` is NaN where a side is one person alone.
    """
    table = pd.concat([a.figures(sampled, "a"), b.figures(sampled, "b")], axis=1)
    table["gap"] = table["recall_a"] - table["recall_b"]
    every = np.arange(len(table))
    step = max(1, _AT_ONCE // max(sampled.people, 1))
    tests = [
        _tests(sampled, a.part(place), b.part(place), table.iloc[place], kind)
        for place in np.split(every, range(step, len(every), step))
    ]
    table = pd.concat([table, pd.concat(tests)], axis=1)
    limits = [
        _limits(sampled, a.part(place), b.part(place), table.iloc[place], confidence, kind)
        for place in sampled.blocks(every, 4)
    ]
    table["ci_low"], table["ci_high"] = np.concatenate(limits, axis=1)
    n = np.asarray((a.members + b.members).sum(axis=0))
    known_n = np.asarray(known.astype(float) @ (a.members + b.members))
    note = np.where(known_n == 0, NOBODY_KNOWN, np.where(known_n < n, SOME_UNKNOWN, ""))
    table["method"] = np.where(table["counted"], COUNTED, DRAWN) + note.astype(object)
    return table.drop(columns="counted")


def _tests(sampled: Resampled, a: Sides, b: Sides, table: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """Test the differences; `counted` says where each person had to be counted once."""
    sides = []
    for side, name in ((a, "a"), (b, "b")):
        pictures = sampled.by_person(side.members).toarray()
        right = sampled.by_person(side.hits).toarray()
        influence = (right - pictures * table[f"recall_{name}"].to_numpy()) / pictures.sum(axis=0)
        sides.append((influence, pictures > 0))
    (one, in_a), (other, in_b) = sides
    variance = clustered_variance(one, other, in_a, in_b)
    tiny = 1e-12
    still = variance.difference <= tiny
    if kind == "groups":
        still = still | (variance.side_a <= tiny) | (variance.side_b <= tiny)
    alone = (table[["subjects_a", "subjects_b"]] < 2).any(axis=1).to_numpy()
    p_value = t_test(table["gap"].to_numpy(), variance.difference, variance.df)
    error, df = np.sqrt(variance.difference), variance.df.copy()
    for place in np.flatnonzero(still | alone):
        row = table.iloc[place]
        p_value[place] = np.nan if alone[place] else _score(row)
        error[place], df[place] = _error_of_people(row), np.inf
    figures = {"p_value": p_value, "error": error, "df": df, "counted": still | alone}
    return pd.DataFrame(figures, index=table.index)


def _score(row: pd.Series) -> float:
    """Compare two shares with each person counted once."""
    a, b = row["subjects_a"], row["subjects_b"]
    return score_test(row["recall_a"] * a, a, row["recall_b"] * b, b)


def _error_of_people(row: pd.Series) -> float:
    """Return the error of a difference with each person counted once.

    One success and one failure are added to each side, so that a share of 0 or 1 has an error (A.
    Agresti and B. Caffo 2000, Am. Stat. 54, 280-288).
    """
    total = 0.0
    for side in ("a", "b"):
        people = row[f"subjects_{side}"]
        share = (row[f"recall_{side}"] * people + 1) / (people + 2)
        total += share * (1 - share) / (people + 2)
    return float(np.sqrt(total))


def _limits(
    sampled: Resampled, a: Sides, b: Sides, table: pd.DataFrame, confidence: float, kind: Kind
) -> np.ndarray:
    """Return the intervals of differences, `(2, k)`."""
    draws = [ratio(sampled.sums(side.hits), sampled.sums(side.members)) for side in (a, b)]
    people = table[["subjects_a", "subjects_b"]].min(axis=1).to_numpy()
    limits = np.array(percentile_interval(draws[0] - draws[1], people, confidence))
    shares = [
        share_interval(
            table[f"recall_{n}"].to_numpy(), own, table[f"subjects_{n}"].to_numpy(), confidence
        )
        for n, own in zip("ab", draws, strict=True)
    ]
    for place in np.flatnonzero(table["counted"]):
        row = table.iloc[place]
        if kind == "models":
            limits[:, place] = _paired_people(
                sampled, a.part(np.array([place])), b.part(np.array([place])), confidence
            )
        else:
            (low_a, high_a, _), (low_b, high_b, _) = shares
            side_a = row["recall_a"], (low_a[place], high_a[place])
            limits[:, place] = added(*side_a, row["recall_b"], (low_b[place], high_b[place]))
    return limits


def _paired_people(
    sampled: Resampled, a: Sides, b: Sides, confidence: float
) -> tuple[float, float]:
    """Return the paired interval of a change with each person counted once."""
    n, people = a.members.sum(), sampled.count(a.members)[0]
    both = a.hits.multiply(b.hits).sum()
    gained, lost = a.hits.sum() - both, b.hits.sum() - both
    one = float(people / n)
    neither = n - both - lost - gained
    return newcombe_paired(both * one, lost * one, gained * one, neither * one, confidence)
