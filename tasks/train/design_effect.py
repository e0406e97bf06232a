"""How much several pictures of one person tell: less than as many pictures of as many people.

Pictures of one person are read alike. The design effect is by how much that raises the variance of
a share; the pictures divided by it are worth as many independent ones.
"""

import numpy as np
import pandas as pd

_STILL = 1e-12  # a variance below is rounding


def worth(right: np.ndarray, subjects: pd.Series) -> float:
    """Return how many pictures of as many people tell as much as these do.

    Parameters
    ----------
    right
        `(N,)` booleans, N at least 1: whether each picture was read correctly.
    subjects
        `(N,)` who is on each.

    Returns
    -------
    float
        The pictures divided by the design effect (that of the ratio estimator), at most N. NaN
        where the people tell no variance: one person, a share of 0 or 1, or all people alike.
    """
    n, share = len(right), float(np.mean(right))
    residuals = pd.Series(right.astype(float) - share).groupby(subjects.to_numpy()).sum()
    people = len(residuals)
    if people < 2:
        return float("nan")
    variance = people / (people - 1) * float((residuals**2).sum()) / n**2
    if variance < _STILL or share in (0.0, 1.0):
        return float("nan")
    return min(float(n), share * (1 - share) / variance)
