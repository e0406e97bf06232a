"""The difference between two recalls: of two groups, or of two models on the same images.

Both use the same method, because in both a subject has several images. The p-value permutes
subjects (`permutation.py`); with more than `MANY` effective subjects it comes from a t test
clustered by subject. The interval combines the intervals of both recalls (MOVER), less the
covariance of subjects on both sides. It never contradicts the p-value: see
`hypothesis_tests.agreeing`.

Only images of known subjects count: the others do not show how subjects vary.
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
MANY = 500  # effective subjects per side, above which a t test agrees with a permutation test
_ROUNDING = 1e-12  # variances up to this are 0
_BLOCK = 1 << 21  # draws times comparisons that fit into memory
Kind = Literal["groups", "models"]


@dataclass(frozen=True)
class Sides:
    """One side of `k` comparisons: its images and hits, as `(images, k)` zeros and ones."""

    members: sparse.csr_array
    hits: sparse.csr_array

    @classmethod
    def of(cls, members: sparse.csr_array, correct: np.ndarray) -> "Sides":
        """Make a side from its images and `(images,)` booleans."""
        return cls(members, selected(members, correct))

    def part(self, columns: np.ndarray) -> "Sides":
        """Keep some of the comparisons."""
        return Sides(self.members[:, columns], self.hits[:, columns])

    def only(self, known: np.ndarray, mask: np.ndarray) -> "Sides":
        """Drop images of unknown subjects from the comparisons in `mask`, `(k,)` booleans."""
        return Sides(*(_drop_unknown(side, known, mask) for side in (self.members, self.hits)))

    def figures(self, sums: BySubject, side: str) -> pd.DataFrame:
        """Return `n`, `correct`, `recall` and `subjects` of each comparison."""
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
        The subjects of the images; its `resamples` and `seed` also govern the allocations.
    a, b
        The sides of `k` comparisons; none is empty.
    known
        `(images,)` booleans: whether the subject is known.
    kind
        `groups`: each side has its own images. `models`: both models read the same images.
    pairs
        `(k,)` comparisons with the same value compare the same two groups, such as all emotions of
        girls and boys. They share allocations, which saves time. None: for `groups` each comparison
        has its own, for `models` all share them.
    margin
        Equivalence margin (see `equivalent`); None: no equivalence test.

    Returns
    -------
    pandas.DataFrame
        `(k, …)`: `n, correct, recall, subjects, effective_subjects, n_unknown` of each side (`_a`,
        `_b`), `gap` (a minus b), `ci_low, ci_high, p_value, method`, and `error, df` (standard
        error of the gap and its degrees of freedom); with a margin also `equivalence_margin,
        equivalent`. All figures count images of known subjects only, or all images where a side has
        no known subject; `n_unknown` counts the other images. `p_value` is NaN where a side has
        only one subject. `p_value` and the limits are NaN where more than a third of a side's
        images are of unknown subjects.
    """
    counts = [_counts(side, known) for side in (a, b)]
    known_n = np.minimum(counts[0][0] - counts[0][1], counts[1][0] - counts[1][1])
    a, b = (side.only(known, known_n > 0) for side in (a, b))
    sums = [BySubject.of(sampled, side.members, side.hits) for side in (a, b)]
    table = pd.concat([a.figures(sums[0], "a"), b.figures(sums[1], "b")], axis=1)
    table["gap"] = table["recall_a"] - table["recall_b"]
    for name, side_sums, (_, unknown) in zip("ab", sums, counts, strict=True):
        table[f"effective_subjects_{name}"] = np.where(known_n > 0, side_sums.effective, 0.0)
        table[f"n_unknown_{name}"] = whole(unknown)
    share = np.maximum(*(unknown / n for n, unknown in counts))
    withheld = (known_n == 0) | (share > MOST_UNKNOWN)
    figures, methods = _tested(sampled, sums[0], sums[1], table, withheld, kind, pairs)
    table = table.assign(**figures)
    table["ci_low"], table["ci_high"] = _limits(sums[0], sums[1], table, confidence)
    if margin is not None:
        # Two one-sided tests at level alpha use the interval at 1 - 2 alpha.
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
    """Drop images of unknown subjects from every group that has a known one."""
    has_known = np.asarray(known.astype(float) @ members) > 0
    return _drop_unknown(members, known, has_known)


def _drop_unknown(
    members: sparse.csr_array, known: np.ndarray, mask: np.ndarray
) -> sparse.csr_array:
    if known.all():
        return members
    rest = sparse.diags_array((~mask).astype(float))
    others = sparse.csr_array(selected(members, ~known) @ rest)
    out = sparse.csr_array(selected(members, known) + others)
    out.eliminate_zeros()
    return out


def _counts(side: Sides, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of images, and of those whose subject is not known."""
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
    """Return `p_value, error, df, correlation` and the method of each comparison."""
    figures = _moments(a, b, sampled)
    variance, df = figures["error"] ** 2, figures["df"]
    p_value = t_test(table["gap"].to_numpy(), variance, df)
    subjects = table[["subjects_a", "subjects_b"]].min(axis=1).to_numpy()
    few = np.minimum(a.effective, b.effective) <= MANY
    methods = np.where(subjects < 2, ALONE, np.where(few, PERMUTED, T_TEST)).astype(object)
    p_value[withheld | (subjects < 2)] = np.nan
    if pairs is None:
        pairs = np.zeros(a.k) if kind == "models" else np.arange(a.k)
    permuted = np.flatnonzero(few & (subjects >= 2) & ~withheld)
    for columns in _blocks(permuted, pairs, sampled):
        p_value[columns] = permutation_p(a, b, columns, sampled.resamples, sampled.seed)
    # Without any variance, one success and one failure are added to each side (A. Agresti and B.
    # Caffo 2000, Am. Stat. 54, 280-288).
    constant = variance <= _ROUNDING
    figures["error"] = np.where(constant, _smoothed_error(table, a, b), figures["error"])
    figures["df"] = np.where(constant, np.inf, df)
    return figures | {"p_value": p_value}, methods


def _blocks(columns: np.ndarray, pairs: np.ndarray, sampled: Resampled) -> list[np.ndarray]:
    """Split comparisons by pair, and large pairs into blocks that fit into memory."""
    order = columns[np.argsort(pairs[columns], kind="stable")]
    cuts = np.flatnonzero(pairs[order][1:] != pairs[order][:-1]) + 1
    step = max(1, _BLOCK // (sampled.resamples + 1))
    parts = [part for part in np.split(order, cuts) if len(part)]
    return [part[start : start + step] for part in parts for start in range(0, len(part), step)]


def _moments(a: BySubject, b: BySubject, people: People) -> dict[str, np.ndarray]:
    """Return the standard error clustered by subject, its df, and the correlation of the sides.

    K.-Y. Liang and S. L. Zeger (1986), Biometrika 73, 13-22, with CR2 influences. The degrees of
    freedom follow F. E. Satterthwaite (1946), Biometrics Bull. 2, 110-114, with three components:
    subjects of a only, of b only and of both. Each count is limited to the effective subjects.
    """
    shape = people.people, a.k
    influence_a, influence_b = (
        sparse.csr_array((side.influence(), (side.subject, side.column)), shape) for side in (a, b)
    )
    in_a, in_b = (
        sparse.csr_array((np.ones(len(side.column)), (side.subject, side.column)), shape)
        for side in (a, b)
    )
    covariance = _sum(influence_a.multiply(influence_b))
    in_both = sparse.csr_array(in_a.multiply(in_b))
    shared = _sum(in_both)
    influences = influence_a, influence_b
    squares = [_sum(values.multiply(values)) for values in influences]
    of_both = [_sum(values.multiply(values).multiply(in_both)) for values in influences]
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
    """Return the correlation of both recalls, shrunk slightly.

    Two models with identical answers would otherwise have an interval of width 0; half a subject's
    variance is added to the part that is not shared.
    """
    product = np.ones(a.k)
    for side in (a, b):
        subjects = np.maximum(side.effective, 1.0)
        share = (side.total(side.hits) / np.maximum(side.total(side.images), 1)) * subjects
        share = (share + 0.5) / (subjects + 1)
        product = product * share * (1 - share) / subjects**2
    scale = np.sqrt(squares[0] * squares[1]) + 0.5 * np.sqrt(product)
    return np.asarray(covariance / (scale + _ROUNDING))


def _sum(values: sparse.csr_array) -> np.ndarray:
    return np.asarray(values.sum(axis=0)).ravel()


def _limits(
    a: BySubject, b: BySubject, table: pd.DataFrame, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return intervals of the differences that agree with `p_value`."""
    shares = [table[f"recall_{side}"].to_numpy() for side in "ab"]
    limits = [s.limits(share, confidence)[:2] for s, share in zip((a, b), shares, strict=True)]
    correlation = table["correlation"].to_numpy()
    low, high = added(shares[0], limits[0], shares[1], limits[1], correlation)
    gap = table["gap"].to_numpy()
    low, high = agreeing(gap, low, high, table["p_value"].to_numpy(), confidence)
    return np.minimum(low, gap), np.maximum(high, gap)


def _smoothed_error(table: pd.DataFrame, a: BySubject, b: BySubject) -> np.ndarray:
    """Return standard errors with each effective subject counted once, plus 1 hit and 1 miss."""
    total = np.zeros(len(table))
    for side, sums in (("a", a), ("b", b)):
        subjects = np.maximum(sums.effective, 1.0)
        share = (table[f"recall_{side}"].to_numpy() * subjects + 1) / (subjects + 2)
        total += share * (1 - share) / (subjects + 2)
    return np.sqrt(total)
