"""The interval of a proportion, as every table and figure of the project shows it."""

import numpy as np
from statsmodels.stats.proportion import proportion_confint

WILSON_UNKNOWN = (
    "Wilson score interval; who is on the pictures is not known, so each counts as a person of its "
    "own (likely too narrow)"
)
WILSON_PEOPLE = (
    "Wilson score interval with each person counted once (all or none correct, or one person)"
)


def wilson(count: np.ndarray, n: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the Wilson score interval of proportions.

    Parameters
    ----------
    count, n
        Successes and trials, `(k,)` integers with `0 <= count <= n` and `n > 0`.
    confidence
        Level, such as 0.95.

    Returns
    -------
    low, high
        `(k,)` float64 each, from 0 to 1.

    Notes
    -----
    E. B. Wilson (1927), J. Am. Stat. Assoc. 22, 209. Trials are taken as independent: with several
    pictures of one subject the interval is likely too narrow.
    """
    low, high = proportion_confint(
        np.asarray(count, dtype=float), np.asarray(n, dtype=float), 1 - confidence, "wilson"
    )
    # Rounding leaves 1e-17 where the limit is 0 or 1 exactly.
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
