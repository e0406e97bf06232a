"""Tests and intervals for two recalls that need no draws, and corrections for many tests.

The tests see people, not pictures: several pictures of one person are not independent. What a
person adds to a difference is one figure (its influence), and the differences of people are what
varies. Where nothing varies, because one side is read all right or all wrong, shares are compared
with each person counted once.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, norm, t

from tasks.core.intervals import wilson


@dataclass(frozen=True)
class Variance:
    """The variance of differences between two recalls, over people.

    Attributes
    ----------
    difference
        `(k,)` variance of the difference.
    side_a, side_b
        `(k,)` variances of each recall.
    df
        `(k,)` degrees of freedom of `difference`.
    """

    difference: np.ndarray
    side_a: np.ndarray
    side_b: np.ndarray
    df: np.ndarray


def clustered_variance(
    influence_a: np.ndarray, influence_b: np.ndarray, in_a: np.ndarray, in_b: np.ndarray
) -> Variance:
    """Return the variance of differences of two recalls, clustered by person.

    Parameters
    ----------
    influence_a, influence_b
        `(people, k)` what each person adds to each recall: correct pictures less recall times
        pictures, over all pictures of the side.
    in_a, in_b
        `(people, k)` booleans: who has pictures on which side.

    Notes
    -----
    K.-Y. Liang and S. L. Zeger (1986), Biometrika 73, 13-22, with the factor people / (people - 1)
    on each side. The same people may be on both sides (their influences are subtracted), or
    different ones (then the variances add up). Degrees of freedom as F. E. Satterthwaite (1946),
    Biometrics Bull. 2, 110-114, has them, from the people of a alone, of b alone and of both. With
    one picture a person this is Welch's t test, or the paired one.
    """
    n_a, n_b = in_a.sum(axis=0), in_b.sum(axis=0)
    a, b = influence_a * _expanded(n_a), influence_b * _expanded(n_b)
    squared = (a - b) ** 2
    parts, freedom = np.zeros(len(n_a)), np.zeros(len(n_a))
    for who in (in_a & ~in_b, in_b & ~in_a, in_a & in_b):
        part = (squared * who).sum(axis=0)
        parts += part
        freedom += part**2 / np.maximum(who.sum(axis=0) - 1, 1)
    df = np.divide(parts**2, freedom, out=np.ones(len(n_a)), where=freedom > 0)
    return Variance(parts, (a**2).sum(axis=0), (b**2).sum(axis=0), df)


def _expanded(people: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(people / np.maximum(people - 1, 1)))


def t_test(difference: np.ndarray, variance: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Return two-sided p-values of differences being 0; NaN where nothing varies."""
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = np.abs(difference) / np.sqrt(np.where(variance > 0, variance, np.nan))
    return np.asarray(2 * t.sf(statistic, df))


def score_test(count_a: float, n_a: float, count_b: float, n_b: float) -> float:
    """Return the two-sided p-value of two proportions being equal (score test, pooled variance).

    Counts may be fractions, as where each person counts once with the share of theirs.
    """
    pooled = (count_a + count_b) / (n_a + n_b)
    variance = pooled * (1 - pooled) * (1 / n_a + 1 / n_b)
    if variance <= 1e-15:
        return 1.0
    return float(2 * norm.sf(abs(count_a / n_a - count_b / n_b) / np.sqrt(variance)))


def added(
    share_a: float, limits_a: tuple[float, float], share_b: float, limits_b: tuple[float, float]
) -> tuple[float, float]:
    """Return the interval of a difference a − b of two independent shares from their own intervals.

    Notes
    -----
    R. G. Newcombe (1998), Stat. Med. 17, 873-890, method 10, for Wilson intervals; G. Y. Zou and A.
    Donner (2008), Stat. Med. 27, 1693-1702, for any others: distances to the limits, added in
    squares.
    """
    gap = share_a - share_b
    low = gap - np.hypot(share_a - limits_a[0], limits_b[1] - share_b)
    high = gap + np.hypot(limits_a[1] - share_a, share_b - limits_b[0])
    return float(low), float(high)


def newcombe_paired(
    both: float, lost: float, gained: float, neither: float, confidence: float
) -> tuple[float, float]:
    """Return Newcombe's interval of the change in recall between two models on the same pictures.

    Parameters
    ----------
    both
        Pictures that both models read correctly; fractions where each person counts once.
    lost
        Those that only the first one does.
    gained
        Those that only the second one does.
    neither
        Those that none does.
    confidence
        Level, such as 0.95.

    Returns
    -------
    low, high
        Limits of recall of the second model minus recall of the first, from -1 to 1.

    Notes
    -----
    R. G. Newcombe (1998), Stat. Med. 17, 2635-2650, method 10: Wilson intervals of both recalls,
    squared and added with the correlation phi, whose numerator is corrected for continuity.
    """
    n = both + lost + gained + neither
    first, second = (both + lost) / n, (both + gained) / n
    low, high = wilson(np.array([both + lost, both + gained]), np.array([n, n]), confidence)
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    product = both * neither - lost * gained
    corrected = max(product - n / 2, 0) if product > 0 else product
    phi = corrected / np.sqrt(margins) if margins > 0 else 0.0
    change = second - first
    down, up = (second - low[1], high[0] - first), (high[1] - second, first - low[0])
    return change - _add(down, phi), change + _add(up, phi)


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


def _add(sides: tuple[float, float], phi: float) -> float:
    """Add two half-widths, squared, less what their correlation takes away."""
    one, other = sides
    return float(np.sqrt(max(one**2 + other**2 - 2 * phi * one * other, 0.0)))
