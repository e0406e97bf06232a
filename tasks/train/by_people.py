"""Intervals of shares when several pictures are of one person, for the table of the choice.

Wilson's interval is taken with the number of pictures divided by the design effect and shrunk for
few people, as E. L. Korn, B. I. Graubard (1998), Surv. Methodol. 24, 193-201, have it.
"""

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from tasks.core.intervals import WILSON_PEOPLE, WILSON_UNKNOWN, wilson

WILSON_DESIGN = (
    "Wilson score interval with the number of pictures divided by the design effect of several "
    "pictures a person, and Student's t for few people"
)
SOME_UNKNOWN = "; pictures whose subject is not known count as people of their own"


def with_intervals(scored: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Add `recall, ci_low, ci_high, effective_n, confidence, method` to groups' scores.

    Parameters
    ----------
    scored
        One row a group: `n, subjects, known_n` (pictures whose subject is known), `correct` and
        `worth` (see `tasks.train.design_effect`; NaN: each person counts once).
    confidence
        Level, such as 0.95.
    """
    recall, people = scored["correct"] / scored["n"], scored["subjects"]
    upper = (1 + confidence) / 2
    few = (norm.ppf(upper) / t.ppf(upper, (people - 1).clip(lower=1))) ** 2
    told = scored["worth"].notna()
    effective_n = (scored["worth"] * few).where(told, people)
    low, high = wilson(recall * effective_n, effective_n, confidence)
    none, some = scored["known_n"] == 0, scored["known_n"] < scored["n"]
    method = pd.Series(np.where(told, WILSON_DESIGN, WILSON_PEOPLE), scored.index)
    method = (method + SOME_UNKNOWN).where(some, method).mask(none, WILSON_UNKNOWN)
    return scored.assign(
        recall=recall,
        ci_low=low,
        ci_high=high,
        effective_n=effective_n,
        confidence=confidence,
        method=method,
    )
