"""P-values of differences between recalls, by permuting subjects.

Without a difference it does not matter which side a subject is on. A subject on one side only may
be put on either, so many on each as there are; one on both sides, as every subject of two models on
the same images, swaps its sides by a coin flip. A subject moves with all of its images, so that
unequal numbers of images and alike images of one person need no formula: the p-value is the share
of allocations whose statistic is at least as large as the one that was seen (mid-p: those that tie
count by half, since few subjects at a recall of .99 tie often; H. O. Lancaster 1961, J. Am. Stat.
Assoc. 56, 223-234). It needs no variance, so that a side that is all right is a case like others.

The statistic is the squared gap over its cluster variance plus a constant, 1.5 times what the
variance would be if all images of a subject were alike and both sides had the same recall. The
variance part keeps the level where numbers of images or the spread between subjects differ by side
(A. Janssen 1997, Stat. Probab. Lett. 36, 9-21; E. Chung and J. P. Romano 2013, Ann. Stat. 41,
484-507); alone it loses a third of the power where the smaller side has the lower recall, which the
constant prevents (V. G. Tusher, R. Tibshirani and G. Chu 2001, PNAS 98, 5116-5121, add one for the
same reason). Figures: docs/decisions/0009-permuting-subjects.md.

Both sums of an allocation are products of one matrix of zeros and ones with what each subject adds,
so that all emotions of a pair of groups share the matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from math import comb

import numpy as np

from tasks.core.statistics.recalls import BySubject

_CONSTANT = 1.5
_AT_ONCE = 1 << 22  # entries of a block of allocations
_TAIL_DRAWS = 10  # with fewer draws as extreme, the tail is extended
_TAIL_SHARE = 0.05  # of the draws, which the extension is fitted to


def permutation_p(
    a: BySubject, b: BySubject, columns: np.ndarray, draws: int, seed: int
) -> np.ndarray:
    """Return two-sided p-values of the differences in some columns, which share allocations.

    Parameters
    ----------
    a, b
        Images and hits of each subject on each side; no column is empty on a side.
    columns
        Which of their columns: comparisons of one pair of groups, or of one pair of models.
    draws
        Number of random allocations; where there are no more than this, all are enumerated.
    seed
        The same seed and subjects give the same allocations, whichever side is called a.
    """
    table = _Table.of(a, b, columns)
    seen = table.statistic(table.seen())[0]
    every, found = _allocated(table, draws, seed)
    slack = 1e-6 * seen + 1e-12
    above, tied = (found > seen + slack).sum(axis=0), (np.abs(found - seen) <= slack).sum(axis=0)
    if every:
        p = (above + tied / 2) / len(found)
    else:
        p = (above + (tied + 1) / 2) / (draws + 1)
        rare = np.flatnonzero((above + tied < _TAIL_DRAWS) & (seen > 0))
        for place in rare:
            p[place] = min(p[place], _tail(found[:, place], seen[place], p[place]))
    p = np.maximum(p, 1 / min(table.allocations(), 1e15))
    return np.where(seen > 0, np.minimum(p, 1.0), 1.0)


def attainable(
    a: BySubject, b: BySubject, columns: np.ndarray, draws: int, seed: int, level: float
) -> np.ndarray:
    """Return how often a test at `level` would reject if subjects were permuted at random.

    Parameters as for `permutation_p`. With few subjects and few errors most allocations tie, and
    the test rejects less often than `level`, however large the difference that it looks for.
    """
    table = _Table.of(a, b, columns)
    _, found = _allocated(table, draws, seed)
    rejected = np.empty(len(columns))
    for place, statistic in enumerate(found.T):
        values, counts = np.unique(np.round(statistic, 9), return_counts=True)
        largest = counts[::-1].cumsum()
        p = (largest - counts[::-1] / 2) / len(found)
        rejected[place] = largest[(p < level) & (values[::-1] > 0)].max(initial=0) / len(found)
    return rejected


def _allocated(table: "_Table", draws: int, seed: int) -> tuple[bool, np.ndarray]:
    """Return whether all allocations were enumerated, and the statistic of each."""
    every = _every_allocation(table, draws)
    blocks = _random_allocations(table, draws, seed) if every is None else [every]
    return every is not None, np.concatenate([table.statistic(block) for block in blocks])


def _tail(found: np.ndarray, seen: float, p: float) -> float:
    """Extend the tail of a permutation distribution beyond the draws.

    The largest draws are taken as exponential in the statistic (a squared ratio) to the power 3/4.
    A chi-squared tail is lighter than that, so that the p-value is rather too large than too small.
    """
    largest = np.sort(found)[-max(20, round(_TAIL_SHARE * len(found))) :] ** 0.75
    excess = float((largest - largest[0]).mean())
    if len(largest) == len(found) or excess <= 1e-9 * largest[-1]:
        return p
    share = len(largest) / len(found)
    return float(share * np.exp(-(seen**0.75 - largest[0]) / excess))


@dataclass(frozen=True)
class _Table:
    """What each subject adds to two slots: `first` if it stays, `second` if it moves."""

    n1: np.ndarray  # (subjects, k) images on the slot's own side
    x1: np.ndarray  # hits
    n2: np.ndarray  # images on the other side
    x2: np.ndarray
    lone: np.ndarray  # (subjects,) on one side only
    in_first: np.ndarray  # (subjects,) a lone subject that is in the first slot

    @classmethod
    def of(cls, a: BySubject, b: BySubject, columns: np.ndarray) -> "_Table":
        """Gather the subjects of some columns; the slots are in an order that sides do not set."""
        place = np.full(a.k, -1)
        place[columns] = np.arange(len(columns))
        used = [place[side.column] >= 0 for side in (a, b)]
        who = np.unique(np.concatenate([s.subject[u] for s, u in zip((a, b), used, strict=True)]))
        dense = []
        for side, some in zip((a, b), used, strict=True):
            at = np.searchsorted(who, side.subject[some]), place[side.column[some]]
            for values in (side.images, side.hits):
                share = np.zeros((len(who), len(columns)), dtype=np.float32)
                share[at] = values[some]
                dense.append(share)
        n_a, x_a, n_b, x_b = dense
        in_a, in_b = n_a.sum(axis=1) > 0, n_b.sum(axis=1) > 0
        only_a, only_b = in_a & ~in_b, in_b & ~in_a
        first_is_a = (only_a.sum(), _first(only_a)) <= (only_b.sum(), _first(only_b))
        sides = (n_a, x_a, n_b, x_b) if first_is_a else (n_b, x_b, n_a, x_a)
        return cls(*sides, in_a != in_b, only_a if first_is_a else only_b)

    def seen(self) -> np.ndarray:
        """Return the allocation that was seen, one row."""
        return np.asarray((self.in_first | ~self.lone)[None, :], dtype=np.float32)

    def allocations(self) -> float:
        """Count the allocations that can be told apart."""
        chosen = comb(int(self.lone.sum()), int(self.in_first.sum()))
        return float(min(chosen, 10**300)) * 2.0 ** min(int((~self.lone).sum()), 300)

    def statistic(self, allocated: np.ndarray) -> np.ndarray:
        """Return the statistic of allocations `(b, subjects)`, `(b, k)` float64.

        0 for an allocation that leaves a side without images.
        """
        lone = self.lone[:, None]
        # A lone subject adds all of its images to the slot that it is in, and nothing to the other.
        n1, x1 = self.n1 + self.n2 * lone, self.x1 + self.x2 * lone
        n2, x2 = self.n2 * ~lone, self.x2 * ~lone
        n, m = _slots(allocated, n1, n2)
        x, y = _slots(allocated, x1, x2)
        xx, yy = _slots(allocated, x1**2, x2**2)
        xn, ym = _slots(allocated, x1 * n1, x2 * n2)
        nn, mm = _slots(allocated, n1**2, n2**2)
        there = (n > 0) & (m > 0)
        n, m = np.where(there, n, 1.0), np.where(there, m, 1.0)
        p, q = x / n, y / m
        pull_n, pull_m = (np.maximum(1 - share, 0.05) for share in (nn / n**2, mm / m**2))
        variance = (xx - 2 * p * xn + p**2 * nn) / n**2 / pull_n
        variance += (yy - 2 * q * ym + q**2 * mm) / m**2 / pull_m
        if not self.lone.all():
            # Subjects on both sides: what they add to both recalls goes together.
            xm, yn = _slots(allocated, x1 * n2, x2 * n1)
            both = (x1 * x2).sum(axis=0) - q * xm - p * yn + p * q * (n1 * n2).sum(axis=0)
            variance -= 2 * both / (n * m) / np.sqrt(pull_n * pull_m)
        constant = self._constant()
        total = np.maximum(variance, 0.0) + constant
        return np.where(there & (constant > 0), (p - q) ** 2 / np.where(total > 0, total, 1), 0.0)

    def _constant(self) -> np.ndarray:
        images = self.n1.sum(axis=0) + self.n2.sum(axis=0)
        share = (self.x1.sum(axis=0) + self.x2.sum(axis=0)) / images
        sides = 1 / (self.n1 > 0).sum(axis=0) + 1 / (self.n2 > 0).sum(axis=0)
        return np.asarray(_CONSTANT * share * (1 - share) * sides, dtype=float)


def _first(which: np.ndarray) -> int:
    return int(which.argmax()) if which.any() else len(which)


def _slots(
    allocated: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum over both slots where each subject adds `first` to its own, `second` to the other."""
    one = (allocated @ (first - second)).astype(float) + second.sum(axis=0)
    return one, first.sum(axis=0) + second.sum(axis=0) - one


def _every_allocation(table: _Table, limit: int) -> np.ndarray | None:
    """Return all allocations, one row each; None where there are more than `limit`."""
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
