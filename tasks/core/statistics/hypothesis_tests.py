"""Intervals and tests of differences that need no draws, and corrections for many tests."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, norm, t


def t_test(difference: np.ndarray, variance: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Return two-sided p-values of differences being 0; NaN where nothing varies."""
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
    """Return the interval of a difference a − b of two shares from their own intervals.

    Parameters
    ----------
    share_a, share_b
        Numbers or arrays, as everything else.
    limits_a, limits_b
        Their intervals, which contain them.
    correlation
        Of the two estimates; 0 where no subject is on both sides.

    Notes
    -----
    R. G. Newcombe (1998), Stat. Med. 17, 873-890 and 2635-2650, methods 10, for Wilson intervals;
    G. Y. Zou and A. Donner (2008), Stat. Med. 27, 1693-1702, for any others: distances to the
    limits, added in squares, less what their correlation takes away.
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
    """Return intervals of differences that never contradict the p-values beside them.

    Where interval and test disagree about a difference of 0, the limit that is nearer to 0 is
    replaced by the one that the test implies, so that 0 lies in the interval if and only if
    `p_value >= 1 - confidence`. The gap lies in its interval. NaN p-values change nothing.

    Notes
    -----
    O. S. Miettinen (1976), Am. J. Epidemiol. 103, 226-235: test-based limits,
    `gap - gap * z(confidence) / z(p)`.
    """
    p = np.asarray(p_value, dtype=float)
    low, high = np.array(low, dtype=float), np.array(high, dtype=float)
    level = 1 - confidence
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = gap * (1 - norm.ppf((1 + confidence) / 2) / norm.isf(p / 2))
    significant = p < level
    wrong = np.isfinite(p) & (gap != 0) & (significant == ((low <= 0) & (high >= 0)))
    side = np.sign(gap)
    # Rounding may not put a limit on the other side of 0, nor beyond the gap or what is possible.
    near = np.where(significant, np.clip(side * limit, np.abs(gap) * 1e-6, np.abs(gap)), 0.0)
    outside = np.where(np.isfinite(limit), np.clip(side * limit, -1.0, 0.0), -1.0)
    near = side * np.where(significant, near, outside)
    low = np.where(wrong & (side > 0), near, low)
    high = np.where(wrong & (side < 0), near, high)
    return low, high


def equivalent(low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
    """Return where a difference is shown to be smaller than a margin on either side: booleans.

    Parameters
    ----------
    low, high
        Limits at level 1 - 2 alpha, such as 0.9 for a test at 0.05; NaN shows nothing.
    margin
        Of shares, such as 0.05 for 5 points.

    Notes
    -----
    Two one-sided tests: D. J. Schuirmann (1987), J. Pharmacokinet. Biopharm. 15, 657-680. That no
    difference was shown does not show that there is none; this does.
    """
    return np.asarray((low > -margin) & (high < margin))


def corrected(p_values: pd.Series, tested: pd.Series, correction: str) -> pd.Series:
    """Return p-values corrected over the tested rows, which are one family; NaN for the others.

    Parameters
    ----------
    p_values
        One a comparison.
    tested
        Which comparisons make up the family, same index.
    correction
        `holm` (S. Holm 1979, Scand. J. Stat. 6, 65-70) or `benjamini_hochberg` (Y. Benjamini and
        Y. Hochberg 1995, J. R. Stat. Soc. B 57, 289-300).
    """
    adjusted = pd.Series(np.nan, index=p_values.index)
    if tested.any():
        of_family = p_values[tested].to_numpy(dtype=float)
        correct = _holm if correction == "holm" else false_discovery_control
        adjusted[tested] = correct(of_family)
    return adjusted


def _holm(p_values: np.ndarray) -> np.ndarray:
    """Multiply the smallest by their number, the next by one less, and so on; never fall."""
    order = np.argsort(p_values)
    left = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * left), 1.0)
    return adjusted


def smallest_shown(
    error: np.ndarray, df: np.ndarray, level: float, power: float, family: int
) -> np.ndarray:
    """Return the smallest difference that would have been shown with the wanted power.

    Parameters
    ----------
    error
        `(k,)` standard errors of the differences, clustered by person.
    df
        `(k,)` their degrees of freedom; infinite for a normal test.
    level
        Two-sided level of the family, such as 0.05.
    power
        Wanted probability of a p-value below the corrected level, such as 0.8.
    family
        Number of tests in the family: each one is held to `level / family`, which is what Holm and
        Benjamini and Hochberg ask of the one true difference among them.

    Returns
    -------
    numpy.ndarray
        `(k,)` `(t_(1 - level / (2 family)) + t_power) * error`. Above 1 where no difference at all
        could have been shown.

    Notes
    -----
    H. S. Bloom (1995), Eval. Rev. 19, 547-556.
    """
    wanted = t.ppf(1 - level / (2 * max(family, 1)), df) + t.ppf(power, df)
    return np.asarray(wanted * error)
