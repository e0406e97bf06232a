"""Closed-form intervals and tests of differences, and corrections for multiple tests."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, norm, t


def t_test(difference: np.ndarray, variance: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Return two-sided p-values of differences being 0; NaN where the variance is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = np.abs(difference) / np.sqrt(np.where(variance > 0, variance, np.nan))
    return np.asarray(2 * t.sf(statistic, df))


def added(
    share_a: Any,
    limits_a: tuple[Any, Any],
    share_b: Any,
    limits_b: tuple[Any, Any],
    correlation: Any = 0.0,
) -> tuple[Any, Any]:
    """Return the MOVER interval of a difference a − b of two shares from their own intervals.

    All arguments are numbers or arrays. `correlation` is that of the two estimates: 0 where no
    subject is on both sides. G. Y. Zou and A. Donner (2008), Stat. Med. 27, 1693-1702; for Wilson
    intervals also R. G. Newcombe (1998), Stat. Med. 17, 873-890 and 2635-2650, methods 10.
    """
    gap = share_a - share_b
    below = _distance(share_a - limits_a[0], limits_b[1] - share_b, correlation)
    above = _distance(limits_a[1] - share_a, share_b - limits_b[0], correlation)
    return gap - below, gap + above


def _distance(one: Any, other: Any, correlation: Any) -> Any:
    return np.sqrt(np.maximum(one**2 + other**2 - 2 * correlation * one * other, 0.0))


def agreeing(
    gap: np.ndarray, low: np.ndarray, high: np.ndarray, p_value: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return intervals of differences that never contradict their p-values.

    Where interval and test disagree about a difference of 0, the limit nearer to 0 is replaced by
    the test-based one, `gap - gap * z(confidence) / z(p)` (O. S. Miettinen 1976, Am. J. Epidemiol.
    103, 226-235). Then 0 lies in the interval if and only if `p_value >= 1 - confidence`. The gap
    lies in its interval. Intervals with a NaN p-value stay as they are.
    """
    p = np.asarray(p_value, dtype=float)
    low, high = np.array(low, dtype=float), np.array(high, dtype=float)
    level = 1 - confidence
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = gap * (1 - norm.ppf((1 + confidence) / 2) / norm.isf(p / 2))
    significant = p < level
    contradicts = np.isfinite(p) & (gap != 0) & (significant == ((low <= 0) & (high >= 0)))
    sign = np.sign(gap)
    # Rounding must not move a limit across 0, beyond the gap or below -1.
    inside = np.clip(sign * limit, np.abs(gap) * 1e-6, np.abs(gap))
    outside = np.where(np.isfinite(limit), np.clip(sign * limit, -1.0, 0.0), -1.0)
    near = sign * np.where(significant, inside, outside)
    low = np.where(contradicts & (sign > 0), near, low)
    high = np.where(contradicts & (sign < 0), near, high)
    return low, high


def equivalent(low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
    """Test equivalence by two one-sided tests: whether a difference is within ± margin.

    A difference that is not significant need not be small; this test shows that it is. D. J.
    Schuirmann (1987), J. Pharmacokinet. Biopharm. 15, 657-680.

    Parameters
    ----------
    low, high
        Limits at level 1 - 2 alpha, such as 0.9 for a test at 0.05; NaN is not equivalent.
    margin
        Of shares, such as 0.05 for 5 points.
    """
    return np.asarray((low > -margin) & (high < margin))


def corrected(p_values: pd.Series, tested: pd.Series, correction: str) -> pd.Series:
    """Adjust p-values for multiple testing in the family of `tested` rows; NaN for the others.

    `correction` is `holm` (S. Holm 1979, Scand. J. Stat. 6, 65-70) or `benjamini_hochberg` (Y.
    Benjamini and Y. Hochberg 1995, J. R. Stat. Soc. B 57, 289-300).
    """
    adjusted = pd.Series(np.nan, index=p_values.index)
    if tested.any():
        adjust = _holm if correction == "holm" else false_discovery_control
        adjusted[tested] = adjust(p_values[tested].to_numpy(dtype=float))
    return adjusted


def _holm(p_values: np.ndarray) -> np.ndarray:
    """Multiply the smallest p-value by n, the next by n - 1 and so on, and keep them monotone."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted


def smallest_shown(
    error: np.ndarray, df: np.ndarray, level: float, power: float, family: int
) -> np.ndarray:
    """Return minimum detectable effects: `(t_(1 - level / (2 family)) + t_power) * error`.

    H. S. Bloom (1995), Eval. Rev. 19, 547-556. A value above 1 means that no difference could have
    been detected.

    Parameters
    ----------
    error, df
        `(k,)` standard errors of the differences, clustered by subject, and their degrees of
        freedom (infinite for a normal test).
    level
        Two-sided level of the family, such as 0.05.
    power
        Probability of a p-value below the corrected level, such as 0.8.
    family
        Number of tests in the family. Each is tested at `level / family`, which is what Holm and
        Benjamini and Hochberg require of a single true difference.
    """
    multiplier = t.ppf(1 - level / (2 * max(family, 1)), df) + t.ppf(power, df)
    return np.asarray(multiplier * error)
