"""Simultaneous limits for figures selected from many: the extremes of groups, the largest effects.

The best of ten equal groups minus the worst of them is far from 0 by chance alone. Intervals that
hold for all pairs of groups at once (J. W. Tukey 1953; A. J. Hayter 1984, Ann. Stat. 12, 61-75, for
groups of unequal size) also hold for the pair that turned out to be extreme. For figures of
several kinds the largest standardized deviation of joint draws replaces the studentized range
(P. H. Westfall, S. S. Young 1993, Resampling-Based Multiple Testing).

Limits of differences and ratios are derived from the limits of both shares (G. Y. Zou, A. Donner
2008, Stat. Med. 27, 1693-1702; A. Donner, G. Y. Zou 2012, Stat. Methods Med. Res. 21, 347-359). The
estimate always lies between them, and they stay in the possible range.
"""

from functools import lru_cache

import numpy as np
from scipy.stats import norm, studentized_range

from tasks.core.statistics.hypothesis_tests import added


@lru_cache(maxsize=256)
def pairwise_level(groups: int, confidence: float) -> float:
    """Return the level of single intervals that cover all pairs of groups with `confidence`."""
    if groups <= 2:
        return confidence
    critical = studentized_range.ppf(confidence, groups, np.inf) / np.sqrt(2)
    return float(1 - 2 * norm.sf(critical))


def range_p_value(groups: int, level: float) -> float:
    """Return the p-value of a range whose pairwise interval reaches 0 at a single `level`.

    It is below 1 - confidence if and only if the range's lower limit at `confidence` is above 0.
    """
    if groups <= 2:
        return 1 - level
    return float(studentized_range.sf(norm.isf((1 - level) / 2) * np.sqrt(2), groups, np.inf))


def each_level(figures: int, confidence: float) -> float:
    """Return the level of single intervals that cover all figures at once with `confidence`.

    Z. Sidak (1967), J. Am. Stat. Assoc. 62, 626-633, also for dependent figures.
    """
    return float(confidence ** (1 / max(figures, 1)))


def difference_limits(
    share_a: np.ndarray,
    limits_a: tuple[np.ndarray, np.ndarray],
    share_b: np.ndarray,
    limits_b: tuple[np.ndarray, np.ndarray],
    correlation: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return limits of a - b, within -1 to 1; see `hypothesis_tests.added`."""
    low, high = added(share_a, limits_a, share_b, limits_b, correlation)
    return np.asarray(np.maximum(low, -1.0)), np.asarray(np.minimum(high, 1.0))


def ratio_limits(
    share_a: np.ndarray,
    limits_a: tuple[np.ndarray, np.ndarray],
    share_b: np.ndarray,
    limits_b: tuple[np.ndarray, np.ndarray],
    correlation: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return limits of a / b: the ratios r for which the limits of a - r b include 0.

    They exclude 1 if and only if `difference_limits` exclude 0. The upper limit is infinite where b
    may be 0.
    """
    (low_a, high_a), (low_b, high_b) = limits_a, limits_b

    def root(limit_a: np.ndarray, limit_b: np.ndarray) -> tuple[np.ndarray, ...]:
        middle = share_a * share_b - correlation * (share_a - limit_a) * (limit_b - share_b)
        ends = limit_a * (2 * share_a - limit_a), limit_b * (2 * share_b - limit_b)
        return middle, np.sqrt(np.maximum(middle**2 - ends[0] * ends[1], 0.0)), *ends

    middle, spread, top, _ = root(low_a, high_b)
    below = middle + spread
    low = np.divide(top, below, out=np.zeros_like(below), where=below > 0)
    middle, spread, _, bottom = root(high_a, low_b)
    high = np.full_like(low, np.inf)
    np.divide(middle + spread, bottom, out=high, where=bottom > 1e-12)
    return np.maximum(low, 0.0), high


def largest_deviation(standardized: np.ndarray, confidence: float) -> float:
    """Return the joint critical value of `k` standardized deviations, at least the normal one.

    `standardized` has `(draws, k)` deviations of joint draws divided by their standard errors; NaN
    where a draw has none.
    """
    single = float(norm.isf((1 - confidence) / 2))
    usable = standardized[:, np.isfinite(standardized).any(axis=0)]
    if not usable.size:
        return single
    largest = np.nanmax(np.abs(usable), axis=1, initial=0.0, where=np.isfinite(usable))
    return max(single, float(np.quantile(largest, confidence)))
