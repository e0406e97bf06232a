"""Limits for figures that were picked out of many: the extremes of groups, the largest effects.

The best of ten equal groups less the worst of them is far from 0 by chance alone. An interval that
knows this holds for all pairs of groups at once (J. W. Tukey 1953; A. J. Hayter 1984, Ann. Stat.
12, 61-75, for groups of unequal size), so that it holds for whichever pair came out as extreme. For
figures of several kinds the largest standardized deviation of joint draws takes the place of the
studentised range (P. H. Westfall, S. S. Young 1993, Resampling-Based Multiple Testing).

Differences and ratios take their limits from those of both shares (G. Y. Zou, A. Donner 2008, Stat.
Med. 27, 1693-1702; A. Donner, G. Y. Zou 2012, Stat. Methods Med. Res. 21, 347-359). These are built
around the estimate, which therefore always lies within, and the limits stay in the possible range.
"""

from functools import lru_cache

import numpy as np
from scipy.stats import norm, studentized_range


@lru_cache(maxsize=256)
def pairwise_level(groups: int, confidence: float) -> float:
    """Return the level of single intervals that hold for all pairs of groups with `confidence`."""
    if groups <= 2:
        return confidence
    critical = studentized_range.ppf(confidence, groups, np.inf) / np.sqrt(2)
    return float(1 - 2 * norm.sf(critical))


def range_p_value(groups: int, level: float) -> float:
    """Return the p-value of a range whose intervals of pairs reach 0 at a single `level`.

    It is below 1 - confidence exactly where the range's lower limit at `confidence` is above 0.
    """
    if groups <= 2:
        return 1 - level
    return float(studentized_range.sf(norm.isf((1 - level) / 2) * np.sqrt(2), groups, np.inf))


def each_level(figures: int, confidence: float) -> float:
    """Return the level of single intervals that hold for all of some figures with `confidence`.

    Notes
    -----
    Z. Sidak (1967), J. Am. Stat. Assoc. 62, 626-633: also for figures that depend on each other.
    """
    return float(confidence ** (1 / max(figures, 1)))


def difference_limits(
    share_a: np.ndarray,
    limits_a: tuple[np.ndarray, np.ndarray],
    share_b: np.ndarray,
    limits_b: tuple[np.ndarray, np.ndarray],
    correlation: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return limits of a - b from the limits of both shares, arrays of one shape.

    Parameters
    ----------
    share_a, share_b
        The shares, from 0 to 1.
    limits_a, limits_b
        Their lower and upper limits.
    correlation
        Of the two estimates, as where the same people are on both sides; from -1 to 1.
    """
    down_a, up_a = share_a - limits_a[0], limits_a[1] - share_a
    down_b, up_b = share_b - limits_b[0], limits_b[1] - share_b
    low = np.sqrt(np.maximum(down_a**2 + up_b**2 - 2 * correlation * down_a * up_b, 0.0))
    high = np.sqrt(np.maximum(up_a**2 + down_b**2 - 2 * correlation * up_a * down_b, 0.0))
    gap = share_a - share_b
    return np.asarray(np.maximum(gap - low, -1.0)), np.asarray(np.minimum(gap + high, 1.0))


def ratio_limits(
    share_a: np.ndarray,
    limits_a: tuple[np.ndarray, np.ndarray],
    share_b: np.ndarray,
    limits_b: tuple[np.ndarray, np.ndarray],
    correlation: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return limits of a / b: those ratios r for which the limits of a - r b hold 0.

    They exclude 1 exactly where `difference_limits` exclude 0. Parameters as there; the upper limit
    is infinite where b may be 0.
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


def largest_deviation(standardised: np.ndarray, confidence: float) -> float:
    """Return what the largest of several standardized deviations stays below with `confidence`.

    Parameters
    ----------
    standardised
        `(draws, k)` deviations of joint draws over their standard errors; NaN where a draw has
        none.
    confidence
        Level, such as 0.95.

    Returns
    -------
    float
        The critical value for all `k` together, at least that for one normal figure.
    """
    alone = float(norm.isf((1 - confidence) / 2))
    usable = standardised[:, np.isfinite(standardised).any(axis=0)]
    if not usable.size:
        return alone
    largest = np.nanmax(np.abs(usable), axis=1, initial=0.0, where=np.isfinite(usable))
    return max(alone, float(np.quantile(largest, confidence)))
