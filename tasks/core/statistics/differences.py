"""The difference between two recalls: of two groups, or of two models on the same images.

One way for both, because both have subjects who stand behind several images. The p-value permutes
subjects (`permuted.py`); with very many of them it is a t test clustered by subject. The interval
adds the distances of both recalls to their own limits, less what subjects on both sides have in
common, and never contradicts the p-value: see `comparisons.agreeing`.

Only images of known subjects count: how people vary cannot be told from the others.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.core.statistics.cluster_bootstrap import Resampled
from tasks.core.statistics.clusters import (
    MOST_UNKNOWN,
    NOBODY_KNOWN,
    TOO_MANY_UNKNOWN,
    People,
    whole,
)
from tasks.core.statistics.hypothesis_tests import added, agreeing, equivalent, t_test
from tasks.core.statistics.permutation import permutation_p
from tasks.core.statistics.recalls import BySubject, selected

PERMUTED = (
    "p: permutation of subjects; interval: both recalls' own limits, added in squares, and the "
    "limit nearer to 0 that of the test where they disagree"
)
T_TEST = (
    "p: t test clustered by subject; interval: both recalls' own limits, added in squares, and the "
    "limit nearer to 0 that of the test where they disagree"
)
ALONE = "not tested: a side is one person; interval: both recalls' own limits, added in squares"
ONLY_KNOWN = "; images of unknown subjects are left out"
MANY = 500  # effective subjects on both sides: then a t test says what a permutation would
_STILL = 1e-12
Kind = Literal["groups", "models"]


@dataclass(frozen=True)
class Sides:
    """One side of `k` comparisons: `(images, k)` which images, and which of them are right."""

    members: sparse.csr_array
    hits: sparse.csr_array

    @classmethod
    def of(cls, members: sparse.csr_array, correct: np.ndarray) -> "Sides":
        """Make a side from its images and `(images,)` booleans."""
        return cls(members, selected(members, correct))

    def part(self, place: np.ndarray) -> "Sides":
        """Keep some of the comparisons."""
        return Sides(self.members[:, place], self.hits[:, place])

    def only(self, known: np.ndarray, where: np.ndarray) -> "Sides":
        """Keep the images of known subjects in the comparisons `where`, all in the others."""
        members, hits = (_only(side, known, where) for side in (self.members, self.hits))
        return Sides(members, hits)

    def figures(self, sums: BySubject, side: str) -> pd.DataFrame:
        """Count images, correct ones and people, and divide."""
        n, correct = whole(self.members.sum(axis=0)), whole(self.hits.sum(axis=0))
        figures = {"n": n, "correct": correct, "recall": correct / n}
        figures["subjects"] = whole(sums.total(np.ones(len(sums.column))))
        return pd.DataFrame(figures).add_suffix(f"_{side}")


def differences(
    sampled: Resampled,
    a: Sides,
    b: Sides,
    known: np.ndarray,
    confidence: float,
    kind: Kind,
    pairs: np.ndarray | None = None,
    margin: float | None = None,
) -> pd.DataFrame:
    """Compare pairs of recalls.

    Parameters
    ----------
    sampled
        Who is in the images; `resamples` allocations are drawn with its `seed`.
    a, b
        The sides of `k` comparisons; none is empty.
    known
        `(images,)` booleans: whether it is known who is in the image.
    confidence
        Level of the intervals.
    kind
        `groups`: different images on both sides. `models`: the same images, read twice.
    pairs
        `(k,)` comparisons with the same value are of the same two groups, such as all emotions of
        girls and boys, and share allocations, which saves time. None: for `groups` each comparison
        has its own, for `models` all share them.
    margin
        Whether a difference is shown to be smaller than this (`equivalent`); None: not asked.

    Returns
    -------
    pandas.DataFrame
        `(k, …)`: `n, correct, recall, subjects, effective_subjects, n_unknown` of each side (`_a`,
        `_b`), `gap` (a minus b), `ci_low, ci_high, p_value, method`, and `error, df`: the standard
        error of the gap and its degrees of freedom; `equivalence_margin, equivalent` with a
        margin. All figures are of images of known subjects, `n_unknown` says how many others there
        are; where a side has nobody known, they are of all images. `p_value` is NaN where a side is
        one person alone, and so are the limits where more than a third of a side is unknown.
    """
    counts = [_counts(side, known) for side in (a, b)]
    known_n = np.minimum(counts[0][0] - counts[0][1], counts[1][0] - counts[1][1])
    a, b = (side.only(known, known_n > 0) for side in (a, b))
    sums = [BySubject.of(sampled, side.members, side.hits) for side in (a, b)]
    table = pd.concat([a.figures(sums[0], "a"), b.figures(sums[1], "b")], axis=1)
    table["gap"] = table["recall_a"] - table["recall_b"]
    for name, own, (_, unknown) in zip("ab", sums, counts, strict=True):
        table[f"effective_subjects_{name}"] = np.where(known_n > 0, own.effective, 0.0)
        table[f"n_unknown_{name}"] = whole(unknown)
    share = np.maximum(*(unknown / n for n, unknown in counts))
    withheld = (known_n == 0) | (share > MOST_UNKNOWN)
    figures, methods = _tested(sampled, sums[0], sums[1], table, withheld, kind, pairs)
    table = table.assign(**figures)
    table["ci_low"], table["ci_high"] = _limits(sums[0], sums[1], table, confidence)
    if margin is not None:
        # A test at level alpha takes the interval at 1 - 2 alpha.
        low, high = _limits(sums[0], sums[1], table, 2 * confidence - 1)
        table["equivalence_margin"] = margin
        table["equivalent"] = equivalent(low, high, margin) & ~withheld
    table.loc[withheld, ["ci_low", "ci_high"]] = np.nan
    methods[share > 0] = methods[share > 0] + ONLY_KNOWN
    methods[withheld] = TOO_MANY_UNKNOWN
    methods[known_n == 0] = NOBODY_KNOWN
    table.loc[known_n == 0, ["subjects_a", "subjects_b"]] = 0
    return table.drop(columns="correlation").assign(method=methods)


def complete_cases(members: sparse.csr_array, known: np.ndarray) -> sparse.csr_array:
    """Keep the images of known subjects of each group, all of a group where nobody is known."""
    there = np.asarray(known.astype(float) @ members) > 0
    return _only(members, known, there)


def _only(members: sparse.csr_array, known: np.ndarray, where: np.ndarray) -> sparse.csr_array:
    if known.all():
        return members
    rest = sparse.diags_array((~where).astype(float))
    others = sparse.csr_array(selected(members, ~known) @ rest)
    out = sparse.csr_array(selected(members, known) + others)
    out.eliminate_zeros()
    return out


def _counts(side: Sides, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count images, and those whose subject is not known."""
    n = np.asarray(side.members.sum(axis=0))
    return n, np.asarray((~known).astype(float) @ side.members)


def _tested(
    sampled: Resampled,
    a: BySubject,
    b: BySubject,
    table: pd.DataFrame,
    withheld: np.ndarray,
    kind: Kind,
    pairs: np.ndarray | None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return `p_value, error, df, correlation` and how each was tested."""
    figures = _moments(a, b, sampled)
    variance, df = figures["error"] ** 2, figures["df"]
    p_value = t_test(table["gap"].to_numpy(), variance, df)
    people = table[["subjects_a", "subjects_b"]].min(axis=1).to_numpy()
    few = np.minimum(a.effective, b.effective) <= MANY
    methods = np.where(people < 2, ALONE, np.where(few, PERMUTED, T_TEST)).astype(object)
    p_value[withheld | (people < 2)] = np.nan
    if pairs is None:
        pairs = np.zeros(a.k) if kind == "models" else np.arange(a.k)
    drawn = np.flatnonzero(few & (people >= 2) & ~withheld)
    for columns in _together(drawn, pairs, sampled):
        p_value[columns] = permutation_p(a, b, columns, sampled.resamples, sampled.seed)
    # Nothing varies: one success and one failure are added to each side (A. Agresti and B. Caffo
    # 2000, Am. Stat. 54, 280-288).
    constant = variance <= _STILL
    figures["error"] = np.where(constant, _error_of_people(table, a, b), figures["error"])
    figures["df"] = np.where(constant, np.inf, df)
    return figures | {"p_value": p_value}, methods


def _together(drawn: np.ndarray, pairs: np.ndarray, sampled: Resampled) -> list[np.ndarray]:
    """Split comparisons by pair, and large pairs into parts that fit into memory."""
    order = drawn[np.argsort(pairs[drawn], kind="stable")]
    cuts = np.flatnonzero(pairs[order][1:] != pairs[order][:-1]) + 1
    step = max(1, (1 << 21) // (sampled.resamples + 1))
    parts = [part for part in np.split(order, cuts) if len(part)]
    return [part[start : start + step] for part in parts for start in range(0, len(part), step)]


def _moments(a: BySubject, b: BySubject, people: People) -> dict[str, np.ndarray]:
    """Return the error of differences, clustered by subject, its df, and the correlation of sides.

    K.-Y. Liang and S. L. Zeger (1986), Biometrika 73, 13-22, with CR2 influences, and degrees of
    freedom as F. E. Satterthwaite (1946), Biometrics Bull. 2, 110-114, has them, from the subjects
    of a alone, of b alone and of both, each no more than the effective ones.
    """
    shape = people.people, a.k
    one, other = (
        sparse.csr_array((side.influence(), (side.subject, side.column)), shape) for side in (a, b)
    )
    in_a, in_b = (
        sparse.csr_array((np.ones(len(side.column)), (side.subject, side.column)), shape)
        for side in (a, b)
    )
    covariance = _sum(one.multiply(other))
    in_both = sparse.csr_array(in_a.multiply(in_b))
    shared = _sum(in_both)
    squares = [_sum(sums.multiply(sums)) for sums in (one, other)]
    of_both = [_sum(sums.multiply(sums).multiply(in_both)) for sums in (one, other)]
    parts = [
        (squares[0] - of_both[0], a.total(np.ones(len(a.column))) - shared, a.effective),
        (squares[1] - of_both[1], b.total(np.ones(len(b.column))) - shared, b.effective),
        (of_both[0] + of_both[1] - 2 * covariance, shared, np.minimum(a.effective, b.effective)),
    ]
    variance = np.maximum(squares[0] + squares[1] - 2 * covariance, 0.0)
    spread = sum(
        np.maximum(part, 0) ** 2 / np.maximum(np.minimum(count, effective) - 1, 1)
        for part, count, effective in parts
    )
    df = np.divide(variance**2, spread, out=np.ones(a.k), where=spread > 0)
    return {
        "error": np.sqrt(variance),
        "df": df,
        "correlation": _correlation(a, b, squares, covariance),
    }


def _correlation(
    a: BySubject, b: BySubject, squares: list[np.ndarray], covariance: np.ndarray
) -> np.ndarray:
    """Return the correlation of both recalls, a little smaller than the sample's.

    Two models that answer alike would leave an interval without width; half a subject's worth of
    variance is added to what is not shared.
    """
    worth = np.ones(a.k)
    for side in (a, b):
        subjects = np.maximum(side.effective, 1.0)
        share = (side.total(side.hits) / np.maximum(side.total(side.images), 1)) * subjects
        share = (share + 0.5) / (subjects + 1)
        worth = worth * share * (1 - share) / subjects**2
    together = np.sqrt(squares[0] * squares[1]) + 0.5 * np.sqrt(worth)
    return np.asarray(covariance / (together + _STILL))


def _sum(values: sparse.csr_array) -> np.ndarray:
    return np.asarray(values.sum(axis=0)).ravel()


def _limits(
    a: BySubject, b: BySubject, table: pd.DataFrame, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the intervals of differences, in agreement with `p_value`."""
    shares = [table[f"recall_{side}"].to_numpy() for side in "ab"]
    sums = [s.limits(share, confidence)[:2] for s, share in zip((a, b), shares, strict=True)]
    correlation = table["correlation"].to_numpy()
    low, high = added(shares[0], sums[0], shares[1], sums[1], correlation)
    gap = table["gap"].to_numpy()
    low, high = agreeing(gap, low, high, table["p_value"].to_numpy(), confidence)
    return np.minimum(low, gap), np.maximum(high, gap)


def _error_of_people(table: pd.DataFrame, a: BySubject, b: BySubject) -> np.ndarray:
    """Return the error of differences with each effective subject counted once."""
    total = np.zeros(len(table))
    for side, sums in (("a", a), ("b", b)):
        people = np.maximum(sums.effective, 1.0)
        share = (table[f"recall_{side}"].to_numpy() * people + 1) / (people + 2)
        total += share * (1 - share) / (people + 2)
    return np.sqrt(total)
