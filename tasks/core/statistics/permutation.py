"""P-values of differences between recalls, by permuting subjects.

Under the null hypothesis the side of a subject does not matter. Subjects on one side only are
allocated to the sides at random, with the same number on each as observed. A subject on both sides,
such as every subject of two models on the same images, swaps its sides by a coin flip. Subjects
move with all of their images, so that unequal numbers of images and similar images of one subject
need no formula. The p-value is the share of allocations whose statistic is at least the observed
one. Ties count half (mid-p), since few subjects at a recall of .99 tie often (H. O. Lancaster 1961,
J. Am. Stat. Assoc. 56, 223-234). No variance is estimated, so that a side without errors is not a
special case.

The statistic is the squared gap divided by its cluster variance plus a constant: 1.5 times the
variance that would result if all images of a subject agreed and both sides had the same recall.
Dividing by the variance keeps the level where the number of images or the spread between subjects
differs by side (A. Janssen 1997, Stat. Probab. Lett. 36, 9-21; E. Chung and J. P. Romano 2013, Ann.
Stat. 41, 484-507). Without the constant a third of the power is lost where the smaller side has the
lower recall; V. G. Tusher, R. Tibshirani and G. Chu (2001), PNAS 98, 5116-5121, add one for the
same reason. Simulations: docs/decisions/0009-permuting-subjects.md.

Both sums of an allocation are products of a 0/1 matrix with each subject's contribution, so that
all emotions of a pair of groups share the matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from math import comb

import numpy as np

from tasks.core.statistics.recalls import BySubject

_CONSTANT = 1.5
_AT_ONCE = 1 << 22  # entries per block of allocations
_TAIL_DRAWS = 10  # with fewer draws as extreme as the observed one, the tail is extrapolated
_TAIL_SHARE = 0.05  # share of the draws that the extrapolation is fitted to


def permutation_p(
    a: BySubject, b: BySubject, columns: np.ndarray, draws: int, seed: int
) -> np.ndarray:
    """Return two-sided p-values of the differences in `columns`, which share allocations.

    Parameters
    ----------
    a, b
        Images and hits of each subject on each side; no column is empty on a side.
    columns
        Comparisons of one pair of groups, or of one pair of models.
    draws
        Number of random allocations; if there are no more than this in total, all are enumerated.
    seed
        The same seed and subjects give the same allocations, whichever side is a.
    """
    table = _Table.of(a, b, columns)
    observed = table.statistic(table.observed())[0]
    exact, null = _null_distribution(table, draws, seed)
    slack = 1e-6 * observed + 1e-12
    above = (null > observed + slack).sum(axis=0)
    tied = (np.abs(null - observed) <= slack).sum(axis=0)
    if exact:
        p = (above + tied / 2) / len(null)
    else:
        p = (above + (tied + 1) / 2) / (draws + 1)
        rare = np.flatnonzero((above + tied < _TAIL_DRAWS) & (observed > 0))
        for column in rare:
            p[column] = min(p[column], _tail(null[:, column], observed[column], p[column]))
    p = np.maximum(p, 1 / min(table.allocations(), 1e15))
    return np.where(observed > 0, np.minimum(p, 1.0), 1.0)


def attainable(
    a: BySubject, b: BySubject, columns: np.ndarray, draws: int, seed: int, level: float
) -> np.ndarray:
    """Return the actual size of a test at `level`: its rejection rate under the null hypothesis.

    Parameters as for `permutation_p`. With few subjects and few errors most allocations tie, and
    the test rejects less often than `level`.
    """
    table = _Table.of(a, b, columns)
    _, null = _null_distribution(table, draws, seed)
    rejected = np.empty(len(columns))
    for column, statistic in enumerate(null.T):
        values, counts = np.unique(np.round(statistic, 9), return_counts=True)
        largest = counts[::-1].cumsum()
        p = (largest - counts[::-1] / 2) / len(null)
        rejected[column] = largest[(p < level) & (values[::-1] > 0)].max(initial=0) / len(null)
    return rejected


def _null_distribution(table: "_Table", draws: int, seed: int) -> tuple[bool, np.ndarray]:
    """Return whether all allocations were enumerated, and the statistic of each."""
    every = _every_allocation(table, draws)
    blocks = _random_allocations(table, draws, seed) if every is None else [every]
    return every is not None, np.concatenate([table.statistic(block) for block in blocks])


def _tail(null: np.ndarray, observed: float, p: float) -> float:
    """Extrapolate the tail of a permutation distribution beyond the draws.

    The tail is modeled as exponential in the statistic (a squared ratio) to the power 3/4. A
    chi-squared tail is lighter, so that the p-value is conservative.
    """
    largest = np.sort(null)[-max(20, round(_TAIL_SHARE * len(null))) :] ** 0.75
    excess = float((largest - largest[0]).mean())
    if len(largest) == len(null) or excess <= 1e-9 * largest[-1]:
        return p
    share = len(largest) / len(null)
    return float(share * np.exp(-(observed**0.75 - largest[0]) / excess))


@dataclass(frozen=True)
class _Table:
    """Images and hits that each subject adds to two slots, the sides of an allocation."""

    n1: np.ndarray  # (subjects, k) images that stay in the slot
    x1: np.ndarray  # hits among them
    n2: np.ndarray  # images in the other slot
    x2: np.ndarray  # hits among them
    lone: np.ndarray  # (subjects,) booleans: on one side only
    in_first: np.ndarray  # (subjects,) booleans: lone, and observed in the first slot

    @classmethod
    def of(cls, a: BySubject, b: BySubject, columns: np.ndarray) -> "_Table":
        """Collect the subjects of some columns; swapping a and b gives the same slots."""
        index = np.full(a.k, -1)
        index[columns] = np.arange(len(columns))
        used = [index[side.column] >= 0 for side in (a, b)]
        subjects = np.unique(
            np.concatenate([side.subject[mask] for side, mask in zip((a, b), used, strict=True)])
        )
        dense = []
        for side, mask in zip((a, b), used, strict=True):
            cells = np.searchsorted(subjects, side.subject[mask]), index[side.column[mask]]
            for values in (side.images, side.hits):
                matrix = np.zeros((len(subjects), len(columns)), dtype=np.float32)
                matrix[cells] = values[mask]
                dense.append(matrix)
        n_a, x_a, n_b, x_b = dense
        in_a, in_b = n_a.sum(axis=1) > 0, n_b.sum(axis=1) > 0
        only_a, only_b = in_a & ~in_b, in_b & ~in_a
        first_is_a = (only_a.sum(), _first(only_a)) <= (only_b.sum(), _first(only_b))
        sides = (n_a, x_a, n_b, x_b) if first_is_a else (n_b, x_b, n_a, x_a)
        return cls(*sides, in_a != in_b, only_a if first_is_a else only_b)

    def observed(self) -> np.ndarray:
        """Return the observed allocation as one row."""
        return np.asarray((self.in_first | ~self.lone)[None, :], dtype=np.float32)

    def allocations(self) -> float:
        """Count the distinct allocations."""
        chosen = comb(int(self.lone.sum()), int(self.in_first.sum()))
        return float(min(chosen, 10**300)) * 2.0 ** min(int((~self.lone).sum()), 300)

    def statistic(self, allocated: np.ndarray) -> np.ndarray:
        """Return the statistic of allocations `(b, subjects)`, `(b, k)` float64.

        It is 0 for an allocation that leaves a side without images.
        """
        lone = self.lone[:, None]
        # A lone subject adds all of its images to its slot, and nothing to the other.
        n1, x1 = self.n1 + self.n2 * lone, self.x1 + self.x2 * lone
        n2, x2 = self.n2 * ~lone, self.x2 * ~lone
        n, m = _slots(allocated, n1, n2)
        x, y = _slots(allocated, x1, x2)
        xx, yy = _slots(allocated, x1**2, x2**2)
        xn, ym = _slots(allocated, x1 * n1, x2 * n2)
        nn, mm = _slots(allocated, n1**2, n2**2)
        valid = (n > 0) & (m > 0)
        n, m = np.where(valid, n, 1.0), np.where(valid, m, 1.0)
        p, q = x / n, y / m
        scale_n, scale_m = (np.maximum(1 - share, 0.05) for share in (nn / n**2, mm / m**2))
        variance = (xx - 2 * p * xn + p**2 * nn) / n**2 / scale_n
        variance += (yy - 2 * q * ym + q**2 * mm) / m**2 / scale_m
        if not self.lone.all():
            # The covariance of both recalls, from the subjects on both sides.
            xm, yn = _slots(allocated, x1 * n2, x2 * n1)
            both = (x1 * x2).sum(axis=0) - q * xm - p * yn + p * q * (n1 * n2).sum(axis=0)
            variance -= 2 * both / (n * m) / np.sqrt(scale_n * scale_m)
        constant = self._constant()
        total = np.maximum(variance, 0.0) + constant
        return np.where(valid & (constant > 0), (p - q) ** 2 / np.where(total > 0, total, 1), 0.0)

    def _constant(self) -> np.ndarray:
        images = self.n1.sum(axis=0) + self.n2.sum(axis=0)
        share = (self.x1.sum(axis=0) + self.x2.sum(axis=0)) / images
        sides = 1 / (self.n1 > 0).sum(axis=0) + 1 / (self.n2 > 0).sum(axis=0)
        return np.asarray(_CONSTANT * share * (1 - share) * sides, dtype=float)


def _first(mask: np.ndarray) -> int:
    return int(mask.argmax()) if mask.any() else len(mask)


def _slots(
    allocated: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum both slots, where each subject adds `first` to its slot and `second` to the other."""
    total = (allocated @ (first - second)).astype(float) + second.sum(axis=0)
    return total, first.sum(axis=0) + second.sum(axis=0) - total


def _every_allocation(table: _Table, limit: int) -> np.ndarray | None:
    """Return all allocations, one row each; None if there are more than `limit`."""
    if table.allocations() > limit:
        return None
    lone, both = np.flatnonzero(table.lone), np.flatnonzero(~table.lone)
    rows = []
    for chosen in combinations(lone, int(table.in_first.sum())):
        for stay in product((0.0, 1.0), repeat=len(both)):
            row = np.zeros(len(table.lone), dtype=np.float32)
            row[list(chosen)] = 1.0
            row[both] = stay
            rows.append(row)
    return np.array(rows)


def _random_allocations(table: _Table, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Yield blocks of random allocations."""
    rng = np.random.default_rng(seed)
    lone, both = np.flatnonzero(table.lone), np.flatnonzero(~table.lone)
    chosen = int(table.in_first.sum())
    step = max(1, _AT_ONCE // len(table.lone))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        block = np.zeros((rows, len(table.lone)), dtype=np.float32)
        if 0 < chosen < len(lone):
            order = rng.random((rows, len(lone)), dtype=np.float32)
            picked = np.argpartition(order, chosen - 1, axis=1)[:, :chosen]
            np.put_along_axis(block, lone[picked], 1.0, axis=1)
        else:
            block[:, lone[:chosen]] = 1.0
        if len(both):
            block[:, both] = rng.integers(2, size=(rows, len(both)))
        yield block
