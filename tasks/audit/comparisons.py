"""Intervals and tests for two recalls: of two groups, and of two models on the same pictures.

Several pictures of one subject are not independent. The intervals count pictures, as published
tables do, and say so; the p-values are corrected for it (`design_effect`), because they decide
which gap is named.
"""

import numpy as np
import pandas as pd
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from tasks.core.intervals import wilson

GAP_METHOD = (
    "Interval: Newcombe's for two independent proportions, pictures counted as independent "
    "(likely too narrow where a subject has several). "
    "p: two-sided score test on counts divided by the design effect of several pictures a subject "
    "(Rao & Scott 1992). p_holm: Holm over the family."
)
PAIRED_METHOD = (
    "Both models on the same pictures. Interval: Newcombe's for paired proportions (1998, method "
    "10); p: exact McNemar test; both count pictures as independent (likely too narrow and too "
    "small where a subject has several). p_holm: Holm over the family."
)


def newcombe_independent(
    count_a: int, n_a: int, count_b: int, n_b: int, confidence: float
) -> tuple[float, float]:
    """Return Newcombe's interval of the difference a − b of two independent proportions.

    Parameters
    ----------
    count_a, n_a, count_b, n_b
        Successes and trials of each side; trials above 0.
    confidence
        Level, such as 0.95.

    Notes
    -----
    R. G. Newcombe (1998), Stat. Med. 17, 873-890, method 10: Wilson intervals, squared and added.
    """
    low, high = confint_proportions_2indep(
        count_a, n_a, count_b, n_b, method="newcomb", compare="diff", alpha=1 - confidence
    )
    return float(low), float(high)


def newcombe_paired(
    both: int, lost: int, gained: int, neither: int, confidence: float
) -> tuple[float, float]:
    """Return Newcombe's interval of the change in recall between two models on the same pictures.

    Parameters
    ----------
    both
        Pictures that both models read correctly.
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
    phi = corrected / np.sqrt(margins) if margins else 0.0
    change = second - first
    down, up = (second - low[1], high[0] - first), (high[1] - second, first - low[0])
    return change - _add(down, phi), change + _add(up, phi)


def design_effect(correct: np.ndarray, subject: np.ndarray) -> float:
    """Return by how much several pictures a subject inflate the variance of a recall.

    Parameters
    ----------
    correct
        `(n,)` booleans, one a picture.
    subject
        `(n,)` names of who is on each picture.

    Returns
    -------
    float
        At least 1; 1 where every subject has one picture, or all pictures have one outcome.

    Notes
    -----
    J. N. K. Rao and A. J. Scott (1992), Biometrics 48, 577-585: the variance between subjects of
    the ratio estimate over the binomial variance.
    """
    hits = (
        pd.Series(np.asarray(correct, dtype=float))
        .groupby(np.asarray(subject))
        .agg(["sum", "size"])
    )
    n, subjects = float(hits["size"].sum()), len(hits)
    recall = float(hits["sum"].sum()) / n
    if subjects == n or subjects < 2 or recall in (0.0, 1.0):
        return 1.0
    residual = hits["sum"] - hits["size"] * recall
    between = subjects / (subjects - 1) * float((residual**2).sum()) / n**2
    return max(1.0, between / (recall * (1 - recall) / n))


def score_test(count_a: float, n_a: float, count_b: float, n_b: float) -> float:
    """Return the two-sided p-value of two proportions being equal (score test, pooled variance).

    Counts may be fractions, as after division by a design effect.
    """
    pooled = (count_a + count_b) / (n_a + n_b)
    variance = pooled * (1 - pooled) * (1 / n_a + 1 / n_b)
    if variance <= 0:
        return 1.0
    return float(2 * norm.sf(abs(count_a / n_a - count_b / n_b) / np.sqrt(variance)))


def mcnemar_exact(lost: int, gained: int) -> float:
    """Return the two-sided p-value of as many pictures lost as gained (exact McNemar test)."""
    if lost + gained == 0:
        return 1.0
    return float(mcnemar([[0, lost], [gained, 0]], exact=True).pvalue)


def holm(p_values: pd.Series, tested: pd.Series) -> pd.Series:
    """Return Holm's adjusted p-values over the tested rows; NaN for the others.

    Parameters
    ----------
    p_values
        One a comparison.
    tested
        Which comparisons make up the family, same index.
    """
    adjusted = pd.Series(np.nan, index=p_values.index)
    if tested.any():
        adjusted[tested] = multipletests(p_values[tested].to_numpy(), method="holm")[1]
    return adjusted


def _add(sides: tuple[float, float], phi: float) -> float:
    """Add two half-widths, squared, less what their correlation takes away."""
    one, other = sides
    return float(np.sqrt(max(one**2 + other**2 - 2 * phi * one * other, 0.0)))
